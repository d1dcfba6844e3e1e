"""Walking to waypoints: how AntMaze's demonstrator moves, and the environment in which it learns to.

The ant looks the same from four sides. Seen from the torso, a waypoint lies within 45 degrees of one of them; legs are renamed so that this
side is always the front. The walker then only ever walks ahead, whichever way it stands, and one that has learnt a quarter has learnt all.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs import ant, antmaze
from envs.core import Outcome, State, TaskError
from envs.environment import TaskEnvironment
from envs.physics import build
from envs.registry import TaskInfo

FEATURES = 28
POLICY = Path(__file__).parent / "assets" / "ant_walker.npz"
HORIZON = 300  #           control steps of a training episode, 30 s
NEXT_WAYPOINT = 4.0  #     metres, a maze's cell
ARRIVED = 1.2  #           metres from a waypoint at which the next one counts
UPRIGHT = 0.2  #           cosine of the torso's tilt, and metres of its height, below which the walker has fallen
EFFORT = 0.05  #           cost of a full action, against metres per second

_BENDS = np.array([bend for _, _, bend in ant.LEGS], np.float32)
_ACTUATOR_LEGS = np.array(ant.ACTUATOR_LEGS)


def rotation(quaternion: jax.Array) -> jax.Array:
    """[3, 3] torso to world of a quaternion [4] (w, x, y, z)."""
    w, x, y, z = quaternion
    return jnp.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def egocentric(obs: jax.Array, waypoint: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the walker sees of an AntMaze observation [29] on its way to (x, y) `waypoint`: (features [28], side [] int32).

    Features: height, the world's up, velocity and angular velocity in the frame of the side that faces the waypoint, hips, ankles (bent
    outwards is positive) and their speeds from that side's left leg on, the direction to the waypoint. `side` is that side, in quarter turns.
    """
    torso = rotation(obs[3:7])
    heading = jnp.arctan2(torso[1, 0], torso[0, 0])
    away = waypoint - obs[:2]
    bearing = jnp.arctan2(away[1], away[0]) - heading
    side = jnp.round(bearing / (jnp.pi / 2)).astype(jnp.int32) % 4
    turn = side * (jnp.pi / 2)
    cos, sin = jnp.round(jnp.cos(turn)), jnp.round(jnp.sin(turn))
    face = lambda v: jnp.stack([cos * v[0] + sin * v[1], cos * v[1] - sin * v[0], v[2]])
    joints, speeds = obs[7:15].reshape(4, 2), obs[21:29].reshape(4, 2)
    bent = jnp.stack([jnp.ones(4), jnp.asarray(_BENDS)], axis=1)
    joints, speeds = (jnp.roll(bent * value, -side, axis=0).T.reshape(8) for value in (joints, speeds))
    direction = jnp.stack([jnp.cos(bearing - turn), jnp.sin(bearing - turn)])
    return jnp.concatenate([obs[2:3], face(torso[2]), face(torso.T @ obs[15:18]), face(obs[18:21]), joints, speeds, direction]), side


def to_actuators(action: jax.Array, side: jax.Array) -> jax.Array:
    """The ant's action [8] of the walker's [8], hips then ankles from the left leg of the `side` that faces the waypoint on."""
    legs = jnp.roll(action.reshape(2, 4).T, side, axis=0) * jnp.stack([jnp.ones(4), jnp.asarray(_BENDS)], axis=1)
    return legs[_ACTUATOR_LEGS].reshape(8)


class Walk(NamedTuple):
    """The params of an episode of walking."""

    seed: jax.Array  #      [] uint32, from which the waypoints come
    passed: jax.Array  #    [] int32, waypoints passed
    waypoint: jax.Array  #  [2]
    ant: jax.Array  #       [29] the AntMaze observation


