"""RLPD, EXPO and IDQL through the sweep on AntMaze in C MuJoCo: that task, data and agents fit together."""

from pathlib import Path

import numpy as np
import pytest
from toy import SMALL

import expo_bench
from expo_bench import Experiment
from expo_bench.datasets import generate, npz
from expo_bench.datasets.dataset import OfflineDataset

PROTOCOL = {"offline_steps": 4, "warmup_steps": 4, "online_steps": 12, "updates": 2, "batch_size": 8, "eval_every": 12, "eval_episodes": 1}


def run_on(file: Path, agents: list[str]) -> None:
    protocol = {name: value for name, value in PROTOCOL.items() if name != "offline_steps" or "rlpd" not in agents}
    ant = Experiment("ant", ["antmaze-umaze"], agents, seeds=1, engine="mujoco", dataset=str(file), config=SMALL, protocol=protocol)
    found = expo_bench.run(ant, file.parent / "run")
    last = found[found.env_step == 12].set_index("agent")
    assert set(last.index) == set(agents) and not found.diverged.any() and (found.blowups == 0).all()
    assert (last.episode_length == 700).all() and (last.success == 0).all()  # nobody crosses the maze after a dozen steps
    assert (last.grad_step >= 8 * 2).all()


def test_rlpd_on_antmaze(tmp_path):
    rng = np.random.default_rng(0)
    obs = rng.uniform(-0.1, 0.1, (40, 29)).astype(np.float32)
    obs[:, 2:7] = (0.6, 1, 0, 0, 0)
    next_obs = obs.copy()
    next_obs[:, :3] += 0.1 * obs[:, 15:18]  # as it moves, or the data's order of observations would be doubted
    next_obs[:, 7:15] += 0.1 * obs[:, 21:29]
    ends, none = np.arange(40) % 20 == 19, np.zeros(40, bool)
    action = rng.uniform(-1, 1, (40, 8)).astype(np.float32)
    data = OfflineDataset(
        obs, action, np.zeros(40, np.float32), none, ends, next_obs, none, {"format": npz.FORMAT, "task": "antmaze-umaze"}
    )
    npz.write(data, tmp_path / "ant.npz")
    run_on(tmp_path / "ant.npz", ["rlpd"])


@pytest.mark.soak
def test_expo_and_idql_on_the_demonstrators_data(tmp_path):
    data = generate.generate("antmaze-umaze", tmp_path / "ant.npz", episodes=2)
    assert data.obs.shape[1] == 29 and data.action.shape[1] == 8 and set(data.reward) <= {0, 1}
    assert 30 < data.size <= 2 * 700 and not (data.terminated & ~data.success).any()
    run_on(tmp_path / "ant.npz", ["expo", "idql"])
