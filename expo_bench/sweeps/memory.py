"""How many rows of a program fit on a device at a time: the compiled programs themselves are asked, before anything runs.

A block that is chosen here is recorded with the run and kept from then on, on whatever memory the run goes on: it is part of what the bits
of a row depend on. For the same reason the memory of a CPU is what the machine has, not what happens to be free.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from expo_bench.errors import UserError
from expo_bench.sweeps import distributed
from expo_bench.sweeps.compiled import Builder, Compiled, Work, state_bytes, wave_rows

DEFAULT = "0.9"
UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)  # of a container or a job: version 2, version 1


def amount(asked: str) -> tuple[float, bool]:
    """ "0.9" as (0.9, True), a share; "2GiB" as (2**31, False), bytes of a device. Raises UserError for anything else."""
    match = re.fullmatch(r"(\d*\.?\d+)\s*([A-Za-z]*)", asked.strip())
    unit = match[2].upper() if match else ""
    if not match or unit not in ("", *UNITS) or not float(match[1]) > 0 or (not unit and float(match[1]) > 1):
        raise UserError(f"--memory {asked}: expected a share of a device's memory, above 0 and at most 1, or an amount such as 2GiB")
    number = float(match[1])
    return (number * UNITS[unit], False) if unit else (number, True)


@dataclasses.dataclass(frozen=True)
class Limit:
    """Bytes that a program may use; None where a share is asked for of what nobody knows."""

    bytes: int | None
    shared: bool  # by the devices that it runs on, as a machine's memory is by the devices of its CPU

    def each(self, devices: int) -> int | None:
        """Of one device where a program runs on so many."""
        return self.bytes if self.bytes is None or not self.shared else self.bytes // devices


def limit(asked: str, devices: Sequence[jax.Device]) -> Limit:
    """What `--memory` says of these devices, of the smallest one where they differ; several processes take the smallest of all."""
    number, share = amount(asked)
    own = [d for d in devices if d.process_index == jax.process_index()]
    cpu = own[0].platform == "cpu"
    there: float = 1
    if share:
        known = [machine_bytes()] if cpu else [(d.memory_stats() or {}).get("bytes_limit") for d in own]
        there = min(known) if all(known) else float("inf")
    (least,) = distributed.agree(-number * there)
    return Limit(None if least == -float("inf") else int(-least), cpu and share)


def machine_bytes() -> int | None:
    """What this process may ever use: of the machine's memory, or of the container's where that is less."""
    try:
        there = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, OSError, ValueError):
        return None
    for path in CGROUP_LIMITS:
        try:
            there.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # another version, another system, or "max"
            continue
    return min(there)


def needed(compiled: Compiled, work: Work, data: int, cpu: bool) -> tuple[int, int]:
    """Bytes of a device: (that do not depend on the rows, of one row). `data`: bytes of all offline data of the sweep, which stay there.

    On a CPU also the copy of the state that a checkpoint is written from.
    """
    rows = compiled.peak_bytes - state_bytes(work.dataset) + (work.block * compiled.bytes_per_row if cpu else 0)
    return data, -(-rows // work.block)


def plan(
    work: Mapping[int, Work],
    builder: Builder,
    limit: Limit,
    data: int,
    say: Callable[[str], None],
    show: Callable[[str], None] = lambda text: None,
) -> dict[int, tuple[Work, Compiled]]:
    """The programs, compiled, with as many rows at a time as the limit allows, at most the rows that they come with.

    Rows that do not fit at once are spread evenly over as few waves as possible. Blocks that are settled stay, with a warning where they need
    more. Raises UserError where a single row does.
    """
    cpu = builder.devices[0].platform == "cpu"
    waiting = {i: builder.submit(w.program, w.env, w.dataset, w.block) for i, w in work.items()}
    done: dict[int, tuple[Work, Compiled]] = {}
    largest = (0.0, "")  # share of what may be used, and of which program
    for n, (i, w) in enumerate(work.items()):
        show(f"compiling {n + 1}/{len(work)}: {w.program.label}")
        compiled = waiting[i]()
        fixed, row = needed(compiled, w, data, cpu)
        most = limit.each(wave_rows(w.program, w.block, builder.devices) // w.block)
        while most is not None and not w.settled and fixed + w.block * row > most:
            w = dataclasses.replace(w, block=fewer(w, (most - fixed) // row, most, fixed + row, len(builder.devices)))
            show(f"compiling {n + 1}/{len(work)} again, with {w.block} rows at a time: {w.program.label}")
            compiled = builder.submit(w.program, w.env, w.dataset, w.block)()
            fixed, row = needed(compiled, w, data, cpu)
        done[i] = w, compiled
        whole = fixed + w.block * row
        text = f"{w.block} rows of {w.program.label} on {w.program.task} at a time take {_mib(whole)}"
        text += f" of {_mib(most)} MiB of a device" if most else " MiB of a device"
        if most is not None and whole > most:
            say(f"warning: memory: {text} (--memory); so many were settled before")
        elif w.block < work[i].block:
            say(f"memory: {text}, {_mib(row)} each; {work[i].block} do not fit")
        else:
            largest = max(largest, (whole / (most or 1), text))
    if largest[1]:
        say(f"memory: {'at most ' if len(work) > 1 else ''}{largest[1]}")
    return done


def fewer(work: Work, fit: int, most: int, one: int, devices: int) -> int:
    """Rows at a time, of which `fit` have room: fewer than there were, in waves of one length."""
    largest = min(fit, work.block - 1)
    if largest < 1:
        raise UserError(
            f"{work.program.task} {work.program.label}: one row needs {_mib(one)} MiB of a device, expected at most {_mib(most)} (--memory); "
            "fewer --online-steps need less"
        )
    waves = -(-len(work.program.rows) // (largest * devices))
    return -(-len(work.program.rows) // (waves * devices))


def among(asked: str, processes: int) -> str:
    """What each of so many processes may use that share the devices."""
    number, share = amount(asked)
    return f"{number / processes:.4g}" if share else asked


def exhausted(error: Exception, work: Work, smaller: Callable[[int], str]) -> UserError | None:
    """What to say where a device has run out of memory all the same; None for another error. `smaller` says how to go on with so many rows."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        return None
    what = f"the device ran out of memory with {work.block} rows at a time; what is finished is kept"
    how = smaller(work.block // 2) if work.block > 1 else "fewer --online-steps need less"
    return UserError(f"{work.program.task} {work.program.label}: {what}; {how} ({' '.join(str(error).split())[:120]})")


def of_data(work: Sequence[Work]) -> int:
    """Bytes of all offline data that the programs see, each once."""
    return sum(state_bytes(data) for data in {id(w.dataset): w.dataset for w in work}.values())


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f}" if count >= 10 * 2**20 else f"{count / 2**20:.2g}"
