"""Reader of hand_dapg's demonstrations (Rajeswaran et al. 2018, arXiv 1709.10087): a pickled list with one dict per episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from expo_bench.datasets import restricted
from expo_bench.datasets.dataset import OfflineDataset, join
from expo_bench.errors import UserError

FORMAT = "hand_dapg"
_FORM = "a list of dicts with 'observations' (T, O), 'actions' (T, A) and 'rewards' (T,)"
_DIMENSIONS = {"observations": 2, "actions": 2, "rewards": 1}


def read(path: Path, with_state: bool = False) -> OfflineDataset:
    """The episodes of a hand_dapg pickle as transitions.

    There is one observation per action, so the last transition of an episode has no next observation: it is dropped, and the row before
    it is truncated (nothing in these files terminates). Rewards are the dense ones of the recording; success is not recorded.
    `with_state` also reads the physics in which each episode begins.
    Raises UserError for any other content, naming episode and field.
    """
    path = Path(path)
    content = restricted.load(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: found a pickled {type(content).__name__}, expected {_FORM}")
    if not content:
        raise UserError(f"{path}: found an empty list, expected {_FORM}")
    episodes = [_episode(path, index, item) for index, item in enumerate(content)]
    _same_columns(path, episodes)
    kept = [e for e in episodes if len(e["rewards"]) > 1]
    if not kept:
        raise UserError(f"{path}: found {len(episodes)} episodes of at most one step, expected at least two steps in some")
    meta = {
        "format": FORMAT,
        "file": path.name,
        "success_recorded": False,
        "dropped_transitions": len(episodes),
        "notes": [f"the last transition of each episode has no next observation: {len(episodes)} dropped, the ones before are truncated"],
    }
    if len(kept) < len(episodes):
        meta["notes"].append(f"{len(episodes) - len(kept)} episodes of at most one step dropped")
    joined = [
        {
            "obs": e["observations"],
            "action": e["actions"][:-1],
            "reward": e["rewards"][:-1],
            "terminated": np.zeros(len(e["rewards"]) - 1, bool),
        }
        for e in kept
    ]
    starts = [_start(item, len(e["rewards"]) - 1) for item, e in zip(content, episodes, strict=True)]
    states = [start for start, e in zip(starts, episodes, strict=True) if len(e["rewards"]) > 1 and start]
    return join(joined, meta, states if with_state and len(states) == len(kept) else ())


def _start(item: dict[str, Any], steps: int) -> dict[str, np.ndarray]:
    """The physics in which an episode begins, in its first row of `steps`, where the file has it; NaN in the others."""
    state = item.get("init_state_dict")
    if not isinstance(state, dict):
        return {}
    found = {name: np.asarray(value, np.float64) for name, value in state.items() if isinstance(value, np.ndarray) and value.ndim == 1}
    return {name: np.concatenate([value[None], np.full((steps - 1, len(value)), np.nan)]) for name, value in found.items() if steps}


def _episode(path: Path, index: int, item: Any) -> dict[str, np.ndarray]:
    """The three arrays of one episode, with their shapes checked against each other."""
    if not isinstance(item, dict):
        raise UserError(f"{path}: episode {index} is a {type(item).__name__}, expected {_FORM}")
    arrays = {}
    for name, dimensions in _DIMENSIONS.items():
        value = item.get(name)
        if not isinstance(value, np.ndarray):
            there = ", ".join(repr(key)[:30] for key in list(item)[:6]) or "none"
            found = f"a {type(value).__name__}" if name in item else f"no such field (there are {there})"
            raise UserError(f"{path}: episode {index}, '{name}': found {found}, expected a numpy array")
        if name == "rewards" and value.ndim == 2 and value.shape[1] == 1:
            value = value[:, 0]
        if value.ndim != dimensions:
            raise UserError(f"{path}: episode {index}, '{name}': found shape {value.shape}, expected {dimensions} dimensions")
        arrays[name] = value
    steps = len(arrays["observations"])
    for name in ("actions", "rewards"):
        if len(arrays[name]) != steps:
            found = len(arrays[name])
            raise UserError(f"{path}: episode {index}, '{name}': found {found} rows, expected {steps}, as many as 'observations'")
    return arrays


def _same_columns(path: Path, episodes: list[dict[str, np.ndarray]]) -> None:
    for name in ("observations", "actions"):
        first = episodes[0][name].shape[1]
        for index, episode in enumerate(episodes):
            found = episode[name].shape[1]
            if found != first:
                raise UserError(f"{path}: episode {index}, '{name}': found {found} columns, expected {first}, as in episode 0")
