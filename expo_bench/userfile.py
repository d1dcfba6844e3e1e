"""Python files that a user names: experiments and agents. Read once, and run as they were read. Needs no jax."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType

from expo_bench.errors import UserError


def read(path: Path, kind: str) -> bytes:
    """The content of a Python file; `kind` ("agent file") begins the one line that says why there is none."""
    if not path.is_file():
        raise UserError(f"{kind} {path}: does not exist")
    if path.suffix != ".py":
        raise UserError(f"{kind} {path}: expected a Python file (.py)")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{kind} {path}: cannot be read: {error.strerror}") from None


def run(path: Path, content: bytes, kind: str) -> ModuleType:
    """The module that `content` makes. Python's own loader might run a cached older version; this runs what was read.

    Raises UserError with the line of the file where it fails.
    """
    module = ModuleType(f"{kind} {path}".replace(".", "_"))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look up the types of fields
    try:
        exec(compile(content, str(path), "exec", dont_inherit=True), module.__dict__)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {one_line(error.msg if isinstance(error, SyntaxError) else error)}".removesuffix(": ")
        raise UserError(f"{kind} {path}: cannot be run: {text}{_place(error, path, content)}") from error
    return module


run_once = functools.cache(run)  # the same content is the same module, whose classes are the same


def _place(error: BaseException, path: Path, content: bytes) -> str:
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
    for file, number, _ in frames(error.__traceback__):
        line = number if file == str(path) else line
    return "" if line is None else f" (line {line}{excerpt(content, line)})"


def frames(tb: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    """(file, line, function) of a traceback, outermost first."""
    return ((frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_tb(tb))


def excerpt(content: bytes, line: int) -> str:
    """ ": `the line`", at most 100 characters of it; "" where there is none."""
    lines = content.decode(errors="replace").splitlines()
    text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return f": `{text if len(text) <= 100 else text[:97] + '...'}`" if text else ""


def one_line(error: object, most: int = 300) -> str:
    """The text of an error on one line of at most `most` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else text[: most - 3] + "..."
