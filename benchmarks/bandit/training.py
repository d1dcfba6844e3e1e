"""An agent on the bandit: its own functions, batches of behaviour and of its own actions, all seeds in one program.

Every transition ends its episode. Behaviour is drawn afresh for every batch, so that no method suffers from the finite size of a data set.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bandit import densities
from expo_bench.agents.base import Agent, Spec
from expo_bench.parts.critics import Ensemble
from expo_bench.parts.replay import Batch
from expo_bench.sweeps.compiled import CPU_OPTIONS

FIRST = 1_024  # actions that the replay starts with: behaviour, or, for who learns without data, uniform
OWN = 8  # actions of the agent's own per call of `learn`
BLOCK = 500  # actions sampled at a time
OBS = jnp.ones(1)


class Phases(NamedTuple):
    """How an agent is trained."""

    batch: int  #     B
    offline: int  #   steps of `pretrain`, on behaviour
    online: int  #    calls of `learn`
    fraction: float  # of behaviour in the batches of `learn`; the rest are the agent's own actions
    data: densities.Mixture = densities.BEHAVIOUR  # what stands in behaviour's place


def spec(batch: int) -> Spec:
    return Spec(obs_size=1, action_size=densities.DIMENSIONS, batch_size=batch, updates=1)


def transitions(action: jax.Array, after: jax.Array) -> Batch:
    """The batch of actions [..., D]; `after` [..., D]: what the data would do next, for who asks."""
    shape = action.shape[:-1]
    obs = jnp.broadcast_to(OBS, (*shape, 1))
    reward = densities.reward(action)
    ones = jnp.ones(shape)
    return Batch(obs, action, reward, ones, obs, mc_return=reward, next_action=after, next_valid=ones[..., None])


def behaviour(key: jax.Array, mixture: densities.Mixture, *shape: int) -> jax.Array:
    """Actions [*shape, D]."""
    pick, noise = jax.random.split(key)
    return densities.draw(mixture, jax.random.uniform(pick, shape), jax.random.normal(noise, (*shape, densities.DIMENSIONS)))


def acts(agent: Agent, state: Any, key: jax.Array, count: int, explore: bool) -> jax.Array:
    """[count, D] actions at the one observation."""
    act = lambda key: agent.act(state, OBS, agent.draw_act(key, explore), explore=explore)[0]
    keys = jax.random.split(key, count)
    return jax.vmap(act)(keys) if count <= BLOCK else jax.lax.map(act, keys, batch_size=BLOCK)


def train(agent: Agent, key: jax.Array, phases: Phases) -> Any:
    """`pretrain` on behaviour, then `learn` on behaviour and the agent's own actions, of which each call adds OWN -> its state."""
    batch, fraction, data = phases.batch, phases.fraction, phases.data
    init_key, fill_key, offline_key, online_key = jax.random.split(key, 4)
    drop = lambda batch: batch if agent.mc_return else batch._replace(mc_return=None)

    def pretrain(state: Any, key: jax.Array) -> tuple[Any, None]:
        data_key, draw_key = jax.random.split(key)
        action, after = behaviour(data_key, data, 2, batch)
        return agent.pretrain(state, drop(transitions(action, after)), agent.draw_pretrain(draw_key))[0], None

    def learn(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        (state, own), (step, key) = carry, inputs
        act_key, data_key, index_key, draw_key = jax.random.split(key, 4)
        stored = FIRST + OWN * (step + 1)
        if fraction < 1:
            own = jax.lax.dynamic_update_slice_in_dim(own, acts(agent, state, act_key, OWN, True), stored - OWN, axis=0)
        of_data = behaviour(data_key, data, 1, batch)
        replayed = own[jnp.minimum((jax.random.uniform(index_key, (1, batch)) * stored).astype(jnp.int32), stored - 1)]
        is_data = jnp.arange(batch)[:, None] < round(fraction * batch)
        batches = drop(transitions(jnp.where(is_data, of_data, replayed), of_data))._replace(next_action=None, next_valid=None)
        return (agent.learn(state, batches, agent.draw(draw_key))[0], own), None

    state = agent.init(init_key)
    if agent.pretrain is not None and phases.offline:
        state, _ = jax.lax.scan(pretrain, state, jax.random.split(offline_key, phases.offline))
    if agent.learn is not None and phases.online:
        uniform = jax.random.uniform(fill_key, (FIRST, densities.DIMENSIONS), minval=-1.0, maxval=1.0)
        own = jnp.zeros((FIRST + OWN * phases.online if fraction < 1 else FIRST, densities.DIMENSIONS))
        own = own.at[:FIRST].set(behaviour(fill_key, data, FIRST) if fraction else uniform)
        keys = jax.random.split(online_key, phases.online)
        (state, _), _ = jax.lax.scan(learn, (state, own), (jnp.arange(phases.online), keys))
    return state


def exact_critics(*, members: int, **_: Any) -> Ensemble:
    """In the place of `critics.ensemble`: K critics that are the reward itself, with a parameter each that does nothing."""

    def values(params: jax.Array, obs: jax.Array, action: jax.Array) -> jax.Array:
        return densities.reward(action) + jnp.zeros(len(params)).reshape(-1, *[1] * (action.ndim - 1))

    return Ensemble(lambda key: jnp.zeros(members), values)


def run(agent: Agent, phases: Phases, seeds: int, count: int, explore: bool) -> np.ndarray:
    """Train all seeds, then let each act `count` times [seeds, count, D]."""

    def one(seed: jax.Array) -> jax.Array:
        train_key, act_key = jax.random.split(jax.random.fold_in(jax.random.key(7), seed))
        return acts(agent, train(agent, train_key, phases), act_key, count, explore)

    options = CPU_OPTIONS if jax.devices()[0].platform == "cpu" else None
    numbers = jnp.arange(seeds)
    return np.asarray(jax.jit(jax.vmap(one)).lower(numbers).compile(compiler_options=options)(numbers))
