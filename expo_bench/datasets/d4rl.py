"""Reader of D4RL's HDF5 files (Fu et al. 2020, arXiv 2004.07219): flat arrays, one row per step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from expo_bench.datasets import hdf5
from expo_bench.datasets.dataset import OfflineDataset, build
from expo_bench.errors import UserError

FORMAT = "d4rl"
_FORM = "D4RL's flat 'observations', 'actions', 'rewards' and 'terminals'"
ORDINARY = 100  # steps that it takes to know how far a step goes
JUMP = 1e-4  # a recorded next observation this far (relative to the column's spread) from the following row starts another episode


def read(path: Path, max_episode_length: int | None = None, with_state: bool = False) -> OfflineDataset:
    """The transitions of a D4RL file.

    The next observation is 'next_observations' where the file has it. Otherwise it is the following row of the same episode, and the last
    row of an episode has none: a terminal row is kept with its own observation in that place (it is never bootstrapped), a timeout row
    is dropped and the row before it is truncated. Episodes end at 'terminals' and 'timeouts'; files without 'timeouts' are
    split where 'next_observations' and the following row differ, else every `max_episode_length` rows, else only at terminals, with a
    warning. In AntMaze files the world goes on after a terminal (every row near the goal is one): where the following row is no further
    away than steps are, it is the next observation. `with_state` also reads 'infos/qpos' and 'infos/qvel'.
    Raises UserError for a truncated or foreign file and for fields whose shapes disagree.
    """
    path = Path(path)
    fields, metadata, state = _fields(path, with_state)
    obs, terminal, timeout, following = (fields.get(k) for k in ("observations", "terminals", "timeouts", "next_observations"))
    meta: dict[str, Any] = {"format": FORMAT, "file": path.name, "success_recorded": False, "provenance": metadata}
    meta |= {"notes": [], "warnings": []}
    if timeout is None:
        timeout = _guess_ends(path, obs, terminal, following, max_episode_length, meta)
    truncated = timeout & ~terminal
    truncated[-1] |= not terminal[-1]  # the end of the recording
    columns = {
        "obs": obs,
        "action": fields["actions"],
        "reward": fields["rewards"],
        "terminated": terminal,
        "truncated": truncated,
        "next_obs": following,
    }
    if following is None:
        columns, keep = _pair_rows(columns, timeout, meta)
        if not len(columns["reward"]):
            raise UserError(f"{path}: 'observations': found no two rows of one episode, expected at least one transition")
        state = None if state is None else {name: value[keep] for name, value in state.items()}
    return build(columns, meta, state)


def _pair_rows(columns: dict[str, np.ndarray], timeout: np.ndarray, meta: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(the columns with the next observation from the following row, the rows kept [n] bool); rows that have none are dropped unless they
    are terminal."""
    obs, terminated, dropped = columns["obs"], columns["terminated"], columns["truncated"]
    next_obs = np.concatenate([obs[1:], obs[-1:]])
    unknown = terminated & ~_goes_on(obs, terminated, timeout)
    next_obs[unknown] = obs[unknown]
    truncated = np.append(dropped[1:], False) & ~terminated
    keep = ~dropped
    meta["dropped_transitions"] = int(dropped.sum())
    if dropped.any():
        meta["notes"].append(f"{dropped.sum()} rows at a timeout have no next observation: dropped, the row before each is truncated")
    if unknown.any():
        meta["notes"].append(f"{unknown.sum()} terminal rows have no next observation: kept with their own, never bootstrapped")
    if (terminated & ~unknown).any():
        meta["notes"].append(
            f"{(terminated & ~unknown).sum()} terminal rows are followed by the same world: the following row is the next one"
        )
    return {name: value[keep] for name, value in {**columns, "truncated": truncated, "next_obs": next_obs}.items()}, keep


