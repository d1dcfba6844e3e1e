"""EXPO, RLPD and IDQL through the sweep on AntMaze in C MuJoCo, with the demonstrator's data: that all of it fits together."""

import pytest
from toy import SMALL

import expo_bench
from expo_bench import Experiment
from expo_bench.datasets import generate

PROTOCOL = {"offline_steps": 4, "warmup_steps": 4, "online_steps": 12, "updates": 2, "batch_size": 8, "eval_every": 12, "eval_episodes": 1}


@pytest.mark.parametrize("agents", [["expo"], pytest.param(["rlpd", "idql"], marks=pytest.mark.soak)])
def test_agents_on_antmaze(tmp_path, agents):
    data = generate.generate("antmaze-umaze", tmp_path / "ant.npz", episodes=2)
    assert data.obs.shape[1] == 29 and data.action.shape[1] == 8 and set(data.reward) <= {0, 1}
    assert 30 < data.size <= 2 * 700 and not (data.terminated & ~data.success).any()
    file = str(tmp_path / "ant.npz")
    ant = Experiment("ant", ["antmaze-umaze"], agents, seeds=1, engine="mujoco", dataset=file, config=SMALL, protocol=PROTOCOL)
    found = expo_bench.run(ant, tmp_path / "run")
    last = found[found.env_step == 12].set_index("agent")
    assert set(last.index) == set(agents) and not found.diverged.any() and (found.blowups == 0).all()
    assert (last.episode_length == 700).all() and (last.success == 0).all()  # nobody crosses the maze after a dozen steps
    assert (last.grad_step >= 8 * 2).all()
