"""AntMaze's demonstrator: the trained walker of envs.ant_walk, led from cell to cell by a maze planner, as D4RL's data were made."""

from __future__ import annotations

import dataclasses
from collections import deque
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from envs import ant, ant_walk
from envs.antmaze import AntMaze, middles
from envs.core import State
from envs.demonstrators import Demonstrator
from envs.environment import TaskEnvironment


@dataclasses.dataclass(frozen=True)
class AntQuality:
    """How well the ant is led. The defaults are those of D4RL's files (scripts/generation/generate_ant_maze_datasets.py)."""

    noise: float = 0.2  #           standard deviation of the action noise, as a share of D4RL's 30 N m
    waypoint_noise: float = 1.0  #  metres, width of the interval from which both axes of a waypoint are shifted anew at every step
    path: str | Path = ant_walk.POLICY


def next_cells(free: np.ndarray) -> np.ndarray:
    """[n, n] int: the cell after i on a shortest way to j, of cells [n, 2] (row, column) that border on each other; i where there is none."""
    index = {tuple(cell): i for i, cell in enumerate(free.tolist())}
    table = np.tile(np.arange(len(free))[:, None], (1, len(free)))
    for goal in range(len(free)):
        seen, waiting = {goal}, deque([goal])
        while waiting:
            here = waiting.popleft()
            row, column = free[here]
            around = (index.get(place) for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)))
            for cell in around:
                if cell is not None and cell not in seen:
                    seen.add(cell)
                    waiting.append(cell)
                    table[cell, goal] = here
    return table


def ant_demonstrator(env: TaskEnvironment, **quality: float | str | Path) -> Demonstrator:
    """Starts where the recorded episodes of `env`'s data set start, draws a goal of theirs and walks there; carry: (goal [2], next cell).

    As in D4RL the episode's own goal is not the task's: rewards and ends are the task's, for the middle of its goals. The walker was trained
    on D4RL's ant; gymnasium's, five times as strong, gets a fifth of its actions and of the noise. The policy file is `walker`'s.
    """
    q = AntQuality(**quality)
    task: AntMaze = env.task
    act_ahead = ant_walk.walker(q.path)
    strength = ant.D4RL.torque / task.rules.build.torque
    cells = jnp.asarray(middles(task.layout, task.rules, task.free), jnp.float32)
    table = jnp.asarray(next_cells(task.free))
    starts, goals = (jnp.asarray(a, jnp.float32) for a in task.recorded[:2])
    low = -q.waypoint_noise / 2 if task.rules.centred else 0.0

    def cell_of(place: jax.Array) -> jax.Array:
        return jnp.argmin(jnp.abs(cells - place).max(axis=1))

    def reset(key: jax.Array) -> State:
        key_cell, key_place, key_pose = jax.random.split(key, 3)
        cell = starts[jax.random.randint(key_cell, (), 0, len(starts))]
        place = cell + jax.random.uniform(key_place, (2,), jnp.float32, task.recorded.start_low, task.recorded.start_high)
        return env.state_of(task.start_at(place, jnp.asarray(task.goal_middle, jnp.float32), key_pose))

    def init(key: jax.Array, state: State):
        key_cell, key_goal = jax.random.split(key)
        start = cells[cell_of(state.obs[:2])]
        taken = task.recorded.distinct & (jnp.abs(goals - start).max(axis=1) < 1.0)
        cell = goals[jax.random.categorical(key_cell, jnp.where(taken, -jnp.inf, 0.0))]
        return task.draw_goal(cell, key_goal), cell_of(start)

    def act(carry, state: State, key: jax.Array):
        goal, ahead = carry
        key_waypoint, key_noise = jax.random.split(key)
        here, last = cell_of(state.obs[:2]), cell_of(goal)
        arrived = jnp.linalg.norm(cells[ahead] - state.obs[:2]) < ant_walk.ARRIVED
        ahead = jnp.where(arrived, table[ahead, last], ahead)
        ahead = jnp.where((ahead == here) | (ahead == table[here, last]), ahead, table[here, last])  # pushed off its way
        shift = low + q.waypoint_noise * jax.random.uniform(key_waypoint, (2,))
        waypoint = jnp.where(ahead == last, goal, cells[ahead] + shift)
        features, side = ant_walk.egocentric(state.obs, waypoint)
        action = ant_walk.to_actuators(act_ahead(features), side) + q.noise * jax.random.normal(key_noise, (8,))
        return jnp.clip(strength * action, -strength, strength), (goal, ahead)

    return Demonstrator(init, act, lambda carry: jnp.zeros((), jnp.int32), reset)
