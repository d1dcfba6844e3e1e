"""What the readers of HDF5 files share: opening, and one clear line for whatever is wrong with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from expo_bench.errors import UserError


@contextlib.contextmanager
def opened(path: Path, form: str) -> Iterator[h5py.File]:
    """The file for reading. Raises UserError for a truncated or damaged one; `form` says what was expected."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise nearly anything; none of it is the program's own failure
        reason = " ".join(str(error).split())
        what = "the file is truncated" if "truncated" in reason else "damaged HDF5 file"
        raise UserError(f"{path}: {what} ({reason[:80]}), expected {form}") from None


def kind(path: Path) -> str:
    """Whose file it is by its groups: "minari", "robomimic" or "d4rl", which is also said of a file that cannot be opened."""
    try:
        with h5py.File(path, "r") as file:
            if any(name.startswith("episode_") for name in file):
                return "minari"
            data = file.get("data")
            return "robomimic" if isinstance(data, h5py.Group) and any(name.startswith("demo_") for name in data) else "d4rl"
    except Exception:  # the reader says what is wrong
        return "d4rl"


def plain(group: h5py.Group) -> dict[str, Any]:
    """A group as nested dicts of arrays."""
    return {name: plain(item) if isinstance(item, h5py.Group) else item[()] for name, item in group.items()}


def array(path: Path, name: str, item: Any, form: str) -> np.ndarray:
    """The numbers of a dataset, or of an array read before. Raises UserError for a missing one, a group, and anything but numbers."""
    if item is None:
        raise UserError(f"{path}: '{name}' is missing, expected {form}")
    if not isinstance(item, (h5py.Dataset, np.ndarray)):
        raise UserError(f"{path}: '{name}' is a group ({names(item)}), expected an array: {form}")
    if item.dtype.kind not in "biuf":
        raise UserError(f"{path}: '{name}': found values of type {item.dtype}, expected numbers")
    return item[()]


def rows(path: Path, name: str, value: np.ndarray, count: int, dimensions: int) -> np.ndarray:
    """`value` as [count] (from (count, 1) too) or [count, columns]. Raises UserError for another shape."""
    if dimensions == 1 and value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    if value.ndim != dimensions or len(value) != count:
        expected = f"({count},)" if dimensions == 1 else f"({count}, columns)"
        raise UserError(f"{path}: '{name}': found shape {value.shape}, expected {expected}")
    return value


def flags(path: Path, name: str, value: np.ndarray) -> np.ndarray:
    """0 and 1 of any type as bool. Raises UserError for other values."""
    bad = np.flatnonzero((value != 0) & (value != 1))
    if len(bad):
        raise UserError(f"{path}: '{name}': found {value[bad[0]]} in row {bad[0]}, expected 0 or 1")
    return value != 0


def names(group: Any) -> str:
    """The first names in a group, for messages."""
    found = list(group)
    return (", ".join(repr(n)[:30] for n in found[:6]) + (", ..." if len(found) > 6 else "")) or "no fields"


def texts(items: Any) -> dict[str, str]:
    """The scalars of a group or of attributes as text of at most 200 characters; arrays (policy weights) are left out."""
    found: dict[str, str] = {}
    for name, item in items.items():
        if isinstance(item, h5py.Group) or getattr(item, "shape", ()) != ():
            continue
        value = item[()] if isinstance(item, h5py.Dataset) else item
        found[str(name)] = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))[:200]
    return found


def physics(path: Path, infos: Any, count: int) -> dict[str, np.ndarray] | None:
    """The recorded physics of `count` rows among `infos` (nested dicts of arrays): qpos and qvel, with what else sets an episode up (a
    body's
    position). None where there is none."""
    inside = infos.get("state") if isinstance(infos, dict) else None
    infos = next((i for i in (infos, inside) if isinstance(i, dict) and "qpos" in i and "qvel" in i), None)
    if infos is None:
        return None
    wanted = [name for name in infos if name in ("qpos", "qvel") or name.endswith(("_pos", "_quat"))]
    values = {name: array(path, f"infos/{name}", infos[name], "numbers") for name in wanted}
    # One more than there are actions where the state after the last step is recorded as well.
    return {name: rows(path, f"infos/{name}", value[:count], count, 2).astype(np.float64) for name, value in values.items()}
