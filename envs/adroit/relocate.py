"""relocate: carry a ball to a target in the air (AdroitHandRelocate-v1, gymnasium_robotics/envs/adroit_hand/adroit_relocate.py).

Solved while the ball's middle is within 10 cm of the target. The model is the released one for MJX too: it has no cylinder that collides.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from envs.adroit import hand
from envs.environment import Start
from envs.physics import Readout
from envs.registry import TaskInfo

BALL_LOW, BALL_HIGH = (-0.15, -0.15), (0.15, 0.3)  #             metres, the rectangle of the table from which the ball's place is drawn
TARGET_LOW, TARGET_HIGH = (-0.2, -0.2, 0.15), (0.2, 0.2, 0.35)  # metres, the box from which the target is drawn
DISTANCE = 0.1  #                                                 metres between ball and target, below which the task counts as solved


class Relocate(hand.HandTask):
    """Observation [39]: 30 arm and hand joints, then palm - ball, palm - target and ball - target."""

    XML = "adroit_relocate.xml"
    SITES = ("S_grasp", "target")
    BODIES = ("Object",)
    FIELDS = (("body_pos", "Object"), ("site_pos", "target"))

    def start(self, key: jax.Array) -> Start:
        """At rest; params: [2, 3] the positions of ball and target, the ball on the table."""
        key_ball, key_target = jax.random.split(key)
        real = lambda bound: jnp.asarray(bound, jnp.float32)
        ball = jax.random.uniform(key_ball, (2,), jnp.float32, real(BALL_LOW), real(BALL_HIGH))
        target = jax.random.uniform(key_target, (3,), jnp.float32, real(TARGET_LOW), real(TARGET_HIGH))
        bodies = jnp.asarray(self.rest.bodies).at[0, :2].set(ball)
        readout = self.rest._replace(sites=jnp.stack([self.rest.sites[0], target]), bodies=bodies)
        return Start(readout, None, None, jnp.stack([bodies[0, :3], target]))

    def fields(self, params: jax.Array) -> tuple[jax.Array, jax.Array]:
        return params[0], params[1]

    def poses(self, first_obs: jax.Array, recorded: dict[str, jax.Array]) -> jax.Array:
        """Seen from the palm, which is where it rests."""
        ball, target = jnp.asarray(self.rest.sites[0]) - first_obs[30:36].reshape(2, 3)
        return jnp.stack([recorded.get("obj_pos", ball), recorded.get("target_pos", target)])

    def observe(self, readout: Readout) -> jax.Array:
        (palm, target), ball = readout.sites, readout.bodies[0, :3]
        return jnp.concatenate([readout.qpos[:-6], palm - ball, palm - target, ball - target])

    def solved(self, next_obs: jax.Array) -> jax.Array:
        return jnp.linalg.norm(next_obs[36:39]) < DISTANCE


def task(info: TaskInfo) -> Relocate:
    """The relocate task.

    Raises:
        TaskError: gymnasium-robotics is not installed.
    """
    system = hand.system_of(Relocate, None)
    names, low, high = hand.joints(system.model, 0, system.model.njnt - 6)
    # A ball that rolled off the table falls onto the ground 1 m below and rolls on.
    return Relocate(
        rest=hand.resting(system),
        observation_names=(*names, *hand.xyz("palm_to_ball", "palm_to_target", "ball_to_target")),
        obs_low=np.concatenate([low, np.full(9, -5.0)]).astype(np.float32),
        obs_high=np.concatenate([high, np.full(9, 5.0)]).astype(np.float32),
    )
