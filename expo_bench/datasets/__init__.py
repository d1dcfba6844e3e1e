"""Offline data: read, check, relabel, generate, inspect. `prepare(load(path), env, path)` is what training consumes.

Light to import: numpy only. The readers of other formats, and JAX where data are generated or relabelled, are loaded when needed.
"""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import Any

from expo_bench.datasets.dataset import OfflineDataset, select_observation
from expo_bench.errors import UserError

__all__ = ["OfflineDataset", "default_dataset", "describe", "detect", "find", "load", "prepare"]

_SUFFIXES = dict.fromkeys((".pickle", ".pkl"), "a hand_dapg pickle")
_SUFFIXES |= dict.fromkeys((".hdf5", ".h5"), "an HDF5 file of D4RL, Minari or robomimic") | {".npz": "an npz file"}
# What a file begins with; the first that fits counts, so the vague signs of old pickles come last.
_BEGINNINGS = (
    (b"\x89HDF\r\n\x1a\n", "HDF5", (".hdf5", ".h5")),
    (b"PK\x03\x04", "a zip archive, as npz files are", (".npz",)),
    (b"\x80", "a pickle", (".pickle", ".pkl")),
    (b"version https://git-lfs", "a Git LFS pointer instead of the data", ()),
    (b"\x1f\x8b", "a gzip archive", ()),
    (b"\x93NUMPY", "a single numpy array", ()),
    (b"(", "a pickle", (".pickle", ".pkl")),
    (b"]", "a pickle", (".pickle", ".pkl")),
)
_READERS = {kind: f"expo_bench.datasets.{kind}" for kind in ("d4rl", "minari", "robomimic", "ogbench", "hand_dapg")}
_READERS["expo-bench"] = "expo_bench.datasets.npz"


def detect(path: Path) -> str:
    """The format of a file or folder by its content, with which its suffix has to agree: "hand_dapg", "d4rl", "minari", "robomimic",
    "ogbench" or "expo-bench".

    Raises UserError for a missing or empty file, an unknown suffix, and content of another kind (a web page saved as .hdf5).
    """
    path = Path(path)
    if path.is_dir() and _is_minari(path):
        return "minari"
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UserError(
            f"{path}: found the suffix {path.suffix!r}, expected one of {', '.join(_SUFFIXES)}, or the folder of a Minari dataset"
        )
    if not path.is_file():
        raise UserError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected a file of offline data")
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    expected = _SUFFIXES[suffix]
    if not start:
        raise UserError(f"{path}: the file is empty, expected {expected}")
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html") or start.lstrip()[:5] == b"<?xml":
        raise UserError(f"{path}: found a web page or XML, expected {expected}; was the download an error page?")
    name, suffixes = next(((name, fits) for magic, name, fits in _BEGINNINGS if start.startswith(magic)), ("unknown content", ()))
    if suffix not in suffixes:
        raise UserError(f"{path}: found {name} (it begins with {start[:8]!r}), expected {expected}")
    return _by_content(path, suffix)


def _by_content(path: Path, suffix: str) -> str:
    if suffix in (".hdf5", ".h5"):
        from expo_bench.datasets import hdf5

        return hdf5.kind(path)
    if suffix == ".npz":
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except Exception:  # a damaged archive may raise nearly anything; the reader says what is wrong
            return "expo-bench"
        return "ogbench" if "observations.npy" in names else "expo-bench"
    return "hand_dapg"


def _is_minari(folder: Path) -> bool:
    return any((f / name).is_file() for f in (folder, folder / "data") for name in ("metadata.json", "main_data.hdf5"))


def find(source: str | Path) -> tuple[Path, str | None]:
    """(the file or folder that `source` names, the robomimic filter key of FILE#KEY): a path, or the name of a dataset that
    `expo-bench data fetch` got.

    Raises UserError for the name of a dataset of the catalogue that was not fetched yet.
    """
    path, mark, key = str(source).rpartition("#")
    if mark and not Path(source).exists() and Path(path).is_file():
        return Path(path), key
    if not Path(source).exists():
        from expo_bench.datasets import catalogue

        if (folder := catalogue.local(str(source))) is not None:
            return folder, None
    return Path(source), None


