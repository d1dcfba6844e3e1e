"""Environments: MuJoCo physics plus a reward and an observation, as pure functions of one row.

    import envs
    env = envs.make("point-umaze")
    state = env.reset(key)
    state = env.step(state, action)

Names and summaries (`envs.TASKS`) come without JAX or MuJoCo; `envs.make` imports what the task needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from envs.registry import ADAPTERS, TASKS, TaskInfo, info, make

if TYPE_CHECKING:
    from envs.core import Environment, Outcome, State, Step, TaskError, autoreset
    from envs.demonstrators import Demonstrator, demonstrator

__all__ = [
    "ADAPTERS",
    "TASKS",
    "TaskInfo",
    "info",
    "make",
    "Environment",
    "Outcome",
    "State",
    "Step",
    "TaskError",
    "autoreset",
    "Demonstrator",
    "demonstrator",
]

_LAZY = {name: "envs.core" for name in ("Environment", "Outcome", "State", "Step", "TaskError", "autoreset")}
_LAZY |= {name: "envs.demonstrators" for name in ("Demonstrator", "demonstrator")}


def __getattr__(name: str) -> Any:
    """The names that need JAX, imported at their first use: listing the tasks stays instant."""
    if name not in _LAZY:
        raise AttributeError(f"module 'envs' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
