"""antmaze-*: an ant walks to a goal through D4RL's mazes; reward 1 at the goal, 0 elsewhere. Twice, for two kinds of data.

`antmaze-{umaze,medium,large}-{play,diverse}` and `antmaze-umaze` follow D4RL (Fu et al. 2020, arXiv 2004.07219; d4rl/locomotion/ant.py,
maze_env.py, goal_reaching_env.py, wrappers.py and __init__.py of Farama-Foundation/D4RL) in its v2 form, `antmaze-minari-*` follow
gymnasium-robotics 1.4.2 (envs/maze/ant_maze_v4.py, maze_v4.py) as Minari's `D4RL/antmaze` sets were recorded and are evaluated:

                         antmaze-*                                            antmaze-minari-*
    ant (envs.ant)       torque 30, 10 Hz                                     torque 150, 20 Hz
    observation [29]     qpos 15, qvel 14                                     the same order: achieved_goal 2, then observation 27
    start                cell R; pose +-0.1 uniform, speeds 0.1 normal        cell R +-1 m uniform, at rest in the reference pose
    goal                 cell G + U(0, 1) + U(0, 0.5) m on each axis          cell G +-1 m uniform
    success              within 0.5 m                                         within 0.45 m
    at the goal          the episode terminates                               it goes on, 1 for every step there (continuing_task)
    horizon              700 (umaze), 1000                                    700 (umaze), 1000
    origin               the middle of cell R, y along rows                   the middle of the maze, y against rows

A cell is 4 m wide, walls are 2 m high. The goal is drawn anew for every episode (D4RL's `v2_resets`) and is no part of the observation, in
D4RL as here; a Minari set's desired_goal is left out likewise. So what `step` says depends on the episode's goal. `outcome`, which relabels
recorded data, cannot know it and takes the middle of the goal's distribution: one fixed goal, as D4RL relabelled its files with one
(scripts/generation/relabel_antmaze_rewards.py; it drew that goal once and did not publish it, so for its files recorded rewards are truer).

`play` and `diverse` are one task with two data sets (D4RL registers them with the same arguments): what differs is where the recorded
episodes start and what they aim at, `AntMaze.recorded`. Minari's umaze sets name a mirrored U as their evaluation maze, which no recorded
episode has seen; here it is the U they were recorded in, with their start and goal.

C MuJoCo steps the model as released. MJX steps `ant_model(few_contacts=True)`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs import ant
from envs.core import Outcome
from envs.environment import Start
from envs.physics import Readout, System, direct_control
from envs.registry import TaskInfo
from envs.rendering import View

CELL = 4.0  # metres
# '#' wall, 'R' start, 'G' or 'g' goal; 'G' and 'c' are the cells that D4RL's authors picked by hand as goals of recorded episodes
LAYOUTS = {
    "umaze": (
        "#####",
        "#R  #",
        "### #",
        "#G  #",
        "#####",
    ),
    "medium": (
        "########",
        "#R ##  #",
        "#  #  c#",
        "##   ###",
        "#  #   #",
        "#c#  # #",
        "#   #cg#",
        "########",
    ),
    "large": (
        "############",
        "#R   #c    #",
        "# ## # # # #",
        "#    c #  c#",
        "# #### ### #",
        "# c# #     #",
        "## # # # ###",
        "#  #c c# G #",
        "############",
    ),
    "minari-umaze": (  # driven the other way
        "#####",
        "#G  #",
        "### #",
        "#R  #",
        "#####",
    ),
}


@dataclasses.dataclass(frozen=True)
class Rules:
    """What differs between D4RL's and gymnasium-robotics' AntMaze, besides the ant. Metres and seconds."""

    build: ant.Build
    centred: bool  #                                 the origin is the middle of the maze and y runs against the rows; else D4RL's
    goal_radius: float
    terminates: bool  #                              at the goal
    goal_offset: tuple[tuple[float, float], ...]  #  uniform intervals, whose sum is added to each axis of the goal cell's middle
    start_offset: float  #                           half width of the uniform square round the start cell's middle
    pose_noise: float  #                             half width, uniform, of height, quaternion and joint angles
    speed_noise: float  #                            standard deviation, normal


D4RL = Rules(ant.D4RL, False, 0.5, True, ((0.0, 1.0), (0.0, 0.5)), 0.1, 0.1, 0.1)
MINARI = Rules(ant.GYMNASIUM, True, 0.45, False, ((-1.0, 1.0),), 1.0, 0.0, 0.0)


class Recorded(NamedTuple):
    """Where the episodes of a data set start and what they aim at: middles of cells, of which one each is drawn uniformly."""

    starts: np.ndarray  #      [cells, 2]
    goals: np.ndarray  #       [cells, 2]
    start_low: float  #        the interval that is added to each axis of the start
    start_high: float
    distinct: bool  #          start and goal are never one cell


@dataclasses.dataclass(frozen=True, eq=False)
class AntMaze:
    """The task: observation [29] of x, y, z, quaternion, 8 joint angles and their 14 velocities, in metres, radians and seconds.

    Velocities are MuJoCo's of a free joint: linear ones in the world's frame, angular ones in the torso's.
    """

    rules: Rules
    layout: tuple[str, ...]
    walls: np.ndarray  #           [W, 2] middles of the wall cells
    free: np.ndarray  #            [n, 2] (row, column) of the others
    begin: np.ndarray  #           [2] middle of the start cell
    goal: np.ndarray  #            [2] middle of the goal cell
    recorded: Recorded
    obs_low: np.ndarray  #         [29]
    obs_high: np.ndarray  #        [29]
    observation_names: tuple[str, ...]

    @property
    def goal_middle(self) -> np.ndarray:
        """[2] the mean of the goals that episodes draw: the goal that `outcome` judges by."""
        return self.goal + sum((low + high) / 2 for low, high in self.rules.goal_offset)

    @property
    def view(self) -> View:
        """The whole maze from straight above, with the middle of the goal's distribution."""
        low, high = self.walls.min(axis=0), self.walls.max(axis=0)
        width, height = high - low + CELL
        x, y = (low + high) / 2
        colours = {"box": (0.75, 0.75, 0.75, 1), "plane": (0.2, 0.25, 0.35, 1), "sphere": (0.9, 0.6, 0.2, 1), "capsule": (0.9, 0.6, 0.2, 1)}
        goal = (*(float(value) for value in self.goal_middle), 0.0)
        return View((float(x), float(y), 0.0), 1.1 * max(height, 0.75 * width), colours=colours, marks=((goal, 0.7, (0.2, 0.7, 0.3, 1.0)),))

    def system(self, engine: str) -> System:
        model = ant.ant_model(self.rules.build, self.walls, cell=CELL, few_contacts=engine == "mjx")
        return System(model, ant.SUBSTEPS, *direct_control(model))

    def start(self, key: jax.Array) -> Start:
        """params: [2] the episode's goal."""
        key_goal, key_place, key_pose = jax.random.split(key, 3)
        reach = self.rules.start_offset
        place = jnp.asarray(self.begin, jnp.float32) + jax.random.uniform(key_place, (2,), jnp.float32, -reach, reach)
        return self.start_at(place, self.draw_goal(self.goal, key_goal), key_pose)

    def draw_goal(self, cell: jax.Array, key: jax.Array) -> jax.Array:
        """[2] a goal in the cell with that middle."""
        keys = jax.random.split(key, len(self.rules.goal_offset))
        offsets = [jax.random.uniform(k, (2,), jnp.float32, *span) for k, span in zip(keys, self.rules.goal_offset, strict=True)]
        return jnp.asarray(cell, jnp.float32) + sum(offsets)

    def start_at(self, place: jax.Array, goal: jax.Array, key: jax.Array) -> Start:
        """An ant at (x, y) `place` in the reference pose with the rules' noise, in an episode with that goal."""
        key_pose, key_speed = jax.random.split(key)
        rest = jnp.zeros(13, jnp.float32).at[:2].set(jnp.array([ant.HEIGHT, 1.0]))  # height, quaternion, joints
        noise = self.rules.pose_noise
        pose = rest + jax.random.uniform(key_pose, (13,), jnp.float32, -noise, noise) if noise else rest
        pose = pose.at[1:5].divide(jnp.linalg.norm(pose[1:5]))  # as MuJoCo did before D4RL read the first observation
        qvel = self.rules.speed_noise * jax.random.normal(key_speed, (14,), jnp.float32)
        qpos = jnp.concatenate([place, pose])
        return Start(Readout(qpos, qvel, jnp.zeros((0, 3)), jnp.zeros((), bool)), qpos, qvel, goal)

    def fields(self, params: jax.Array) -> tuple[()]:
        return ()

    def observe(self, readout: Readout) -> jax.Array:
        return jnp.concatenate([readout.qpos, readout.qvel])

    def restore(self, obs: jax.Array, first_obs: jax.Array, recorded: dict) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(qpos, qvel, goal): the observation is the state; the goal is not in it, so that of `outcome` is taken."""
        return obs[:15], obs[15:], jnp.asarray(self.goal_middle, jnp.float32)

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        """`episode_outcome` for the middle of the goal's distribution."""
        return self.episode_outcome(jnp.asarray(self.goal_middle, jnp.float32), obs, action, next_obs)

    def episode_outcome(self, params: jax.Array, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        """Reward 1 within the goal radius of the episode's goal `params` [2], and the end there where the rules say so."""
        reached = jnp.linalg.norm(next_obs[:2] - params) <= self.rules.goal_radius
        return Outcome(reached.astype(jnp.float32), reached, reached & self.rules.terminates)


OBSERVATION_NAMES = (
    *("x", "y", "z", "qw", "qx", "qy", "qz", *ant.JOINTS),
    *("vx", "vy", "vz", "wx", "wy", "wz", *(f"{name}_speed" for name in ant.JOINTS)),
)


def cells(layout: tuple[str, ...], marks: str) -> np.ndarray:
    """[n, 2] (row, column) of the cells that carry one of `marks`."""
    return np.array([(r, c) for r, line in enumerate(layout) for c, mark in enumerate(line) if mark in marks])


def middles(layout: tuple[str, ...], rules: Rules, places: np.ndarray) -> np.ndarray:
    """[n, 2] (x, y) in metres of the middles of cells [n, 2] (row, column)."""
    row, column = np.asarray(places, float).reshape(-1, 2).T
    if rules.centred:
        return CELL * np.stack([column - (len(layout[0]) - 1) / 2, (len(layout) - 1) / 2 - row], axis=1)
    first = cells(layout, "R")[0]
    return CELL * np.stack([column - first[1], row - first[0]], axis=1)


def _recorded(layout: tuple[str, ...], rules: Rules, data: str) -> Recorded:
    """Where the episodes of the data set `data` ("play", "diverse" or "", one start and one goal) start and end.

    D4RL: scripts/generation/generate_ant_maze_datasets.py with --multi_start for both; play aims at the cells picked by hand and starts in
    any other, diverse starts and ends in any. Minari: scripts/antmaze/create_antmaze_dataset.py; there the umaze's diverse set and every
    play set take any cells, the other diverse sets the start and the cells picked by hand.
    """
    at = lambda marks: middles(layout, rules, cells(layout, marks))
    offset = (-rules.start_offset, rules.start_offset) if rules.centred or not data else (0.0, 1.0)
    if not data:
        starts, goals = at("R"), at("Gg")
    elif rules.centred:
        starts = goals = at("RGc") if data == "diverse" and "c" in "".join(layout) else at("RGgc ")
    else:
        starts, goals = (at("Rg "), at("Gc")) if data == "play" else (at("RGgc "), at("RGgc "))
    return Recorded(starts, goals, *offset, distinct=rules.centred)


def maze_of(name: str) -> tuple[tuple[str, ...], Rules, str]:
    """(layout, rules, data) of a task's name."""
    parts = name.removeprefix("antmaze-").split("-")
    rules = MINARI if parts[0] == "minari" else D4RL
    size, data = (*parts[parts[0] == "minari" :], "")[:2]
    return LAYOUTS["minari-umaze" if rules is MINARI and (size, data) == ("umaze", "") else size], rules, data


def ant_maze(layout: tuple[str, ...], rules: Rules, data: str) -> AntMaze:
    """The task in a maze of one's own."""
    at = lambda marks: middles(layout, rules, cells(layout, marks))
    corners = middles(layout, rules, np.array([(0, 0), (len(layout) - 1, len(layout[0]) - 1)]))
    # Joints leave their ranges by some tenths of a radian; a fall from a wall reaches about 10 m/s and 30 rad/s.
    joints, speeds, turns = np.tile([0.9, 1.6], 4), np.full(3, 12.0), np.full(3, 40.0)
    reach = np.concatenate([[2.5], np.full(4, 1.01), joints, speeds, turns, np.full(8, 40.0)])
    low = np.concatenate([corners.min(0), [0.0], -reach[1:]])
    return AntMaze(
        rules=rules,
        layout=layout,
        walls=at("#"),
        free=cells(layout, "RGgc "),
        begin=at("R")[0],
        goal=at("Gg")[0],
        recorded=_recorded(layout, rules, data),
        obs_low=low.astype(np.float32),
        obs_high=np.concatenate([corners.max(0), reach]).astype(np.float32),
        observation_names=OBSERVATION_NAMES,
    )


def task(info: TaskInfo) -> AntMaze:
    """The AntMaze task of that name."""
    return ant_maze(*maze_of(info.name))
