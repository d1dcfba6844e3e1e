"""Every algorithm on action chunks: the windows' shapes fit all its losses, and the reward of a window that crosses an episode's end is not learnt."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_roster import SMALL

from expo_bench import agents
from expo_bench.agents.base import Agent, Spec
from expo_bench.config import fields
from expo_bench.parts.replay import Batch

CHUNK = 2
OF = {"expo": {"n_edits": 2}, "dsrl": {"train_base_online": True}, "idql": {"train_base_online": True, "base_dropout": 0.0}}
SPEC = Spec(obs_size=3, action_size=2 * CHUNK, batch_size=6, updates=2)


def build(name: str) -> Agent:
    module = agents.load(name)
    small = {field: value for field, value in {**SMALL, **OF.get(name, {})}.items() if field in fields(module.Config())}
    return module.make(dataclasses.replace(module.Config(), **small), SPEC)


def windows(*lead: int, reward: float = 0.0) -> Batch:
    """Windows of 2 steps, every other one beyond its episode's end, where `reward` is added."""
    keys = jax.random.split(jax.random.key(3), 5)
    normal = lambda key, *size: jax.random.normal(key, (*lead, *size))
    second = jnp.broadcast_to(jnp.arange(lead[-1]) % 2.0, lead)
    valid = jnp.stack([jnp.ones(lead), second], axis=-1)
    inside = jnp.repeat(valid, 2, axis=-1)
    return Batch(
        normal(keys[0], 3),
        inside * jnp.tanh(normal(keys[1], 2 * CHUNK)),
        normal(keys[2]) + reward * (1.0 - second),
        jnp.zeros(lead),
        normal(keys[3], 3),
        valid,
        jnp.zeros(lead),
        inside * jnp.tanh(normal(keys[4], 2 * CHUNK)),
        valid,
    )


@pytest.mark.parametrize("name", list(agents.AGENTS))
def test_windows_fit_every_loss(name: str) -> None:
    """By shapes alone, nothing is compiled: states keep their structure, actions are whole chunks."""
    agent, key = build(name), jax.random.key(0)
    state = jax.eval_shape(agent.init, key)
    if agent.pretrain is not None:
        after, _ = jax.eval_shape(lambda s, k: agent.pretrain(s, windows(6), agent.draw_pretrain(k)), state, key)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    if agent.learn is not None:
        online = windows(2, 6)._replace(next_action=None, next_valid=None)
        after, _ = jax.eval_shape(lambda s, k: agent.learn(s, online, agent.draw(k)), state, key)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    action, _ = jax.eval_shape(lambda s, k: agent.act(s, jnp.zeros(3), agent.draw_act(k, False), explore=False), state, key)
    assert action.shape == (2 * CHUNK,)


# One for each way to learn from rewards; the others are made of the same losses.
KINDS = ("rlpd", "iql", "cal_ql", "qc")


@pytest.mark.parametrize("name", KINDS)
def test_the_reward_of_a_window_beyond_its_end_is_not_learnt(name: str) -> None:
    agent, key = build(name), jax.random.key(1)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def learnt(batches: Batch) -> Any:
        return agent.learn(agent.init(key), batches, agent.draw(key))[0]

    one, same, other = (
        learnt(batches) for batches in (windows(2, 6), windows(2, 6, reward=5.0), windows(2, 6)._replace(reward=jnp.ones((2, 6))))
    )
    equal = lambda a, b: all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert equal(one, same) and not equal(one, other)
