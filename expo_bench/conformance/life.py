"""An agent that lives: a step of each kind that it knows, on random data, alone and in a block of rows.

Everything is jitted with little optimisation: a third of the time to compile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from expo_bench.agents.base import Agent
from expo_bench.config import traced_values
from expo_bench.conformance.stages import SPEC, acted, batch_of, offline


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def life(agent: Agent, state: Any, key: jax.Array, *, whole: bool) -> tuple[Any, dict[str, Any]]:
    """A step of each kind -> the state and everything that comes out on the way; actions [B, A] at observations three times as large.

    Not `whole`: without the offline phase where there is an online one, and without evaluation.
    """
    data_key, pretrain_key, learn_key, act_key = jax.random.split(key, 4)
    batches = batch_of(data_key, agent, SPEC.updates, SPEC.batch_size)
    batch, out = offline(jax.tree.map(lambda x: x[0], batches)), {}
    if agent.pretrain is not None and (whole or agent.learn is None):
        state, out["pretrain"] = agent.pretrain(state, batch, agent.draw_pretrain(pretrain_key))
        out["pretrained"] = state
    if agent.learn is not None:
        state, out["learn"] = agent.learn(state, batches, agent.draw(learn_key))
    for explore in (True, False) if whole else (True,):
        act = lambda obs, key, explore=explore: acted(agent, state, obs, key, explore)
        keys = jax.random.split(act_key, SPEC.batch_size)
        out[f"act {explore}"], out[f"estimates {explore}"] = jax.vmap(act)(3 * batch.obs, keys)
    if agent.value is not None:
        out["value"] = agent.value(state, batch.obs[0], batch.action[0])
    return state, out


class Alone(NamedTuple):
    """An agent that has lived twice by itself, with its hyperparameters as constants."""

    config: Any
    start: Any
    first: tuple
    second: tuple
    traces: list[int]


def alone(module: ModuleType, config: Any, *, whole: bool = True) -> Alone:
    agent, traces = module.make(config, SPEC), []

    @jit
    def program(state: Any, key: jax.Array) -> tuple:
        traces.append(1)
        return life(agent, state, key, whole=whole)

    start = jit(agent.init)(jax.random.key(0))
    first = program(start, jax.random.key(1))
    return Alone(config, start, first, program(first[0], jax.random.key(2)), traces)


class Block(NamedTuple):
    """An agent that has lived in a block of rows: row 0 with its defaults, row i + 1 with another value of the traced field `names[i]`."""

    names: list[str]
    start: Any
    first: tuple
    again: tuple  #      the same call
    elsewhere: tuple  #  row 0 beside other rows
    traces: list[int]


def block(module: ModuleType, config: Any) -> Block:
    defaults, traces = traced_values(config), []
    other = {name: 0.5 if name == "weight_decay" or not value else value / 2 for name, value in defaults.items()}
    values = {name: np.float32([other[name] if name == row else defaults[name] for row in ["", *defaults]]) for name in defaults}
    make = lambda values: module.make(dataclasses.replace(config, **values), SPEC)

    @jit
    @jax.vmap
    def program(values: dict, state: Any, key: jax.Array) -> tuple:
        traces.append(1)
        return life(make(values), state, key, whole=True)

    rows = len(defaults) + 1
    start = jit(jax.vmap(lambda values: make(values).init(jax.random.key(0)), axis_size=rows))(values)
    keys = jnp.stack([jax.random.key(1)] * rows)
    first = program(values, start, keys)
    others = lambda x: np.concatenate([x[:1], x[:0:-1] * 0.9])
    other_values = {name: others(x) for name, x in values.items()}
    elsewhere = program(other_values, start, jax.random.split(jax.random.key(3), rows).at[0].set(keys[0]))
    return Block(list(defaults), start, first, program(values, start, keys), elsewhere, traces)
