"""A tiny task and small files of every format."""

import dataclasses
import functools
import importlib.util
import pickle
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from expo_bench.datasets.dataset import build

ROOT = Path(__file__).resolve().parents[2]


class Outcome(NamedTuple):
    reward: object
    success: object
    terminated: object


@dataclasses.dataclass(frozen=True)
class LineEnv:
    """A point on a line, moved by action[0]; success from x >= 1 on, which ends the episode if `terminates`."""

    name: str = "line"
    engine: str = "mujoco"
    obs_size: int = 2
    action_size: int = 1
    horizon: int = 12
    terminates: bool = True
    observation_names: tuple[str, ...] = ("x", "altitude")
    obs_low: tuple[float, ...] = (-2.0, 90.0)
    obs_high: tuple[float, ...] = (2.0, 110.0)

    def outcome(self, obs, action, next_obs):
        reached = next_obs[0] >= 1
        return Outcome(reached * 1.0 - 1.0, reached, reached & self.terminates)

    def reset(self, key):
        import jax
        import jax.numpy as jnp

        from envs.core import State

        no = jnp.asarray(False)
        obs = jnp.stack([jax.random.uniform(key, minval=-0.5, maxval=0.5), jnp.float32(100)])
        return State((), (), obs, jnp.float32(0), no, no, no, no, jnp.int32(0))

    def step(self, state, action):
        import jax.numpy as jnp

        obs = state.obs + jnp.stack([0.2 * jnp.clip(action[0], -1, 1), jnp.float32(0)])
        reward, success, terminated = self.outcome(state.obs, action, obs)
        t = state.t + 1
        truncated = (t >= self.horizon) & ~terminated
        return dataclasses.replace(
            state, obs=obs, reward=reward.astype(jnp.float32), success=success, terminated=terminated, truncated=truncated, t=t
        )


class Forward:
    """A demonstrator of LineEnv: forward, with noise and a memory that counts."""

    def init(self, key, state):
        import jax.numpy as jnp

        return jnp.int32(0)

    def act(self, memory, state, key):
        import jax

        return 0.6 + 0.8 * jax.random.normal(key, (1,)), memory + 1


def make_dataset(lengths=(4, 3), obs_size=2, action_size=1, **changes):
    """Random episodes of the given lengths around LineEnv's plausible values; every episode is truncated."""
    rng = np.random.default_rng(0)
    n = sum(lengths)
    obs = rng.uniform(-0.9, 0.9, (n + 1, obs_size))
    obs[:, -1] += 100
    columns = {
        "obs": obs[:-1],
        "action": rng.uniform(-0.9, 0.9, (n, action_size)),
        "reward": rng.normal(size=n),
        "terminated": np.zeros(n, bool),
        "truncated": np.isin(np.arange(n), np.cumsum(lengths) - 1),
        "next_obs": obs[1:],
    }
    return build({**columns, **changes}, {"format": "test", "file": "test"})


def dapg_episodes(lengths=(5, 4), obs_size=2, action_size=1):
    rng = np.random.default_rng(0)
    return [
        {
            "observations": rng.normal(size=(t, obs_size)),
            "actions": rng.normal(size=(t, action_size)),
            "rewards": rng.normal(size=t),
            "init_state_dict": {"qpos": rng.normal(size=3), "qvel": np.zeros(3)},
        }
        for t in lengths
    ]


def write_pickle(path, content, protocol=3):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def d4rl_fields(n=10, terminals=(4,), timeouts=(9,), obs_size=2):
    """Row i observes (i, 100)."""
    at = lambda rows: np.isin(np.arange(n), rows)
    obs = np.stack([np.arange(n), np.full(n, 100)], 1)[:, :obs_size]
    fields = {"observations": obs.astype(np.float32), "actions": np.zeros((n, 1), np.float32), "rewards": np.arange(n, dtype=np.float32)}
    return {**fields, "terminals": at(terminals), "timeouts": at(timeouts)}


@functools.cache
def door():
    """The Adroit door on C MuJoCo, or a skip."""
    if importlib.util.find_spec("gymnasium_robotics") is None:
        pytest.skip("the door's model comes with gymnasium-robotics")
    import envs

    return envs.make("door", "mujoco")


@functools.cache
def door_episode():
    """Fields of a D4RL file: an episode in which the hand moves at random, with the physics that D4RL records beside it."""
    import jax

    env = door()
    where = env.physics._slices
    state = jax.jit(env.reset)(jax.random.key(3))
    rng, action = np.random.default_rng(0), np.zeros(28, np.float32)
    rows = {"observations": [], "actions": [], "infos/qpos": [], "infos/qvel": []}
    for _ in range(40):
        action = np.clip(action + 0.3 * rng.normal(size=28), -1, 1).astype(np.float32)
        full = np.asarray(state.data).view(np.float64)
        for name, value in zip(rows, (state.obs, action, full[where["qpos"]], full[where["qvel"]]), strict=True):
            rows[name].append(np.asarray(value))
        state = env.step(state, action)
    fields = {name: np.stack(value).astype(np.float32) for name, value in rows.items()}
    last = np.arange(40) == 39
    return {**fields, "rewards": np.full(40, -1.0), "terminals": ~last & last, "timeouts": last}


def recorded_door(path, **changes):
    """That episode as a file; fields in `changes` are others, or missing where they are None."""
    return write_hdf5(path, {name: value for name, value in {**door_episode(), **changes}.items() if value is not None})


def write_hdf5(path, fields):
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            file[name] = value
    return path
