"""`playground:NAME`: the environments of MuJoCo Playground 0.2 (Zakka et al. 2025, arXiv 2502.08844), on MJX's JAX implementation.

Its dm_control tasks need no network; its locomotion and manipulation tasks fetch models when they are loaded.
"""

from __future__ import annotations

import contextlib
import functools
import io
from typing import Any

from envs.adapters.functional import FunctionalEnvironment, size_of, unknown
from envs.core import TaskError
from envs.physics import import_mjx
from envs.registry import TaskInfo


@functools.cache
def _load(name: str) -> tuple[Any, Any]:
    """(the environment, its configuration). Nothing is printed: warp and mjx would, on stdout."""
    import_mjx()
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            from mujoco_playground import registry
        except ImportError as error:
            raise TaskError(f"task 'playground:{name}' needs MuJoCo Playground: pip install 'expo-bench[playground]'") from error
        known = sorted(registry.ALL_ENVS)
        if name not in known:
            raise unknown(name, "playground", known)
        config = registry.get_default_config(name)
        try:
            return registry.load(name, config_overrides={"impl": "jax"} if "impl" in config else None), config
        except (OSError, RuntimeError) as error:
            raise TaskError(f"task 'playground:{name}': its model cannot be had ({' '.join(str(error).split())[:100]})") from error


@functools.cache
def info(name: str) -> TaskInfo:
    """The task of one of Playground's environments."""
    foreign, config = _load(name)
    return TaskInfo(
        name=f"playground:{name}",
        summary=f"MuJoCo Playground's {name}; score: the episode's return",
        obs_size=size_of(foreign, f"playground:{name}"),
        action_size=foreign.action_size,
        horizon=int(config.episode_length),
        engines=("mjx",),
        default_engine_cpu="mjx",
        score="return",
        demonstrator="none: bring a file",
        extra="playground",
        module="envs.adapters.playground",
    )


def make(task: TaskInfo) -> FunctionalEnvironment:
    """The environment of `info`."""
    return FunctionalEnvironment(task, "mjx", _load(task.name.partition(":")[2])[0])
