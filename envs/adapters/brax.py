"""`brax:NAME`: the environments of brax 0.14 (Freeman et al. 2021, arXiv 2106.13281) with their default physics backends."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from typing import Any

from envs.adapters.functional import FunctionalEnvironment, size_of, unknown
from envs.core import TaskError
from envs.physics import import_mjx
from envs.registry import TaskInfo

HORIZON = 1000  # brax's own default


@functools.cache
def _load(name: str) -> Any:
    import_mjx()  # brax imports it too, and would let it print
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from brax import envs as brax_envs
    except ImportError as error:
        raise TaskError(f"task 'brax:{name}' needs brax: pip install 'brax>=0.14,<0.15'") from error
    known = sorted(set(brax_envs._envs) - {"fast"})  # "fast" is brax's own test of its trainers
    if name not in known:
        raise unknown(name, "brax", known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that brax's physics are no longer developed
        return brax_envs.get_environment(name)


@functools.cache
def info(name: str) -> TaskInfo:
    """The task of one of brax's environments."""
    foreign = _load(name)
    return TaskInfo(
        name=f"brax:{name}",
        summary=f"brax's {name} on its {foreign.backend} backend; score: the episode's return",
        obs_size=size_of(foreign, f"brax:{name}"),
        action_size=foreign.action_size,
        horizon=HORIZON,
        engines=("brax",),
        default_engine_cpu="brax",
        score="return",
        demonstrator="none: bring a file",
        module="envs.adapters.brax",
    )


def make(task: TaskInfo) -> FunctionalEnvironment:
    """The environment of `info`."""
    return FunctionalEnvironment(task, "brax", _load(task.name.partition(":")[2]))
