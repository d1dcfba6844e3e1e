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

PACKAGES = ("expo-bench", "jax", "jaxlib", "flax", "optax", "mujoco", "mujoco-mjx", "brax", "gymnasium", "gymnasium-robotics", "numpy")


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


def write_agent_files(folder: Path, modules: Iterable[ModuleType]) -> None:
    """Copy the agent files among `modules` into the run folder, as they were when they were loaded."""
    for name, own in {own.name: own for own in map(files.own, modules) if own}.items():
        try:
            (folder / "agents").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder / 'agents'}: cannot be created: {error.strerror}") from error
        write_atomically(folder / "agents" / f"{name}.py", own.content)


def write_rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """All rows of one program so far, as one parquet file that replaces its predecessor."""
    import io

    import pandas as pd

    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer, compression="zstd", index=False)
    write_atomically(folder / "results" / f"{name}.parquet", buffer.getvalue())


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows that `write_rows` wrote; none where there is no file yet. Raises UserError for a file that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "results" / f"{name}.parquet"
    if not path.exists():
        return []
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({text}); delete it, and the runs in it are done again") from None
    numbers = {field.name for field in table.schema if pa.types.is_floating(field.type)}
    return [{k: _value(v, k in numbers) for k, v in row.items()} for row in table.to_pylist()]


def _value(value: Any, number: bool) -> Any:
    """A cell as it was given to `write_rows`: NaN is stored as null, a tuple as a list."""
    if value is None and number:
        return float("nan")
    return tuple(value) if isinstance(value, list) else value


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
