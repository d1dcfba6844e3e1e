"""New files and folders that are there whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from analysis import ResultsError


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Gives a temporary path on the same disk, at which the block makes a file or a folder; at the end it becomes `out`, whose parents are
    made. If anything fails nothing is left. An empty folder is taken for a new one.

    Raises ResultsError: `out` holds something already, or cannot be written.
    """
    try:
        if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
            raise ResultsError(f"--out {out}: already holds something; name a new one (nothing is ever overwritten)")
        above = next(folder for folder in out.absolute().parents if folder.exists())
    except OSError as error:
        raise ResultsError(f"--out {out}: cannot be written ({error.strerror})") from None
    if not above.is_dir():
        raise ResultsError(f"--out {out}: cannot be written: {above} is a file, expected a folder")
    temporary = above / f".{out.name}.{os.getpid()}.tmp"
    try:
        yield temporary
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            out.rmdir()
        os.replace(temporary, out)
    except OSError as error:
        raise ResultsError(f"--out {out}: cannot be written ({error.strerror or error})") from None
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
