"""The project's own file format: a compressed npz with one array per field and the provenance as JSON text."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from expo_bench.datasets.dataset import FLAGS, ROW_FIELDS, OfflineDataset, build
from expo_bench.errors import UserError

FORMAT = "expo-bench"
VERSION = 1  # of the layout of the file; part of the name of every cached file
_FORM = f"expo-bench's {', '.join(ROW_FIELDS)} and meta (write one with `expo-bench data generate`)"


def write(dataset: OfflineDataset, path: Path) -> None:
    """Write `dataset` under a temporary name, then rename: a file of that name is always complete. Equal datasets give equal bytes.

    Raises UserError where it cannot be written (no such folder, no permission, a full disk); nothing is left behind then.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    meta = json.dumps({"format": FORMAT, "version": VERSION, "meta": dataset.meta}, sort_keys=True)
    try:
        try:
            with open(part, "wb") as file:
                np.savez_compressed(file, meta=np.array(meta), **{name: getattr(dataset, name) for name in ROW_FIELDS})
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None


def read(path: Path) -> OfflineDataset:
    """The dataset of `write`, equal in every field. Raises UserError for a truncated, foreign or inconsistent file."""
    path = Path(path)
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            _refuse_foreign(path, file.files)
            arrays = {name: file[name] for name in (*ROW_FIELDS, "meta")}
        head = json.loads(str(arrays.pop("meta")))
        version, meta = head["version"], dict(head["meta"])
    except UserError:
        raise
    except Exception as error:  # a damaged archive may raise nearly anything; none of it is the program's own failure
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{path}: truncated or damaged npz file ({reason or type(error).__name__}), expected {_FORM}") from None
    if version != VERSION:
        raise UserError(f"{path}: 'meta': found format version {version}, expected {VERSION}")
    for name, array in arrays.items():
        dimensions, kind = (2 if name in ("obs", "action", "next_obs") else 1), ("b" if name in FLAGS else "f")
        if array.ndim != dimensions or array.dtype.kind != kind:
            wanted = f"{dimensions} dimensions of {'bool' if kind == 'b' else 'float'}"
            raise UserError(f"{path}: '{name}': found shape {array.shape} of {array.dtype}, expected {wanted}")
        if len(array) != len(arrays["obs"]):
            raise UserError(f"{path}: '{name}': found {len(array)} rows, expected {len(arrays['obs'])}, as many as 'obs'")
    if arrays["next_obs"].shape != arrays["obs"].shape:
        raise UserError(f"{path}: 'next_obs': found shape {arrays['next_obs'].shape}, expected {arrays['obs'].shape}, as 'obs'")
    return build(arrays, meta)


def _refuse_foreign(path: Path, names: list[str]) -> None:
    missing = [name for name in (*ROW_FIELDS, "meta") if name not in names]
    if missing:
        found = ", ".join(repr(name)[:30] for name in names[:8]) + (", ..." if len(names) > 8 else "") or "no arrays"
        raise UserError(f"{path}: '{missing[0]}' is missing, found {found}; expected {_FORM}")
