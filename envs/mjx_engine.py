"""MJX: the physics inside the program, on any device JAX has."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs import mjx_rk4
from envs.physics import LARGEST, Readout, System, import_mjx


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MjxData:
    """All that MJX needs to go on. The rest of mjx.Data follows from it, and a small carry is what makes a fused scan fast."""

    qpos: jax.Array  #       [nq]
    qvel: jax.Array  #       [nv]
    warmstart: jax.Array  #  [nv] the last acceleration, where the solver starts


class MjxPhysics:
    """A system in MJX (implementation 'jax', which runs on every backend). Contacts of a fixed number, whatever touches."""

    def __init__(self, system: System):
        mjx = import_mjx()
        if system.model.na:
            raise NotImplementedError("actuators with activation states are not carried")
        self.system = system
        runge_kutta = system.model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
        self._step = mjx_rk4.stepper(system.model) if runge_kutta else mjx.step
        self._model = mjx.put_model(system.model, impl="jax")
        self._blank = mjx.make_data(system.model, impl="jax")

    def init(self, qpos: jax.Array | None = None, qvel: jax.Array | None = None) -> MjxData:
        dtype = self._blank.qpos.dtype
        model = self.system.model
        qpos = jnp.asarray(model.qpos0 if qpos is None else qpos, dtype)
        qvel = jnp.zeros(model.nv, dtype) if qvel is None else jnp.asarray(qvel, dtype)
        return MjxData(qpos, qvel, jnp.zeros(model.nv, dtype))

    def step(self, data: MjxData, action: jax.Array, fields: tuple[jax.Array, ...]) -> tuple[MjxData, Readout]:
        dtype = self._blank.qpos.dtype
        system = self.system
        model = self._model
        for field, value in zip(system.fields, fields, strict=True):
            model = model.replace(**{field.name: getattr(model, field.name).at[field.index].set(value)})
        ctrl = jnp.asarray(system.control_middle, dtype) + jnp.asarray(system.control_range, dtype) * action
        sites, bodies, sensors = (jnp.asarray(chosen, int) for chosen in (system.sites, system.bodies, system.sensors))

        def substep(_, carry):
            data, _ = carry
            full = self._blank.replace(qpos=data.qpos, qvel=data.qvel, qacc_warmstart=data.warmstart, ctrl=ctrl)
            with np.errstate(over="ignore"):  # MJX writes the largest float64 into a float32 while it is traced
                full = self._step(model, full)
            poses = jnp.concatenate([full.xpos[bodies], full.xquat[bodies]], axis=1)
            return MjxData(full.qpos, full.qvel, full.qacc_warmstart), (full.site_xpos[sites], poses, full.sensordata[sensors])

        seen = jnp.zeros((len(sites), 3), dtype), jnp.zeros((len(bodies), 7), dtype), jnp.zeros(len(sensors), dtype)
        data, (positions, poses, values) = jax.lax.fori_loop(0, system.substeps, substep, (data, seen))
        bad = ~jnp.all(jnp.abs(jnp.concatenate([data.qpos, data.qvel])) < LARGEST)  # a comparison with NaN is False
        return data, Readout(data.qpos, data.qvel, positions, bad, poses, values)
