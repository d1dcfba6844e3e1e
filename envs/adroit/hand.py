"""What the four Adroit tasks share: the released model, what MJX needs changed in it, and an episode's start.

Models, observation order, actions, frame skip, starts and success are those of gymnasium_robotics/envs/adroit_hand/*.py (1.4.2), the models
read from that package at run time. The reward is the -1 / 0 form of the offline-to-online literature ("binary" Adroit: Nair et al. 2020,
arXiv 2006.09359; its `goal_achieved - 1` in the mj_envs fork that RLPD, Cal-QL and EXPO use), in which the score is the share of the
horizon's steps that are solved. Nothing terminates, a dropped pen neither.

In C MuJoCo the model is the released one, number for number. For MJX (docs/parity.md has what each change does):
- a colliding cylinder is a capsule of the same total length, or a box of the same thickness and area where it is a disc, with the body's
  mass and inertia kept: MJX has no collision of a cylinder with a box;
- a colliding geom is larger by its margin, which is 0: MJX finds contacts with boxes only once they overlap (`_margins_as_size`);
- the sensors that no observation reads are left out, and a cylindrical site of one that is read is a box: MJX has no rays to cylinders;
- the solver stops earlier and solves for the deepest contacts only (`MjxSettings`); MJX has no noslip solver.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.core import Outcome, TaskError
from envs.physics import Field, Readout, System, direct_control
from envs.rendering import View

FRAME_SKIP = 5  #  substeps of 2 ms
_PLANE, _CYLINDER = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_CYLINDER
_CAPSULE, _BOX = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_BOX


@dataclasses.dataclass(frozen=True)
class MjxSettings:
    """How far MJX's solver goes. None leaves a number as released; the defaults are enough for the DAPG policies."""

    iterations: int | None = 8  #     of 20 released
    ls_iterations: int | None = 16  # of 50 released
    # MJX keeps a slot for every contact that could ever be (449 in the door, 1,990 constraint rows), and solves for this many of each
    # condim, the deepest ones.
    contacts: int | None = 20


def asset(name: str) -> Path:
    """The path of one of gymnasium-robotics' Adroit models.

    Raises:
        TaskError: gymnasium-robotics is not installed, or has no such file.
    """
    found = importlib.util.find_spec("gymnasium_robotics")  # found, not imported: importing it prints notices and takes seconds
    if found is None or not found.submodule_search_locations:
        raise TaskError("the Adroit tasks need gymnasium-robotics for their models: pip install 'expo-bench[adroit]'")
    path = Path(found.submodule_search_locations[0]) / "envs" / "assets" / "adroit_hand" / name
    if not path.is_file():
        raise TaskError(f"gymnasium-robotics has no {path.name} at {path.parent}; expected version 1.4.2: pip install 'expo-bench[adroit]'")
    return path


def hand_model(task: type[HandTask], mjx: MjxSettings | None = None) -> mujoco.MjModel:
    """A task's released model with the actuator gains that the released environments set; with `mjx` changed as MJX needs it."""
    spec = mujoco.MjSpec.from_file(str(asset(task.XML)))
    if mjx is not None:
        task.adapt(spec)
        _replace_cylinders(spec)
        _margins_as_size(spec)
        _keep_sensors(spec, task.SENSORS)
        spec.option.iterations = mjx.iterations or spec.option.iterations
        spec.option.ls_iterations = mjx.ls_iterations or spec.option.ls_iterations
        if mjx.contacts:
            spec.add_numeric(name="max_contact_points", data=[mjx.contacts], size=1)
    model = spec.compile()
    for first, last, gain in (("A_WRJ1", "A_WRJ0", 10.0), ("A_FFJ3", "A_THJ0", 1.0)):
        chosen = slice(model.actuator(first).id, model.actuator(last).id + 1)
        model.actuator_gainprm[chosen, :3] = (gain, 0.0, 0.0)
        model.actuator_biasprm[chosen, :3] = (0.0, -gain, 0.0)
    return model


def _replace_cylinders(spec: mujoco.MjSpec) -> None:
    """Capsules of the same total length, or boxes of the same thickness and area where a cylinder is wider than long. Masses stay."""
    released = spec.compile()
    for body in spec.bodies:
        cylinders = [geom for geom in body.geoms if geom.type == _CYLINDER and (geom.contype or geom.conaffinity)]
        if cylinders:
            keep_mass(body, released)
        for geom in cylinders:
            radius, half_length = geom.size[:2]
            if half_length > radius:
                geom.type, geom.size[1] = _CAPSULE, half_length - radius  # a capsule's half length leaves out its caps
            else:
                geom.type, geom.size = _BOX, _box_of(radius, half_length)


def _margins_as_size(spec: mujoco.MjSpec) -> None:
    """Make every colliding geom but planes larger by its margin, and its margin 0: the distance from which on a contact pushes stays.

    MJX finds a contact of a capsule or box with a box only once the two overlap, and then pushes as if they overlapped by the margin as
    well: in C MuJoCo a pen rests on the palm within the margin (1 mm of the two geoms), in MJX it would be thrown up and fall back.
    """
    released = spec.compile()
    for body in spec.bodies:
        geoms = [geom for geom in body.geoms if (geom.contype or geom.conaffinity) and geom.type != _PLANE and geom.margin]
        if geoms:
            keep_mass(body, released)
        for geom in geoms:
            geom.size[: 3 if geom.type == _BOX else 1] += geom.margin  # a capsule or sphere by its radius
            geom.margin = 0.0


