"""Jobs of Slurm, by submitit: what is asked of sbatch, and what runs in a job."""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expo_bench.errors import Interrupted, UserError
from expo_bench.sweeps import distributed, parts
from expo_bench.sweeps.folder import JOBS
from expo_bench.sweeps.interrupts import Interrupts
from expo_bench.sweeps.jobs import reported, work_on

if TYPE_CHECKING:
    from expo_bench.sweeps.cluster import Cluster

SIGNAL_SECONDS = 120  # between Slurm's signal and the end of a job's time: for the call that runs, and for a checkpoint
DEFAULT_TIME = "1:00:00"


def minutes(time_limit: str) -> int:
    """Slurm's "4:00:00", "1-12:00:00", "90" (minutes) in minutes, rounded up."""
    found = re.fullmatch(
        r"(?:(?P<d>\d+)-(?P<h>\d+)(?::(?P<m>\d+)(?::(?P<s>\d+))?)?|(?:(?P<h2>\d+):)?(?P<m2>\d+)(?::(?P<s2>\d+))|(?P<m3>\d+))", time_limit
    )
    if not found:
        raise UserError(f"--time {time_limit}: expected hours:minutes:seconds (4:00:00), days-hours:minutes:seconds, or minutes")
    number = {name: int(value) for name, value in found.groupdict().items() if value}
    seconds = sum(
        number.get(name, 0) * unit for names, unit in (("d", 86400), ("h h2", 3600), ("m m2 m3", 60), ("s s2", 1)) for name in names.split()
    )
    if not seconds:
        raise UserError(f"--time {time_limit}: expected more than nothing")
    return -(-seconds // 60)


class Job:
    """What submitit runs in a job of Slurm, and again whenever the job is requeued.

    Before its time is over Slurm sends a signal: the job is saved, and requeues itself. Before a job is pre-empted or cancelled it gets SIGTERM: it is saved,
    and goes on until it is killed (were it to end by itself, Slurm would not requeue it)."""

    def __init__(self, run: Path, number: int) -> None:
        self.run, self.number = run, number

    def __call__(self) -> None:
        over = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
        distributed.start()
        with reported(self.run, self.number):
            try:
                work_on(self.run, self.number, functools.partial(Interrupts, (over,), (signal.SIGTERM,)))
            except Interrupted:
                signal.raise_signal(over)  # submitit's own handler: `checkpoint`, `scontrol requeue`, and exit
                return
            if distributed.first():
                parts.join_if_all_done(self.run)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(run: Path, name: str, left: Sequence[int], cluster: Cluster) -> dict[str, str]:
    """Submit these parts of a run as one array -> {part: id of its job}. Raises UserError where there is no Slurm, or where it refuses."""
    try:
        import submitit
    except ImportError:
        raise UserError("--cluster slurm needs submitit: pip install 'expo-bench[cluster]'") from None
    run = run.absolute()
    try:
        executor = submitit.SlurmExecutor(folder=run / JOBS / "slurm", max_num_timeout=1_000)
    except RuntimeError:
        raise UserError("--cluster slurm: no srun on this machine; expected one that jobs are submitted from") from None
    executor.update_parameters(**_parameters(name, len(left), cluster))
    try:
        with executor.batch():
            jobs = [executor.submit(Job(run, n)) for n in left]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
        raise UserError(f"--cluster slurm: sbatch refused the jobs: {' '.join(str(error).split())[:300]}") from None
    return {str(n): job.job_id for n, job in zip(left, jobs, strict=True)}


def _parameters(name: str, count: int, cluster: Cluster) -> dict[str, Any]:
    """submitit's names for what sbatch gets."""
    cpus = cluster.cpus_per_task
    limit = minutes(cluster.time or DEFAULT_TIME)
    several = cluster.nodes > 1
    chosen = {
        "job_name": name,
        "time": limit,
        "nodes": cluster.nodes,
        "ntasks_per_node": (cluster.gpus_per_node or 1) if several else 1,  # JAX's habit: several hosts, one process per GPU
        "cpus_per_task": cpus,
        "gpus_per_node": cluster.gpus_per_node,
        "partition": cluster.partition,
        "account": cluster.account,
        "array_parallelism": min(cluster.jobs or count, count),
        "signal_delay_s": min(SIGNAL_SECONDS, 20 * limit),
        "srun_args": [f"--cpus-per-task={cpus}"] if cpus else None,  # srun takes it from nobody since Slurm 22.05
        "additional_parameters": {"requeue": True, **cluster.more},
    }
    return {key: value for key, value in chosen.items() if value is not None}
