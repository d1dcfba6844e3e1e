"""The compiled functions of one program: every phase of its run over a block of rows per device."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import Environment
from expo_bench import precision
from expo_bench.sweeps import devices as device_rows
from expo_bench.sweeps import distributed
from expo_bench.sweeps.grid import Program, Row
from expo_bench.sweeps.schedule import Leg, legs
from expo_bench.training import loop, tally

PHASES = {  # name: which arguments are per row, which are given up by the caller
    "init": ((True, True), ()),
    "pretrain": ((True, False, False, True, False, True), (0, 5)),
    "online": ((True, False, False, True, False, True), (0, 5)),
    "evaluate": ((True, False, True), ()),
}
TALLIED = ("pretrain", "online")


# Measured on EXPO (docs/speed.md): a third less compile time at the same speed, as matrix products come from a library and not from LLVM; vectors
# as wide as the processor has them; and that library (YNNPACK) for single products alone: its sums are several times slower than XLA's.
CPU_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1, "xla_cpu_prefer_vector_width": 512}
if jax.__version_info__ >= (0, 8, 2):  # which brought that library
    CPU_OPTIONS["xla_cpu_experimental_ynn_fusion_type"] = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"


@dataclasses.dataclass(frozen=True)
class Work:
    """A program with what it runs on."""

    program: Program
    env: Any
    dataset: jax.Array  # as the program sees it
    block: int  #         rows per device
    name: str  #          of its file of results
    settled: bool  #      whether the block stays, whatever the memory: it was asked for, or is recorded


def wave_rows(program: Program, block: int, devices: Sequence[jax.Device]) -> int:
    """Rows that run at the same time: a block on each device that gets one; on every device where they are those of several processes,
    of which none may be left out."""
    used = len(devices) if distributed.several() else min(len(devices), -(-len(program.rows) // block))
    return block * used


def waves(program: Program, size: int) -> list[tuple[Row, ...]]:
    """The rows in groups of `size`; the last may be shorter (it is padded when it runs)."""
    return [program.rows[i : i + size] for i in range(0, len(program.rows), size)]


def stack(rows: Sequence[Row], size: int) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Seeds [size] int32 and traced values [size] strong float32, padded by repeating the last row."""
    padded = [*rows, *[rows[-1]] * (size - len(rows))]
    hyper = {name: jnp.asarray([r.hyper[name] for r in padded], jnp.float32) for name in rows[0].hyper}
    return jnp.asarray([r.seed for r in padded], jnp.int32), hyper


@dataclasses.dataclass
class Compiled:
    """Executables by phase, and what compiling them cost."""

    calls: dict[str, Callable]
    state: Any  #         shapes of the run's state, [rows, ...]
    tallies: dict[str, Any]  # shapes of the tally of each phase that has one
    seconds: float  #     of compile time, summed over the phases (they are compiled side by side)
    bytes_per_row: int  # of the run's state
    temporary_bytes: int  # the largest phase's scratch memory, of a device
    peak_bytes: int  #     of a device, in the phase that needs most: arguments (the offline data among them), results and scratch memory

    def tally(self, phase: str, diverged: np.ndarray) -> tally.Tally:
        """An empty tally of a phase, for rows that diverged [rows] at these steps before."""
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.tallies[phase])
        return zeros._replace(diverged=np.array(diverged, np.int32))


def needed_phases(program: Program) -> list[str]:
    agent = program.module.make(program.config, loop.Spec(1, 1, 1, 1))
    phases = ["init", "evaluate"]
    if program.protocol.offline_steps and agent.pretrain:
        phases.append("pretrain")
    if agent.learn and program.protocol.online_steps:
        phases.append("online")
    return phases


def legs_of(program: Program) -> list[Leg]:
    """What each of its rows goes through."""
    return legs(program.protocol, needed_phases(program))


def state_bytes(state: Any) -> int:
    """Bytes of a pytree of shapes."""
    return sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(state))


def peak_bytes(analysis: Any) -> int:
    """Bytes of a device that an executable needs while it runs; what it may write its results over counts once."""
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return held + analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes


class Builder:
    """Compiles the phases of many programs side by side, one thread per core (XLA releases Python's lock)."""

    def __init__(self, devices: Sequence[jax.Device], precision: str, denoiser_precision: str | None = None) -> None:
        """Precisions of `Experiment`."""
        self.devices = list(devices)
        self.precisions = (precision, denoiser_precision)
        self.pool = ThreadPoolExecutor(max_workers=max(2, device_rows.cores()))

    def submit(self, program: Program, env: Environment, dataset: jax.Array, block: int) -> Callable[[], Compiled]:
        """Start compiling; the returned function waits for the result."""
        size = wave_rows(program, block, self.devices)
        used = self.devices[: size // block]
        run = loop.make(env, program.module.make, program.config, program.protocol, len(dataset))
        seeds, hyper = jax.eval_shape(lambda: stack(program.rows[:1], size))
        state = jax.eval_shape(jax.vmap(run.init), seeds, hyper)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        chunk = (state, loop.Clock(number, number), number, hyper, jax.ShapeDtypeStruct(dataset.shape, dataset.dtype))
        arguments = {"init": (seeds, hyper), "evaluate": (state, number, hyper), "pretrain": chunk, "online": chunk}
        phases = needed_phases(program)
        futures = {name: self.pool.submit(self._compile, run, name, used, arguments[name]) for name in phases}
        return lambda: self._collect(futures, state, size)

    def _compile(self, run: loop.Run, phase: str, used: Sequence[jax.Device], arguments: tuple) -> tuple[Callable, float, Any]:
        """(executable, seconds that it took, shapes of the phase's tally)."""
        rowwise, donate = PHASES[phase]
        start = time.perf_counter()
        seen = None
        if phase in TALLIED:
            state, _, _, hyper, dataset = arguments
            seen = jax.eval_shape(jax.vmap(functools.partial(run.nothing, phase), in_axes=(0, 0, None)), state, hyper, dataset)
            arguments = (*arguments, seen)
        with precision.products(*self.precisions, used[0].platform):
            lowered = device_rows.over_rows(getattr(run, phase), used, rowwise, donate).lower(*arguments)
            executable = lowered.compile(compiler_options=CPU_OPTIONS if used[0].platform == "cpu" else None)
        return executable, time.perf_counter() - start, seen

    def _collect(self, futures: dict[str, Future], state: Any, size: int) -> Compiled:
        results = {name: future.result() for name, future in futures.items()}
        analyses = [m for executable, *_ in results.values() if (m := executable.memory_analysis()) is not None]
        scratch = max((m.temp_size_in_bytes for m in analyses), default=0)
        peak = max((peak_bytes(m) for m in analyses), default=0)
        calls = {name: executable for name, (executable, *_) in results.items()}
        tallies = {name: seen for name, (*_, seen) in results.items() if seen is not None}
        return Compiled(calls, state, tallies, sum(s for _, s, _ in results.values()), state_bytes(state) // size, scratch, peak)

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
