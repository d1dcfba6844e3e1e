"""The one error that a user may cause: the command line prints it as a single line and exits with code 2."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A wrong input. The message is one line: what, where, what was found and what was expected."""


def unknown(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> UserError:
    """A `UserError` for a name that is not known, with the nearest known names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    guess = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} {name!r}; {guess}{' ' + hint if hint else ''}")


class Interrupted(KeyboardInterrupt):
    """A sweep was asked to stop by a signal, and was saved first. The message says how to go on."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal
