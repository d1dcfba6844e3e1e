"""Reader of robomimic's HDF5 files (Mandlekar et al. 2021, arXiv 2108.03298): data/demo_i with one array per part of the observation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from expo_bench.datasets import hdf5
from expo_bench.datasets.dataset import OfflineDataset, join
from expo_bench.errors import UserError

FORMAT = "robomimic"
# What robomimic's low-dimensional policies observe, in the order in which it concatenates them.
LOW_DIM = tuple(f"robot{i}_{part}" for i in (0, 1) for part in ("eef_pos", "eef_quat", "gripper_qpos")) + ("object",)
_FORM = "robomimic's data/demo_i with 'actions', 'rewards', 'dones' and obs/{robot0_eef_pos, robot0_eef_quat, robot0_gripper_qpos, object}"


def read(path: Path, mask: str | None = None) -> OfflineDataset:
    """The transitions of a robomimic file, of all demonstrations or of those that the filter key `mask` names ('train', '20_percent').

    The observation is robot0_eef_pos (3), robot0_eef_quat (4), robot0_gripper_qpos (2), the same of a second arm where there is one, and
    object, in this order. The next one is in 'next_obs', or else the following row (the last row is then dropped). An episode terminates at
    its first step that is done with a reward, and what was recorded after that is dropped; one without is truncated.
    Raises UserError for a truncated or foreign file, one without observations (raw recordings have states only), and an unknown mask.
    """
    path = Path(path)
    with hdf5.opened(path, _FORM) as file:
        data = file.get("data")
        if not isinstance(data, h5py.Group):
            raise UserError(f"{path}: 'data' is missing (there are {hdf5.names(file)}), expected {_FORM}")
        masks = sorted(file["mask"]) if isinstance(file.get("mask"), h5py.Group) else []
        names = sorted((n for n in data if n.startswith("demo_") and n[5:].isdigit()), key=lambda name: int(name[5:]))
        if mask is not None:
            names = _masked(path, file, mask, masks, names)
        demos = [_demo(path, name, data[name]) for name in names]
        provenance = {"demonstrations": len(names), **hdf5.texts(data.attrs), **_env_args(data.attrs.get("env_args"))}
    if not demos:
        raise UserError(f"{path}: found no demonstrations, expected {_FORM}")
    episodes, parts = [demo for demo, _ in demos if len(demo["reward"])], demos[0][1]
    for name, (_, found) in zip(names, demos, strict=True):
        if found != parts:
            raise UserError(f"{path}: {name}/obs: found columns {found}, expected {parts}, as in {names[0]}")
    if not episodes:
        raise UserError(f"{path}: found no two rows of one demonstration, expected at least one transition")
    notes = [f"observations in the order {', '.join(f'{k} ({n})' for k, n in parts.items())}"]
    if masks:
        notes.append(f"filter keys: {', '.join(masks)} (FILE#KEY takes the demonstrations of one)")
    meta = {"format": FORMAT, "file": path.name, "success_recorded": True, "provenance": provenance, "notes": notes}
    return join(episodes, meta)


def _masked(path: Path, file: h5py.File, mask: str, masks: list[str], names: list[str]) -> list[str]:
    if mask not in masks:
        raise UserError(f"{path}: no filter key {mask!r}, expected one of {', '.join(masks) or 'none: the file has no masks'}")
    chosen = {item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in file["mask"][mask][()]}
    missing = sorted(chosen - set(names))
    if missing:
        raise UserError(f"{path}: mask/{mask}: names {missing[0]!r}, which is not among the {len(names)} demonstrations")
    return [name for name in names if name in chosen]


def _demo(path: Path, name: str, demo: Any) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """(one episode as `join` takes it, the columns of each part of the observation)."""
    get = lambda key: hdf5.array(path, f"{name}/{key}", demo.get(key), _FORM)
    rewards = get("rewards")
    steps = len(rewards) if rewards.ndim else 0
    obs, parts = _observation(path, name, "obs", demo, steps)
    actions = hdf5.rows(path, f"{name}/actions", get("actions"), steps, 2)
    rewards = hdf5.rows(path, f"{name}/rewards", rewards, steps, 1)
    dones = hdf5.flags(path, f"{name}/dones", hdf5.rows(path, f"{name}/dones", get("dones"), steps, 1))
    solved = dones & (rewards > 0)
    length = int(solved.argmax()) + 1 if solved.any() else steps
    if isinstance(demo.get("next_obs"), h5py.Group):
        following, found = _observation(path, name, "next_obs", demo, steps)
        if found != parts:
            raise UserError(f"{path}: '{name}/next_obs': found columns {found}, expected {parts}, as in 'obs'")
        obs = np.concatenate([obs[:length], following[length - 1 : length]])
    else:
        length = min(length, steps - 1)
        obs = obs[: length + 1]
    columns = {"action": actions, "reward": rewards, "terminated": solved, "success": rewards > 0}
    return {"obs": obs, **{key: value[:length] for key, value in columns.items()}}, parts


def _observation(path: Path, name: str, where: str, demo: Any, steps: int) -> tuple[np.ndarray, dict[str, int]]:
    group = demo.get(where)
    if not isinstance(group, h5py.Group):
        raise UserError(f"{path}: '{name}/{where}' is missing: a raw recording without observations; expected {_FORM}")
    keys = [key for key in LOW_DIM if key in group]
    for key in ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object"):
        if key not in keys:
            raise UserError(f"{path}: '{name}/{where}/{key}' is missing (there are {hdf5.names(group)}), expected {_FORM}")
    parts = [hdf5.rows(path, f"{name}/{where}/{k}", hdf5.array(path, f"{name}/{where}/{k}", group[k], _FORM), steps, 2) for k in keys]
    return np.concatenate(parts, axis=1), {key: part.shape[1] for key, part in zip(keys, parts, strict=True)}


def _env_args(text: Any) -> dict[str, str]:
    """The environment's name out of the JSON text 'env_args'."""
    try:
        return {"env_name": str(json.loads(text)["env_name"])[:200]}
    except (TypeError, ValueError, KeyError):
        return {}
