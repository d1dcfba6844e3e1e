"""One MuJoCo model behind two engines with the same three functions.

A `System` says which model is stepped and what is read from it; `build` puts it on an engine. Engines are pure functions of one row:

    data = physics.init(qpos, qvel)
    data, readout = physics.step(data, action, fields)

`data` is whatever that engine has to carry to be reproducible: three small arrays for MJX, the bits of MuJoCo's float64 state for C.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import jax
import mujoco
import numpy as np

from envs.core import TaskError

LARGEST = 1e10  # MuJoCo's mjMAXVAL: what lies beyond it counts as blown up


class Field(NamedTuple):
    """A row of an array of the model that differs between episodes, such as the position of a body that never moves."""

    name: str  #  a field of mujoco.MjModel and mjx.Model, for example "body_pos"
    index: int


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """A compiled model and how a task drives and reads it."""

    model: mujoco.MjModel
    substeps: int  #                   physics steps per control step, of model.opt.timestep seconds each
    control_middle: np.ndarray  #      [A] float64: control = middle + range * action
    control_range: np.ndarray  #       [A] float64
    sites: tuple[int, ...] = ()  #     the sites whose positions are read
    bodies: tuple[int, ...] = ()  #    the bodies whose positions and orientations are read
    sensors: tuple[int, ...] = ()  #   the entries of sensordata that are read
    fields: tuple[Field, ...] = ()  #  what differs between episodes


class Readout(NamedTuple):
    """What can be seen of a row after a step. float32, or float64 where JAX runs in 64 bits.

    Sites, bodies and sensors are as the last substep began: what MuJoCo itself holds after mj_step. Empty in a start that needs none.
    """

    qpos: jax.Array  #            [nq]
    qvel: jax.Array  #            [nv]
    sites: jax.Array  #           [sites, 3] metres: site_xpos
    bad: jax.Array  #             [] bool, a non-finite or huge number in the state
    bodies: jax.Array = ()  #     [bodies, 7] xpos in metres and xquat (w, x, y, z)
    sensors: jax.Array = ()  #    [sensors] sensordata


class Physics(Protocol):
    """A system on an engine. Both functions are unbatched and pure, and may be jitted, vmapped, scanned and sharded."""

    system: System

    def init(self, qpos: jax.Array | None = None, qvel: jax.Array | None = None) -> Any:
        """The data at rest in the model's reference pose, with `qpos` [nq] and `qvel` [nv] where given."""
        ...

    def step(self, data: Any, action: jax.Array, fields: tuple[jax.Array, ...]) -> tuple[Any, Readout]:
        """One control step under `action` [A] in [-1, 1]; `fields` holds this row's value of each of the system's fields."""
        ...


def direct_control(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """(middle, range), each [A] float64, that map [-1, 1] onto the model's control range."""
    low, high = np.array(model.actuator_ctrlrange).T
    return (low + high) / 2, (high - low) / 2


def build(system: System, engine: str) -> Physics:
    """Put a system on "mjx" or "mujoco".

    Raises:
        TaskError: unknown engine; mujoco-mjx missing or of another version than mujoco.
    """
    if engine == "mjx":
        from envs.mjx_engine import MjxPhysics

        return MjxPhysics(system)
    if engine == "mujoco":
        from envs.mujoco_engine import MujocoPhysics

        return MujocoPhysics(system)
    raise TaskError(f"unknown physics engine {engine!r}; expected mjx or mujoco")


@functools.cache
def import_mjx() -> ModuleType:
    """mujoco.mjx, without the note on warp that it prints to stdout: a program's output is not the place for it.

    Raises:
        TaskError: mujoco-mjx is missing.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from mujoco import mjx
    except ImportError as error:
        raise TaskError(f"engine 'mjx' needs mujoco-mjx=={mujoco.__version__}: pip install mujoco-mjx=={mujoco.__version__}") from error
    return mjx
