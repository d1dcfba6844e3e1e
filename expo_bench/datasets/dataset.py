"""The one form of offline data: flat float32 transitions with the true next observation of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
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
    # The recorded physics at obs, each [n, ...] float64, NaN where not recorded: qpos, qvel and what else set the episode up. Never
    # trained on.
    state: dict[str, np.ndarray] | None = None

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


def build(columns: dict[str, np.ndarray], meta: dict[str, Any], state: dict[str, np.ndarray] | None = None) -> OfflineDataset:
    """A dataset from arrays of any number type; `success` may be missing (all False).

    A float64 beyond float32's range becomes inf, which `checks.check` reports with its row.
    """
    columns = {"success": np.zeros(len(columns["reward"]), bool), **columns}
    with np.errstate(over="ignore"):
        cast = {name: np.ascontiguousarray(columns[name], bool if name in FLAGS else np.float32) for name in ROW_FIELDS}
    return OfflineDataset(**cast, meta=meta, state=state)


def join(episodes: Sequence[dict[str, np.ndarray]], meta: dict[str, Any], states: Sequence[dict[str, np.ndarray]] = ()) -> OfflineDataset:
    """Whole episodes as one dataset. Each has obs [T + 1, O], action [T, A], reward [T] and terminated [T], and where known success [T];
    an episode that does not terminate in its last row is truncated there. `states`: the recorded physics of each, [T, ...] by name."""
    columns = {name: np.concatenate([e[name] for e in episodes]) for name in episodes[0] if name != "obs"}
    columns["obs"] = np.concatenate([e["obs"][:-1] for e in episodes])
    columns["next_obs"] = np.concatenate([e["obs"][1:] for e in episodes])
    last = np.zeros(len(columns["reward"]), bool)
    last[np.cumsum([len(e["reward"]) for e in episodes]) - 1] = True
    columns["truncated"] = last & ~columns["terminated"]
    state = {name: np.concatenate([s[name] for s in states]) for name in states[0]} if states else None
    return build(columns, meta, state)


def take(dataset: OfflineDataset, rows: np.ndarray | slice, **changes: Any) -> OfflineDataset:
    """The given rows (indices, a mask or a slice) of every field; `changes` replace fields of the result."""
    state = None if dataset.state is None else {name: value[rows] for name, value in dataset.state.items()}
    return dataclasses.replace(dataset, **{**{name: getattr(dataset, name)[rows] for name in ROW_FIELDS}, "state": state, **changes})


def select_observation(dataset: OfflineDataset, obs_size: int) -> OfflineDataset:
    """The columns that a task with `obs_size` observations sees of a dataset of goal-conditioned dict observations.

    Which ones their number says: 'observation' alone, 'achieved_goal' before it (D4RL's AntMaze: x and y first), or all in alphabetical
    order, as Gymnasium flattens them. The dataset itself where there is nothing to choose or no choice fits.
    """
    parts: dict[str, int] = dataset.meta.get("observation_keys", {})
    ends = np.cumsum(list(parts.values()))
    columns = {name: np.arange(end - size, end) for (name, size), end in zip(parts.items(), ends, strict=True)}
    for names in (("observation",), ("achieved_goal", "observation")):
        if dataset.obs_size == obs_size or not all(name in columns for name in names):
            continue
        chosen = np.concatenate([columns[name] for name in names])
        if len(chosen) == obs_size:
            meta = with_note(dataset.meta, "notes", [f"of the observation: {', '.join(names)}"])
            meta["observation_keys"] = {name: parts[name] for name in names}
            return dataclasses.replace(dataset, obs=dataset.obs[:, chosen], next_obs=dataset.next_obs[:, chosen], meta=meta)
    return dataset


def with_note(meta: dict[str, Any], kind: str, lines: Iterable[str]) -> dict[str, Any]:
    """`meta` with `lines` added to its list `kind` ("notes": what was done to the data; "warnings": what its user should know)."""
    return {**meta, kind: [*meta.get(kind, []), *lines]}
