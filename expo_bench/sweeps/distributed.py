"""Several processes, mostly on several hosts, that run one program: each has its own rows on its own devices, and all do the same calls.

Rows never speak with each other, so nothing is sent between hosts while a run learns; what the processes have to agree on (how long a call
is, when to save, what was measured) they exchange between calls. Process 0 alone writes.
"""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np

from expo_bench.errors import UserError
from expo_bench.sweeps import devices


def tasks_of_step() -> int:
    """How many processes `srun` started beside this one, itself included; 1 outside of Slurm."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) if "SLURM_PROCID" in os.environ else 1


def start(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the others, before anything is computed: as Slurm says where it started several tasks, or as given (HOST:PORT of process 0, how many
    there are, which this one is); alone otherwise. Raises UserError for a part of these three."""
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    if missing := [name for name, value in given.items() if value is None]:
        if len(missing) < len(given):
            raise UserError(f"several processes as one program: {', '.join(missing)} is missing; expected all of {', '.join(given)}")
        if tasks_of_step() == 1:
            return
        options: dict[str, Any] = {}  # JAX reads Slurm's own
    else:
        if not (processes >= 1 and 0 <= process < processes):
            raise UserError(f"--process must be 0 to {processes - 1}, one less than --processes, got {process}")
        options = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes could not be joined to one program: {' '.join(str(error).split())[:200]}") from None
    devices.start()


def several() -> bool:
    """Whether there are others. (Asking JAX alone would start its devices, before anything could be said of them.)"""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def first() -> bool:
    """Whether this process is the one that writes."""
    return not several() or jax.process_index() == 0


def agree(*numbers: float) -> tuple[float, ...]:
    """The largest of each number over all processes."""
    if not several():
        return numbers
    from jax.experimental import multihost_utils

    return tuple(multihost_utils.process_allgather(np.asarray(numbers, np.float32)).max(axis=0).tolist())


def wait_for_all(where: str) -> None:
    """Until every process is here."""
    if several():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)


def whole(x: Any) -> np.ndarray:
    """An array on this host, all of it, wherever its rows are."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