def keep_mass(body: mujoco.MjsBody, released: mujoco.MjModel) -> None:
    """Fix a body's mass and inertia as they are in `released`, where they follow from its geoms."""
    if body.id and not body.explicitinertial:
        body.explicitinertial = True
        body.mass, body.inertia = released.body_mass[body.id], released.body_inertia[body.id]
        body.ipos, body.iquat = released.body_ipos[body.id], released.body_iquat[body.id]


def _keep_sensors(spec: mujoco.MjSpec, names: tuple[str, ...]) -> None:
    for sensor in list(spec.sensors):
        if sensor.name not in names:
            spec.delete(sensor)
            continue
        site = spec.site(sensor.objname)
        if site.type == _CYLINDER:
            site.type, site.size = _BOX, _box_of(*site.size[:2])


def _box_of(radius: float, half_length: float) -> np.ndarray:
    side = radius * math.sqrt(math.pi) / 2
    return np.array([side, side, half_length])


@dataclasses.dataclass(frozen=True, eq=False)
class HandTask:
    """An Adroit task: a subclass names what it reads and what differs between episodes, and says start, observation and success."""

    XML: ClassVar[str]
    MJX: ClassVar[MjxSettings] = MjxSettings()
    SITES: ClassVar[tuple[str, ...]]
    BODIES: ClassVar[tuple[str, ...]] = ()
    SENSORS: ClassVar[tuple[str, ...]] = ()
    FIELDS: ClassVar[tuple[tuple[str, str], ...]]  # (field of the model, name of the body or site)

    rest: Readout  #                          the released model as it starts: all joints at 0 but for what the episode draws
    observation_names: tuple[str, ...]
    obs_low: np.ndarray
    obs_high: np.ndarray

    @property
    def view(self) -> View:
        """From behind the forearm and above: hand, table and what stands on it."""
        return View(lookat=(0.0, -0.12, 0.15), height=1.0, elevation=-45.0)

    @classmethod
    def adapt(cls, spec: mujoco.MjSpec) -> None:
        """What this task needs changed in the model for MJX besides, before its cylinders are replaced."""

    def system(self, engine: str) -> System:
        return system_of(type(self), self.MJX if engine == "mjx" else None)

    def poses(self, first_obs: jax.Array, recorded: dict[str, jax.Array]) -> jax.Array:
        """What was drawn for a recorded episode: as `recorded` has it (hand_dapg's names), or as its first observation [O] shows it."""
        raise NotImplementedError

    def restore(self, obs: jax.Array, first_obs: jax.Array, recorded: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(qpos, qvel, params). Raises TaskError where a file has no qpos and qvel: the arm's and the hand's velocities are not observed."""
        if "qpos" not in recorded or "qvel" not in recorded:
            raise TaskError("Adroit's observations do not hold the hand's velocities: a file without qpos and qvel cannot be replayed")
        return recorded["qpos"], recorded["qvel"], jnp.asarray(self.poses(first_obs, recorded), jnp.float32)

    def solved(self, next_obs: jax.Array) -> jax.Array:
        """[] bool: whether the task is done in an observation [O]."""
        raise NotImplementedError

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        """Reward 0 and success while the task is done, -1 otherwise; never terminates."""
        solved = self.solved(next_obs)
        return Outcome(solved.astype(jnp.float32) - 1.0, solved, jnp.zeros((), bool))


def system_of(task: type[HandTask], mjx: MjxSettings | None) -> System:
    """The released model of a task, or the one for MJX, and what is read of it."""
    model = hand_model(task, mjx)
    return System(
        model,
        FRAME_SKIP,
        *direct_control(model),
        sites=tuple(model.site(name).id for name in task.SITES),
        bodies=tuple(model.body(name).id for name in task.BODIES),
        sensors=tuple(int(model.sensor(name).adr[0]) for name in task.SENSORS),
        fields=tuple(Field(field, getattr(model, field.split("_")[0])(name).id) for field, name in task.FIELDS),
    )


def resting(system: System) -> Readout:
    """The model's reference pose at rest as it is read, float32."""
    data = mujoco.MjData(system.model)
    mujoco.mj_forward(system.model, data)
    sites, bodies, sensors = list(system.sites), list(system.bodies), list(system.sensors)
    poses = np.hstack([data.xpos[bodies], data.xquat[bodies]])
    real = (data.qpos, data.qvel, data.site_xpos[sites], poses, data.sensordata[sensors])
    qpos, qvel, sites, poses, sensors = (np.asarray(x, np.float32) for x in real)
    return Readout(qpos, qvel, sites, np.zeros((), bool), poses, sensors)


def joints(model: mujoco.MjModel, first: int, last: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names, lowest, highest) of joints `first` to `last` (exclusive) as observations: limits are soft, and a hand that is pressed
    against something exceeds them by some tenths of a radian."""
    low, high = np.array(model.jnt_range[first:last]).T
    return [model.joint(i).name for i in range(first, last)], low - 0.5, high + 0.5


def xyz(*names: str) -> list[str]:
    return [f"{name}_{axis}" for name in names for axis in "xyz"]
