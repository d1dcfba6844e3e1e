"""A pure-functional JAX benchmark suite for reinforcement learning with expressive policies.

    import expo_bench
    experiment = expo_bench.Experiment("mine", tasks=["point-umaze"], methods=["expo", "rlpd"], seeds=5, protocol={"online_steps": 5_000})
    frame = expo_bench.run(experiment)   # one row per task, agent, seed and evaluation

Light to import: the heavy parts are loaded by `run`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expo_bench.errors import UserError
from expo_bench.sweeps.experiment import Experiment, Method, Range, Search

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from expo_bench.policy import Policy

__all__ = ["Experiment", "Method", "Range", "Search", "UserError", "load_policy", "run"]


def run(experiment: Experiment, out: str | Path | None = None, **options: Any) -> pd.DataFrame:
    """Run an experiment into the folder `out` (default: the next free one under runs/) and return its results as a data frame.

    One row per task, agent, variant, cell of hyperparameters, seed and evaluation; `frame.attrs["folder"]` names the folder.
    Raises UserError for an experiment that cannot be run.
    """
    from expo_bench.sweeps import search

    return search.run(experiment, out, **options)


def load_policy(path: str | Path, agent: str | Path | None = None) -> Policy:
    """A trained agent from a file of `expo-bench export-policy`: `policy.act(obs, key)`, `policy.about`.

    `agent` is the file of an algorithm that does not come with the suite. Raises UserError for a file that is no such policy.
    """
    from expo_bench import policy

    return policy.load(path, agent)
