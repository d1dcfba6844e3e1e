"""Devices and the sweep axis: rows in blocks of a fixed shape, one block per device, everything else shared.

On a CPU there is one JAX device per core: at these sizes threads inside operations gain almost nothing, a second device nearly doubles the
rate. One code path for CPU cores, GPUs and TPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def cores() -> int:
    """The cores that this process may use: those that it is bound to, of which Slurm may have lent it a part without binding it."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    lent = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(bound, int(lent)) if lent.isdigit() and int(lent) else bound


def start(cache: Path | None = None) -> list[jax.Device]:
    """The devices, after one CPU device per core and the persistent compilation cache were asked for (once per process)."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache or cache_dir() / "programs"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    try:
        jax.config.update("jax_num_cpu_devices", cores())
    except RuntimeError:  # the backend runs already: its devices are taken as they are
        pass
    return jax.devices()


def cache_dir() -> Path:
    """Where compiled programs and generated data are kept: $EXPO_BENCH_CACHE, or expo_bench in the user's cache folder."""
    own = os.environ.get("EXPO_BENCH_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "expo_bench"


def block_rows(rows: int, devices: int, wanted: int | None) -> int:
    """Rows per program and device. The same block shape gives the same bits whatever the number of devices, so it is recorded with a run."""
    return wanted or -(-rows // devices)


def row_sharding(devices: Sequence[jax.Device]) -> NamedSharding:
    """Of an array whose leading axis is the rows."""
    return NamedSharding(Mesh(np.asarray(devices), ("rows",)), PartitionSpec("rows"))


def shared_sharding(devices: Sequence[jax.Device]) -> NamedSharding:
    """Of an array that every row sees."""
    return NamedSharding(Mesh(np.asarray(devices), ("rows",)), PartitionSpec())


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays that every process has as a whole, on the devices of all processes."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place(x: Any) -> jax.Array:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        own = np.asarray(x)
        return jax.make_array_from_callback(own.shape, sharding, lambda index: own[index])

    return jax.tree.map(place, tree)


def over_rows(fn: Callable, devices: Sequence[jax.Device], rowwise: Sequence[bool], donate: Sequence[int] = ()) -> Callable:
    """`fn` of one row as a jitted function of many: vmapped within a device, sharded over the devices.

    `rowwise[i]` says whether argument i has the leading row axis (sharded) or is shared by all rows (replicated).
    """
    mesh = Mesh(np.asarray(devices), ("rows",))
    specs = tuple(PartitionSpec("rows") if r else PartitionSpec() for r in rowwise)
    batched = jax.vmap(fn, in_axes=tuple(0 if r else None for r in rowwise))
    sharded = jax.shard_map(batched, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("rows"), check_vma=False)
    shardings = tuple(NamedSharding(mesh, s) for s in specs)
    return jax.jit(sharded, in_shardings=shardings, out_shardings=NamedSharding(mesh, PartitionSpec("rows")), donate_argnums=tuple(donate))
