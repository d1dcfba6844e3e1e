"""MJX's fourth-order Runge-Kutta step with one copy of the dynamics in the program instead of four.

mjx.step writes the four stages out one after another, and compiling the dynamics is what MJX's compile time consists of. Here the stages are a
loop. The arithmetic is mjx.step's, and MuJoCo's mj_RungeKutta's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.physics import import_mjx

_SHARE = np.array([1, 2, 2, 1]) / 6  # of a stage in the step
_AHEAD = np.array([0.5, 0.5, 1.0, 0.0])  # how far into the step the stage after it looks
_READ = ("site_xpos", "xpos", "xquat", "sensordata")  # what may be read after a step: as at the last stage, as MuJoCo leaves it


def integrator(model: mujoco.MjModel) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(qpos [nq], displacement [nv], velocity times time) -> qpos [nq], with quaternions turned and normalised."""
    kinds, position, velocity = np.array(model.jnt_type), np.array(model.jnt_qposadr), np.array(model.jnt_dofadr)
    straight = np.isin(kinds, (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE))
    free = kinds == mujoco.mjtJoint.mjJNT_FREE
    moved = np.concatenate([position[straight], *(position[free] + i for i in range(3))])
    by = np.concatenate([velocity[straight], *(velocity[free] + i for i in range(3))])
    turned = np.concatenate([position[kinds == mujoco.mjtJoint.mjJNT_BALL], position[free] + 3])
    spun = np.concatenate([velocity[kinds == mujoco.mjtJoint.mjJNT_BALL], velocity[free] + 3])

    def integrate(qpos: jax.Array, displacement: jax.Array) -> jax.Array:
        qpos = qpos.at[moved].add(displacement[by])
        for q, v in zip(turned, spun, strict=True):
            qpos = qpos.at[q : q + 4].set(_turn(qpos[q : q + 4], displacement[v : v + 3]))
        return qpos

    return integrate


def _turn(quaternion: jax.Array, rotation: jax.Array) -> jax.Array:
    """`quaternion` [4] turned by the rotation vector [3] in its own frame."""
    angle = jnp.sqrt(jnp.sum(rotation * rotation) + 1e-30)
    (w, x, y, z), (a, (b, c, d)) = quaternion, (jnp.cos(angle / 2), jnp.sin(angle / 2) / angle * rotation)
    product = [
        w * a - x * b - y * c - z * d,
        w * b + x * a + y * d - z * c,
        w * c - x * d + y * a + z * b,
        w * d + x * c - y * b + z * a,
    ]
    product = jnp.stack(product)
    return product / jnp.linalg.norm(product)


def stepper(model: mujoco.MjModel) -> Callable[[Any, Any], Any]:
    """A replacement of mjx.step for a model that asks for RK4: (mjx.Model, mjx.Data) -> mjx.Data after one step.

    Of the data it returns, qpos, qvel, qacc_warmstart and what `_READ` names are those of mjx.step.
    """
    forward, integrate = import_mjx().forward, integrator(model)

    def step(mjx_model: Any, data: Any) -> Any:
        time = mjx_model.opt.timestep

        def stage(carry, numbers):
            qpos, qvel, moved, gained, _ = carry
            share, ahead = numbers
            now = forward(mjx_model, data.replace(qpos=qpos, qvel=qvel))
            moved, gained = moved + share * qvel, gained + share * now.qacc
            following = integrate(data.qpos, time * ahead * qvel), data.qvel + time * ahead * now.qacc
            return (*following, moved, gained, now.qacc), {name: getattr(now, name) for name in _READ}

        none = jnp.zeros_like(data.qvel)
        numbers = jnp.asarray(_SHARE, none.dtype), jnp.asarray(_AHEAD, none.dtype)
        (_, _, moved, gained, qacc), seen = jax.lax.scan(stage, (data.qpos, data.qvel, none, none, none), numbers)
        last = {name: value[-1] for name, value in seen.items()}
        qpos, qvel = integrate(data.qpos, time * moved), data.qvel + time * gained
        return data.replace(qpos=qpos, qvel=qvel, qacc_warmstart=qacc, **last)

    return step
