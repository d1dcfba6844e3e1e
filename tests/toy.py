"""A one-dimensional environment in pure JAX, cheap to compile: walk to x >= 1 from about 0."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import Outcome, State
from expo_bench.datasets.dataset import OfflineDataset


@dataclasses.dataclass(frozen=True)
class Walk:
    name: str = "toy-walk"
    engine: str = "jax"
    obs_size: int = 2
    action_size: int = 1
    horizon: int = 20
    score: str = "success"
    observation_names: tuple = ("x", "start")
    blows_up: bool = False  # an action above 0.9 breaks the physics

    def reset(self, key):
        start = 0.1 * jax.random.uniform(key)
        no = jnp.zeros((), bool)
        return State((), (), jnp.stack([start, start]), jnp.zeros(()), no, no, no, no, jnp.zeros((), jnp.int32))

    def outcome(self, obs, action, next_obs):
        success = next_obs[0] >= 1.0
        return Outcome(success.astype(jnp.float32), success, success)

    def step(self, state, action):
        action = jnp.clip(action, -1, 1)
        obs = state.obs + jnp.stack([0.1 * action[0], jnp.zeros(())])
        reward, success, terminated = self.outcome(state.obs, action, obs)
        blown_up = (action[0] > 0.9) & self.blows_up
        t = state.t + 1
        truncated = (t >= self.horizon) & ~terminated | blown_up
        return State((), (), obs, reward, terminated, truncated, success, blown_up, t)


def dataset(rows: int = 60, seed: int = 0) -> OfflineDataset:
    """Steps to the right, noisy."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, rows).astype(np.float32)
    action = np.clip(rng.normal(0.5, 0.3, (rows, 1)), -1, 1).astype(np.float32)
    obs = np.stack([x, np.zeros_like(x)], 1)
    next_obs = obs + np.concatenate([0.1 * action, np.zeros((rows, 1), np.float32)], 1)
    success = next_obs[:, 0] >= 1
    ends = success.copy()
    ends[-1] = True
    return OfflineDataset(
        obs, action, success.astype(np.float32), success, ends & ~success, next_obs.astype(np.float32), success, {"source": "toy"}
    )


SMALL = {
    "n_samples": 2,
    "n_edits": 2,
    "n_samples_eval": 2,
    "denoising_steps": 2,
    "flow_steps": 2,
    "base_hidden": 8,
    "base_blocks": 1,
    "time_features": 4,
    "hidden": (8, 8),
    "edit_hidden": (8, 8),
    "critics": 2,
}
