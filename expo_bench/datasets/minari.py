"""Reader of Minari datasets (Younis et al. 2024): a folder with data/main_data.hdf5 and data/metadata.json, one group per episode.

HDF5 is read directly, which needs no package; datasets in Minari's Arrow format are read through the `minari` package (extra `minari`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from expo_bench.datasets import hdf5
from expo_bench.datasets.dataset import OfflineDataset, join
from expo_bench.errors import UserError

FORMAT = "minari"
MAIN = "main_data.hdf5"
_FORM = "Minari's groups episode_k of 'observations' (T + 1, O), 'actions' (T, A), 'rewards', 'terminations' and 'truncations'"
NEEDS = "needs the package minari: pip install 'expo-bench[minari]'"
# What is kept of metadata.json as provenance; the spaces and the environment's specification are long.
_METADATA = ("dataset_id", "algorithm_name", "author", "code_permalink", "minari_version", "total_episodes", "total_steps", "description")


def read(path: Path, with_state: bool = False) -> OfflineDataset:
    """The transitions of a Minari dataset: its folder, the data folder in it, or main_data.hdf5 itself.

    Observations are one longer than actions, so every transition has its next one. Observations that are dicts are flattened in
    alphabetical order, which is Gymnasium's (achieved_goal, desired_goal, observation); `meta["observation_keys"]` says how many
    columns each
    part has, and `prepare` picks those that the task observes. `with_state` also reads 'infos/qpos' and 'infos/qvel'.
    Raises UserError for a truncated or foreign file, arrays that disagree, counts that are not those of metadata.json, and Arrow data
    without the package.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path if (path / "metadata.json").is_file() or (path / MAIN).is_file() else path / "data"
    metadata = _metadata(folder / "metadata.json")
    episodes, states, keys = [], [], None
    source = _hdf5_episodes(path if path.is_file() else folder / MAIN) if (folder / MAIN).is_file() or path.is_file() else _arrow(folder)
    for name, group in source:
        episode, sizes = _episode(path, name, group)
        if keys is not None and keys != sizes:
            raise UserError(f"{path}: {name}, 'observations': found columns {sizes}, expected {keys}, as in the first episode")
        keys = sizes
        if len(episode["reward"]):
            episodes.append(episode)
            found = hdf5.physics(path, group.get("infos"), len(episode["reward"])) if with_state else None
            states += [found] if found else []
    if not episodes:
        raise UserError(f"{path}: found no episode with a step, expected {_FORM}")
    _check_counts(path, metadata, len(episodes), sum(len(e["reward"]) for e in episodes))
    recorded = all("success" in e for e in episodes)
    if not recorded:
        episodes = [{k: v for k, v in e.items() if k != "success"} for e in episodes]
    provenance = {name: str(metadata[name])[:200] for name in _METADATA if metadata.get(name) is not None}
    meta: dict[str, Any] = {"format": FORMAT, "file": path.name, "success_recorded": recorded, "provenance": provenance, "notes": []}
    if len(keys) > 1:
        meta["observation_keys"] = keys
        meta["notes"].append(f"observations in the order {', '.join(f'{k} ({n})' for k, n in keys.items())}")
    return join(episodes, meta, states if len(states) == len(episodes) else ())


def _hdf5_episodes(path: Path) -> Iterator[tuple[str, Any]]:
    with hdf5.opened(path, _FORM) as file:
        found = [name for name in file if name.startswith("episode_") and name[8:].isdigit()]
        for name in sorted(found, key=lambda name: int(name[8:])):
            yield name, hdf5.plain(file[name])


def _arrow(folder: Path) -> Iterator[tuple[str, Any]]:
    """The episodes of a dataset that is not in HDF5, by the package."""
    try:
        from minari import MinariDataset
    except ImportError:
        raise UserError(f"{folder}: has no {MAIN}; data in another form {NEEDS}") from None
    try:
        for episode in MinariDataset(folder).iterate_episodes():
            names = ("observations", "actions", "rewards", "terminations", "truncations")
            yield f"episode_{episode.id}", {**{name: getattr(episode, name) for name in names}, "infos": episode.infos}
    except UserError:
        raise
    except Exception as error:  # whatever a damaged dataset makes the package raise
        raise UserError(f"{folder}: cannot be read by minari ({' '.join(str(error).split())[:80]}), expected a Minari dataset") from None


def _episode(path: Path, name: str, group: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """(obs [T + 1, O], action, reward, terminated and, where recorded, success [T]; the columns of each part of the observation)."""

    def numbers(where: str, item: Any) -> np.ndarray:
        return hdf5.array(path, f"{name}/{where}", item, _FORM)

    actions, rewards = numbers("actions", group.get("actions")), numbers("rewards", group.get("rewards"))
    steps = len(rewards) if rewards.ndim else 0
    parts = _parts(path, f"{name}/observations", group.get("observations"), numbers)
    obs = [hdf5.rows(path, f"{name}/{where}", value, steps + 1, 2) for where, value in parts.items()]
    flags = {k: hdf5.rows(path, f"{name}/{k}", numbers(k, group.get(k)), steps, 1) for k in ("terminations", "truncations")}
    episode = {
        "obs": np.concatenate(obs, axis=1),
        "action": hdf5.rows(path, f"{name}/actions", actions, steps, 2),
        "reward": hdf5.rows(path, f"{name}/rewards", rewards, steps, 1),
        "terminated": hdf5.flags(path, f"{name}/terminations", flags["terminations"]),
    }
    infos = group.get("infos")
    success = infos.get("success") if isinstance(infos, dict) else None
    if success is not None:  # recorded at the reset too
        success = numbers("infos/success", success)
        episode["success"] = hdf5.rows(path, f"{name}/infos/success", success[len(success) - steps :], steps, 1) != 0
    return episode, {where.removeprefix("observations/"): value.shape[1] for where, value in zip(parts, obs, strict=True)}


def _parts(path: Path, where: str, item: Any, numbers: Any) -> dict[str, np.ndarray]:
    """{"observations": array}, or one array for each part of a dict, in alphabetical order."""
    if isinstance(item, dict):
        parts = {f"observations/{key}": item[key] for key in sorted(item)}
        if not parts:
            raise UserError(f"{path}: '{where}': found an empty group, expected {_FORM}")
        return {key: numbers(key, value) for key, value in parts.items()}
    return {"observations": numbers("observations", item)}


def _metadata(path: Path) -> dict[str, Any]:
    """metadata.json where there is one: the file main_data.hdf5 may have come alone."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())[:80]}), expected Minari's metadata") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: found a {type(content).__name__}, expected Minari's metadata")
    return content


def _check_counts(path: Path, metadata: dict[str, Any], episodes: int, steps: int) -> None:
    for name, found in (("total_episodes", episodes), ("total_steps", steps)):
        expected = metadata.get(name)
        if expected is not None and int(expected) != found:
            raise UserError(f"{path}: found {found} {name[6:]}, expected {expected} as metadata.json says; was it written or copied whole?")
