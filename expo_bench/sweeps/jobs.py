"""One job of a sweep, and jobs as processes of this machine: `python -m expo_bench.sweeps.jobs RUN NUMBER CORES`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from expo_bench.errors import Interrupted, UserError
from expo_bench.sweeps import devices as device_rows
from expo_bench.sweeps import distributed, runner
from expo_bench.sweeps import manifest as manifests
from expo_bench.sweeps import parts as job_parts
from expo_bench.sweeps.folder import JOBS, JobFolder, Spectator, in_use, job_path, read_manifest
from expo_bench.sweeps.interrupts import Interrupts
from expo_bench.sweeps.progress import Heartbeat, Progress, read_heartbeat
from expo_bench.sweeps.sweep import Sweep

RESTARTS = 3  # of a local job that was killed
POLL_SECONDS, SHOW_SECONDS = 0.2, 5.0


def work_on(run: Path, number: int, interrupts: Callable[[], Interrupts] = Interrupts) -> None:
    """Run one part, from its beginning or from where it was left."""
    progress = Progress(None if distributed.first() else open(os.devnull, "w"))
    manifest = read_manifest(run)
    how, part = manifest["cluster"], job_parts.of(manifest)[number]
    experiment = manifests.experiment_of(manifest, run)
    whole = runner.plan(experiment)[part.program]
    program = dataclasses.replace(whole, rows=whole.rows[part.first : part.first + part.rows])
    folder = JobFolder(run, number) if distributed.first() else Spectator(job_path(run, number), run)
    with contextlib.closing(folder):
        devices = device_rows.start()
        if not distributed.several():  # as many as it was cut for: a job that is requeued may find itself with more cores
            devices = devices[: how["devices"]]
        tasks = {program.task: runner.prepare_task(program.task, experiment, [program], progress.say)}
        block = manifest["programs"][part.program]["block_rows"]
        own = manifests.described(manifests.begun(experiment, [program]), experiment, [program], tasks, [block], manifest["command"])
        here, there = (m["tasks"][program.task]["data_sha256"] for m in (own, manifest))
        if here != there:
            raise UserError(
                f"{run}: the data of {program.task} are not those that the sweep was submitted with ({there[:12]} there, {here[:12]} here)"
            )
        work = [dataclasses.replace(w, name=part.name) for w in runner.work_of([program], tasks, [block], len(devices))]
        sweep = Sweep(experiment, folder, progress, how["resume_anyway"], how["policies"], how["memory"], interrupts)
        sweep.run(work, manifests.complete(own, tasks, devices), devices, how["checkpoint_minutes"])


@contextlib.contextmanager
def reported(run: Path, number: int) -> Iterator[None]:
    """What ends a job before its time is said in its folder, for `expo-bench status`."""
    try:
        yield
    except Exception as error:
        folder = job_path(run, number)
        if distributed.first() and folder.is_dir() and not in_use(folder):
            Heartbeat(folder).beat("failed", error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        raise


def main(argv: Sequence[str]) -> None:
    """One local job, on these cores: "0,1"."""
    run, number = Path(argv[0]), int(argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, map(int, argv[2].split(",")))
    try:
        with reported(run, number):
            work_on(run, number)
    except UserError as error:
        sys.exit(f"expo-bench: error: {error}")
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.signal)


# -- processes of this machine ---------------------------------------------------------------------------------------------------------


def run_local(run: Path, left: Sequence[int], at_once: int, cores: int, say: Callable[[str], None], show: Callable[[], None]) -> None:
    """Run these jobs, `at_once` at a time, each on `cores` cores of its own; one that is killed is started again. On SIGTERM and SIGINT all are
    saved, and Interrupted is raised. Raises UserError, when the others are done, for those that failed."""
    waiting, places = deque(left), deque(range(at_once))
    running: dict[subprocess.Popen, tuple[int, int]] = {}
    killed: Counter[int] = Counter()
    failed: dict[int, str] = {}
    shown = time.monotonic()
    with Interrupts() as interrupts:
        while (waiting and interrupts.caught is None) or running:
            while waiting and places and interrupts.caught is None:
                number, place = waiting.popleft(), places.popleft()
                running[_start(run, number, place * cores, cores)] = number, place
            if interrupts.caught is not None:
                for process in running:
                    process.send_signal(signal.SIGTERM)
                for process in list(running):
                    process.wait()
            if time.monotonic() - shown >= SHOW_SECONDS:
                show()
                shown = time.monotonic()
            time.sleep(POLL_SECONDS)
            for process in [p for p in running if p.poll() is not None]:
                number, place = running.pop(process)
                places.append(place)
                if process.returncode < 0 and killed[number] < RESTARTS:
                    killed[number] += 1
                    say(f"job {number:03} was killed by signal {-process.returncode}; it is started again")
                    waiting.append(number)
                elif process.returncode:
                    failed[number] = read_heartbeat(job_path(run, number)).get("error") or f"ended with code {process.returncode}"
                else:
                    say(f"job {number:03} is done")
    if interrupts.caught is not None:
        raise Interrupted(interrupts.caught, f"`expo-bench sweep --resume {run} --cluster local` goes on from here")
    if failed:
        number, error = next(iter(failed.items()))
        raise UserError(f"{len(failed)} of {len(left)} jobs failed; job {number:03}: {error} (its log: {_log(run, number)})")


def _log(run: Path, number: int) -> Path:
    return run / JOBS / f"{number:03}.log"


def _start(run: Path, number: int, first: int, cores: int) -> subprocess.Popen:
    """A job on `cores` of the cores that this process may use, from the `first` on. Ctrl-C reaches it by way of this process only."""
    _log(run, number).parent.mkdir(exist_ok=True)
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    place = ",".join(str(own[(first + k) % len(own)]) for k in range(cores))
    command = [sys.executable, "-m", "expo_bench.sweeps.jobs", str(run), str(number), place]
    with open(_log(run, number), "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={"JAX_PLATFORMS": "cpu", **os.environ}, start_new_session=True)


if __name__ == "__main__":
    main(sys.argv[1:])
