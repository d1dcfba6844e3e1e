"""The bars that the suite's speed is held to, one module each: `python -m benchmarks.bars --help`.

A bar compares a ratio of two things measured in one process, seconds apart, or a number of seconds, with a limit that was set beforehand. Rates
are the best of their repetitions, as the GEMM rate is: whatever else a machine does only slows them; medians stand beside them. A bar
that cannot be measured on a machine says what it needs, and counts neither as met nor as missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

GPU = "a GPU"
GEMM = (2048, 256, 1024)  # (m, k, n): a residual block of the paper's denoiser; the rate that bars are stated against


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar and what was measured."""

    bar: str  #                   the module that measures it
    what: str  #                  in words, with its unit
    limit: float
    at_most: bool  #              the measured value may be at most the limit; otherwise at least
    measured: float | None  #     None: not measured here
    gemm_flop_per_s: float | None = None  #  of the same run
    needs: str | None = None  #   what this machine lacks
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """None: not measured here. A measurement that is not a number is missed."""
        if self.measured is None:
            return None
        return bool(self.measured <= self.limit if self.at_most else self.measured >= self.limit)

    def fields(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "met": self.met}


def gemm(devices: list, precision: str) -> float:
    """FLOP/s of the products that the bars are stated against, on all devices together."""
    from benchmarks import machine

    return machine.gemm_rate(GEMM, devices, precision)


def on_gpu() -> bool:
    import jax

    return jax.devices()[0].platform == "gpu"


class Loop:
    """The suite's own compiled loop of EXPO at a size, for repeated timings."""

    def __init__(self, size: Any, seeds: int, precision: str, name: str = "paper") -> None:
        from benchmarks import case

        asked = case.Case("expo", name, seeds=seeds, precision=precision)
        self.program, self.task = case.prepare(asked, size)
        compiled, rows, self.devices_used, self.compile_s = case.compile_case(asked, self.program, self.task)
        self.stepper = case.Stepper(self.program, compiled, self.task, rows)
        self.seeds = seeds
        if self.program.protocol.warmup_steps:
            self.stepper.phase("online", self.program.protocol.warmup_steps)

    def seconds(self, steps: int) -> float:
        """Of `steps` environment steps of every seed."""
        return self.stepper.phase("online", steps)

    def repeat(self, steps: int, repeats: int) -> dict[str, Any]:
        """Seconds of an environment step of every seed, and those of all cores together: less than cores x seconds where a core waits,
        for another one or because something else runs on the machine."""
        began = time.process_time()
        seconds = [self.seconds(steps) / steps for _ in range(repeats)]
        cpu = (time.process_time() - began) / steps / repeats
        return {"s_per_env_step": spread(seconds), "cpu_s_per_env_step": cpu}

    def flop(self) -> float:
        """Of one environment step of one seed, as its program does them."""
        from benchmarks import flops

        return flops.per_env_step(
            "expo", self.program.config, self.program.protocol, self.task.env.obs_size, self.task.env.action_size
        ).flop


def steps_for(seconds: Callable[[int], float], aim: float) -> int:
    """How many steps take about `aim` seconds, at least one. The first call of a program is slower than the others."""
    one = seconds(1)
    if one < aim / 20:  # and a single step of many says little
        one = seconds(10) / 10
    return max(1, round(aim / one))


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def command_line() -> argparse.ArgumentParser:
    """Of a bar's module."""
    parser = argparse.ArgumentParser(description="One bar as JSON; python -m benchmarks.bars runs them all.")
    parser.add_argument("--precision", default="float32")
    return parser


def report(measured: list[Bar]) -> None:
    """The bars as one line of JSON."""
    print(json.dumps([bar.fields() for bar in measured]))
