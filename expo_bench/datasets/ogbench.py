"""Reader of OGBench's npz files (Park et al. 2024, arXiv 2410.20092): flat arrays of whole trajectories, without rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from expo_bench.datasets import hdf5
from expo_bench.datasets.dataset import OfflineDataset, build
from expo_bench.errors import UserError

FORMAT = "ogbench"
_FORM = "OGBench's 'observations', 'actions' and 'terminals'"


def read(path: Path, with_state: bool = False) -> OfflineDataset:
    """The transitions of an OGBench file.

    As released, 'terminals' is 1 at the last state of every trajectory: it is the next observation of the row before, which is
    truncated, and
    no row of its own. In the compact form ('valids') the rows with valids 0 are those last states. Where 'next_observations' is
    there (the regular form, saved) nothing is dropped. Trajectories are play data: nothing terminates, and there are no rewards until a
    task relabels them. `with_state` also reads 'qpos' and 'qvel'.
    Raises UserError for a truncated or foreign file and for fields whose shapes disagree.
    """
    path = Path(path)
    fields = _fields(path)
    terminal = fields["terminals"] != 0
    following = fields.get("next_observations")
    if following is not None:
        keep, ends = np.ones(len(terminal), bool), terminal.copy()
    else:
        last = fields["valids"] == 0 if "valids" in fields else terminal.copy()
        last[-1] = True  # a file that was cut has no next observation for its last row
        keep, ends = ~last, np.append(last[1:], True)
        following = np.concatenate([fields["observations"][1:], fields["observations"][-1:]])
    if not keep.any():
        raise UserError(f"{path}: found no two rows of one trajectory, expected at least one transition")
    truncated = ends[keep]
    truncated[-1] = True
    meta: dict[str, Any] = {"format": FORMAT, "file": path.name, "success_recorded": False, "rewards_recorded": False}
    meta["notes"] = [f"{(~keep).sum()} last states of trajectories are next observations only", "no rewards: the task says them"]
    columns = {
        "obs": fields["observations"][keep],
        "action": fields["actions"][keep],
        "reward": np.zeros(keep.sum()),
        "terminated": np.zeros(keep.sum(), bool),
        "truncated": truncated,
        "next_obs": following[keep],
    }
    states = {name: fields[name][keep].astype(np.float64) for name in ("qpos", "qvel") if name in fields}
    return build(columns, meta, states if with_state and len(states) == 2 else None)


def _fields(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            missing = [name for name in ("observations", "actions", "terminals") if name not in file.files]
            if missing:
                raise UserError(f"{path}: '{missing[0]}' is missing (there are {hdf5.names(file.files)}), expected {_FORM}")
            known = ("observations", "actions", "terminals", "valids", "next_observations", "qpos", "qvel")
            arrays = {name: file[name] for name in known if name in file.files}
    except UserError:
        raise
    except Exception as error:  # a damaged archive may raise nearly anything; none of it is the program's own failure
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{path}: truncated or damaged npz file ({reason or type(error).__name__}), expected {_FORM}") from None
    count = len(arrays["observations"]) if arrays["observations"].ndim else 0
    if count < 2:
        raise UserError(f"{path}: 'observations': found shape {arrays['observations'].shape}, expected at least two rows")
    for name, value in arrays.items():
        if value.dtype.kind not in "biuf":
            raise UserError(f"{path}: '{name}': found values of type {value.dtype}, expected numbers")
        arrays[name] = hdf5.rows(path, name, value, count, 1 if name in ("terminals", "valids") else 2)
        if name in ("terminals", "valids"):
            hdf5.flags(path, name, arrays[name])
    if "next_observations" in arrays and arrays["next_observations"].shape != arrays["observations"].shape:
        found, expected = arrays["next_observations"].shape, arrays["observations"].shape
        raise UserError(f"{path}: 'next_observations': found shape {found}, expected {expected}")
    return arrays
