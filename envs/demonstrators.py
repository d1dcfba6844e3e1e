"""Scripted and trained demonstrators: where the offline data of the suite's own tasks comes from.

A demonstrator is two pure functions of one row, so that a whole batch of demonstrations is one vmapped scan. They are made to leave room:
slower than the task allows, noisy, in several distinct ways of doing the task, and not always successful.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs import maze, push
from envs.core import Environment, State, TaskError
from envs.registry import TASKS


@dataclasses.dataclass(frozen=True)
class Demonstrator:
    """`init(key, state) -> carry` at the start of an episode, then `act(carry, state, key) -> (action [A], carry)` at every step."""

    init: Callable[[jax.Array, State], Any]
    act: Callable[[Any, State, jax.Array], tuple[jax.Array, Any]]
    route: Callable[[Any], jax.Array]  # carry -> [] int32, which way of doing the task this episode has chosen; for statistics
    reset: Callable[[jax.Array], State] | None = None  # key -> the first state of a demonstration, where that is not the task's own


def demonstrator(env: Environment, **quality: Any) -> Demonstrator:
    """The demonstrator of a task.

    Args:
        env: an environment of `envs.make`.
        quality: fields of `MazeQuality`, `PushQuality` or `envs.ant_demonstrator.AntQuality`; for the Adroit tasks `path` (an .npz policy, required)
            and `noise`.

    Raises:
        TaskError: a task without a demonstrator, or a setting that it does not have.
    """
    makers = {"point-umaze": maze_demonstrator, "point-medium": maze_demonstrator, "push-disc": push_demonstrator}
    makers |= dict.fromkeys(("pen", "door", "relocate", "hammer"), policy_demonstrator)
    makers |= {name: _ant_demonstrator for name in TASKS if name.startswith("antmaze-")}
    if env.name not in makers:
        raise TaskError(f"task {env.name!r} has no demonstrator; these have: {', '.join(makers)}")
    try:
        return makers[env.name](env, **quality)
    except TypeError as error:
        raise TaskError(f"demonstrator of {env.name!r}: {error}") from error


def _ant_demonstrator(env: Environment, **quality: Any) -> Demonstrator:
    from envs.ant_demonstrator import ant_demonstrator

    return ant_demonstrator(env, **quality)


# --- point mazes ------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MazeQuality:
    """How well the maze demonstrator drives."""

    pace: float = 0.36  #         mean share of the full action along the way
    pace_spread: float = 0.12  #  half width of the episode's uniform pace
    lane: float = 0.22  #         cells, how far from the corridor's middle the two lanes run (umaze)
    jitter: float = 0.08  #       cells, standard deviation of the episode's waypoints
    noise: float = 0.3  #         standard deviation of the action noise
    detour: float = 0.35  #       probability of the longer of the two corridors (medium)


# Chosen so that the horizon is tight at this pace: a policy cloned from 20 episodes succeeds in about two of three.
_MAZE_DEFAULTS = {"point-umaze": {"pace": 0.31, "pace_spread": 0.07}, "point-medium": {}}

# Ways through the mazes as cells (row, column). In the U there is one, driven in two lanes; in the medium maze the second one takes the
# loop through the lower left, six cells longer.
_MAZE_ROUTES = {
    "point-umaze": (((1, 1), (1, 3), (3, 3), (3, 1)),) * 2,
    "point-medium": (
        ((1, 1), (2, 2), (3, 2), (3, 4), (4, 4), (4, 6), (6, 6)),
        ((1, 1), (2, 2), (4, 2), (4, 1), (6, 1), (6, 3), (5, 3), (5, 4), (4, 4), (4, 6), (6, 6)),
    ),
}


def _maze_waypoints(name: str, lane: float) -> np.ndarray:
    """[routes, W, 2]; shorter routes end in repetitions of the goal."""
    layout = maze.LAYOUTS[name]
    routes = [[maze.cell_centre(layout, *cell) for cell in route] for route in _MAZE_ROUTES[name]]
    length = max(map(len, routes))
    points = np.array([route + [route[-1]] * (length - len(route)) for route in routes])
    if name == "point-umaze":
        # The bend's corners, moved towards its inside on route 0 and towards its outside on route 1; the ends of the U stay.
        inward = np.array([[0, 1], [-1, 1], [-1, -1], [0, 0]])
        points = points + lane * np.array([1, -1])[:, None, None] * inward
    return points


def maze_demonstrator(env: Environment, **quality: float) -> Demonstrator:
    """Follows one of two ways from waypoint to waypoint, at an episode's own pace, with noise. carry: (route, waypoints, pace, index)."""
    q = MazeQuality(**_MAZE_DEFAULTS[env.name] | quality)
    routes = jnp.asarray(_maze_waypoints(env.name, q.lane), jnp.float32)
    share = q.detour if env.name == "point-medium" else 0.5
    close = 0.3

    def init(key: jax.Array, state: State):
        keys = jax.random.split(key, 3)
        route = jax.random.bernoulli(keys[0], share).astype(jnp.int32)
        points = routes[route] + q.jitter * jax.random.normal(keys[1], routes.shape[1:])
        pace = q.pace + q.pace_spread * jax.random.uniform(keys[2], minval=-1.0, maxval=1.0)
        return route, points, pace, jnp.ones((), jnp.int32)

    def act(carry, state: State, key: jax.Array):
        route, points, pace, index = carry
        position, velocity = state.obs[:2], state.obs[2:]
        arrived = jnp.linalg.norm(points[index] - position) < close
        index = jnp.minimum(index + arrived, len(points) - 1)
        away = points[index] - position
        wanted = pace * away / jnp.maximum(jnp.linalg.norm(away), 1e-6)
        action = wanted + 0.5 * (wanted - velocity / maze.SPEED) + q.noise * jax.random.normal(key, (2,))
        return jnp.clip(action, -1.0, 1.0), (route, points, pace, index)

    return Demonstrator(init, act, lambda carry: carry[0])


