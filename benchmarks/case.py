"""One case: an agent at a size with a number of seeds, compiled and run by the project's own builder and loop, as one line of JSON.

    python -m benchmarks.case --agent expo --size quickstart --seeds 1

A process of its own per case, so that the peak of its resident memory belongs to that case alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flops, synthetic
from experiments import quickstart
from expo_bench import Experiment
from expo_bench.sweeps import devices as device_rows
from expo_bench.sweeps import grid, runner
from expo_bench.sweeps.compiled import Builder, Compiled, stack, wave_rows
from expo_bench.training import loop

REPETITION_SECONDS = 2.0  # what a repetition aims at when the iterations are chosen automatically
MAX_ITERATIONS = 1_000


@dataclasses.dataclass(frozen=True)
class Size:
    """The networks and the protocol of a case; the agent's own where nothing is named."""

    task: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)


SIZES = {
    "quickstart": Size("push-disc", quickstart.EXPERIMENT.config, quickstart.EXPERIMENT.protocol),
    # Every agent's published sizes and its own protocol. No offline phase, no warm-up: the online step is measured.
    "paper": Size(synthetic.NAME, {}, {"offline_steps": 0, "warmup_steps": 0, "eval_episodes": 1}),
}


@dataclasses.dataclass(frozen=True)
class Case:
    agent: str
    size: str = "quickstart"
    seeds: int = 1
    task: str | None = None  #        None: the size's own
    iterations: int | None = None  #  loop iterations per repetition; None: chosen so that one takes about REPETITION_SECONDS
    repetitions: int = 5
    seconds: float = 30.0  #          all repetitions together, when the iterations are chosen automatically
    updates: int | None = None  #     U; None: the protocol's
    precision: str = "float32"


def prepare(case: Case, size: Size) -> tuple[grid.Program, runner.Task]:
    """The program of a case and its task with data."""
    task = case.task or size.task
    protocol = dict(size.protocol) if case.updates is None else {**size.protocol, "updates": case.updates}
    known = known_fields(case.agent, size.config)
    experiment = Experiment("benchmark", [task], [case.agent], case.seeds, config=known, protocol=protocol, precision=case.precision)
    if task == synthetic.NAME:
        env = synthetic.Synthetic()
        return grid.programs(experiment, {task: None})[0], runner.Task(env, synthetic.transitions(env), "random actions")
    programs = runner.plan(experiment)
    return programs[0], runner.prepare_task(task, experiment, programs, lambda line: print(line, file=sys.stderr))


