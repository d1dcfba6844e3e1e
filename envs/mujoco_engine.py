"""C MuJoCo inside a jitted program: one callback for the whole batch, served by worker threads.

What travels is the whole state, so that nothing hides in an MjData: the float64 numbers of MuJoCo's full physics state and its warm start,
as uint32 bits (a program in 32 bits may not hold a float64). The state goes in, `substeps` calls of mj_step, the state comes out: bit for
bit what an uninterrupted MjData does, whichever worker serves which row. MuJoCo is never stepped on the thread that XLA calls back on
(that crashes, presumably for its small stack): worker threads do it, each with its own MjModel and MjData.
"""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import os
import threading

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.physics import LARGEST, Readout, System

_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS | mujoco.mjtState.mjSTATE_WARMSTART
_BAD = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}")) for what in ("QPOS", "QVEL", "QACC", "CTRL")]
_ROWS_PER_JOB = 4  # handing a job to another thread costs about as much as stepping a row of the smallest task


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    """The worker threads of this process: one per core, since mj_step lets go of Python's lock."""
    return concurrent.futures.ThreadPoolExecutor(_workers(), thread_name_prefix="mujoco")


def _workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def double_bits(x: jax.Array) -> jax.Array:
    """The bits of x as float64: [...] float32 or float64 -> [..., 2] uint32, low word first.

    In integers, because without 64 bits JAX has no float64. Exact for every float32 but the subnormal ones, which become 0, as XLA's
    own arithmetic makes them.
    """
    if x.dtype == jnp.float64:
        return jax.lax.bitcast_convert_type(x, jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    sign, exponent, mantissa = bits & np.uint32(0x80000000), (bits >> 23) & 0xFF, bits & 0x7FFFFF
    wide = jnp.where(exponent == 0xFF, 0x7FF, exponent + (1023 - 127))
    normal = sign | (wide << 20) | (mantissa >> 3)
    return jnp.stack([jnp.where(exponent == 0, 0, mantissa << 29), jnp.where(exponent == 0, sign, normal)], axis=-1)


def bits_of(state: np.ndarray) -> np.ndarray:
    """[..., n] float64 -> [..., 2n] uint32, on the host."""
    return np.ascontiguousarray(state, np.float64).view(np.uint32)


class _Worker(threading.local):
    """What one thread owns: a model, whose fields it sets per row, and a data."""

    def __init__(self, model: mujoco.MjModel):
        self.model = copy.copy(model)
        self.data = mujoco.MjData(self.model)
        self.warnings = self.data.warning.number  # a view
        self.warnings[:] = 1  # MuJoCo prints a warning, and writes a log file into the working directory, only when it is the first

    def warned(self) -> bool:
        """Whether MuJoCo met a non-finite or huge control, position, velocity or acceleration since the last call."""
        warned = self.warnings[_BAD].max() > 1
        if warned:
            self.warnings[:] = 1
        return warned


class MujocoPhysics:
    """A system in C MuJoCo, on the CPU. `data` is uint32 [2n]: the bits of n float64 numbers."""

    def __init__(self, system: System):
        self.system = system
        model = copy.copy(system.model)
        # MuJoCo would silently put a diverging row back to its reference pose; a blow-up has to be seen instead.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self._local = _Worker(model)
        self._model = model
        self._size = mujoco.mj_stateSize(model, _STATE)
        self._real = np.dtype(jax.dtypes.canonicalize_dtype(float))
        self._slices = _slices(model)
        self._seen = {"sites": (len(system.sites), 3), "bodies": (len(system.bodies), 7), "sensors": (len(system.sensors),)}
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        self._rest = self.snapshot(data)

    def snapshot(self, data: mujoco.MjData) -> np.ndarray:
        """The carried bits, [2n] uint32, of a MjData of this model: how a test or a script starts from a state of its own."""
        state = np.empty(self._size)
        mujoco.mj_getState(self._model, data, state, _STATE)
        return bits_of(state)

    def init(self, qpos: jax.Array | None = None, qvel: jax.Array | None = None) -> jax.Array:
        bits = jnp.asarray(self._rest).reshape(self._size, 2)
        for name, value in (("qpos", qpos), ("qvel", qvel)):
            if value is not None:
                bits = bits.at[self._slices[name]].set(double_bits(value))
        return bits.reshape(-1)

    def positions(self, data: np.ndarray) -> np.ndarray:
        """[..., 2n] uint32 carried bits -> [..., nq] float64, on the host."""
        return np.ascontiguousarray(data).view(np.float64)[..., self._slices["qpos"]]

    def step(self, data: jax.Array, action: jax.Array, fields: tuple[jax.Array, ...]) -> tuple[jax.Array, Readout]:
        model, real = self._model, lambda *shape: jax.ShapeDtypeStruct(shape, self._real)
        shapes = (
            jax.ShapeDtypeStruct(data.shape, jnp.uint32),
            Readout(
                real(model.nq), real(model.nv), bad=jax.ShapeDtypeStruct((), jnp.bool_), **{k: real(*s) for k, s in self._seen.items()}
            ),
        )
        return jax.pure_callback(self._callback, shapes, data, action, fields, vmap_method="broadcast_all")

    def _callback(self, bits, action, fields):
        """Step all rows, whatever the leading dimensions are; split over the workers. Calls no JAX."""
        bits, action, fields = np.asarray(bits), np.asarray(action), tuple(np.asarray(f) for f in fields)
        lead = bits.shape[:-1]
        rows = int(np.prod(lead))
        # Copied, because the callback's inputs are read-only; reshape before view, so that a zero-row batch works too.
        state = bits.reshape(rows, 2 * self._size).copy().view(np.float64)
        action = action.reshape(rows, action.shape[-1])
        fields = tuple(f.reshape(rows, *f.shape[len(lead) :]) for f in fields)
        seen = {name: np.zeros((rows, *shape)) for name, shape in self._seen.items()}
        jobs = max(1, min(_workers(), rows // _ROWS_PER_JOB))
        cuts = np.linspace(0, rows, jobs + 1).astype(int)
        waiting = [_pool().submit(self._serve, state, action, fields, seen, a, b) for a, b in zip(cuts, cuts[1:], strict=False)]
        for job in waiting:
            job.result()
        return self._answer(state, seen, lead)

    def _serve(self, state, action, fields, seen, first, last):
        """Step rows first to last in place, on a worker thread. A row that came with a number that is not finite is not stepped;
        one that MuJoCo found wanting comes out as NaN."""
        system, worker = self.system, self._local
        model, data = worker.model, worker.data
        control = system.control_middle + system.control_range * action[first:last].astype(np.float64)
        usable = np.isfinite(state[first:last]).all(axis=1) & np.isfinite(control).all(axis=1)
        sites, bodies, sensors = list(system.sites), list(system.bodies), list(system.sensors)
        for row in range(first, last):
            if not usable[row - first]:
                state[row] = np.nan
                continue
            for field, value in zip(system.fields, fields, strict=True):
                getattr(model, field.name)[field.index] = value[row]
            mujoco.mj_setState(model, data, state[row], _STATE)
            data.ctrl[:] = control[row - first]
            mujoco.mj_step(model, data, system.substeps)
            mujoco.mj_getState(model, data, state[row], _STATE)
            if worker.warned():
                state[row] = np.nan
            if sites:
                seen["sites"][row] = data.site_xpos[sites]
            if bodies:
                seen["bodies"][row] = np.hstack([data.xpos[bodies], data.xquat[bodies]])
            if sensors:
                seen["sensors"][row] = data.sensordata[sensors]

    def _answer(self, state, seen, lead):
        with np.errstate(invalid="ignore", over="ignore"):
            bad = ~(np.abs(state) < LARGEST).all(axis=1)
            qpos, qvel = (state[:, self._slices[name]].astype(self._real).reshape(*lead, -1) for name in ("qpos", "qvel"))
            seen = {name: value.astype(self._real).reshape(*lead, *value.shape[1:]) for name, value in seen.items()}
        return bits_of(state).reshape(*lead, -1), Readout(qpos, qvel, bad=bad.reshape(lead), **seen)


def _slices(model: mujoco.MjModel) -> dict[str, slice]:
    """Where qpos and qvel lie in the state: MuJoCo concatenates its parts in the order of their bits."""
    found, start = {}, 0
    wanted = {mujoco.mjtState.mjSTATE_QPOS: "qpos", mujoco.mjtState.mjSTATE_QVEL: "qvel"}
    for i in range(mujoco.mjtState.mjNSTATE):
        if not _STATE & (1 << i):
            continue
        size = mujoco.mj_stateSize(model, 1 << i)
        if 1 << i in wanted:
            found[wanted[1 << i]] = slice(start, start + size)
        start += size
    return found
