"""What a person sees while a sweep runs: one line that is rewritten on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO


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
