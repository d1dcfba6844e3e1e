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
    score: (
        str  #                  the published metric: "success" (of the episode), "solved" (share of the horizon's steps solved) or "return"
    )
    demonstrator: str  #           one line on where demonstrations come from
    extra: str | None = None  #    the pip extra that it needs
    suite: str | None = None  #    the published suite it belongs to, for which authors state settings: "adroit", "antmaze"
    module: str = ""  #            the module whose `task(name)` builds it


_BOTH = ("mjx", "mujoco")
_ADROIT = {
    "engines": _BOTH,
    "default_engine_cpu": "mujoco",
    "score": "solved",
    "demonstrator": "a trained DAPG policy from an .npz file, with optional Gaussian noise",
    "extra": "adroit",
    "suite": "adroit",
}

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
            name="pen",
            summary="Adroit pen: a 24-joint hand turns a pen to a given direction; reward -1 per step, 0 while it points there",
            obs_size=45,
            action_size=24,
            horizon=100,
            **_ADROIT,
            module="envs.adroit.pen",
        ),
        TaskInfo(
            name="door",
            summary="Adroit door: a 24-joint hand undoes a latch and opens a door; reward -1 per step, 0 while the door is open",
            obs_size=39,
            action_size=28,
            horizon=200,
            **_ADROIT,
            module="envs.adroit.door",
        ),
        TaskInfo(
            name="relocate",
            summary="Adroit relocate: a hand on an arm carries a ball to a place in the air; reward -1 per step, 0 while it is there",
            obs_size=39,
            action_size=30,
            horizon=200,
            **_ADROIT,
            module="envs.adroit.relocate",
        ),
        TaskInfo(
            name="hammer",
            summary="Adroit hammer: a 24-joint hand takes a hammer and drives a nail in; reward -1 per step, 0 while the nail is in",
            obs_size=46,
            action_size=26,
            horizon=200,
            **_ADROIT,
            module="envs.adroit.hammer",
        ),
        _antmaze("antmaze-umaze", "umaze", ""),
        *(_antmaze(f"antmaze-{size}-{data}", size, data) for size in ("umaze", "medium", "large") for data in ("play", "diverse")),
        _antmaze("antmaze-minari-umaze", "umaze", ""),
        _antmaze("antmaze-minari-umaze-diverse", "umaze", "diverse"),
        *(_antmaze(f"antmaze-minari-{size}-{data}", size, data) for size in ("medium", "large") for data in ("play", "diverse")),
    )
}


# Prefixes of tasks that other packages bring along, with what follows them: `envs/adapters` has a module for each.
ADAPTERS = {
    "brax": "brax:NAME, an environment of brax, such as brax:ant",
    "playground": "playground:NAME, one of MuJoCo Playground, such as playground:FingerTurnHard (extra `playground`)",
    "gym": "gym:ID, any Gymnasium environment with Box spaces, such as gym:AdroitHandDoorSparse-v1, stepped in Python",
}


def info(name: str) -> TaskInfo:
    """What is known of the task `name`: a key of `TASKS`, or a prefix of `ADAPTERS` with a name of that package, which is then imported.

    Raises:
        envs.core.TaskError: an unknown task, with the nearest names, or a missing package.
    """
    if name in TASKS:
        return TASKS[name]
    from envs.core import TaskError

    kind, colon, rest = name.partition(":")
    if colon and kind in ADAPTERS:
        return importlib.import_module(f"envs.adapters.{kind}").info(rest)
    near = difflib.get_close_matches(name, TASKS, n=3, cutoff=0.4)
    guess = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(TASKS)}"
    raise TaskError(f"unknown task {name!r}; {guess}")


def make(name: str, engine: str = "auto") -> Environment:
    """The environment `name` on `engine`.

    Args:
        name: as of `info`.
        engine: "mjx", "mujoco", or "auto": the task's own choice on a CPU backend, "mjx" elsewhere. Tasks of other packages have one engine,
            whatever is asked for here.

    Raises:
        envs.core.TaskError: unknown task or engine, a missing package, or mujoco and mujoco-mjx of different versions.
    """
    from envs.core import TaskError
    from envs.environment import TaskEnvironment
    from envs.physics import build

    known = info(name)
    if name not in TASKS:
        return importlib.import_module(known.module).make(known)
    if engine == "auto":
        import jax

        engine = known.default_engine_cpu if jax.default_backend() == "cpu" else "mjx"
    if engine not in known.engines:
        raise TaskError(f"task {name!r} has no engine {engine!r}; expected one of auto, {', '.join(known.engines)}")
    task = importlib.import_module(known.module).task(known)
    return TaskEnvironment(info=known, engine=engine, task=task, physics=build(task.system(engine), engine))
