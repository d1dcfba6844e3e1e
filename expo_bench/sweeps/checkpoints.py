"""Checkpoints of a running sweep: all that it is between two calls of a program, written by a thread while it goes on.

    checkpoints/00000007/arrays/         the arrays, by orbax
    checkpoints/00000007/place.json      where the run is, and the rows of the results so far
    checkpoints/00000007/checksums.json  SHA-256 of every file above

A checkpoint is written under a temporary name and then renamed; the last two are kept, and one whose checksums do not hold is not used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from expo_bench.errors import UserError
from expo_bench.sweeps import distributed
from expo_bench.sweeps.results import write_atomically

KEPT = 2
ARRAYS, PLACE, CHECKSUMS = "arrays", "place.json", "checksums.json"


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint on disk whose checksums hold."""

    path: Path
    place: dict[str, Any]

    def arrays(self, shapes: Any) -> Any | None:
        """The saved arrays as a pytree like `shapes`, of numpy arrays; None where they are another kind of tree, but for their rows."""
        if leaves_of(shapes) != self.place["leaves"]:
            return None
        with _orbax() as orbax:
            read = orbax.restore((self.path / ARRAYS).absolute())
        flat, tree = jax.tree.flatten(shapes)
        empty = lambda x: np.zeros((self.place["size"], *x.shape[1:]), x.dtype)
        return jax.tree.unflatten(tree, [_as(x, read[_key(i)]) if _key(i) in read else empty(x) for i, x in enumerate(flat)])


class Checkpoints:
    """Those of one run folder. One thread writes, one checkpoint at a time; what went wrong there is raised at the next call."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.seconds = folder / "checkpoints", 60 * minutes
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self.job: Future | None = None
        self.written = time.monotonic()

    def due(self) -> bool:
        if self.job is not None and self.job.done():
            self.wait()
        return self.job is None and time.monotonic() - self.written >= self.seconds

    def save(self, place: dict[str, Any], arrays: Any) -> None:
        """Copy the arrays [size, ...] to the host and start writing them, after what is being written. Every process takes part, the first
        writes."""
        self.wait()
        flat = jax.tree.leaves(arrays)
        place = {**place, "leaves": leaves_of(arrays), "size": len(flat[0])}
        copies = {_key(i): _plain(x) for i, x in enumerate(flat) if x.size}  # orbax takes no empty ones
        if distributed.first():
            self.job = self.pool.submit(write, self.folder, place, copies)
        self.written = time.monotonic()

    def wait(self) -> None:
        """Until what is being written is there."""
        job, self.job = self.job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        self.pool.shutdown(wait=True)

    def newest(self, say: Callable[[str], None]) -> Saved | None:
        """The newest checkpoint that is whole; the damaged ones before it are named."""
        for path in reversed(numbered(self.folder)):
            problem = damage(path)
            if problem is None:
                return Saved(path, json.loads((path / PLACE).read_text()))
            say(f"warning: checkpoint {path} is damaged ({problem}) and is not used")
        return None

    def remove(self) -> None:
        """All of them, once nothing is left to be gone on with."""
        shutil.rmtree(self.folder, ignore_errors=True)


def numbered(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first, whole or not."""
    return sorted(path for path in folder.glob("*") if path.name.isdigit())


def write(folder: Path, place: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
    """Write the next checkpoint, and remove all but the last ones. Raises UserError where the disk is full or cannot be written."""
    existing = numbered(folder)
    path = folder / f"{int(existing[-1].name) + 1 if existing else 0:08}"
    temporary = folder / f".{path.name}.tmp"
    try:
        for left in folder.glob(".*.tmp"):  # by a process that was killed
            shutil.rmtree(left)
        temporary.mkdir(parents=True)
        with _orbax() as orbax:
            orbax.save((temporary / ARRAYS).absolute(), arrays)
        write_atomically(temporary / PLACE, json.dumps(place).encode())
        write_atomically(temporary / CHECKSUMS, json.dumps(checksums(temporary), indent=1).encode())
        os.replace(temporary, path)
    except (OSError, ValueError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if (reason := _disk_error(error)) is None:
            raise
        raise UserError(f"checkpoint {path}: cannot be written: {reason}; what was written before is intact") from error
    for old in existing[: 1 - KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def checksums(path: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint, by its path inside."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and p != path / CHECKSUMS)
    return {str(p.relative_to(path)): _digest(p) for p in files}


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, None where all its files are as they were written."""
    try:
        expected = json.loads((path / CHECKSUMS).read_text())
        found = checksums(path)
    except (OSError, ValueError) as error:
        return f"{CHECKSUMS}: {type(error).__name__}"
    if not isinstance(expected, dict) or PLACE not in expected:
        return f"{CHECKSUMS} names no {PLACE}"
    wrong = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
    return f"{wrong[0]} is not as it was written" if wrong else None


def leaves_of(tree: Any) -> list[list[Any]]:
    """[path, shape of a row, dtype] of every leaf: what two checkpoints of one structure agree in, as JSON has it."""
    return [[jax.tree_util.keystr(path), list(x.shape[1:]), str(x.dtype)] for path, x in jax.tree_util.tree_leaves_with_path(tree)]


def _key(i: int) -> str:
    return f"{i:05}"


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _plain(x: jax.Array) -> np.ndarray:
    """A copy on the host; of the bits where the array holds random keys."""
    return np.array(distributed.whole(jax.random.key_data(x) if _is_key(x) else x))


def _as(shape: Any, saved: np.ndarray) -> Any:
    return jax.random.wrap_key_data(saved, impl=jax.random.key_impl(shape)) if _is_key(shape) else saved


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """A checkpointer of orbax, which is slow to import, and which logs a traceback of what it raises anyway."""
    import orbax.checkpoint as ocp

    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    alone = ocp.options.MultiprocessingOptions()
    if distributed.several():  # orbax would wait for the others, who have no part in this
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}")
    try:
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            yield checkpointer
    finally:
        logger.disabled = before


def _disk_error(error: BaseException) -> str | None:
    """What the operating system said; orbax says it in the text of a ValueError. None where it was something else."""
    if isinstance(error, UserError):  # of `write_atomically`
        error = error.__cause__ or error
    if isinstance(error, OSError):
        return error.strerror or str(error)
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else None
