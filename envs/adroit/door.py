"""door: undo a latch and open a door (AdroitHandDoor-v1, gymnasium_robotics/envs/adroit_hand/adroit_door.py)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from envs.adroit import hand
from envs.environment import Start
from envs.physics import Readout
from envs.registry import TaskInfo

OPEN_ANGLE = 1.35  #               radians of the door's hinge that count as open
FRAME_LOW = (-0.3, 0.25, 0.252)  # metres, the box from which the door frame's position is drawn
FRAME_HIGH = (-0.2, 0.35, 0.35)
HINGE = 28  #                      the door's angle in the observation
HANDLE = slice(32, 35)  #           the handle's position there


@dataclasses.dataclass(frozen=True, eq=False)
class Door(hand.HandTask):
    """Observation [39]: 27 hand joints, latch and hinge angle, the positions of palm, handle, palm - handle, and a flag."""

    XML = "adroit_door.xml"
    SITES = ("S_grasp", "S_handle")
    FIELDS = (("body_pos", "frame"),)

    handle: np.ndarray  # [3] metres, where the handle is at rest, from the door frame's position

    def start(self, key: jax.Array) -> Start:
        """At rest; params: [3] the position of the door frame, uniform in its box."""
        low, high = jnp.asarray(FRAME_LOW, jnp.float32), jnp.asarray(FRAME_HIGH, jnp.float32)
        frame = jax.random.uniform(key, (3,), jnp.float32, low, high)
        return Start(self.rest._replace(sites=jnp.stack([self.rest.sites[0], self.handle + frame])), None, None, frame)

    def fields(self, params: jax.Array) -> tuple[jax.Array]:
        return (params,)

    def poses(self, first_obs: jax.Array, recorded: dict[str, jax.Array]) -> jax.Array:
        """The door being shut, the frame stands where the handle says."""
        return recorded.get("door_body_pos", first_obs[HANDLE] - self.handle)

    def observe(self, readout: Readout) -> jax.Array:
        qpos, (palm, handle) = readout.qpos, readout.sites
        door = qpos[-2]
        flag = jnp.where(door > 1.0, 1.0, -1.0)
        return jnp.concatenate([qpos[1:-2], qpos[-1:], door[None], palm, handle, palm - handle, flag[None]])

    def solved(self, next_obs: jax.Array) -> jax.Array:
        return next_obs[HINGE] >= OPEN_ANGLE


def task(info: TaskInfo) -> Door:
    """The door task.

    Raises:
        TaskError: gymnasium-robotics is not installed.
    """
    system = hand.system_of(Door, None)
    names, low, high = hand.joints(system.model, 1, system.model.njnt)
    names, low, high = ([*x[:-2], x[-1], x[-2]] for x in (names, low, high))  # the latch before the hinge
    rest = hand.resting(system)
    return Door(
        rest=rest,
        handle=rest.sites[1] - system.model.body("frame").pos.astype(np.float32),
        observation_names=(*names[:-2], "latch", "door_hinge", *hand.xyz("palm", "handle", "palm_to_handle"), "door_open"),
        obs_low=np.concatenate([low, np.full(9, -2.0), [-1.0]]).astype(np.float32),
        obs_high=np.concatenate([high, np.full(9, 2.0), [1.0]]).astype(np.float32),
    )
