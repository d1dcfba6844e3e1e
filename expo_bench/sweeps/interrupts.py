"""SIGTERM and SIGINT while a sweep runs: noted first, so that it can be saved, and obeyed at once the second time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts:
    """Within `with Interrupts() as interrupts:` a first signal is noted as `interrupts.caught`. Only the main thread can listen; in
    another one the signals keep their meaning, and one that is ignored (nohup, a job in the background) stays ignored.

    A signal of `warnings` says that the process may soon be killed: it is noted as `interrupts.warned`, and the work goes on."""

    def __init__(self, signals: Sequence[int] = SIGNALS, warnings: Sequence[int] = ()) -> None:
        self.signals, self.warnings = signals, warnings
        self.caught: int | None = None
        self.warned = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for numbers, handler in ((self.signals, self._note), (self.warnings, self._warn)):
                heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
                self._before |= {number: signal.signal(number, handler) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught = number
        self.__exit__()

    def _warn(self, number: int, frame: FrameType | None) -> None:
        self.warned = True
