"""Run folders: which may be written into, by one process at a time.

The lock is flock(2)'s: the operating system lets go of it when its process ends, however it ends. Over NFS (v4, or v3 with its lock
service) Linux hands it to the server, so that it holds between hosts, and that of a host that is lost ends with its lease; a file system
mounted with nolock, local_lock or Lustre's localflock knows it within one host only.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from expo_bench.errors import UserError

LOCK, MANIFEST, RESULTS, JOBS = ".lock", "manifest.json", "results", "jobs"
LOCK_TRIES, LOCK_PAUSE = 5, 0.1  # a process that only looks whether a lock is held holds it for a moment


class RunFolder:
    """The folder of a sweep, locked: an existing run at once, a new one when it is made. The lock goes with the process that holds it."""

    def __init__(self, out: str | Path | None) -> None:
        """Raises UserError for a folder that cannot become one of a run, and for a run that another process is at."""
        self.out = None if out is None else Path(out)
        self.run = self.out  # where results/ lies
        self.lock: int | None = None
        self.manifest: dict[str, Any] | None = None  # of the run that is there already
        self._check()
        if self.out is not None and (self.out / MANIFEST).exists():
            self.lock = _locked(self.out)
            self.manifest = _read(self.out / MANIFEST)

    @property
    def path(self) -> Path:
        assert self.out is not None, "the folder is not made yet"
        return self.out

    def make(self, name: str) -> Path:
        """Make a new folder; without one given, the next free under runs/."""
        if self.lock is None:
            self.out = self.out or _next_free(name)
            self.run = self.run or self.out
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                (self.run / RESULTS).mkdir(exist_ok=True)
            except OSError as error:
                raise UserError(f"--out {self.out}: cannot be created: {error.strerror}") from error
            self.lock = _locked(self.out)
            self._check()
            if (self.out / MANIFEST).exists():  # another process was faster, and is gone again
                raise UserError(
                    f"--out {self.out}: another sweep has just begun there; name a new folder, or give the command again to go on"
                )
        return self.path

    @property
    def again(self) -> str:
        """The command that goes on."""
        return f"expo-bench sweep --resume {self.run}"

    def with_block(self, rows: int) -> str:
        """How to go on with so many rows at a time."""
        return f"`{self.again} --block-rows {rows} --resume-anyway` goes on with {rows}"

    def close(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def _check(self) -> None:
        """Whether `out` is new, empty, or of a run, before anything is built."""
        folder = self.out
        if folder is None:
            return
        try:
            run = (folder / MANIFEST).is_file()
            if folder.is_file() or (folder.is_dir() and not run and not _only_begun(folder)):
                raise UserError(f"--out {folder}: already holds something; name a new folder (nothing is ever overwritten)")
            above = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        except OSError as error:
            raise UserError(f"--out {folder}: cannot be created: {error.strerror}") from None
        if not above.is_dir():
            raise UserError(f"--out {folder}: cannot be created: {above} is a file, expected a folder")


class JobFolder(RunFolder):
    """What is one job's own in the folder of a cluster sweep, RUN/jobs/NNN: its lock, its manifest, its checkpoints. Its results lie with
    the others' in RUN/results."""

    def __init__(self, run: str | Path, number: int) -> None:
        super().__init__(job_path(Path(run), number))
        self.run = Path(run)

    def _check(self) -> None:
        """It is part of a run folder, which was looked at when the jobs were made."""

    @property
    def again(self) -> str:
        return f"expo-bench sweep --resume {self.run} --cluster local (or slurm)"

    def with_block(self, rows: int) -> str:
        return f"jobs keep the rows that they were cut into: submit the sweep again, into a new folder, with --block-rows {rows}"


class Spectator:
    """The folder of a sweep as the processes see it that compute with the one that writes: not locked, never written."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.path, self.run, self.again = folder, run, ""
        self.manifest = _read(folder / MANIFEST) if (folder / MANIFEST).exists() else None

    def make(self, name: str) -> Path:
        return self.path

    def with_block(self, rows: int) -> str:
        return f"--block-rows {rows} needs less"

    def close(self) -> None:
        pass


def job_path(run: Path, number: int) -> Path:
    return run / JOBS / f"{number:03}"


def in_use(folder: Path) -> bool:
    """Whether a process holds the lock of a folder."""
    try:
        lock = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(lock)


def _only_begun(folder: Path) -> bool:
    """Whether nothing lies there but what a sweep leaves that was killed before its manifest was written."""
    begun = {LOCK, RESULTS, "agents", f".{MANIFEST}.tmp"}
    names = {path.name for path in folder.iterdir()}
    return not names or (LOCK in names and names <= begun and not any((folder / RESULTS).glob("*")))


def _next_free(name: str) -> Path:
    root, n = Path("runs"), 1
    while True:
        folder = root / (name if n == 1 else f"{name}-{n}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            n += 1
        except OSError as error:
            raise UserError(f"--out {folder}: cannot be created: {error.strerror}") from error


def _locked(folder: Path) -> int:
    """A lock on the folder, which ends when its descriptor is closed, by whatever end the process comes to."""
    path = folder / LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    try:
        _take(lock)
    except BlockingIOError:
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
        os.close(lock)
        raise UserError(
            f"{folder}: another sweep is at it{f' ({holder})' if holder else ''}; wait for its end, or name a new folder"
        ) from None
    except OSError as error:
        os.close(lock)
        raise UserError(f"{folder}: cannot be locked: {error.strerror}") from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError as error:
        os.close(lock)
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    return lock


def _take(lock: int) -> None:
    """Raises BlockingIOError where another process has it."""
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not tries_left:
                raise
            time.sleep(LOCK_PAUSE)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder."""
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder}: not a run folder (no {MANIFEST}); expected the --out folder of a sweep")
    return _read(folder / MANIFEST)


def _read(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())})") from None
    if not isinstance(manifest, dict):
        raise UserError(f"{path}: is no manifest of a sweep; expected a JSON object")
    return manifest
