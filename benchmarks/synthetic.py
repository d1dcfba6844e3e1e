"""A task without physics, with the sizes of the paper's first task (obs 19, action 7), so that a learner's update is what is measured."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from envs.core import Outcome, State
from expo_bench.parts import replay

NAME = "synthetic"


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """A stable linear system: the first A observations follow the action, success is the first of them beyond 0.9."""

    name: str = NAME
    engine: str = "jax"
    obs_size: int = 19
    action_size: int = 7
    horizon: int = 100
    score: str = "success"

    @property
    def observation_names(self) -> tuple[str, ...]:
        return tuple(f"x{i}" for i in range(self.obs_size))

    def reset(self, key: jax.Array) -> State:
        no = jnp.zeros((), bool)
        obs = 0.1 * jax.random.normal(key, (self.obs_size,))
        return State((), (), obs, jnp.zeros(()), no, no, no, no, jnp.zeros((), jnp.int32))

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        success = next_obs[0] >= 0.9
        return Outcome(success.astype(jnp.float32), success, success)

    def step(self, state: State, action: jax.Array) -> State:
        obs = 0.9 * state.obs + 0.1 * jnp.pad(jnp.clip(action, -1, 1), (0, self.obs_size - self.action_size))
        reward, success, terminated = self.outcome(state.obs, action, obs)
        t = state.t + 1
        return State((), (), obs, reward, terminated, (t >= self.horizon) & ~terminated, success, jnp.zeros((), bool), t)


def transitions(env: Synthetic, rows: int = 20_000) -> jax.Array:
    """[rows, W] packed transitions of random actions from random states."""
    obs_key, action_key = jax.random.split(jax.random.key(0))
    obs = 0.3 * jax.random.normal(obs_key, (rows, env.obs_size))
    action = jax.random.uniform(action_key, (rows, env.action_size), minval=-1.0, maxval=1.0)
    next_obs = 0.9 * obs + 0.1 * jnp.pad(action, ((0, 0), (0, env.obs_size - env.action_size)))
    outcome = jax.vmap(env.outcome)(obs, action, next_obs)
    return replay.pack(replay.Batch(obs, action, outcome.reward, outcome.terminated, next_obs), jnp.ones(rows))
