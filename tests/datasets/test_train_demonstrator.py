"""The ant's trainer: what it refuses, and (soak) one tiny training that leaves a walker with its record."""

import json

import numpy as np
import pytest

from envs import ant_walk
from expo_bench.datasets import train_demonstrator
from expo_bench.errors import UserError


@pytest.mark.parametrize(
    "name, minutes, message",
    [
        ("a.npz", 0, "minutes: found 0, expected a number above 0"),
        ("a.npz", float("nan"), "minutes: found nan"),
        ("a.txt", 1, "found the suffix '.txt', expected .npz"),
        ("nowhere/a.npz", 1, "the folder .*nowhere does not exist"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, name, minutes, message):
    with pytest.raises(UserError, match=message):
        train_demonstrator.train(tmp_path / name, minutes=minutes)
    assert not list(tmp_path.iterdir())


def test_the_committed_walker_holds_its_record():
    with np.load(ant_walk.POLICY) as file:
        record = json.loads(str(file["provenance"]))
        arrays = {name: file[name] for name in file.files if name != "provenance"}
    assert all(value.dtype == np.float32 for value in arrays.values()) and ant_walk.POLICY.stat().st_size < 300_000
    assert record["algorithm"] == "brax PPO" and record["steps"] > 0 and record["minutes"] > 0 and record["final_return"] > 0


@pytest.mark.soak
def test_a_tiny_training(tmp_path, monkeypatch):
    small = {"num_envs": 8, "unroll_length": 4, "batch_size": 8, "num_minibatches": 1, "num_updates_per_batch": 1}
    monkeypatch.setattr(train_demonstrator, "PPO", train_demonstrator.PPO | small)
    monkeypatch.setattr(train_demonstrator, "EPOCH", 64)
    monkeypatch.setattr(train_demonstrator, "EVALUATION_EPISODES", 2)
    path, said = tmp_path / "walker.npz", []
    record = train_demonstrator.train(path, minutes=1e-3, say=said.append)
    assert record["steps"] >= 64 and record["evaluation_episodes"] == 2 and [p.name for p in tmp_path.iterdir()] == ["walker.npz"]
    assert ant_walk.walker(path)(np.zeros(ant_walk.FEATURES, np.float32)).shape == (8,)
