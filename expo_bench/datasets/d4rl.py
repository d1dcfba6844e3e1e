"""Reader of D4RL's HDF5 files (Fu et al. 2020, arXiv 2004.07219): flat arrays, one row per step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from expo_bench.datasets.dataset import OfflineDataset, build
from expo_bench.errors import UserError

FORMAT = "d4rl"
_FORM = "D4RL's flat 'observations', 'actions', 'rewards' and 'terminals'"
JUMP = 1e-4  # a recorded next observation this far (relative to the column's spread) from the following row starts another episode


def read(path: Path, max_episode_length: int | None = None) -> OfflineDataset:
    """The transitions of a D4RL file.

    The next observation is 'next_observations' where the file has it. Otherwise it is the following row of the same episode, and the last
    row of an episode has none: a terminal row is kept with its own observation in that place (it is never bootstrapped), a timeout row
    is dropped and the row before it is truncated. Episodes end at 'terminals' and 'timeouts'; files without 'timeouts' are
    split where 'next_observations' and the following row differ, else every `max_episode_length` rows, else only at terminals, with a
    warning.
    Raises UserError for a truncated or foreign file and for fields whose shapes disagree.
    """
    path = Path(path)
    fields, metadata = _fields(path)
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
        columns = _pair_rows(columns, meta)
        if not len(columns["reward"]):
            raise UserError(f"{path}: 'observations': found no two rows of one episode, expected at least one transition")
    return build(columns, meta)


def _pair_rows(columns: dict[str, np.ndarray], meta: dict[str, Any]) -> dict[str, np.ndarray]:
    """The next observation from the following row; the rows that have none are dropped unless they are terminal."""
    obs, terminated, dropped = columns["obs"], columns["terminated"], columns["truncated"]
    next_obs = np.concatenate([obs[1:], obs[-1:]])
    next_obs[terminated] = obs[terminated]
    truncated = np.append(dropped[1:], False) & ~terminated
    keep = ~dropped
    meta["dropped_transitions"] = int(dropped.sum())
    if dropped.any():
        meta["notes"].append(f"{dropped.sum()} rows at a timeout have no next observation: dropped, the row before each is truncated")
    if terminated.any():
        meta["notes"].append(f"{terminated.sum()} terminal rows have no next observation: kept with their own, never bootstrapped")
    return {name: value[keep] for name, value in {**columns, "truncated": truncated, "next_obs": next_obs}.items()}


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


def _fields(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The file's arrays with agreeing shapes (rewards [n], flags [n] bool) and its metadata as text."""
    try:
        with h5py.File(path, "r") as file:
            _refuse_foreign(path, file)
            fields = {}
            for name in ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations"):
                if name in file:
                    fields[name] = _array(path, name, file[name])
                elif name in ("observations", "actions", "rewards", "terminals"):
                    raise UserError(f"{path}: '{name}' is missing (there are {_names(file)}), expected {_FORM}")
            metadata = _metadata(file)
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise nearly anything; none of it is the program's own failure
        reason = " ".join(str(error).split())
        what = "the file is truncated" if "truncated" in reason else "damaged HDF5 file"
        raise UserError(f"{path}: {what} ({reason[:80]}), expected {_FORM}") from None
    return _agree(path, fields), metadata


def _array(path: Path, name: str, item: Any) -> np.ndarray:
    if not isinstance(item, h5py.Dataset):
        raise UserError(f"{path}: '{name}' is a group ({_names(item)}), expected a flat array: {_FORM}")
    if item.dtype.kind not in "biuf":
        raise UserError(f"{path}: '{name}': found values of type {item.dtype}, expected numbers")
    return item[()]


def _agree(path: Path, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rewards and flags as [n], every field with n rows, next_observations with the columns of observations."""
    rows = len(fields["observations"]) if fields["observations"].ndim else 0
    if rows == 0:
        raise UserError(f"{path}: 'observations': found no rows (shape {fields['observations'].shape}), expected at least two")
    result = {}
    for name, value in fields.items():
        flat = name in ("rewards", "terminals", "timeouts")
        if flat and value.ndim == 2 and value.shape[1] == 1:
            value = value[:, 0]
        if value.ndim != (1 if flat else 2) or len(value) != rows:
            raise UserError(f"{path}: '{name}': found shape {value.shape}, expected {f'({rows},)' if flat else f'({rows}, columns)'}")
        if name in ("terminals", "timeouts"):
            bad = np.flatnonzero((value != 0) & (value != 1))
            if len(bad):
                raise UserError(f"{path}: '{name}': found {value[bad[0]]} in row {bad[0]}, expected 0 or 1")
            value = value != 0
        result[name] = value
    following = result.get("next_observations")
    if following is not None and following.shape != result["observations"].shape:
        raise UserError(f"{path}: 'next_observations': found shape {following.shape}, expected {result['observations'].shape}")
    return result


def _refuse_foreign(path: Path, file: h5py.File) -> None:
    """Two relatives that are easily confused with D4RL's files get a message of their own."""
    if "episode_0" in file:
        raise UserError(f"{path}: found one group per episode ({_names(file)}), a Minari file; expected {_FORM}")
    if "data" in file and isinstance(file["data"], h5py.Group) and any(k.startswith("demo_") for k in file["data"]):
        raise UserError(f"{path}: found 'data/demo_k' groups, a robomimic file; expected {_FORM}")


def _names(group: Any) -> str:
    names = list(group)
    return (", ".join(repr(n)[:30] for n in names[:6]) + (", ..." if len(names) > 6 else "")) or "no fields"


def _metadata(file: h5py.File) -> dict[str, str]:
    """The file's scalar 'metadata/*' entries and attributes as text of at most 200 characters; arrays (policy weights) are left out."""
    found: dict[str, str] = {str(k): str(v)[:200] for k, v in file.attrs.items()}
    group = file.get("metadata")
    if isinstance(group, h5py.Group):
        for name, item in group.items():
            if isinstance(item, h5py.Dataset) and item.shape == ():
                value = item[()]
                found[name] = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))[:200]
    return found
