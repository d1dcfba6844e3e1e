"""A batch of episodes of our own, stepped from Python beside the reference's."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Ours:
    """A batch of episodes of one of our tasks on a system and engine, stepped from Python. `obs` [N, O] in JAX's widest float."""

    def __init__(self, env: Any, system: Any, engine: str, rows: int, quick: bool = False):
        from envs.physics import build

        self.env, self.rows = env, rows
        self.physics = build(system, engine)

        def step(data, action, params):
            data, readout = self.physics.step(data, action, env.task.fields(params))
            obs = env.task.observe(readout)
            seen = obs.astype(jnp.float32)  # success follows from the next observation alone
            return data, obs, env.outcome(seen, action, seen).success

        state = self.reset(jax.random.split(jax.random.key(0), rows))
        action = np.zeros((rows, env.action_size), np.float32)
        options = {"xla_backend_optimization_level": 0} if quick else None  # for programs that run only a little
        began = time.process_time()
        self._step = jax.jit(jax.vmap(step)).lower(self.data, action, state.params).compile(compiler_options=options)
        self.compile_s = time.process_time() - began  # CPU seconds, on a machine that others use too

    def reset(self, keys: jax.Array) -> Any:
        state = jax.vmap(self.env.reset)(keys)

        def begin(key):
            start = self.env.task.start(key)
            return self.physics.init(start.qpos, start.qvel)

        self.data = jax.vmap(begin)(keys)
        self.params, self.obs = state.params, np.asarray(state.obs)
        return state

    def step(self, action: np.ndarray) -> np.ndarray:
        """[N] bool, whether each is solved."""
        self.data, obs, solved = self._step(self.data, action, self.params)
        self.obs = np.asarray(obs)
        return np.asarray(solved)


def rate(ours: Ours, seconds: float = 2.0) -> float:
    """Control steps of all rows together per CPU second of this process, which other work on the machine does not change."""
    actions = np.random.default_rng(0).uniform(-1, 1, (8, ours.rows, ours.env.action_size)).astype(np.float32)
    ours.reset(jax.random.split(jax.random.key(3), ours.rows))
    data, count = ours.data, 0
    began = time.process_time()
    while time.process_time() - began < seconds:
        data, obs, _ = ours._step(data, actions[count % 8], ours.params)
        jax.block_until_ready(obs)
        count += 1
    return count * ours.rows / (time.process_time() - began)
