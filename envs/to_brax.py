"""One of our environments as brax sees one, so that brax's own PPO and SAC can train on it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from brax.envs import base

from envs.core import Environment, State


class BraxView(base.Env):
    """`env` as a brax environment. Time limits are brax's affair: give its trainer `episode_length=env.horizon`.

    brax knows one end of an episode, `done`, and takes it for a termination; a physics blow-up is one here. Its wrappers carry keys of either
    kind, but its auto-reset needs every leaf of the state to be a plain array.
    """

    def __init__(self, env: Environment):
        self._env = env

    def reset(self, rng: jax.Array) -> base.State:
        return self._view(self._env.reset(rng))

    def step(self, state: base.State, action: jax.Array) -> base.State:
        after = self._view(self._env.step(state.pipeline_state, action))
        return state.replace(
            pipeline_state=after.pipeline_state, obs=after.obs, reward=after.reward, done=after.done, metrics=after.metrics
        )

    def _view(self, state: State) -> base.State:
        done = (state.terminated | state.blown_up).astype(jnp.float32)
        return base.State(state, state.obs, state.reward, done, {"success": state.success.astype(jnp.float32)}, {})

    @property
    def observation_size(self) -> int:
        return self._env.obs_size

    @property
    def action_size(self) -> int:
        return self._env.action_size

    @property
    def backend(self) -> str:
        return self._env.engine

    @property
    def unwrapped(self) -> Any:
        return self
