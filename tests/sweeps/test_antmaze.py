"""EXPO, RLPD and IDQL through the sweep on AntMaze: that task, data and agents fit together."""

import jax
import pytest
import three_agents

import envs
from envs import registry
from expo_bench import Experiment
from expo_bench.datasets import generate
from expo_bench.sweeps import runner

MAZES = [name for name, info in registry.TASKS.items() if info.suite == "antmaze"]


def check(last):
    assert (last.success == 0).all() and (last.episode_return == 0).all()  # nobody crosses the maze after a few steps


@pytest.mark.parametrize("task", ["antmaze-large-diverse", "antmaze-minari-umaze"])
def test_the_agents_on_an_antmaze(task, monkeypatch, tmp_path):
    three_agents.shorten(monkeypatch, task, 50)
    check(three_agents.run(monkeypatch, task, tmp_path))


def test_all_mazes_of_an_ant_are_one_program():
    """They differ in numbers only, so that one maze with the agents stands for all."""
    assert len(MAZES) == 13

    def shapes(task):
        env = envs.make(task, "mujoco")
        state = jax.eval_shape(env.reset, jax.random.key(0))
        after = jax.eval_shape(env.step, state, jax.ShapeDtypeStruct((env.action_size,), "float32"))
        return jax.tree.map(lambda x: (x.shape, str(x.dtype)), (state, after))

    first = shapes(MAZES[0])
    assert all(shapes(task) == first for task in MAZES[1:])
    programs = runner.plan(Experiment("all", MAZES, three_agents.AGENTS, seeds=1))
    assert len(programs) == len(MAZES) * 3
    assert len({repr((p.agent, p.config, p.protocol)) for p in programs}) == 3, "the mazes' settings are the same"


@pytest.mark.soak
def test_the_agents_on_the_demonstrators_data(monkeypatch, tmp_path):
    data = generate.generate("antmaze-umaze", tmp_path / "ant.npz", episodes=2)
    assert data.obs.shape[1] == 29 and data.action.shape[1] == 8 and set(data.reward) <= {0, 1}
    assert 30 < data.size <= 2 * 700 and not (data.terminated & ~data.success).any()
    check(three_agents.run(monkeypatch, "antmaze-umaze", tmp_path, data=tmp_path / "ant.npz"))


@pytest.mark.soak
@pytest.mark.parametrize("agent", three_agents.AGENTS)
@pytest.mark.parametrize("task", ["antmaze-umaze", "antmaze-minari-umaze"])
def test_an_agent_on_an_antmaze_in_mjx(task, agent, monkeypatch, tmp_path):
    three_agents.shorten(monkeypatch, task, 10)
    check(three_agents.run(monkeypatch, task, tmp_path, agents=(agent,), engine="mjx"))
