"""Pictures of states, of either engine, and what is said where nothing can be drawn."""

import os

import jax
import numpy as np
import pytest
from env_programs import make
from PIL import Image

import envs
from envs import opengl, rendering
from envs.core import TaskError
from expo_bench import watching
from expo_bench.errors import UserError


@pytest.fixture(scope="module")
def backend():
    before = os.environ.get("MUJOCO_GL")
    try:
        yield opengl.choose_backend()
    except TaskError as error:
        pytest.skip(str(error))
    finally:
        if before is None:
            os.environ.pop("MUJOCO_GL", None)


def states_of(env, *positions):
    """States of push-disc with the pusher at (x, y) and the disc two metres to the right of it."""
    qpos = np.array([[x, y, x + 2, y] for x, y in positions], np.float32)
    state = env.reset(jax.random.key(0))
    data = jax.vmap(lambda q: env.physics.init(q, np.zeros(4, np.float32)))(qpos)
    import dataclasses

    return dataclasses.replace(jax.tree.map(lambda x: np.stack([x] * len(qpos)), state), data=data)


def test_the_pusher_is_drawn_where_it_is(backend):
    pictures = {}
    for engine in ("mujoco", "mjx"):
        env = make("push-disc", engine)
        states = states_of(env, (-3, 0), (-3, 2))
        assert np.allclose(rendering.qpos_of(env, states)[1], [-3, 2, -1, 2])
        pictures[engine] = np.stack(list(rendering.render(env, states, width=160, height=120)))
    assert np.array_equal(pictures["mujoco"], pictures["mjx"]) and pictures["mjx"].shape == (2, 120, 160, 3)
    red, blue = (pictures["mjx"][..., i].astype(int) for i in (0, 2))
    rows, columns = zip(*(np.argwhere(b - r > 60).mean(0) for r, b in zip(red, blue, strict=True)), strict=True)
    scale = 120 / (2.05 * 3.6)  # pixels per metre in the plane z = 0, seen from straight above: x to the right, y up
    assert columns[0] == pytest.approx(80 - 3 * scale, abs=3) and rows[0] == pytest.approx(60, abs=3)
    assert rows[0] - rows[1] == pytest.approx(2 * scale, abs=3)


def test_files_are_whole_or_not_there(backend, tmp_path, monkeypatch):
    env = make("push-disc", "mujoco")
    states = states_of(env, *((-3 + 0.1 * i, 0) for i in range(9)))
    out, strip, said = tmp_path / "a.gif", tmp_path / "a.png", []
    watching.draw(env, states, out, strip, said.append)
    assert Image.open(out).n_frames == 9 and Image.open(strip).size == (6 * 480, 360)
    assert said == [f"written: {out}, 9 of 9 states", f"written: {strip}, states 0, 2, 3, 5, 6, 8"]
    with pytest.raises(UserError, match="--out .*a.gif: exists"):
        watching.check_paths(out, None)
    monkeypatch.setattr(watching, "_gif", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="b.gif: cannot be written: No space left"):
        watching.draw(env, states, tmp_path / "b.gif", None, said.append)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "a.png"]


def test_an_episode_of_the_demonstrator(backend):
    env = make("point-umaze", "mujoco")
    states = watching.episode(env, envs.demonstrator(env), seed=0)
    count = len(states.t)
    assert states.t.tolist() == list(range(count)) and count <= env.horizon + 1
    ends = states.terminated | states.truncated
    assert ends[-1] and not ends[:-1].any()


def test_every_state_is_drawn_with_its_own_pose(backend):
    """relocate's parameters are two positions: pictures of three states, of which two are of one episode."""
    env = make("relocate", "mujoco")
    first, second = (env.reset(jax.random.key(seed)) for seed in (0, 1))
    states = jax.tree.map(lambda *x: np.stack(x), first, second, first)
    one, other, again = rendering.render(env, states, width=80, height=60)
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_where_nothing_draws_it_is_one_line(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "no-such-thing")
    with pytest.raises(TaskError, match="nothing to draw with: tried MUJOCO_GL=no-such-thing; expected a library"):
        opengl.choose_backend()


def test_environments_of_other_packages_are_not_drawn():
    class Foreign:
        name = "brax:ant"

    with pytest.raises(TaskError, match="task 'brax:ant' is of another package"):
        rendering.qpos_of(Foreign(), None)
