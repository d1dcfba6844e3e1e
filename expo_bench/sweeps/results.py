"""A run folder: manifest.json, results/*.parquet and agents/*.py (agents that came as files), each written whole under a temporary name and then renamed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from expo_bench.agents import files
from expo_bench.errors import UserError

PACKAGES = ("expo-bench", "jax", "jaxlib", "flax", "optax", "mujoco", "mujoco-mjx", "numpy")


def check_out(out: str | Path | None) -> None:
    """Refuse an --out that `new_folder` will refuse, before anything is built."""
    if out is None:
        return
    folder = Path(out)
    try:
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise UserError(f"--out {folder}: already holds something; name a new folder (nothing is ever overwritten)")
        above = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be created: {error.strerror}") from None
    if not above.is_dir():
        raise UserError(f"--out {folder}: cannot be created: {above} is a file, expected a folder")


def new_folder(out: str | Path | None, name: str) -> Path:
    """The folder of a run. A folder that already holds something is refused; without `out` the next free name under runs/ is taken."""
    check_out(out)
    if out is None:
        root, n = Path("runs"), 1
        while (folder := root / (name if n == 1 else f"{name}-{n}")).exists():
            n += 1
    else:
        folder = Path(out)
    try:
        (folder / "results").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be created: {error.strerror}") from error
    return folder


def write_atomically(path: Path, content: bytes) -> None:
    """Temporary name, then rename: a reader never sees half a file, and a full disk leaves the old one."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror}; what was written before is intact") from error


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_atomically(folder / "manifest.json", (json.dumps(manifest, indent=1, default=str) + "\n").encode())


def write_agent_files(folder: Path, modules: Iterable[ModuleType]) -> dict[str, dict[str, str]]:
    """Copy the agent files among `modules` into the run folder, as they were when they were loaded -> their part of the manifest."""
    sources = {own.name: own for own in map(files.own, modules) if own}
    for name, own in sources.items():
        (folder / "agents").mkdir(exist_ok=True)
        write_atomically(folder / "agents" / f"{name}.py", own.content)
    return {name: {"file": str(own.path), "sha256": own.digest, "copy": f"agents/{name}.py"} for name, own in sources.items()}


def write_rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """All rows of one program so far, as one parquet file that replaces its predecessor."""
    import io

    import pandas as pd

    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer, compression="zstd", index=False)
    write_atomically(folder / "results" / f"{name}.parquet", buffer.getvalue())


def versions() -> dict[str, str]:
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # expo-bench itself, run from a checkout that was never installed
        return "not installed"


def git_commit() -> str | None:
    """The commit of the checkout that this package lies in; None outside a checkout."""
    try:
        here = Path(__file__).resolve().parent
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