@dataclasses.dataclass(frozen=True, eq=False)
class AntWalk:
    """An environment (envs.core) of D4RL's ant on an open floor: from waypoint to waypoint, each `NEXT_WAYPOINT` away in any direction.

    Observation and action are the walker's. The reward of a step is the approach to the waypoint in metres per second, less `EFFORT` times
    the mean squared action; a fall terminates.
    """

    ant: TaskEnvironment
    name: str = "ant-walk"
    obs_size: int = FEATURES
    action_size: int = 8
    horizon: int = HORIZON
    score: str = "success"

    @property
    def engine(self) -> str:
        return self.ant.engine

    @property
    def observation_names(self) -> tuple[str, ...]:
        vectors = [f"{what}_{axis}" for what in ("up", "velocity", "turning") for axis in ("ahead", "left", "up")]
        joints = [f"{joint}_{leg}" for joint in ("hip", "ankle") for leg in range(4)]
        return ("height", *vectors, *joints, *(f"{name}_speed" for name in joints), "waypoint_ahead", "waypoint_left")

    def reset(self, key: jax.Array) -> State:
        key_ant, key_walk = jax.random.split(key)
        state = self.ant.reset(key_ant)
        seed, none = jax.random.bits(key_walk, dtype=jnp.uint32), jnp.zeros((), jnp.int32)
        return self._seen(state, Walk(seed, none, self._next(seed, none, state.obs[:2]), state.obs))

    def step(self, state: State, action: jax.Array) -> State:
        walk = state.params
        _, side = egocentric(walk.ant, walk.waypoint)
        before = dataclasses.replace(state, obs=walk.ant, params=walk.waypoint)
        after = self.ant.step(before, to_actuators(jnp.clip(action, -1.0, 1.0), side))
        left = lambda obs: jnp.linalg.norm(walk.waypoint - obs[:2])
        model = self.ant.physics.system
        speed = (left(walk.ant) - left(after.obs)) / (model.substeps * model.model.opt.timestep)
        fallen = (rotation(after.obs[3:7])[2, 2] < UPRIGHT) | (after.obs[2] < UPRIGHT)
        arrived = left(after.obs) < ARRIVED
        passed = walk.passed + arrived
        waypoint = jnp.where(arrived, self._next(walk.seed, passed, after.obs[:2]), walk.waypoint)
        reward = speed - EFFORT * jnp.mean(jnp.square(jnp.clip(action, -1.0, 1.0)))
        after = dataclasses.replace(after, reward=reward, terminated=fallen, truncated=after.truncated & ~fallen, success=arrived)
        return self._seen(after, Walk(walk.seed, passed, waypoint, after.obs))

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        """Not defined: a walker's observations do not tell how far it came.

        Raises:
            TaskError: always.
        """
        raise TaskError("ant-walk: the reward of walking is no function of its observations")

    def _next(self, seed: jax.Array, passed: jax.Array, place: jax.Array) -> jax.Array:
        angle = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), passed), maxval=2 * jnp.pi)
        return place + NEXT_WAYPOINT * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def _seen(self, state: State, walk: Walk) -> State:
        return dataclasses.replace(state, obs=egocentric(walk.ant, walk.waypoint)[0], params=walk)


def ant_walk(engine: str) -> AntWalk:
    """The walking environment on "mjx" or "mujoco"."""
    task = antmaze.ant_maze(("R" + 8 * " " + "G",), antmaze.D4RL, "")  # nothing but floor
    info = TaskInfo("ant-walk", "", 29, 8, HORIZON, ("mjx", "mujoco"), "mujoco", "success", "")
    return AntWalk(TaskEnvironment(info=info, engine=engine, task=task, physics=build(task.system(engine), engine)))


def walker(source: str | Path | dict[str, np.ndarray] = POLICY) -> Any:
    """The trained walker: features [28] -> action [8], without noise, for `to_actuators`.

    Its file holds `mean` and `deviation` of the features, the layers w0, b0, ... of a swish network whose output goes through tanh, and
    `provenance`, a JSON text: how it was trained and how well it walks. The default one is part of this package.

    Raises:
        TaskError: no such file, or not such a policy.
    """
    arrays = source if isinstance(source, dict) else _load(Path(source))
    depth = sum(name.startswith("w") for name in arrays)
    layers = [(arrays[f"w{i}"], arrays[f"b{i}"]) for i in range(depth)]

    def act(features: jax.Array) -> jax.Array:
        x = (features - arrays["mean"]) / arrays["deviation"]
        for weight, bias in layers[:-1]:
            x = jax.nn.swish(x @ weight + bias)
        weight, bias = layers[-1]
        return jnp.tanh(x @ weight + bias)

    return act


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float32) for name in file.files if name != "provenance"}
    except (OSError, ValueError, EOFError) as error:
        raise TaskError(f"policy {path}: cannot be read as an .npz of arrays: {error}") from error
    sizes, depth = [FEATURES], 0
    while f"w{depth}" in arrays and f"b{depth}" in arrays and arrays[f"w{depth}"].shape == (sizes[-1], arrays[f"b{depth}"].size):
        sizes.append(arrays[f"b{depth}"].size)
        depth += 1
    wanted = {"mean", "deviation", *(f"{letter}{i}" for i in range(depth) for letter in "wb")}
    if depth == 0 or sizes[-1] != 8 or set(arrays) != wanted or any(arrays[name].shape != (FEATURES,) for name in ("mean", "deviation")):
        raise TaskError(
            f"policy {path}: found {', '.join(sorted(arrays))}; expected a walker of {FEATURES} features and 8 actions: "
            "mean, deviation, w0, b0, w1, b1, ..."
        )
    return arrays
