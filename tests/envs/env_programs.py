"""Environments and compiled programs that several tests share: building them is most of what these tests cost."""

import dataclasses
import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs

HANDS = ("pen", "door", "relocate", "hammer")
ROWS = 4
STEPS = 12


@functools.cache
def make(name: str, engine: str = "auto"):
    """`envs.make`, once per process."""
    if name in HANDS:
        pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics (extra 'adroit') is not installed")
    return envs.make(name, engine)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled batch of `ROWS` rows of one environment, and how often it was traced."""

    env: object
    step: object  #   (state, action [ROWS, A]) -> state
    reset: object  #  (keys [ROWS]) -> state
    traces: list


@functools.cache
def program(name: str, engine: str = "auto") -> Program:
    env = make(name, engine)
    traces = []

    def step(state, action):
        traces.append(1)
        return jax.vmap(env.step)(state, action)

    return Program(env, jax.jit(step), jax.jit(jax.vmap(env.reset)), traces)


def actions_of(env, seed: int, *lead: int) -> np.ndarray:
    """[*lead, A] float32, uniform in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, (*lead, env.action_size)).astype(np.float32)


def keys_of(seed: int, n: int = ROWS) -> jax.Array:
    return jax.random.split(jax.random.key(seed), n)


def policy_path(name: str) -> Path:
    """The trained policy of that name, or a skip: data files are no part of the repository."""
    root = os.environ.get("EXPO_BENCH_DATA") or Path(__file__).parents[2].parent / "shared" / "data"
    path = Path(root) / "adroit" / f"dapg_policy_{name}.npz"
    if not path.is_file():
        pytest.skip(f"no adroit/{path.name} in the data folder (set EXPO_BENCH_DATA)")
    return path


def select(state, row: int):
    return jax.tree.map(lambda x: x[row], state)


def equal(a, b) -> bool:
    """Whether two pytrees are the same bit for bit (NaN equal to NaN)."""
    same = jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y), equal_nan=jnp.issubdtype(x.dtype, jnp.floating)), a, b)
    return all(jax.tree.leaves(same))
