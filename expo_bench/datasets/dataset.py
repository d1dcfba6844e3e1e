"""The one form of offline data: flat float32 transitions with the true next observation of each."""

from __future__ import annotations

import dataclasses
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
