"""What all tests share: the CPU, one cache of compiled programs, and the helpers that lie in this folder."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("EXPO_BENCH_CACHE", str(ROOT / ".cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "tests"))
# Compiling is most of what the tests cost: a level of LLVM's optimisation at which it takes a seventh less, as sweeps have on a CPU.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """What a file compiled does not stay in memory for the next one: a worker would come to 7 GiB."""
    yield
    if (jax := sys.modules.get("jax")) is not None:
        jax.clear_caches()
    if (shared := sys.modules.get("env_programs")) is not None:  # it counts how often its programs were traced
        shared.program.cache_clear()
