"""Generated data: equal twice, cut at their ends, cached under a name that says what they are."""

import dataclasses
import importlib.util

import numpy as np
import pytest
from test_files import same

from expo_bench.datasets import default_dataset, generate, inspect, load, prepare
from expo_bench.errors import UserError


@pytest.fixture
def make_line(line, forward, tmp_path):
    def make(name="a.npz", **options):
        path = tmp_path / name if name else None
        return generate.generate("line", path, **{"episodes": 6, "env": line, "demonstrator": forward, **options})

    return make


def test_generation_is_a_function_of_the_seed(make_line, tmp_path):
    first = make_line("a.npz")
    same(first, make_line("b.npz"))
    same(first, load(tmp_path / "a.npz"))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    longer = make_line(None, episodes=9)
    np.testing.assert_array_equal(longer.obs[: first.size], first.obs)  # episode k is the same however many there are


def test_episodes_are_cut_at_their_end(make_line, line):
    data = make_line(None, episodes=20, seed=1)
    assert len(data.episode_ends) == 20 and data.terminated.any() and (data.episode_lengths <= line.horizon).all()
    assert np.abs(data.action).max() == 1  # clipped as the task clips
    np.testing.assert_array_equal(data.success, data.next_obs[:, 0] >= 1)
    inside = ~(data.terminated | data.truncated)[:-1]
    np.testing.assert_array_equal(data.next_obs[:-1][inside], data.obs[1:][inside])
    assert data.obs[0, 0] != make_line(None, episodes=1).obs[0, 0]  # another seed, other episodes
    ready, warnings = prepare(data, line, "line")
    assert warnings == [] and ready.size == data.size
    np.testing.assert_array_equal(ready.reward, data.reward)


def test_a_blow_up_truncates_at_the_last_sound_row(make_line, line):
    @dataclasses.dataclass(frozen=True)
    class Fragile(type(line)):
        def step(self, state, action):
            bad = (state.t + 1 == 5) | ((state.obs[0] < -0.2) & (state.t == 0))  # some in the fifth step, some in the first
            after = super().step(state, action)
            return dataclasses.replace(after, blown_up=bad, truncated=after.truncated | bad)

    data = make_line(None, episodes=20, env=Fragile(terminates=False))
    assert 0 < len(data.episode_ends) < 20  # an episode that blew up at once is not there
    assert (data.episode_lengths == 4).all() and not data.terminated.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes: found 0"),
        ({"name": "no/a.npz"}, "no/a.npz: the folder .* does not exist"),
        ({"name": "a.hdf5"}, "a.hdf5: found the suffix '.hdf5', expected .npz"),
    ],
)
def test_wrong_requests(make_line, options, message):
    with pytest.raises(UserError, match=message):
        make_line(**options)


def test_cache_names_differ_with_every_setting():
    base = generate.generation_settings("line", 6, 0, engine="mujoco")
    changes = ({}, {"seed": 1}, {"episodes": 7}, {"tasks": "other"}, {"layout": 0}, {"noise": 0.1})
    names = {generate.cache_name("line", {**base, **change}) for change in changes}
    assert len(names) == 6 and generate.cache_name("line", base) == generate.cache_name("line", dict(base))


def test_default_dataset_is_made_once_and_repaired(line, forward, tmp_path, monkeypatch):
    monkeypatch.setitem(generate.DEFAULT_EPISODES, "line", 5)
    made = []

    def demonstrator(*args):
        made.append(args)
        return forward

    monkeypatch.setattr(generate, "make_demonstrator", demonstrator)
    folder = tmp_path / "cache" / "datasets"
    first = default_dataset("line", line, folder)
    same(first, default_dataset("line", line, folder))
    (path,) = folder.iterdir()
    assert len(made) == 1 and path.name.startswith("line-5ep-seed0-")
    path.write_bytes(path.read_bytes()[:100])
    same(first, default_dataset("line", line, folder))
    assert len(made) == 2


def test_door_has_no_default(tmp_path):
    with pytest.raises(UserError, match="door has no default.*--dataset FILE.*door-v0_demos.pickle.*generate door --policy FILE.npz"):
        default_dataset("door", None, tmp_path)


@pytest.mark.parametrize("task", ["point-umaze", "point-medium", "push-disc"])
def test_default_data_of_the_tasks(task, tmp_path):
    from envs.registry import make

    env = make(task, "mujoco")
    data = default_dataset(task, env, tmp_path)
    assert len(data.episode_ends) == generate.DEFAULT_EPISODES[task]
    ready, warnings = prepare(data, env, task)
    assert warnings == []
    for name in ("obs", "reward", "success", "terminated", "truncated"):  # the task says of its own data what it said when they were made
        np.testing.assert_array_equal(getattr(ready, name), getattr(data, name))
    assert 0.3 < inspect.episode_success(data).mean() <= 1
    if task == "push-disc":
        same(data, generate.generate(task, tmp_path / "again.npz"))
        assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_wrong_demonstrator_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="unknown task 'point-umaz'; did you mean 'point-umaze'"):
        generate.generate("point-umaz", None)
    with pytest.raises(UserError, match="'point-umaze': .*charm"):
        generate.generate("point-umaze", None, charm=3)
    with pytest.raises(UserError, match="p.npz: the task point-umaze has a scripted demonstrator"):
        generate.generate("point-umaze", None, policy=tmp_path / "p.npz")


@pytest.fixture(scope="module")
def door():
    if importlib.util.find_spec("gymnasium_robotics") is None:
        pytest.skip("the door's model comes with gymnasium-robotics")
    from envs.registry import make

    return make("door", "mujoco")


def test_door_policies_that_cannot_be_used(door, tmp_path):
    with pytest.raises(UserError, match="the task door is demonstrated by a trained policy, found none: .*--policy FILE.npz"):
        generate.generate("door", None, env=door)
    for content in (None, b"", b"PK\x03\x04 half"):
        path = tmp_path / "p.npz"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match="p.npz") as error:
            generate.generate("door", None, env=door, policy=path)
        assert "\n" not in str(error.value)


def test_door_data_from_a_policy(door, tmp_path):
    """A policy that holds still: the data are dull, and remember which file they are of."""
    zeros = {"w0": (4, 39), "b0": (4,), "w1": (4, 4), "b1": (4,), "w2": (28, 4), "b2": (28,)}
    zeros |= {"in_shift": (39,), "in_scale": (39,), "out_shift": (28,)}
    path = tmp_path / "still.npz"
    np.savez(path, out_scale=np.ones(28, np.float32), **{name: np.zeros(shape, np.float32) for name, shape in zeros.items()})
    data = generate.generate("door", tmp_path / "door.npz", env=door, episodes=2, policy=path, noise=0.05)
    assert data.episode_lengths.tolist() == [200, 200] and (data.reward == -1).all() and data.truncated.sum() == 2
    assert data.meta["provenance"]["policy"]["file"] == "still.npz" and data.meta["provenance"]["noise"] == 0.05
    assert 0.04 < data.action.std() < 0.06