def _goes_on(obs: np.ndarray, terminated: np.ndarray, timeout: np.ndarray) -> np.ndarray:
    """[n] bool, terminal rows after which the recording goes on in the same world: no column changes more than it does in ordinary steps.

    Nothing is said of files with too few ordinary steps to know them.
    """
    change = np.abs(np.diff(obs.astype(np.float64), axis=0))
    ordinary = ~(terminated | timeout)[:-1]
    if ordinary.sum() < ORDINARY or not terminated.any():
        return np.zeros(len(obs), bool)
    usual = np.quantile(change[ordinary], 0.999, axis=0)
    return np.append((change <= 2 * usual + 1e-6).all(1), False) & terminated & ~timeout


def _guess_ends(
    path: Path, obs: np.ndarray, terminal: np.ndarray, following: np.ndarray | None, length: int | None, meta: dict[str, Any]
) -> np.ndarray:
    """[n] bool, where episodes end without a terminal in a file that has no 'timeouts'."""
    if following is not None:
        jump = np.abs(following[:-1] - obs[1:]) > JUMP * (obs.std(0) + 1e-8)
        meta["notes"].append("no 'timeouts': episodes end where 'next_observations' differs from the following row")
        return np.append(jump.any(1), False)
    if length is not None:
        if length < 2:
            raise UserError(f"{path}: max_episode_length: found {length}, expected at least 2")
        meta["notes"].append(f"no 'timeouts': episodes end at a terminal or after {length} rows")
        return _every(terminal, length)
    meta["warnings"].append(
        f"{path}: 'timeouts' is missing: episode ends are unknown except at the {int(terminal.sum())} terminals; rows on both sides of an "
        "unmarked reset count as one transition (give the maximal episode length where it is known)"
    )
    return np.zeros(len(terminal), bool)


def _every(terminal: np.ndarray, length: int) -> np.ndarray:
    """[n] bool, True on every `length`-th row since the last end."""
    starts = np.concatenate([[0], np.flatnonzero(terminal[:-1]) + 1])
    index = np.arange(len(terminal))
    since = index - starts[np.searchsorted(starts, index, side="right") - 1]
    return since % length == length - 1


def _fields(path: Path, with_state: bool) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, np.ndarray] | None]:
    """The file's arrays with agreeing shapes (rewards [n], flags [n] bool), its metadata as text, and the physics where asked for."""
    with hdf5.opened(path, _FORM) as file:
        fields = {}
        for name in ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations"):
            if name in file:
                fields[name] = hdf5.array(path, name, file[name], _FORM)
            elif name in ("observations", "actions", "rewards", "terminals"):
                raise UserError(f"{path}: '{name}' is missing (there are {hdf5.names(file)}), expected {_FORM}")
        fields = _agree(path, fields)
        infos = file.get("infos") if with_state else None
        state = hdf5.physics(path, hdf5.plain(infos), len(fields["rewards"])) if isinstance(infos, h5py.Group) else None
        return fields, _metadata(file), state


def _agree(path: Path, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rewards and flags as [n], every field with n rows, next_observations with the columns of observations."""
    count = len(fields["observations"]) if fields["observations"].ndim else 0
    if count == 0:
        raise UserError(f"{path}: 'observations': found no rows (shape {fields['observations'].shape}), expected at least two")
    flat = ("rewards", "terminals", "timeouts")
    result = {name: hdf5.rows(path, name, value, count, 1 if name in flat else 2) for name, value in fields.items()}
    result |= {name: hdf5.flags(path, name, result[name]) for name in ("terminals", "timeouts") if name in result}
    following = result.get("next_observations")
    if following is not None and following.shape != result["observations"].shape:
        raise UserError(f"{path}: 'next_observations': found shape {following.shape}, expected {result['observations'].shape}")
    return result


def _metadata(file: h5py.File) -> dict[str, str]:
    """The file's attributes and scalar 'metadata/*' entries as text."""
    group = file.get("metadata")
    return {**hdf5.texts(file.attrs), **(hdf5.texts(group) if isinstance(group, h5py.Group) else {})}