def known_fields(agent: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a shared config that the agent has."""
    from expo_bench import agents
    from expo_bench.config import fields

    return {name: value for name, value in config.items() if name in fields(agents.load(agent).Config)}


class Stepper:
    """The compiled online phase of a case and the state it has reached; each call is timed until its results are there."""

    def __init__(self, program: grid.Program, compiled: Compiled, task: runner.Task, size: int) -> None:
        self.calls, self.dataset, self.protocol = compiled.calls, task.offline_data(program), program.protocol
        self.tallies = {name: compiled.tally(name, np.full(size, -1)) for name in compiled.tallies}
        seeds, self.hyper = stack(program.rows, size)
        self.env_step = 0
        self.state = jax.block_until_ready(self.calls["init"](seeds, self.hyper))

    def phase(self, name: str, count: int) -> float:
        """Seconds of `count` gradient steps of "pretrain" or loop iterations of "online"."""
        clock = loop.Clock(jnp.int32(0), jnp.int32(self.env_step))
        began = time.perf_counter()
        self.state, self.tallies[name] = self.calls[name](self.state, clock, jnp.int32(count), self.hyper, self.dataset, self.tallies[name])
        jax.block_until_ready((self.state, self.tallies[name]))
        if name == "online":
            self.env_step += count * self.protocol.num_envs
        return time.perf_counter() - began

    def evaluation(self) -> float:
        """Seconds of one evaluation."""
        began = time.perf_counter()
        jax.block_until_ready(self.calls["evaluate"](self.state, jnp.int32(self.env_step), self.hyper))
        return time.perf_counter() - began


def plan_repetitions(case: Case, one: float) -> tuple[int, int]:
    """(iterations per repetition, repetitions) for a case whose iteration takes `one` seconds."""
    if case.iterations is not None:
        return case.iterations, case.repetitions
    iterations = int(max(1, min(MAX_ITERATIONS, REPETITION_SECONDS / one)))
    return iterations, int(max(1, min(case.repetitions, case.seconds / (iterations * one))))


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def timed(stepper: Stepper, case: Case) -> dict[str, Any]:
    """Repetitions of the online phase after its warm-up, and the offline phase and an evaluation where the size has them."""
    protocol = stepper.protocol
    offline = None
    if "pretrain" in stepper.calls:
        stepper.phase("pretrain", 1)
        count = max(1, protocol.offline_steps // 4)
        offline = case.seeds * count / stepper.phase("pretrain", count)
    if protocol.warmup_steps:
        stepper.phase("online", protocol.warmup_steps // protocol.num_envs)
    first = stepper.phase("online", 1)
    one = first if first > REPETITION_SECONDS else stepper.phase("online", 2) / 2
    iterations, repetitions = plan_repetitions(case, one)
    seconds = [stepper.phase("online", iterations) for _ in range(repetitions)]
    steps = iterations * protocol.num_envs
    evaluation = None
    if case.size != "paper":
        stepper.evaluation()
        evaluation = stepper.evaluation()
    return {
        "iterations": iterations,
        "iterations_chosen": "given" if case.iterations is not None else f"automatic: {one:.3g} s per iteration",
        "repetitions": repetitions,
        "seconds_per_env_step": spread([s / steps for s in seconds]),
        "env_steps_per_s": spread([case.seeds * steps / s for s in seconds]),
        "updates_per_s": spread([case.seeds * steps * protocol.updates / s for s in seconds]),
        "offline_gradient_steps_per_s": offline,
        "evaluation_s": evaluation,
    }


def compile_case(case: Case, program: grid.Program, task: runner.Task) -> tuple[Compiled, int, int, float]:
    """(executables, rows with padding, devices used, seconds of wall clock)."""
    devices = jax.devices()
    block = device_rows.block_rows(case.seeds, len(devices), None)
    builder = Builder(devices, case.precision)
    began = time.perf_counter()
    try:
        compiled = builder.submit(program, task.env, task.offline_data(program), block)()
    finally:
        builder.close()
    size = wave_rows(program, block, devices)
    return compiled, size, size // block, time.perf_counter() - began


def peak_memory() -> dict[str, int | None]:
    """Peak bytes: resident in this process (getrusage), and on the first device where its allocator says so."""
    unit = 1 if sys.platform == "darwin" else 1024
    stats = jax.devices()[0].memory_stats() or {}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak_resident_bytes": resident, "peak_device_bytes": stats.get("peak_bytes_in_use")}


def measure(case: Case, size: Size | None = None) -> dict[str, Any]:
    """Everything that is reported of a case; `size` overrides the named one."""
    device_rows.start()
    program, task = prepare(case, size or SIZES[case.size])
    compiled, rows, used, wall = compile_case(case, program, task)
    result = timed(Stepper(program, compiled, task, rows), case)
    sizes = task.env.obs_size, task.env.action_size
    work = flops.per_env_step(case.agent, program.config, program.protocol, *sizes)
    achieved = {k: work.flop * v for k, v in result["env_steps_per_s"].items()}
    return {
        "agent": case.agent,
        "size": case.size,
        "task": program.task,
        "engine": task.env.engine,
        "seeds": case.seeds,
        "rows": rows,
        "devices_used": used,
        "precision": case.precision,
        "protocol": dataclasses.asdict(program.protocol),
        "compile_s": wall,
        "compile_phases_s": compiled.seconds,
        **result,
        "flop_per_env_step": work.flop,
        "bytes_per_env_step": work.bytes,
        "achieved_flop_per_s": achieved,
        **peak_memory(),
        "state_bytes": compiled.bytes_per_row * rows,
        "scratch_bytes": compiled.temporary_bytes,
    }


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m benchmarks.case", description=__doc__.splitlines()[0])
    p.add_argument("--agent", required=True)
    p.add_argument("--size", choices=SIZES, default="quickstart")
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--task")
    p.add_argument("--iterations", type=int)
    p.add_argument("--repetitions", type=int, default=5)
    p.add_argument("--seconds", type=float, default=30.0)
    p.add_argument("--updates", type=int)
    p.add_argument("--precision", default="float32")
    return p


if __name__ == "__main__":
    print(json.dumps(measure(Case(**vars(parser().parse_args())))))
