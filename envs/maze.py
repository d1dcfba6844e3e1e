"""point-umaze and point-medium: a point mass in D4RL's maze layouts.

A ball on two sliding joints, driven by a force against viscous friction: at full action it settles at 1.8 cells per second with a time
constant of 0.25 s. One control step is 0.1 s. Cells are 1 m wide, the origin is the middle of the maze, x runs along columns and y along
rows. As in D4RL's AntMaze the goal is fixed, the reward is 1 at the goal and 0 elsewhere, and the episode terminates at the goal.

Layouts: U_MAZE and BIG_MAZE of D4RL (Fu et al. 2020, arXiv 2004.07219; d4rl/locomotion/maze_env.py), "medium" being BIG_MAZE.
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

LAYOUTS = {  # '#' wall, 'R' start, 'G' goal
    "point-umaze": (
        "#####",
        "#R  #",
        "### #",
        "#G  #",
        "#####",
    ),
    "point-medium": (
        "########",
        "#R ##  #",
        "#  #   #",
        "##   ###",
        "#  #   #",
        "# #  # #",
        "#   # G#",
        "########",
    ),
}
RADIUS = 0.15  #       of the ball, in cells
SPEED = 1.8  #         the speed that full action settles at, cells per second
LAG = 0.25  #          seconds, time constant of the approach to it
GOAL_RADIUS = 0.4  #   cells
START_NOISE = 0.2  #   cells, half width of the uniform square in which an episode starts
CONTROL_STEP = 0.1  #  seconds
SUBSTEPS = 4


def cell_centre(layout: tuple[str, ...], row: int, column: int) -> np.ndarray:
    """(x, y) of a cell's middle."""
    return np.array([column - (len(layout[0]) - 1) / 2, row - (len(layout) - 1) / 2])


def find(layout: tuple[str, ...], mark: str) -> np.ndarray:
    """(x, y) of the cell that carries `mark`."""
    (place,) = [(r, c) for r, line in enumerate(layout) for c, char in enumerate(line) if char == mark]
    return cell_centre(layout, *place)


def wall_boxes(layout: tuple[str, ...]) -> list[tuple[int, int, int, int]]:
    """The inner walls as few rectangles, each (first row, first column, rows, columns): every box is a contact in MJX, touched or not."""
    left = {(r, c) for r, line in enumerate(layout) for c, char in enumerate(line) if char == "#"}
    left -= {(r, c) for r, c in left if r in (0, len(layout) - 1) or c in (0, len(layout[0]) - 1)}  # the rim is made of planes
    boxes = []
    while left:
        row, column = min(left)
        width = next(w for w in range(1, len(layout)) if (row, column + w) not in left)
        height = next(h for h in range(1, len(layout)) if (row + h, column) not in left)
        rows, columns = (1, width) if width >= height else (height, 1)
        left -= {(row + i, column + j) for i in range(rows) for j in range(columns)}
        boxes.append((row, column, rows, columns))
    return boxes


def _walls(layout: tuple[str, ...]) -> str:
    half_x, half_y = len(layout[0]) / 2 - 1, len(layout) / 2 - 1
    planes = ((-half_x, 0, "1 0 0"), (half_x, 0, "-1 0 0"), (0, -half_y, "0 1 0"), (0, half_y, "0 -1 0"))
    text = [f'<geom type="plane" size="9 9 1" pos="{x} {y} 0" zaxis="{axis}"/>' for x, y, axis in planes]
    for row, column, rows, columns in wall_boxes(layout):
        x, y = cell_centre(layout, row, column) + np.array([columns - 1, rows - 1]) / 2
        text.append(f'<geom type="box" size="{columns / 2} {rows / 2} 0.5" pos="{x} {y} 0"/>')
    return "\n".join(text)


def _mjcf(layout: tuple[str, ...]) -> str:
    # Frictionless contacts (condim 1) are one constraint row each. The viscous friction acts through the actuator, so that the integrator
    # needs no second factorisation of the mass matrix.
    return f"""
<mujoco>
  <option timestep="{CONTROL_STEP / SUBSTEPS}" iterations="2" ls_iterations="4" jacobian="dense">
    <flag gravity="disable" eulerdamp="disable"/>
  </option>
  <default><geom condim="1" contype="1" conaffinity="0"/></default>
  <worldbody>
    {_walls(layout)}
    <body>
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <geom type="sphere" size="{RADIUS}" mass="1" contype="0" conaffinity="1"/>
    </body>
  </worldbody>
  <actuator>
    <general joint="x" ctrlrange="-1 1" gainprm="{SPEED / LAG}" biastype="affine" biasprm="0 0 {-1 / LAG}"/>
    <general joint="y" ctrlrange="-1 1" gainprm="{SPEED / LAG}" biastype="affine" biasprm="0 0 {-1 / LAG}"/>
  </actuator>
</mujoco>"""


@dataclasses.dataclass(frozen=True, eq=False)
class PointMaze:
    """The task: observation (x, y, vx, vy) in cells and cells per second."""

    layout: tuple[str, ...]
    begin: np.ndarray  #           [2] middle of the start cell
    goal: np.ndarray  #            [2]
    obs_low: np.ndarray  #         [4]
    obs_high: np.ndarray  #        [4]
    observation_names: tuple[str, ...] = ("x", "y", "vx", "vy")

    @property
    def view(self) -> View:
        goal = ((float(self.goal[0]), float(self.goal[1]), -1.0), GOAL_RADIUS, (0.2, 0.7, 0.3, 1.0))
        # The rim is made of planes, which would be seen on edge and far into the depth.
        colours = {"box": (0.75, 0.75, 0.75, 1), "sphere": (0.2, 0.45, 0.9, 1), "plane": (0, 0, 0, 0)}
        return View((0.0, 0.0, 0.0), len(self.layout) - 1.0, colours=colours, marks=(goal,))

    def system(self, engine: str) -> System:
        model = mujoco.MjModel.from_xml_string(_mjcf(self.layout))
        return System(model, SUBSTEPS, *direct_control(model))

    def start(self, key: jax.Array) -> Start:
        noise = jax.random.uniform(key, (2,), jnp.float32, -START_NOISE, START_NOISE)
        qpos, qvel = jnp.asarray(self.begin, jnp.float32) + noise, jnp.zeros(2, jnp.float32)
        return Start(Readout(qpos, qvel, jnp.zeros((0, 3)), jnp.zeros((), bool)), qpos, qvel, ())

    def fields(self, params: tuple[()]) -> tuple[()]:
        return ()

    def observe(self, readout: Readout) -> jax.Array:
        return jnp.concatenate([readout.qpos, readout.qvel])

    def restore(self, obs: jax.Array, first_obs: jax.Array, recorded: dict) -> tuple[jax.Array, jax.Array, tuple[()]]:
        return obs[:2], obs[2:], ()

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        """Reward 1 and the end within `GOAL_RADIUS` of the goal."""
        reached = jnp.linalg.norm(next_obs[:2] - jnp.asarray(self.goal, jnp.float32)) <= GOAL_RADIUS
        return Outcome(reached.astype(jnp.float32), reached, reached)


def task(info: TaskInfo) -> PointMaze:
    """The maze task of that name."""
    layout = LAYOUTS[info.name]
    reach = np.array([len(layout[0]) / 2 - 1, len(layout) / 2 - 1, 1.2 * SPEED, 1.2 * SPEED], np.float32)
    return PointMaze(layout, find(layout, "R"), find(layout, "G"), -reach, reach)
