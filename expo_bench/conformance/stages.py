"""The functions of an agent, each traced by itself, the traced fields of its config being arguments: shapes, types, purity. Nothing is run.

Shape letters: B batch, U updates, O observation, A action.
"""

from __future__ import annotations

import dataclasses
import re
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from expo_bench.agents.base import Agent, Spec
from expo_bench.config import traced_values
from expo_bench.parts import proposals, replay
from expo_bench.parts.replay import Batch

SPEC = Spec(obs_size=3, action_size=2, batch_size=4, updates=2, stored=16)
STAGES = ("init", "pretrain", "learn", "act", "value", "base_act")


class Problem(NamedTuple):
    """What is wrong, and the function of the agent to look at: one of STAGES, a draw function, "make" or "Config"."""

    function: str
    text: str


class Traced(NamedTuple):
    """What a function returns for arguments of given shapes."""

    out: Any  #            its result, of ShapeDtypeStruct
    program: str  #        its operations
    constants: list  #     the arrays that it holds


def batch_of(key: jax.Array, agent: Agent, *lead: int, spec: Spec = SPEC) -> Batch:
    """Random transitions [*lead] as `learn` gets them, a sixth of them terminated, half of their returns to go not known yet."""
    o, a = spec.obs_size, spec.action_size
    rows = jax.random.normal(key, (*lead, 2 * o + a + 1))
    reward = rows[..., o + a]
    batch = Batch(rows[..., :o], jnp.tanh(rows[..., o : o + a]), reward, (reward > 1).astype(jnp.float32), rows[..., o + a + 1 :])
    if agent.keep is not None:
        batch = batch._replace(next_index=replay.index(jax.random.uniform(jax.random.fold_in(key, 1), lead), spec.stored))
    return batch._replace(mc_return=jnp.where(rows[..., 0] > 0, reward, -jnp.inf)) if agent.mc_return else batch


def offline(batch: Batch) -> Batch:
    """Transitions [B] as `pretrain` gets them: with what the data do next."""
    return batch._replace(next_action=batch.action[::-1], next_valid=1.0 - batch.terminated[:, None], next_index=None)


def acted(agent: Agent, state: Any, obs: jax.Array, key: jax.Array, explore: bool) -> tuple:
    """What an agent does at obs [O], without the samples that it hands out in exploration to be kept."""
    out = agent.act(state, obs, agent.draw_act(key, explore), explore=explore)
    if not explore or agent.keep is None or not agent.keep.from_acting:
        return out
    return out[0], {name: x for name, x in out[1].items() if name != proposals.DRAWN}


class Stages:
    """The stages of an agent in the order of `STAGES`: what each has to be given, and what it returns."""

    def __init__(self, module: ModuleType, config: Any) -> None:
        self.module, self.config = module, config
        self.agent: Agent = module.make(config, SPEC)
        self.hyper = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in traced_values(config)}
        self.key = jax.eval_shape(lambda: jax.random.key(0))
        self.state: Any = None  # the shapes of what init returns, once that is known

    def trace(self, stage: str) -> Traced:
        """One stage anew, from `make` on. Raises whatever the agent's code raises."""

        def function(hyper: dict, *arguments: Any) -> Any:
            return run(self.module.make(dataclasses.replace(self.config, **hyper), SPEC), stage, *arguments)

        lead = {"pretrain": (SPEC.batch_size,), "learn": (SPEC.updates, SPEC.batch_size)}.get(stage, ())
        make_batch = lambda key: batch_of(key, self.agent, *lead)
        batch = jax.eval_shape(lambda key: offline(make_batch(key)) if stage == "pretrain" else make_batch(key), self.key)
        closed, out = jax.make_jaxpr(function, return_shape=True)(self.hyper, None if stage == "init" else self.state, batch, self.key)
        leaves, structure = jax.tree.flatten(out)
        leaves = [jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=a.weak_type) for x, a in zip(leaves, closed.out_avals, strict=True)]
        program = re.sub(r"0x[0-9a-f]+", "", str(closed))
        return Traced(jax.tree.unflatten(structure, leaves), program, [np.asarray(c) for c in closed.consts])


def run(agent: Agent, stage: str, state: Any, batch: Batch, key: jax.Array) -> Any:
    """One stage of an agent; `batch` is a single transition but for pretrain [B] and learn [U, B]."""
    match stage:
        case "init":
            return agent.init(key)
        case "pretrain":
            return agent.pretrain(state, batch, agent.draw_pretrain(key))
        case "learn":
            return agent.learn(state, batch, agent.draw(key))
        case "act":
            return tuple(acted(agent, state, batch.obs, key, explore) for explore in (True, False))
        case "value":
            return agent.value(state, batch.obs, batch.action)
        case "base_act":
            return agent.base_act(state, batch.obs, agent.draw_act(key, True))
