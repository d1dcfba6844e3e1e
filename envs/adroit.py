"""door: the Adroit door of gymnasium-robotics (AdroitHandDoor-v1), its model read from that package at run time.

Actions, frame skip, observation, start and success are those of gymnasium_robotics/envs/adroit_hand/adroit_door.py (1.4.2); the reward is
the -1 / 0 form of the offline-to-online literature ("binary" Adroit: Nair et al. 2020, arXiv 2006.09359), in which the score is the share
of the 200 steps that are solved. Nothing terminates.

In C MuJoCo the model is the released one, number for number. MJX has no collision of a cylinder with a box, so there every colliding
cylinder is a capsule of the same total length: the door, its frame and its latch have rounded ends. MJX also has no noslip solver, and
here solves for the deepest contacts only. Trajectories part at the first contact; the trained DAPG policy opens the door equally often and
equally fast on both (measured: 20 of 20 and 10 of 10 episodes, 0.74 of the steps solved), so scores may be compared, states may not.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.core import Outcome, TaskError
from envs.environment import Start
from envs.physics import Field, Readout, System, direct_control
from envs.registry import TaskInfo

FRAME_SKIP = 5  #                  substeps of 2 ms
OPEN_ANGLE = 1.35  #               radians of the door's hinge that count as open
FRAME_LOW = (-0.3, 0.25, 0.252)  # metres, the box from which the door frame's position is drawn
FRAME_HIGH = (-0.2, 0.35, 0.35)
HINGE = 28  #                      the door's angle in the observation
HANDLE = slice(32, 35)  #           the handle's position there
MJX_ITERATIONS, MJX_LS_ITERATIONS = 8, 16  # enough for the DAPG policies, at a quarter of the cost of the released 20 and 50
# MJX keeps a slot for each contact that could ever be: 449 contacts, 1,990 constraint rows. It solves for this many of each condim, the
# deepest ones.
MJX_CONTACTS = 20


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


def door_model(*, capsules: bool) -> mujoco.MjModel:
    """The released model with the actuator gains that the released environment sets; `capsules` replaces the colliding cylinders."""
    spec = mujoco.MjSpec.from_file(str(asset("adroit_door.xml")))
    if capsules:
        for geom in spec.geoms:
            if geom.type == mujoco.mjtGeom.mjGEOM_CYLINDER and (geom.contype or geom.conaffinity):
                geom.type = mujoco.mjtGeom.mjGEOM_CAPSULE
                geom.size[1] = max(geom.size[1] - geom.size[0], 1e-3)  # a capsule's half length leaves out its caps
        spec.option.iterations, spec.option.ls_iterations = MJX_ITERATIONS, MJX_LS_ITERATIONS
        spec.add_numeric(name="max_contact_points", data=[MJX_CONTACTS], size=1)
    model = spec.compile()
    for first, last, gain in (("A_WRJ1", "A_WRJ0", 10.0), ("A_FFJ3", "A_THJ0", 1.0)):
        chosen = slice(model.actuator(first).id, model.actuator(last).id + 1)
        model.actuator_gainprm[chosen, :3] = (gain, 0.0, 0.0)
        model.actuator_biasprm[chosen, :3] = (0.0, -gain, 0.0)
    return model


@dataclasses.dataclass(frozen=True, eq=False)
class Door:
    """The task: observation [39] of 27 hand joints, latch and hinge angle, the positions of palm, handle, palm - handle, and a flag."""

    rest: np.ndarray  #                       [30] the joint positions that episodes start from
    palm: np.ndarray  #                       [3] where the palm is then
    handle: np.ndarray  #                     [3] where the handle is then, from the door frame's position
    observation_names: tuple[str, ...]
    obs_low: np.ndarray
    obs_high: np.ndarray

    def system(self, engine: str) -> System:
        model = door_model(capsules=engine == "mjx")
        sites = model.site("S_grasp").id, model.site("S_handle").id
        frame = Field("body_pos", model.body("frame").id)
        return System(model, FRAME_SKIP, *direct_control(model), sites=sites, fields=(frame,))

    def start(self, key: jax.Array) -> Start:
        """At rest; params: [3] the position of the door frame, uniform in its box."""
        low, high = jnp.asarray(FRAME_LOW, jnp.float32), jnp.asarray(FRAME_HIGH, jnp.float32)
        frame = jax.random.uniform(key, (3,), jnp.float32, low, high)
        sites = jnp.stack([jnp.asarray(self.palm, jnp.float32), jnp.asarray(self.handle, jnp.float32) + frame])
        rest = jnp.asarray(self.rest, jnp.float32)
        return Start(Readout(rest, jnp.zeros_like(rest), sites, jnp.zeros((), bool)), None, None, frame)

    def fields(self, params: jax.Array) -> tuple[jax.Array]:
        return (params,)

    def observe(self, readout: Readout) -> jax.Array:
        qpos, (palm, handle) = readout.qpos, readout.sites
        door = qpos[-2]
        flag = jnp.where(door > 1.0, 1.0, -1.0)
        return jnp.concatenate([qpos[1:-2], qpos[-1:], door[None], palm, handle, palm - handle, flag[None]])

    def restore(self, obs: jax.Array, first_obs: jax.Array, recorded: dict) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Joint velocities are not observed: they have to be recorded. The frame stands where the handle first is, the door being shut."""
        if "qpos" not in recorded or "qvel" not in recorded:
            raise TaskError("the door's observations have no velocities: a file without qpos and qvel cannot be replayed")
        frame = recorded.get("door_body_pos", first_obs[HANDLE] - jnp.asarray(self.handle, jnp.float32))
        return recorded["qpos"], recorded["qvel"], jnp.asarray(frame, jnp.float32)

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        """Reward 0 and success while the hinge stands at `OPEN_ANGLE` or more, -1 otherwise; never terminates."""
        is_open = next_obs[HINGE] >= OPEN_ANGLE
        return Outcome(is_open.astype(jnp.float32) - 1.0, is_open, jnp.zeros((), bool))


def task(info: TaskInfo) -> Door:
    """The door task.

    Raises:
        TaskError: gymnasium-robotics is not installed.
    """
    model = door_model(capsules=False)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    joints = [model.joint(i).name for i in range(1, model.njnt - 2)]
    points = [f"{what}_{axis}" for what in ("palm", "handle", "palm_to_handle") for axis in "xyz"]
    low, high = np.array(model.jnt_range).T
    # Joint limits are soft, and a hand pressed against a door exceeds them by some tenths of a radian.
    between = lambda limit, way: np.concatenate([limit[1:-2], limit[[-1, -2]]]) + 0.5 * way
    return Door(
        rest=np.array(data.qpos),
        palm=data.site("S_grasp").xpos.copy(),
        handle=data.site("S_handle").xpos - model.body("frame").pos,
        observation_names=(*joints, "latch", "door_hinge", *points, "door_open"),
        obs_low=np.concatenate([between(low, -1), np.full(9, -2.0), [-1.0]]).astype(np.float32),
        obs_high=np.concatenate([between(high, 1), np.full(9, 2.0), [1.0]]).astype(np.float32),
    )