def load(source: str | Path, *, max_episode_length: int | None = None, with_state: bool = False) -> OfflineDataset:
    """The transitions of a file, a folder or a fetched dataset (see `find`), neither checked against a task nor relabelled: that is
    `prepare`.

    `max_episode_length` splits D4RL files that do not record time limits. `with_state` also reads the recorded physics, where there is
    some. Raises UserError for anything that is not readable data.
    """
    path, mask = find(source)
    kind = detect(path)
    if mask is not None and kind != "robomimic":
        raise UserError(f"{source}: found data of {kind}, expected a robomimic file for the filter key {mask!r}")
    options: dict[str, Any] = {"robomimic": {"mask": mask}, "expo-bench": {}}.get(kind, {"with_state": with_state})
    if kind == "d4rl":
        options["max_episode_length"] = max_episode_length
    return importlib.import_module(_READERS[kind]).read(path, **options)


def prepare(dataset: OfflineDataset, env: Any, source: str, *, relabel: bool = True) -> tuple[OfflineDataset, list[str]]:
    """(what training consumes, warnings to print once): checked against the task, actions clipped, relabelled by the task.

    `relabel=False` keeps the recorded rewards, successes and ends; where the task gives other rewards, a warning says how often. Raises
    UserError where the data do not fit the task, see `checks.check`, and where rewards to keep were not recorded.
    """
    from expo_bench.datasets import checks
    from expo_bench.datasets.relabel import disagreement, task_outcome
    from expo_bench.datasets.relabel import relabel as apply

    dataset = select_observation(dataset, env.obs_size)
    known = len(dataset.meta.get("warnings", []))
    warnings = checks.check(dataset, env, source)
    dataset = checks.clip_actions(dataset)
    says = getattr(env, "relabels", True)  # whether its reward is a function of the transition
    if not (relabel and says) and not dataset.meta.get("rewards_recorded", True):
        why = "they were to be kept as recorded" if says else f"the task {env.name} cannot say them of recorded transitions"
        raise UserError(f"{source}: has no rewards, and {why}; expected data with rewards")
    if says and not relabel:
        reward, *_ = task_outcome(env)(dataset.obs, dataset.action, dataset.next_obs)
        share, differs = disagreement(dataset.reward, reward)
        warnings += [f"{source}: rewards kept as recorded: {differs}"] if share else []
    elif says:
        dataset = apply(dataset, task_outcome(env))
        warnings += dataset.meta.get("warnings", [])[known:]
        if dataset.size == 0:
            raise UserError(f"{source}: no transition is left after relabelling by the task {env.name}, expected at least one")
        if not dataset.success.any():
            warnings.append(f"{source}: no transition fulfils the task {env.name}")
    return dataset, warnings


def default_dataset(task: str, env: Any, cache_dir: Path, *, seed: int = 0) -> OfflineDataset:
    """The standard offline data of `task`, made once by its demonstrator and kept in `cache_dir` under a name that hashes their settings.

    They always come from C MuJoCo on the CPU, whatever engine `env` runs on.
    Raises UserError for a task that has none, with how to get some.
    """
    from expo_bench.datasets import generate as generation

    if ":" in task:
        raise UserError(f"the task {task} is of another package and has no default offline data: give some with --dataset FILE, or 'none'")
    if task not in generation.DEFAULT_EPISODES:
        raise UserError(generation.NO_DEFAULT.format(task=task))
    episodes = generation.DEFAULT_EPISODES[task]
    settings = generation.generation_settings(task, episodes, seed, engine="mujoco")
    cache_dir = Path(cache_dir)
    path = cache_dir / generation.cache_name(task, settings)
    if path.is_file():
        try:
            return load(path)
        except UserError:  # damaged after it was written; what is in it can be made again
            pass
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{cache_dir}: the cache folder cannot be made: {error.strerror or error}") from None
    own = env if getattr(env, "engine", None) == "mujoco" else None
    return generation.generate(task, path, episodes=episodes, seed=seed, env=own)


def describe(source: str | Path) -> str:
    """What `expo-bench data inspect FILE` prints."""
    from expo_bench.datasets import inspect

    return inspect.describe(load(source), str(source), detect(find(source)[0]))