# --- push-disc --------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PushQuality:
    """How well the pushing demonstrator pushes."""

    pace: float = 0.6  #      share of the full action
    width: float = 1.7  #     metres, how far from the post's middle the disc is led past it
    jitter: float = 0.2  #    metres, standard deviation of the episode's waypoints
    noise: float = 0.1  #     standard deviation of the action noise


def push_demonstrator(env: Environment, **quality: float) -> Demonstrator:
    """Leads the disc over three waypoints past the post on one side, pushing from behind. carry: (side, waypoints, index)."""
    q = PushQuality(**quality)
    reach = push.PUSHER_RADIUS + push.DISC_RADIUS
    way = jnp.array([[-0.6, q.width], [0.8, q.width], [push.GOAL[0], push.GOAL[1]]], jnp.float32)

    def init(key: jax.Array, state: State):
        keys = jax.random.split(key, 2)
        upper = jax.random.bernoulli(keys[0])
        points = way * jnp.array([1.0, jnp.where(upper, 1.0, -1.0)]) + q.jitter * jax.random.normal(keys[1], way.shape)
        return upper.astype(jnp.int32), points, jnp.zeros((), jnp.int32)

    def act(carry, state: State, key: jax.Array):
        side, points, index = carry
        pusher, disc = state.obs[:2], state.obs[2:4]
        index = jnp.minimum(index + (disc[0] > points[index, 0] - 0.2), len(points) - 1)
        away = points[index] - disc
        forward = away / jnp.maximum(jnp.linalg.norm(away), 1e-6)
        left = jnp.array([-forward[1], forward[0]])
        along, across = jnp.dot(pusher - disc, forward), jnp.dot(pusher - disc, left)
        behind = (along < -0.6 * reach) & (jnp.abs(across) < 0.5 * reach)
        # Behind the disc: push, steering back towards the line. Elsewhere: go to a point behind it, round its side.
        push_on = forward - 1.2 * across * left
        beside = along > -0.8 * reach
        turn = jnp.where(across >= 0, 1.0, -1.0)
        target = jnp.where(beside, disc - 1.2 * reach * forward + turn * 1.5 * reach * left, disc - 1.35 * reach * forward)
        go = target - pusher
        wanted = jnp.where(behind, push_on, go / 0.4)
        wanted = q.pace * wanted / jnp.maximum(jnp.linalg.norm(wanted), 1.0)
        action = wanted + q.noise * jax.random.normal(key, (2,))
        return jnp.clip(action, -1.0, 1.0), (side, points, index)

    return Demonstrator(init, act, lambda carry: carry[0])


