"""Run an experiment: its plan, its tasks with their data, its folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

import envs
from envs import registry
from envs.core import TaskError
from expo_bench import datasets
from expo_bench.errors import UserError
from expo_bench.parts import replay
from expo_bench.sweeps import devices as device_rows
from expo_bench.sweeps import distributed, grid
from expo_bench.sweeps import manifest as manifests
from expo_bench.sweeps import memory as memory_plan
from expo_bench.sweeps.compiled import Work
from expo_bench.sweeps.experiment import Experiment, validate
from expo_bench.sweeps.folder import RunFolder, Spectator
from expo_bench.sweeps.progress import Progress
from expo_bench.sweeps.sweep import Sweep, refuse_another, work_name

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass
class Task:
    env: Any
    dataset: jax.Array  # [n, W] packed, with the task's own rewards, or the recorded ones; n = 0 without data
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
    try:
        suites = {name: registry.info(name).suite for name in experiment.tasks}
    except TaskError as error:
        raise UserError(str(error)) from None
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
    data, warnings = datasets.prepare(data, env, source, relabel=experiment.rewards == "task")
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
    checkpoint_minutes: float = 10.0,
    resume_anyway: bool = False,
    policies: bool = True,
    memory: str = memory_plan.DEFAULT,
) -> pd.DataFrame:
    """Run an experiment into the folder `out` (a new one under runs/ without) and return its results as a data frame.

    One row per task, agent, variant, cell, seed and evaluation; `frame.attrs["folder"]` names the folder. An `out` that holds a part of
    this very experiment is gone on with, from its newest checkpoint; what is finished is not repeated. Checkpoints are written every
    `checkpoint_minutes`, and on SIGTERM and SIGINT, which then raise Interrupted. `resume_anyway`: go on under another plan (device,
    versions, precision, block) too, where the curves do not go on as they began, bit for bit. `policies`: keep the best and the last agent
    of every run. `memory`: the share of a device's memory that a new run may use ("0.9"), or an amount ("2GiB"); it chooses how many rows run at
    a time where the experiment does not say so. `search`: how the hyperparameters were chosen, for the manifest.
    """
    progress = progress or Progress(None if distributed.first() else open(os.devnull, "w"))
    if not checkpoint_minutes > 0:
        raise UserError(f"checkpoint_minutes must be above 0, got {checkpoint_minutes}")
    memory_plan.amount(memory)  # that it says one
    programs = plan(experiment)
    with contextlib.closing(_folder(out)) as folder:
        if folder.manifest and "cluster" in folder.manifest and not folder.manifest["finished"]:
            raise UserError(f"{out}: is a sweep of jobs; `expo-bench sweep --resume {out} --cluster local` (or slurm) goes on with it")
        manifest = manifests.begun(experiment, programs) | ({} if search is None else {"search": search})
        refuse_another(folder, manifest, [key for key in manifests.IDENTITY if key != "tasks"])  # before anything is built
        devices = device_rows.start()
        blocks = blocks_of(experiment, programs, folder.manifest)
        tasks = {name: prepare_task(name, experiment, programs, progress.say) for name in experiment.tasks}
        work = work_of(programs, tasks, blocks, len(devices))
        _announce(work, devices, progress)
        manifest = manifests.described(manifest, experiment, programs, tasks, blocks, command)
        sweep = Sweep(experiment, folder, progress, resume_anyway, policies, memory)
        return sweep.run(work, manifests.complete(manifest, tasks, devices), devices, checkpoint_minutes)


def blocks_of(experiment: Experiment, programs: Sequence[grid.Program], recorded: Mapping[str, Any] | None) -> list[int | None]:
    """Rows per program and device: as the experiment says, or as they were when the run began; None where nobody has said so yet."""
    known = [p.get("block_rows") for p in recorded["programs"]] if recorded else [None] * len(programs)
    return [experiment.block_rows or k for k in known]


def work_of(programs: Sequence[grid.Program], tasks: Mapping[str, Task], blocks: Sequence[int | None], devices: int) -> list[Work]:
    """The programs with what they run on, under the names of their results; where nobody says how many rows run at a time, all of them, evenly over
    the devices."""
    return [
        Work(
            p,
            tasks[p.task].env,
            tasks[p.task].offline_data(p),
            device_rows.block_rows(len(p.rows), devices, block),
            work_name(i, p.task, p.agent),
            settled=block is not None,
        )
        for i, (p, block) in enumerate(zip(programs, blocks, strict=True))
    ]


def _folder(out: str | Path | None) -> RunFolder | Spectator:
    if not distributed.several() or (out is not None and distributed.first()):
        return RunFolder(out)
    if out is None:
        raise UserError("several processes as one program: name the folder of the results, --out; they would not choose the same one")
    return Spectator(Path(out), Path(out))


def _announce(work: Sequence[Work], devices: Sequence[jax.Device], progress: Progress) -> None:
    """What is going to run, before the first compilation."""
    rows = sum(len(w.program.rows) for w in work)
    steps = sum(len(w.program.rows) * w.program.protocol.online_steps for w in work)
    kinds = f"{len(devices)} {devices[0].device_kind} device{'s' if len(devices) > 1 else ''}"
    progress.say(
        f"{len(work)} programs, {rows} runs, {steps:,} environment steps on {kinds}; {memory_plan.of_data(work) / 2**20:,.1f} MiB of data"
    )
