"""The tasks by name. Imports neither JAX nor MuJoCo, so that a command line can list them at once."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envs.core import Environment


@dataclasses.dataclass(frozen=True)
class TaskInfo:
    """What is known of a task before anything is built."""

    name: str
    summary: str  #                one line
    obs_size: int
    action_size: int
    horizon: int  #                control steps until truncation
    engines: tuple[str, ...]  #    the engines it runs on: "mjx" (inside the program), "mujoco" (C, a callback to the CPU)
    default_engine_cpu: str  #     what "auto" means on a CPU; elsewhere "auto" is "mjx"
    score: str  #                  the published metric: "success" (of the episode) or "solved" (share of the horizon's steps solved)
    demonstrator: str  #           one line on where demonstrations come from
    extra: str | None = None  #    the pip extra that it needs
    suite: str | None = None  #    the published suite it belongs to, for which authors state settings: "adroit", "antmaze"
    module: str = ""  #            the module whose `task(name)` builds it


_BOTH = ("mjx", "mujoco")

_ANT_DATA = {"": "from its start to its goal", "play": "from any cell to goals picked by hand", "diverse": "from any cell to any cell"}


def _antmaze(name: str, size: str, data: str) -> TaskInfo:
    minari = name.startswith("antmaze-minari")
    picked = " (of those picked by hand)" if minari and data == "diverse" and size != "umaze" else ""
    recorded = _ANT_DATA["diverse" if minari and data == "play" else data] + picked
    return TaskInfo(
        name=name,
        summary=f"walk {'gymnasium' if minari else 'D4RL'}'s ant through D4RL's {size} maze; sparse 0/1 reward"
        + (", goes on at the goal" if minari else ", ends at the goal"),
        obs_size=29,
        action_size=8,
        horizon=700 if size == "umaze" else 1000,
        engines=_BOTH,
        default_engine_cpu="mujoco",
        score="success",
        demonstrator=f"a trained walking policy led by a maze planner, {recorded}, with action noise",
        suite="antmaze",
        module="envs.antmaze",
    )


TASKS: dict[str, TaskInfo] = {
    info.name: info
    for info in (
        TaskInfo(
            name="point-umaze",
            summary="drive a point mass round D4RL's U-shaped maze; sparse 0/1 reward, ends at the goal",
            obs_size=4,
            action_size=2,
            horizon=100,
            engines=_BOTH,
            default_engine_cpu="mjx",
            score="success",
            demonstrator="noisy waypoint follower at about a third of the possible speed, on the inner or the outer side of the corridor",
            module="envs.maze",
        ),
        TaskInfo(
            name="point-medium",
            summary="drive a point mass through D4RL's medium maze, where two corridors lead to the goal; sparse 0/1 reward",
            obs_size=4,
            action_size=2,
            horizon=200,
            engines=_BOTH,
            default_engine_cpu="mjx",
            score="success",
            demonstrator="noisy waypoint follower at about a third of the possible speed that picks one of the two corridors at random",
            module="envs.maze",
        ),
        TaskInfo(
            name="push-disc",
            summary="push a disc past a round obstacle into a goal region; sparse 0/1 reward, ends at the goal",
            obs_size=10,
            action_size=2,
            horizon=100,
            engines=_BOTH,
            default_engine_cpu="mjx",
            score="success",
            demonstrator="noisy scripted pusher that goes round the obstacle on either side",
            module="envs.push",
        ),
        TaskInfo(
            name="door",
            summary="Adroit door: a 24-joint hand undoes a latch and opens a door; reward -1 per step, 0 while the door is open",
            obs_size=39,
            action_size=28,
            horizon=200,
            engines=_BOTH,
            default_engine_cpu="mujoco",
            score="solved",
            demonstrator="a trained DAPG policy from an .npz file, with optional Gaussian noise",
            extra="adroit",
            suite="adroit",
            module="envs.adroit",
        ),
        _antmaze("antmaze-umaze", "umaze", ""),
        *(_antmaze(f"antmaze-{size}-{data}", size, data) for size in ("umaze", "medium", "large") for data in ("play", "diverse")),
        _antmaze("antmaze-minari-umaze", "umaze", ""),
        _antmaze("antmaze-minari-umaze-diverse", "umaze", "diverse"),
        *(_antmaze(f"antmaze-minari-{size}-{data}", size, data) for size in ("medium", "large") for data in ("play", "diverse")),
    )
}


def make(name: str, engine: str = "auto") -> Environment:
    """The environment `name` on `engine`.

    Args:
        name: a key of `TASKS`.
        engine: "mjx", "mujoco", or "auto": the task's own choice on a CPU backend, "mjx" elsewhere.

    Raises:
        envs.core.TaskError: unknown task or engine, a missing package, or mujoco and mujoco-mjx of different versions.
    """
    from envs.core import TaskError
    from envs.environment import TaskEnvironment
    from envs.physics import build

    info = TASKS.get(name)
    if info is None:
        near = difflib.get_close_matches(name, TASKS, n=3, cutoff=0.4)
        guess = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(TASKS)}"
        raise TaskError(f"unknown task {name!r}; {guess}")
    if engine == "auto":
        import jax

        engine = info.default_engine_cpu if jax.default_backend() == "cpu" else "mjx"
    if engine not in info.engines:
        raise TaskError(f"task {name!r} has no engine {engine!r}; expected one of auto, {', '.join(info.engines)}")
    task = importlib.import_module(info.module).task(info)
    return TaskEnvironment(info=info, engine=engine, task=task, physics=build(task.system(engine), engine))
