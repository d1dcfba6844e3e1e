"""Generated data of asked-for qualities, and a generation that is killed and goes on."""

import collections
import dataclasses

import jax
import numpy as np
import pytest
from small_files import Forward, LineEnv
from test_files import same

from expo_bench.datasets import generate, load, mixture, rollouts
from expo_bench.errors import UserError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("expert=0.5,noisy=0.3", "found 0.8 in all"),
        ("expert=0.5,expert=0.5", "found 0.5 in all"),
        ("expert=0.5,good=0.5", "found 'good=0.5'"),
        ("expert=2,noisy=-1", "found 'expert=2'"),
        ("expert", "found 'expert'"),
        ("expert=nan", "found 'expert=nan'"),
    ],
)
def test_wrong_mixes_are_one_line(text, found):
    with pytest.raises(UserError, match="expected shares of expert, noisy, failed that add up to 1.*" + found):
        mixture.shares(text)


def test_counts_add_up():
    assert mixture.counts(mixture.shares("noisy=0.3, expert=0.5,failed=0.2"), 500) == {"expert": 250, "noisy": 150, "failed": 100}
    assert mixture.counts({"expert": 1 / 3, "noisy": 1 / 3, "failed": 1 / 3}, 10) == {"expert": 4, "noisy": 3, "failed": 3}
    assert mixture.shares("expert=1,failed=0") == {"expert": 1}
    with pytest.raises(UserError, match="3 are too few for a share of 0.1 failed ones"):
        mixture.counts({"expert": 0.9, "failed": 0.1}, 3)


@dataclasses.dataclass(frozen=True)
class Short(LineEnv):
    """A line whose end is not always reached in time."""

    horizon: int = 6


@pytest.fixture
def make(tmp_path):
    def make(name, **options):
        path = tmp_path / name if name else None
        options = {"episodes": 10, "noise": 0.5, "mix": "expert=0.5,noisy=0.2,failed=0.3"} | options
        return generate.generate("line", path, env=Short(), demonstrator=Forward(), **options)

    return make


def test_a_mix_has_the_asked_for_qualities_and_is_a_function_of_the_seed(make, tmp_path):
    data = make("a.npz")
    quality = data.meta["episode_quality"]
    success = np.logical_or.reduceat(data.success, data.episode_ends - data.episode_lengths + 1)
    assert collections.Counter(quality) == {"expert": 5, "noisy": 2, "failed": 3} == data.meta["provenance"]["made_up_of"]
    assert success.tolist() == [q != "failed" for q in quality] and quality != sorted(quality)
    assert data.truncated[data.episode_ends].tolist() == (~success).tolist() and data.meta["provenance"]["attempts"]["expert"] >= 5
    make("b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    assert not np.array_equal(make(None, seed=1).obs[0], data.obs[0])


def test_a_killed_generation_goes_on_and_gives_the_same_file(make, tmp_path, monkeypatch):
    monkeypatch.setattr(rollouts, "BATCH", 4)
    whole = make("whole.npz")
    real, made = rollouts._store, []

    def killed(file, columns):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(file.name)
        real(file, columns)

    monkeypatch.setattr(rollouts, "_store", killed)
    with pytest.raises(KeyboardInterrupt):
        make("cut.npz")
    (folder,) = (p for p in tmp_path.iterdir() if p.name.endswith(".parts"))
    assert len(list(folder.iterdir())) == 2 and not (tmp_path / "cut.npz").exists()
    first, second = sorted(folder.iterdir())
    second.write_bytes(second.read_bytes()[:100])  # cut off: made again
    monkeypatch.setattr(rollouts, "_store", lambda file, columns: (made.append(file.name), real(file, columns)))
    same(make("cut.npz"), whole)
    assert made.count(first.name) == 1 and made.count(second.name) == 2
    assert (tmp_path / "cut.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.npz", "whole.npz"]
    same(load(tmp_path / "cut.npz"), whole)


def test_parts_are_those_of_the_same_settings(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with rollouts.parts(tmp_path / "a.npz", "one") as part:
            part("x", lambda: {"value": np.zeros(2)})
            raise KeyboardInterrupt
    with rollouts.parts(tmp_path / "a.npz", "other") as part:
        assert part("x", lambda: {"value": np.ones(2)})["value"].all()
    with rollouts.parts(tmp_path / "a.npz", "one") as part:
        assert not part("x", lambda: pytest.fail("made again"))["value"].any()
    assert not list(tmp_path.iterdir())


def test_a_quality_that_does_not_come_is_refused_and_leaves_nothing(tmp_path):
    class Still(Forward):
        def act(self, memory, state, key):
            return jax.numpy.zeros(1), memory

    with pytest.raises(UserError, match="line: found 0 successful episodes in 2.. attempts by the demonstrator as it is, expected 6"):
        generate.generate("line", tmp_path / "a.npz", env=Short(), demonstrator=Still(), episodes=6, mix="expert=1")
    with pytest.raises(UserError, match="noisy and failed episodes come of a noise, found none: give one with --noise"):
        generate.generate("line", tmp_path / "a.npz", env=Short(), demonstrator=Still(), mix="failed=1")
    assert not list(tmp_path.iterdir())
