"""How many rows of a program fit into a device at a time: asked of the compiled programs themselves, before anything runs.

The block that is chosen here is recorded with the run and kept from then on, whatever the memory of a machine that goes on with it: the block is
part of what a row's bits depend on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import jax

from expo_bench.errors import UserError
from expo_bench.sweeps.compiled import Builder, Compiled, state_bytes
from expo_bench.sweeps.work import Work

UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
DEFAULT = "0.9"


def budget(asked: str, devices: Sequence[jax.Device]) -> int | None:
    """Bytes of one device that a program may use: a share of its memory ("0.9") or an amount ("2GiB"); None where nobody knows the memory.

    The devices of a CPU share what the machine has left. Raises UserError for anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", asked.strip())
    if not match or match[2].upper() not in UNITS or not float(match[1]) > 0:
        raise UserError(f"--memory {asked}: expected a share of a device's memory such as 0.9, or an amount such as 2GiB")
    number, unit = float(match[1]), match[2].upper()
    if unit:
        return int(number * UNITS[unit])
    if number > 1:
        raise UserError(f"--memory {asked}: a share is at most 1; an amount has a unit, such as 2GiB")
    there = device_memory(devices)
    return None if there is None else int(number * there)


def device_memory(devices: Sequence[jax.Device]) -> int | None:
    """Bytes of the smallest device; of a CPU's its share of what is free."""
    if devices[0].platform == "cpu":
        free = free_memory()
        return None if free is None else free // sum(d.process_index == devices[0].process_index for d in devices)
    limits = [(d.memory_stats() or {}).get("bytes_limit") for d in devices if d.process_index == jax.process_index()]
    return min(limits) if limits and all(limits) else None


def free_memory() -> int | None:
    """Bytes that a new process could have without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def needed(compiled: Compiled, work: Work) -> tuple[int, int]:
    """(bytes of a device that do not depend on the rows, bytes of all) in the phase that needs most."""
    data = state_bytes(work.dataset)
    return data, max(compiled.peak_bytes, data)


def fit(work: Work, builder: Builder, limit: int, say: Callable[[str], None]) -> tuple[int, Compiled]:
    """The largest block of at most `work.block` rows whose programs need at most `limit` bytes of a device, and these programs.

    Raises UserError where a single row needs more.
    """
    block = work.block
    while True:
        compiled = builder.submit(work.program, work.env, work.dataset, block)()
        fixed, all_bytes = needed(compiled, work)
        if all_bytes <= limit:
            if block < work.block:
                say(
                    f"{work.program.task} {work.program.label}: {block} rows at a time on a device instead of {work.block}: "
                    f"{all_bytes / 2**20:,.0f} of {limit / 2**20:,.0f} MiB, {(all_bytes - fixed) / block / 2**20:,.1f} a row"
                )
            return block, compiled
        if block == 1:
            raise UserError(
                f"{work.program.task} {work.program.label}: one row needs {all_bytes / 2**20:,.0f} MiB of a device, expected at most "
                f"{limit / 2**20:,.0f} (--memory)"
            )
        per_row = (all_bytes - fixed) / block
        block = max(1, min(block - 1, int((limit - fixed) / per_row)))
