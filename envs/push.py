"""push-disc: a disc pushes another disc past a round post into a goal region.

Seen from above: the pusher is driven by a force against viscous friction (at full action it settles at 3.2 m/s), the pushed disc glides
against viscous friction and stops within a tenth of a second, the post stands in the middle. The discs are spheres in one plane, so that
every contact is sphere against sphere. Contacts have friction (condim 3, elliptic cone: the cone under which MJX and C agree through
contact). One control step is 0.1 s. The disc has to come from the left of the post to the goal on its right: pushed straight, it stops
at the post, and the pusher loses it at any corner, so the side has to be chosen and the disc has to be steered.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.core import Outcome
from envs.environment import Start
from envs.physics import Readout, System, direct_control
from envs.registry import TaskInfo
from envs.rendering import View

PUSHER_RADIUS = 0.4  #                                metres
DISC_RADIUS = 0.5
POST_RADIUS = 0.6
GOAL = np.array([2.6, 0.0])
GOAL_RADIUS = 0.7  #                                  of the disc's middle
ARENA = np.array([4.8, 3.6])  #                       half size of the rectangle that the two may move in
PUSHER_START = np.array([-3.4, 0.0])
PUSHER_NOISE = np.array([0.4, 1.0])  #                half widths of uniform noise
DISC_START = np.array([-2.0, 0.0])
DISC_NOISE = np.array([0.4, 0.8])
SPEED = 3.2  #                                        metres per second at full action
LAG = 0.15  #                                         seconds, time constant of the pusher
GLIDE = 0.08  #                                       seconds, time constant in which the disc stops
CONTROL_STEP = 0.1
SUBSTEPS = 5

# The few solver iterations are enough unless the pusher wedges the disc against the post; there the two engines' unconverged answers part.
_MJCF = f"""
<mujoco>
  <option timestep="{CONTROL_STEP / SUBSTEPS}" iterations="3" ls_iterations="6" jacobian="dense" cone="elliptic">
    <flag gravity="disable" eulerdamp="disable"/>
  </option>
  <default><geom contype="0" conaffinity="0"/><joint type="slide" limited="true"/></default>
  <worldbody>
    <geom name="post" type="sphere" size="{POST_RADIUS}"/>
    <body>
      <joint name="pusher_x" axis="1 0 0" range="{-ARENA[0]} {ARENA[0]}"/>
      <joint name="pusher_y" axis="0 1 0" range="{-ARENA[1]} {ARENA[1]}"/>
      <geom name="pusher" type="sphere" size="{PUSHER_RADIUS}" mass="1"/>
    </body>
    <body>
      <joint name="disc_x" axis="1 0 0" range="{-ARENA[0]} {ARENA[0]}" damping="{0.3 / GLIDE}"/>
      <joint name="disc_y" axis="0 1 0" range="{-ARENA[1]} {ARENA[1]}" damping="{0.3 / GLIDE}"/>
      <geom name="disc" type="sphere" size="{DISC_RADIUS}" mass="0.3"/>
    </body>
  </worldbody>
  <contact>
    <pair geom1="pusher" geom2="disc" condim="3" friction="0.5 0.5 0.005 0.0001 0.0001"/>
    <pair geom1="post" geom2="pusher" condim="3" friction="0.5 0.5 0.005 0.0001 0.0001"/>
    <pair geom1="post" geom2="disc" condim="3" friction="0.5 0.5 0.005 0.0001 0.0001"/>
  </contact>
  <actuator>
    <general joint="pusher_x" ctrlrange="-1 1" gainprm="{SPEED / LAG}" biastype="affine" biasprm="0 0 {-1 / LAG}"/>
    <general joint="pusher_y" ctrlrange="-1 1" gainprm="{SPEED / LAG}" biastype="affine" biasprm="0 0 {-1 / LAG}"/>
  </actuator>
</mujoco>"""

_REACH = np.array([*ARENA, *ARENA, *2 * ARENA, 6.0, 6.0, 6.0, 6.0], np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class PushDisc:
    """The task: observation [10] of pusher, disc, disc - pusher (x and y each) and the two velocities, in metres and metres per second."""

    observation_names: tuple[str, ...] = (
        *("pusher_x", "pusher_y", "disc_x", "disc_y", "disc_from_pusher_x", "disc_from_pusher_y"),
        *("pusher_vx", "pusher_vy", "disc_vx", "disc_vy"),
    )
    obs_low: np.ndarray = dataclasses.field(default_factory=lambda: -_REACH)
    obs_high: np.ndarray = dataclasses.field(default_factory=lambda: _REACH)

    @property
    def view(self) -> View:
        colours = {"post": (0.4, 0.4, 0.4, 1), "pusher": (0.2, 0.45, 0.9, 1), "disc": (0.95, 0.6, 0.1, 1)}
        # The goal is marked on the plane below, so that it hides nothing.
        goal = ((float(GOAL[0]), float(GOAL[1]), -GOAL_RADIUS - DISC_RADIUS), GOAL_RADIUS, (0.2, 0.7, 0.3, 1.0))
        return View((0.0, 0.0, 0.0), 2.05 * float(ARENA[1]), colours=colours, marks=(goal,))

    def system(self, engine: str) -> System:
        model = mujoco.MjModel.from_xml_string(_MJCF)
        return System(model, SUBSTEPS, *direct_control(model))

    def start(self, key: jax.Array) -> Start:
        middle = jnp.asarray(np.concatenate([PUSHER_START, DISC_START]), jnp.float32)
        width = jnp.asarray(np.concatenate([PUSHER_NOISE, DISC_NOISE]), jnp.float32)
        qpos = middle + width * jax.random.uniform(key, (4,), jnp.float32, -1.0, 1.0)
        # The two may not start inside each other.
        qpos = qpos.at[0].set(jnp.minimum(qpos[0], qpos[2] - (PUSHER_RADIUS + DISC_RADIUS + 0.05)))
        qvel = jnp.zeros(4, jnp.float32)
        return Start(Readout(qpos, qvel, jnp.zeros((0, 3)), jnp.zeros((), bool)), qpos, qvel, ())

    def fields(self, params: tuple[()]) -> tuple[()]:
        return ()

    def observe(self, readout: Readout) -> jax.Array:
        pusher, disc = readout.qpos[:2], readout.qpos[2:]
        return jnp.concatenate([pusher, disc, disc - pusher, readout.qvel])

    def restore(self, obs: jax.Array, first_obs: jax.Array, recorded: dict) -> tuple[jax.Array, jax.Array, tuple[()]]:
        return obs[:4], obs[6:], ()

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        """Reward 1 and the end when the disc's middle is within `GOAL_RADIUS` of the goal."""
        inside = jnp.linalg.norm(next_obs[2:4] - jnp.asarray(GOAL, jnp.float32)) <= GOAL_RADIUS
        return Outcome(inside.astype(jnp.float32), inside, inside)


def task(info: TaskInfo) -> PushDisc:
    """The pushing task."""
    return PushDisc()
