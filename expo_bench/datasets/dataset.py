"""The one form of offline data: flat float32 transitions with the true next observation of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class OfflineDataset:
    """n transitions in the order in which they were recorded, episode after episode. Host arrays; the loop puts them on a device.

    `terminated` ends an episode without bootstrap, `truncated` with (a time limit, the end of a recording); the last row always has one.
    """

    obs: np.ndarray  #          [n, O] float32
    action: np.ndarray  #       [n, A] float32, as recorded: may lie outside [-1, 1]
    reward: np.ndarray  #       [n] float32
    terminated: np.ndarray  #   [n] bool
    truncated: np.ndarray  #    [n] bool
    next_obs: np.ndarray  #     [n, O] float32
    success: np.ndarray  #      [n] bool, this transition fulfils the task (all False where the source does not say and nothing relabelled)
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)  # where it comes from: source, task, format, provenance

    @property
    def size(self) -> int:
        return len(self.reward)

    @property
    def obs_size(self) -> int:
        return self.obs.shape[1]

    @property
    def action_size(self) -> int:
        return self.action.shape[1]

    @property
    def episode_ends(self) -> np.ndarray:
        """[number of episodes] index of the last row of every episode."""
        return np.flatnonzero(self.terminated | self.truncated)

    @property
    def episode_lengths(self) -> np.ndarray:
        """[number of episodes] rows of every episode."""
        return np.diff(self.episode_ends, prepend=-1)


# The fields that hold one entry per transition, in the order in which they are written and reported.
ROW_FIELDS = ("obs", "action", "reward", "terminated", "truncated", "next_obs", "success")
FLAGS = ("terminated", "truncated", "success")


def build(columns: dict[str, np.ndarray], meta: dict[str, Any]) -> OfflineDataset:
    """A dataset from arrays of any number type; `success` may be missing (all False).

    A float64 beyond float32's range becomes inf, which `checks.check` reports with its row.
    """
    columns = {"success": np.zeros(len(columns["reward"]), bool), **columns}
    with np.errstate(over="ignore"):
        cast = {name: np.ascontiguousarray(columns[name], bool if name in FLAGS else np.float32) for name in ROW_FIELDS}
    return OfflineDataset(**cast, meta=meta)


def take(dataset: OfflineDataset, rows: np.ndarray | slice, **changes: Any) -> OfflineDataset:
    """The given rows (indices, a mask or a slice) of every field; `changes` replace fields of the result."""
    return dataclasses.replace(dataset, **{**{name: getattr(dataset, name)[rows] for name in ROW_FIELDS}, **changes})


def with_note(meta: dict[str, Any], kind: str, lines: Iterable[str]) -> dict[str, Any]:
    """`meta` with `lines` added to its list `kind` ("notes": what was done to the data; "warnings": what its user should know)."""
    return {**meta, kind: [*meta.get(kind, []), *lines]}
