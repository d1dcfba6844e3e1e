"""A sweep as jobs: its programs, and blocks of their rows, run side by side, as processes of this machine or as an array of Slurm jobs.

    RUN/manifest.json     what is run, how it is cut into parts, which job runs which; written by who submits
    RUN/results/          the rows of all jobs; those of one program become one file when all are done
    RUN/jobs/003/         one job: its lock, its checkpoints, how far it is, its own manifest
    RUN/jobs/slurm/       what submitit keeps: the logs and the scripts

A job is an ordinary sweep of one program or a part of its rows, so that all that holds for a sweep that is killed holds for it. The rows per
program and device are chosen here, once, so that a row is the same bit for bit in whichever job it runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from expo_bench.errors import UserError
from expo_bench.sweeps import devices as device_rows
from expo_bench.sweeps import grid, jobs, parts, results, runner, slurm, status
from expo_bench.sweeps import manifest as manifests
from expo_bench.sweeps import memory as memory_plan
from expo_bench.sweeps.compiled import Builder
from expo_bench.sweeps.experiment import Experiment
from expo_bench.sweeps.folder import RunFolder, in_use, job_path
from expo_bench.sweeps.progress import Progress
from expo_bench.sweeps.sweep import refuse_another, work_name

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the jobs run, and what one of them gets."""

    kind: str  # "local" or "slurm"
    jobs: int | None = None  # at the same time
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    nodes: int = 1
    partition: str | None = None
    account: str | None = None
    time: str | None = None
    more: Mapping[str, str] = dataclasses.field(default_factory=dict)  # further options of sbatch

    @property
    def devices(self) -> int:
        """JAX devices of one job."""
        return self.nodes * (self.gpus_per_node or self.cpus_per_task or 1)

    @property
    def at_once(self) -> int | None:
        """Jobs at the same time; None: as many as there are."""
        return self.jobs or (max(1, device_rows.cores() // self.devices) if self.kind == "local" else None)


def validate(cluster: Cluster) -> None:
    """One clear line for what can be seen to be wrong before anything is submitted."""
    for name in ("jobs", "cpus_per_task", "nodes", "gpus_per_node"):
        value = getattr(cluster, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    slurm.minutes(cluster.time or slurm.DEFAULT_TIME)


def run(
    experiment: Experiment,
    out: str | Path | None,
    cluster: Cluster,
    *,
    progress: Progress | None = None,
    command: str | None = None,
    search: dict[str, Any] | None = None,
    checkpoint_minutes: float = 10.0,
    resume_anyway: bool = False,
    policies: bool = True,
    memory: str = memory_plan.DEFAULT,
) -> pd.DataFrame | None:
    """`runner.run` in jobs. Local jobs are waited for, and all rows returned; Slurm's are submitted, and None is returned (all rows, where
    nothing was left to do). A run folder that holds a part of this very experiment is gone on with: what no job has finished, and no job that is
    alive is at, is submitted."""
    progress = progress or Progress()
    validate(cluster)
    shared = memory_plan.among(memory, cluster.at_once or 1) if cluster.kind == "local" else memory
    programs = runner.plan(experiment)
    with contextlib.closing(RunFolder(out)) as folder:
        begun = manifests.begun(experiment, programs) | ({} if search is None else {"search": search})
        refuse_another(folder, begun, [key for key in manifests.IDENTITY if key != "tasks"])
        if folder.manifest and "cluster" not in folder.manifest:
            raise UserError(f"{out}: was begun without --cluster; go on without it, or name a new folder")
        manifest = folder.manifest or _cut(begun, experiment, programs, cluster, shared, progress, command)
        if folder.manifest and experiment.block_rows not in (None, *(p["block_rows"] for p in manifest["programs"])):
            raise UserError(f"{out}: was cut into jobs of {manifest['programs'][0]['block_rows']} rows per device; leave out --block-rows")
        path = folder.make(experiment.name)
        manifest["cluster"] |= {"kind": cluster.kind, "checkpoint_minutes": checkpoint_minutes, "resume_anyway": resume_anyway}
        manifest["cluster"] |= {"policies": policies, "memory": shared}
        if not manifest["finished"]:
            results.write_agent_files(path, (p.module for p in programs))
            results.write_manifest(path, manifest)
        if left := _left(path, manifest):
            if cluster.kind == "slurm":
                manifest["cluster"]["jobs"] |= (submitted := slurm.submit(path, experiment.name, left, cluster))
                results.write_manifest(path, manifest)
                progress.say(
                    f"{len(left)} jobs submitted ({', '.join(submitted.values())}); `expo-bench status {path}` says how far they are"
                )
                return None
            show = lambda: progress.update(status.line(status.of(path)))
            jobs.run_local(path, left, cluster.at_once or 1, cluster.devices, progress.say, show)
        elif manifest["finished"]:
            progress.say(f"{path}: complete already, nothing is left to run")
        if any(not parts.done(path, n) for n in range(len(parts.of(manifest)))):
            progress.say(f"{path}: nothing to submit, the jobs that are left are pending or running")
            return None
        parts.join(path, manifest)
        return _frame(path, manifest)


def _cut(
    begun: dict[str, Any],
    experiment: Experiment,
    programs: Sequence[grid.Program],
    cluster: Cluster,
    memory: str,
    progress: Progress,
    command: str | None,
) -> dict[str, Any]:
    """The manifest of a new run: the data are made here, once, and the rows cut into parts. How many rows fit at a time can be asked of this machine
    for jobs of its own only (whose programs are then compiled already)."""
    with contextlib.suppress(RuntimeError):  # a device runs already
        jax.config.update("jax_platforms", "cpu")  # of this process: a node to submit from has no other, or should leave it to the jobs
    devices = device_rows.start()[: cluster.devices]
    tasks = {name: runner.prepare_task(name, experiment, programs, progress.say) for name in experiment.tasks}
    wanted = -(-(cluster.at_once or 1) // len(programs))  # parts of a program
    work = runner.work_of(programs, tasks, runner.blocks_of(experiment, programs, None), cluster.devices * wanted)
    if cluster.kind == "local" and experiment.block_rows is None:
        with contextlib.closing(Builder(devices, experiment.precision, experiment.denoiser_precision)) as builder:
            limit, data = memory_plan.limit(memory, devices), memory_plan.of_data(work)
            planned = memory_plan.plan(dict(enumerate(work)), builder, limit, data, progress.say, progress.update)
        work = [w for w, _ in planned.values()]
    blocks = [w.block for w in work]
    cut = parts.cut(programs, blocks, cluster.devices, wanted)
    progress.say(f"{len(programs)} programs, {sum(len(p.rows) for p in programs)} runs in {len(cut)} jobs")
    manifest = manifests.described(begun, experiment, programs, tasks, blocks, command)
    return manifest | {"cluster": {"parts": [dataclasses.asdict(part) for part in cut], "devices": cluster.devices, "jobs": {}}}


def _left(run: Path, manifest: Mapping[str, Any]) -> list[int]:
    """The parts that are not done, and that no job is at or waits to be at."""
    if manifest["finished"]:
        return []
    submitted = manifest["cluster"]["jobs"]
    alive = status.slurm_states(list(submitted.values()))
    numbers = range(len(parts.of(manifest)))
    return [n for n in numbers if not parts.done(run, n) and submitted.get(str(n)) not in alive and not in_use(job_path(run, n))]


def _frame(run: Path, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """All rows of a run that is complete."""
    import pandas as pd

    rows = [results.read_rows(run, work_name(i, program["task"], program["agent"])) for i, program in enumerate(manifest["programs"])]
    frame = pd.concat([pd.DataFrame(part) for part in rows], ignore_index=True)
    frame.attrs["folder"] = str(run)
    return frame
