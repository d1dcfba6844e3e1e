"""What all tests share: the CPU, one cache of compiled programs, and the helpers that lie in this folder."""

import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("EXPO_BENCH_CACHE", str(ROOT / ".cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "tests"))
# Compiling is most of what the tests cost: code that LLVM leaves as it is, from the older of XLA's two generators where there is one, takes a
# quarter of the time that a sweep's takes. What users run is tested where bits are: by `--xla_backend_optimization_level=1` alone, as sweeps have.
FAST = "--xla_backend_optimization_level=0" + (
    " --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib").startswith("0.10.") else ""
)
os.environ.setdefault("XLA_FLAGS", FAST)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """What a file compiled does not stay in memory for the next one: a worker would come to 7 GiB."""
    yield
    if (jax := sys.modules.get("jax")) is not None:
        jax.clear_caches()
    if (shared := sys.modules.get("env_programs")) is not None:  # it counts how often its programs were traced
        shared.program.cache_clear()
