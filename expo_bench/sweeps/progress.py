"""What a person sees while a sweep runs: one line that is rewritten on a terminal, plain lines now and then elsewhere; and what
`expo-bench status` reads, from anywhere that sees the run folder."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from expo_bench.errors import UserError


def duration(seconds: float) -> str:
    """12.3 s, 4:05, 1:02:03."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress:
    """Prints to `stream`. Off a terminal at most one line per `every` seconds, and always the closing one of a phase."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.every = every
        self.last = 0.0

    def say(self, line: str) -> None:
        """A line that stays."""
        self._clear()
        print(line, file=self.stream, flush=True)
        self.last = time.monotonic()

    def update(self, line: str) -> None:
        """A line that the next one replaces."""
        if self.live:
            self._clear()
            self.stream.write(line[:160])
            self.stream.flush()
        elif time.monotonic() - self.last >= self.every:
            self.say(line)

    def _clear(self) -> None:
        if self.live:
            self.stream.write("\r\033[K")


HEARTBEAT = "progress.json"


class Heartbeat:
    """HEARTBEAT in the folder of a sweep or of one of its jobs: who is at it, in what state, and how far; at most every `every` seconds."""

    def __init__(self, folder: Path, every: float = 5.0) -> None:
        self.path, self.every, self.last = folder / HEARTBEAT, every, -every

    def due(self) -> bool:
        return time.monotonic() - self.last >= self.every

    def beat(self, state: str, **more: Any) -> None:
        """`state`: compiling, running, interrupted, failed or done. That it cannot be written stops nothing: the results will say so."""
        from expo_bench.sweeps.results import write_atomically

        slurm = {name: os.environ.get(variable) for name, variable in SLURM.items() if variable in os.environ}
        who = {"at": time.time(), "host": socket.gethostname(), "pid": os.getpid(), **slurm}
        try:
            write_atomically(self.path, json.dumps({"state": state, **who, **more}).encode())
        except UserError:
            pass
        self.last = time.monotonic()


SLURM = {"slurm_job": "SLURM_JOB_ID", "restarts": "SLURM_RESTART_COUNT"}


def read_heartbeat(folder: Path) -> dict[str, Any]:
    """The last one; {} where there is none yet."""
    try:
        return json.loads((folder / HEARTBEAT).read_text())
    except (OSError, ValueError):
        return {}
