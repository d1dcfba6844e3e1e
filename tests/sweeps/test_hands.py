"""The Adroit tasks in a whole sweep on the C engine, as small as can be: one in `make test`, every task and agent in `make soak`."""

import importlib.util

import numpy as np
import pytest
from toy import SMALL

import expo_bench
from expo_bench import Experiment
from expo_bench.datasets.dataset import build
from expo_bench.sweeps import runner

AGENTS = ("expo", "rlpd", "idql")
ALL = [(task, agent) for task in ("pen", "door", "relocate", "hammer") for agent in AGENTS]
CASES = [pytest.param(*case, marks=() if case == ("pen", "expo") else pytest.mark.soak) for case in ALL]  # 20 seconds of compilation each
PROTOCOL = {"offline_steps": 2, "warmup_steps": 2, "online_steps": 6, "updates": 2, "batch_size": 4, "eval_every": 3, "eval_episodes": 1}


def noise(task, env, cache):
    """Two episodes of noise in the task's format."""
    rng = np.random.default_rng(0)
    obs = rng.uniform(env.obs_low, env.obs_high, (21, env.obs_size)).astype(np.float32)
    ends = np.arange(20) % 10 == 9
    no = np.zeros(20, bool)
    columns = {"obs": obs[:-1], "next_obs": obs[1:], "action": rng.uniform(-1, 1, (20, env.action_size)).astype(np.float32)}
    return build(columns | {"reward": np.full(20, -1, np.float32), "terminated": no, "truncated": ends, "success": no}, {"source": "noise"})


@pytest.mark.parametrize("task, agent", CASES)
def test_a_hand_task_runs_in_a_sweep(task, agent, monkeypatch, tmp_path):
    if importlib.util.find_spec("gymnasium_robotics") is None:
        pytest.skip("the Adroit models come with gymnasium-robotics")
    monkeypatch.setattr(runner.datasets, "default_dataset", noise)
    monkeypatch.setattr(runner.datasets, "prepare", lambda data, env, source, **_: (data, []))  # noise would be refused
    experiment = Experiment("hands", tasks=[task], methods=[agent], seeds=1, engine="mujoco", config=SMALL, protocol=PROTOCOL)
    frame = expo_bench.run(experiment, tmp_path / "run")
    assert set(frame.task) == {task} and frame.env_step.max() == 6 and not frame.diverged.any() and (frame.blowups == 0).all()
    assert frame.episode_length.eq({"pen": 100}.get(task, 200)).all()
    assert frame.score.between(0, 1).all() and np.allclose(frame.episode_return, (frame.score - 1) * frame.episode_length)