# --- Adroit -----------------------------------------------------------------------------------------------------------------------------


def mlp_policy(path: str | Path) -> Callable[[jax.Array], jax.Array]:
    """A trained policy of aravindr93/hand_dapg (Rajeswaran et al. 2018, arXiv 1709.10087): obs [O] -> the mean action [A], unclipped.

    The .npz holds a network of two tanh layers: w0, b0, w1, b1, w2, b2, in_shift, in_scale, out_shift, out_scale.

    Raises:
        TaskError: no such file, not an .npz of arrays, or one of those arrays missing or of a wrong shape.
    """
    names = ("w0", "b0", "w1", "b1", "w2", "b2", "in_shift", "in_scale", "out_shift", "out_scale")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise TaskError(f"policy {path}: found no array {missing[0]!r}; expected {', '.join(names)}")
            p = {name: np.asarray(file[name], np.float32) for name in names}
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(f"policy {path}: cannot be read as an .npz of arrays: {error}") from error
    sizes = [p["in_shift"].size, p["b0"].size, p["b1"].size, p["out_shift"].size]
    for i in range(3):
        if p[f"w{i}"].shape != (sizes[i + 1], sizes[i]):
            raise TaskError(f"policy {path}: w{i} is of shape {p[f'w{i}'].shape}; expected {(sizes[i + 1], sizes[i])}")

    def policy(obs: jax.Array) -> jax.Array:
        x = (obs - p["in_shift"]) / (p["in_scale"] + 1e-8)
        x = jnp.tanh(p["w0"] @ x + p["b0"])
        x = jnp.tanh(p["w1"] @ x + p["b1"])
        return (p["w2"] @ x + p["b2"]) * p["out_scale"] + p["out_shift"]

    return policy


def policy_noise(path: str | Path) -> np.ndarray:
    """[A] or [] the standard deviations with which a policy was trained, exp of its `log_std`; 1 where the file has none."""
    with np.load(path, allow_pickle=False) as file:
        return np.exp(np.asarray(file["log_std"], np.float32)) if "log_std" in file else np.ones((), np.float32)


def policy_demonstrator(env: Environment, *, path: str | Path, noise: float = 0.0) -> Demonstrator:
    """A trained policy from `path`, with Gaussian action noise of `noise` times the policy's own standard deviations. No carry.

    Raises:
        TaskError: see `mlp_policy`; or a policy for another task.
    """
    policy = mlp_policy(path)
    try:
        shape = jax.eval_shape(policy, jax.ShapeDtypeStruct((env.obs_size,), jnp.float32)).shape
    except TypeError:
        shape = None
    if shape != (env.action_size,):
        raise TaskError(f"policy {path} is not one for {env.name!r}: expected {env.obs_size} observations and {env.action_size} actions")
    spread = noise * policy_noise(path)
    if spread.shape not in ((), (env.action_size,)):
        raise TaskError(f"policy {path}: log_std is of shape {spread.shape}; expected {(env.action_size,)}")

    def act(carry, state: State, key: jax.Array):
        return jnp.clip(policy(state.obs) + spread * jax.random.normal(key, (env.action_size,)), -1.0, 1.0), carry

    return Demonstrator(lambda key, state: (), act, lambda carry: jnp.zeros((), jnp.int32))
