"""Offline data: read, check, relabel, generate, inspect. `prepare(load(path), env, path)` is what training consumes.

Light to import: numpy only. The readers of other formats, and JAX where data are generated or relabelled, are loaded when needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expo_bench.datasets.dataset import OfflineDataset
from expo_bench.errors import UserError

__all__ = ["OfflineDataset", "default_dataset", "describe", "detect", "load", "prepare"]

_SUFFIXES = {
    ".pickle": "hand_dapg",
    ".pkl": "hand_dapg",
    ".hdf5": "d4rl",
    ".h5": "d4rl",
    ".npz": "expo-bench",
}
_NAMES = {"hand_dapg": "a hand_dapg pickle", "d4rl": "a D4RL HDF5 file", "expo-bench": "an expo-bench npz file"}
# What a file begins with; the first that fits counts, so the vague signs of old pickles come last.
_BEGINNINGS = (
    (b"\x89HDF\r\n\x1a\n", "d4rl", "HDF5"),
    (b"PK\x03\x04", "expo-bench", "a zip archive, as npz files are"),
    (b"\x80", "hand_dapg", "a pickle"),
    (b"version https://git-lfs", None, "a Git LFS pointer instead of the data"),
    (b"\x1f\x8b", None, "a gzip archive"),
    (b"\x93NUMPY", None, "a single numpy array"),
    (b"(", "hand_dapg", "a pickle"),
    (b"]", "hand_dapg", "a pickle"),
)


def detect(path: Path) -> str:
    """The format of a file by its suffix and its first bytes, which have to agree: "hand_dapg", "d4rl" or "expo-bench".

    Raises UserError for a missing or empty file, an unknown suffix, and content of another kind (a web page saved as .hdf5).
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{path}: found the suffix {path.suffix!r}, expected one of {', '.join(_SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected a file of offline data")
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    expected = _SUFFIXES[path.suffix.lower()]
    if not start:
        raise UserError(f"{path}: the file is empty, expected {_NAMES[expected]}")
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html") or start.lstrip()[:5] == b"<?xml":
        raise UserError(f"{path}: found a web page or XML, expected {_NAMES[expected]}; was the download an error page?")
    found, name = next(((kind, name) for magic, kind, name in _BEGINNINGS if start.startswith(magic)), (None, "unknown content"))
    if found != expected:
        raise UserError(f"{path}: found {name} (it begins with {start[:8]!r}), expected {_NAMES[expected]}")
    return expected


def load(path: Path, *, max_episode_length: int | None = None) -> OfflineDataset:
    """The transitions of a file as recorded, neither checked against a task nor relabelled: that is `prepare`.

    `max_episode_length` splits D4RL files that do not record time limits. Raises UserError for anything that is not readable data.
    """
    path = Path(path)
    kind = detect(path)
    if kind == "d4rl":
        from expo_bench.datasets import d4rl

        return d4rl.read(path, max_episode_length)
    if kind == "hand_dapg":
        from expo_bench.datasets import hand_dapg

        return hand_dapg.read(path)
    from expo_bench.datasets import npz

    return npz.read(path)


def prepare(dataset: OfflineDataset, env: Any, source: str, *, relabel: bool = True) -> tuple[OfflineDataset, list[str]]:
    """(what training consumes, warnings to print once): checked against the task, actions clipped, relabelled by the task.

    `relabel=False` keeps the recorded rewards and ends. Raises UserError where the data do not fit the task, see `checks.check`.
    """
    from expo_bench.datasets import checks
    from expo_bench.datasets.relabel import relabel as apply
    from expo_bench.datasets.relabel import task_outcome

    known = len(dataset.meta.get("warnings", []))
    warnings = checks.check(dataset, env, source)
    dataset = checks.clip_actions(dataset)
    if relabel:
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


def describe(path: Path) -> str:
    """What `expo-bench data inspect FILE` prints."""
    from expo_bench.datasets import inspect

    return inspect.describe(load(path), str(path), detect(path))
