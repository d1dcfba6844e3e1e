"""Run an experiment: build, compile, train, evaluate, write. The edge where side effects live."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.registry import TASKS
from expo_bench import datasets
from expo_bench.errors import UserError, unknown
from expo_bench.parts import replay
from expo_bench.sweeps import devices as device_rows
from expo_bench.sweeps import grid, results
from expo_bench.sweeps.compiled import Builder, Compiled, stack, state_bytes, wave_rows, waves
from expo_bench.sweeps.experiment import Experiment, validate
from expo_bench.sweeps.progress import Progress, duration
from expo_bench.training import loop

CHUNK_SECONDS = 2.0  # a call of a program aims at this long, so that progress shows and Ctrl-C is heard


@dataclasses.dataclass
class Timings:
    """Wall-clock seconds of one program."""

    compile_s: float = 0.0
    offline_s: float = 0.0
    online_s: float = 0.0
    evaluation_s: float = 0.0


@dataclasses.dataclass
class Task:
    env: Any
    dataset: jax.Array  # [n, W] packed, with the task's own rewards; n = 0 without data
    source: str
    episode_ends: tuple[int, ...] = ()  # last row of each episode
    views: dict[tuple, jax.Array] = dataclasses.field(default_factory=dict)  # what programs see of it, shared by those that see the same

    def offline_data(self, program: grid.Program) -> jax.Array:
        """What a program sees of the data: all of it, or the first episodes, with the rewards that it learns from."""
        protocol = program.protocol
        view = (protocol.episodes, protocol.reward_scale, protocol.reward_shift)
        if view not in self.views:
            rows = self.dataset[: self.episode_ends[protocol.episodes - 1] + 1] if protocol.episodes else self.dataset
            own = (protocol.reward_scale, protocol.reward_shift) == (1.0, 0.0)
            sizes = self.env.obs_size, self.env.action_size
            self.views[view] = rows if own else replay.map_reward(rows, *sizes, protocol.learnt_reward)
        return self.views[view]


def plan(experiment: Experiment) -> list[grid.Program]:
    """The programs of an experiment, after every check that needs no physics."""
    validate(experiment)
    for task in experiment.tasks:
        if task not in TASKS:
            raise unknown("task", task, TASKS)
    suites = {name: TASKS[name].suite for name in experiment.tasks}
    return grid.programs(experiment, suites, has_dataset=experiment.dataset != "none")


def prepare_task(name: str, experiment: Experiment, programs: Sequence[grid.Program], say: Callable[[str], None]) -> Task:
    """The environment and its offline data on the device."""
    env = envs.make(name, engine=experiment.engine)
    if experiment.dataset == "none":
        return Task(env, replay.empty(0, env.obs_size, env.action_size), "none")
    if experiment.dataset is None:
        data = datasets.default_dataset(name, env, device_rows.cache_dir() / "data")
        source = f"the task's own demonstrations ({data.meta.get('source', 'generated')})"
    else:
        data, source = datasets.load(experiment.dataset), experiment.dataset
    data, warnings = datasets.prepare(data, env, source)
    for warning in warnings:
        say(f"warning: {warning}")
    say(f"{name}: {data.size:,} offline transitions in {len(data.episode_ends)} episodes from {source}")
    packed = replay.pack(replay.Batch(data.obs, data.action, data.reward, data.terminated, data.next_obs), data.terminated | data.truncated)
    for program in programs:
        if program.task == name and program.protocol.episodes > len(data.episode_ends):
            raise UserError(
                f"{source}: {program.protocol.episodes} episodes asked for, expected 1 to {len(data.episode_ends)}, as many as it has"
            )
    return Task(env, packed, source, tuple(int(end) for end in data.episode_ends))


def run(
    experiment: Experiment,
    out: str | Path | None = None,
    *,
    progress: Progress | None = None,
    command: str | None = None,
    search: dict[str, Any] | None = None,
) -> Any:
    """Run an experiment into the folder `out` (a new one under runs/ without) and return its results as a data frame.

    One row per task, agent, variant, cell, seed and evaluation; `frame.attrs["folder"]` names the folder. `search`: how its hyperparameters
    were chosen, for the manifest.
    """
    import pandas as pd

    progress = progress or Progress()
    all_programs = plan(experiment)
    results.check_out(out)
    used_devices = device_rows.start()
    tasks = {name: prepare_task(name, experiment, all_programs, progress.say) for name in experiment.tasks}
    blocks = [device_rows.block_rows(len(p.rows), len(used_devices), experiment.block_rows) for p in all_programs]
    manifest = _manifest(experiment, all_programs, blocks, used_devices, tasks, command)
    if search is not None:
        manifest["search"] = search
    _announce(all_programs, tasks, blocks, used_devices, progress)
    folder = results.new_folder(out, experiment.name)  # only now: what fails before leaves nothing behind
    manifest["agent_files"] = results.write_agent_files(folder, (p.module for p in all_programs))
    results.write_manifest(folder, manifest)

    started = time.perf_counter()
    builder = Builder(used_devices, experiment.precision)
    frames = []
    try:
        pending = [
            builder.submit(p, tasks[p.task].env, tasks[p.task].offline_data(p), b) for p, b in zip(all_programs, blocks, strict=True)
        ]
        compiled = []
        for i, wait in enumerate(pending):
            progress.update(f"compiling {i + 1}/{len(pending)}: {all_programs[i].label}")
            compiled.append(wait())
        manifest["compile_wall_s"] = round(time.perf_counter() - started, 2)
        scratch = max(c.temporary_bytes for c in compiled)
        progress.say(
            f"compiled {len(compiled)} programs in {duration(manifest['compile_wall_s'])}, at most {scratch / 2**20:,.0f} MiB of scratch memory"
        )
        for i, (program, executables) in enumerate(zip(all_programs, compiled, strict=True)):
            runner = ProgramRun(experiment.name, program, executables, tasks[program.task], used_devices, blocks[i], progress)
            name = f"{i:03}-{program.task}-{program.agent}"
            runner.execute(lambda rows, name=name: results.write_rows(folder, name, rows))
            frames.append(pd.DataFrame(runner.rows))
            manifest["programs"][i].update(timings=dataclasses.asdict(runner.timings), env_steps_per_s=runner.rate)
            results.write_manifest(folder, manifest)
    finally:
        builder.close()
    manifest["finished"] = _now()
    manifest["wall_s"] = round(time.perf_counter() - started, 2)
    results.write_manifest(folder, manifest)
    frame = pd.concat(frames, ignore_index=True)
    frame.attrs["folder"] = str(folder)
    return frame


class ProgramRun:
    """One program from its first parameters to its last evaluation, wave after wave of rows."""

    def __init__(
        self,
        experiment: str,
        program: grid.Program,
        compiled: Compiled,
        task: Task,
        devices: Sequence[jax.Device],
        block: int,
        progress: Progress,
    ) -> None:
        self.experiment, self.program, self.compiled, self.task, self.progress = experiment, program, compiled, task, progress
        self.dataset = task.offline_data(program)
        self.size = wave_rows(program, block, devices)
        self.timings = Timings(compile_s=round(compiled.seconds, 2))
        self.rows: list[dict[str, Any]] = []
        self.rate = 0.0  #           environment steps per second of the online phase, all rows of a wave
        self.latest = float("nan")  # mean success of the newest evaluation

    def execute(self, write: Callable[[list[dict[str, Any]]], None]) -> None:
        """Run all waves; `write` gets all result rows so far after every evaluation."""
        self.write = write
        protocol, calls = self.program.protocol, self.compiled.calls
        for wave in waves(self.program, self.size):
            self.wave = wave
            self.real = len(wave)
            seeds, self.hyper = stack(wave, self.size)
            self.wave_started = time.perf_counter()
            self.state = calls["init"](seeds, self.hyper)
            if "pretrain" in calls:
                self._offline(protocol.offline_steps, protocol.offline_evals)
            else:
                self._evaluate("online", 0, 0, {})
            self._online()
        online = protocol.online_steps * len(self.program.rows)
        self.rate = round(online / self.timings.online_s, 1) if self.timings.online_s and "online" in calls else 0.0
        self.progress.say(self._summary())

    def _summary(self) -> str:
        t = self.timings
        rate = f", {self.rate:,.0f} environment steps/s" if self.rate else ""
        times = f"offline {duration(t.offline_s)}, online {duration(t.online_s)}, evaluation {duration(t.evaluation_s)}"
        return f"{self.program.task} {self.program.label}: success {self.latest:.2f} ({len(self.program.rows)} runs; {times}{rate})"

    def _offline(self, steps: int, evaluations: int) -> None:
        done = 0
        for k in range(1, evaluations + 1):
            until = steps * k // evaluations
            metrics = self._chunks("pretrain", done, 0, until - done, 1, steps)
            done = until
            self._evaluate("offline", done, 0, metrics)

    def _online(self) -> None:
        protocol = self.program.protocol
        done = 0
        while done < protocol.online_steps:
            until = min(done + protocol.eval_every, protocol.online_steps)
            metrics: dict[str, np.ndarray] = {}
            if "online" in self.compiled.calls and done < protocol.warmup_steps:  # learns nothing, so its metrics say nothing
                warm = min(until, protocol.warmup_steps)
                self._chunks("online", 0, done, warm - done, protocol.num_envs, protocol.online_steps)
                done = warm
            if "online" in self.compiled.calls and done < until:
                metrics = self._chunks("online", 0, done, until - done, protocol.num_envs, protocol.online_steps)
            done = until
            self._evaluate("online", protocol.offline_steps, done, metrics)

    def _chunks(self, phase: str, grad_step: int, env_step: int, steps: int, per_iteration: int, total: int) -> dict[str, np.ndarray]:
        """`steps` steps of a phase in calls of about CHUNK_SECONDS -> mean metrics [S]."""
        call = self.compiled.calls[phase]
        remaining, chunk = steps // per_iteration, max(1, min(steps // per_iteration, 32))
        sums: dict[str, np.ndarray] = {}
        while remaining:
            count = min(chunk, remaining)
            began = time.perf_counter()
            clock = loop.Clock(jnp.asarray(grad_step, jnp.int32), jnp.asarray(env_step, jnp.int32))
            self.state, metrics = call(self.state, clock, jnp.asarray(count, jnp.int32), self.hyper, self.dataset)
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + count * np.asarray(value, np.float64)
            seconds = time.perf_counter() - began
            remaining -= count
            grad_step, env_step = (grad_step + count, env_step) if phase == "pretrain" else (grad_step, env_step + count * per_iteration)
            field = "offline_s" if phase == "pretrain" else "online_s"
            setattr(self.timings, field, getattr(self.timings, field) + seconds)
            self._show(phase, grad_step if phase == "pretrain" else env_step, total, count * per_iteration / seconds)
            chunk = int(max(1, min(4 * count, CHUNK_SECONDS * count / max(seconds, 1e-6))))
        return {name: value / (steps // per_iteration) for name, value in sums.items()}

    def _show(self, phase: str, done: int, total: int, rate: float) -> None:
        left = duration((total - done) / rate) if rate else "?"
        noun = "gradient steps" if phase == "pretrain" else "seed-steps"
        self.progress.update(
            f"{self.program.task} {self.program.label} {phase} {done:,}/{total:,}  {rate * self.real:,.0f} {noun}/s  left {left}  success {self.latest:.2f}"
        )

    def _evaluate(self, phase: str, grad_step: int, env_step: int, metrics: dict[str, np.ndarray]) -> None:
        began = time.perf_counter()
        last_offline = phase == "offline" and grad_step == self.program.protocol.offline_steps
        number = env_step if phase == "online" or last_offline else -grad_step
        evaluated = {
            k: np.asarray(v) for k, v in self.compiled.calls["evaluate"](self.state, jnp.asarray(number, jnp.int32), self.hyper).items()
        }
        self.timings.evaluation_s += time.perf_counter() - began
        if phase == "online" and "online" in self.compiled.calls:
            protocol = self.program.protocol
            grad_step = grad_step * ("pretrain" in self.compiled.calls) + max(0, env_step - protocol.warmup_steps) * protocol.updates
        elapsed = round(time.perf_counter() - self.wave_started, 3)
        for i, row in enumerate(self.wave):
            self.rows.append(
                {
                    "experiment": self.experiment,
                    "task": self.program.task,
                    "agent": self.program.agent,
                    "variant": self.program.variant,
                    **row.labels,
                    "seed": row.seed,
                    "phase": phase,
                    "env_step": env_step,
                    "grad_step": grad_step,
                    "wall_s": elapsed,
                    **{name: value[i].item() for name, value in evaluated.items()},
                    "eval_episodes": self.program.protocol.eval_episodes,
                    **{name: float(value[i]) for name, value in metrics.items()},
                }
            )
        self.latest = float(np.mean(evaluated["success"][: self.real]))
        self.write(self.rows)


def _announce(
    programs: Sequence[grid.Program], tasks: dict[str, Task], blocks: Sequence[int], devices: Sequence[jax.Device], progress: Progress
) -> None:
    """What is going to run, before the first compilation."""
    rows = sum(len(p.rows) for p in programs)
    steps = sum(len(p.rows) * p.protocol.online_steps for p in programs)
    largest = 0
    for program, block in zip(programs, blocks, strict=True):
        run_of = loop.make(
            tasks[program.task].env,
            program.module.make,
            program.config,
            program.protocol,
            len(tasks[program.task].offline_data(program)),
        )
        one = jax.eval_shape(run_of.init, *jax.tree.map(lambda x: x[0], stack(program.rows[:1], 1)))
        largest = max(largest, state_bytes(one) * wave_rows(program, block, devices))
    data = state_bytes({id(rows): rows for t in tasks.values() for rows in (t.dataset, *t.views.values())})
    kinds = f"{len(devices)} {devices[0].device_kind} device{'s' if len(devices) > 1 else ''}"
    progress.say(
        f"{len(programs)} programs, {rows} runs, {steps:,} environment steps on {kinds}; "
        f"at most {largest / 2**20:,.0f} MiB of state and {data / 2**20:,.1f} MiB of data at a time"
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _manifest(
    experiment: Experiment,
    programs: Sequence[grid.Program],
    blocks: Sequence[int],
    devices: Sequence[jax.Device],
    tasks: dict[str, Task],
    command: str | None,
) -> dict[str, Any]:
    """Everything needed to repeat the run."""
    return {
        "experiment": experiment.name,
        "command": command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "created": _now(),
        "finished": None,
        "git_commit": results.git_commit(),
        "versions": results.versions(),
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "devices": len(devices),
        "precision": experiment.precision,
        "comparison": experiment.comparison,
        "seeds": list(range(experiment.first_seed, experiment.first_seed + experiment.seeds)),
        "tasks": {name: {"engine": t.env.engine, "data": t.source, "transitions": len(t.dataset)} for name, t in tasks.items()},
        "protocols": grid.differences(list(programs)),
        "programs": [
            {
                "task": p.task,
                "agent": p.agent,
                "variant": p.variant,
                "rows": len(p.rows),
                "block_rows": block,
                "config": dataclasses.asdict(p.config),
                "cells": [r.labels for r in p.rows if r.labels],
            }
            for p, block in zip(programs, blocks, strict=True)
        ],
    }
