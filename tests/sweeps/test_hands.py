"""EXPO, RLPD and IDQL through the sweep on the Adroit tasks: that task, data and agents fit together."""

import numpy as np
import pytest
import three_agents

HANDS = ("pen", "door", "relocate", "hammer")


def check(last):
    assert last.score.between(0, 1).all() and np.allclose(last.episode_return, (last.score - 1) * last.episode_length)


@pytest.mark.parametrize("task", HANDS)
def test_the_agents_on_an_adroit_task(task, monkeypatch, tmp_path):
    check(three_agents.run(monkeypatch, task, tmp_path))


@pytest.mark.soak
@pytest.mark.parametrize("agent", three_agents.AGENTS)
@pytest.mark.parametrize("task", HANDS)
def test_an_agent_on_an_adroit_task_in_mjx(task, agent, monkeypatch, tmp_path):
    three_agents.shorten(monkeypatch, task, 10)
    check(three_agents.run(monkeypatch, task, tmp_path, agents=(agent,), engine="mjx"))
