"""One experiment on its way into one folder: begun, gone on with, saved on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from expo_bench.errors import Interrupted, UserError
from expo_bench.sweeps import distributed, results
from expo_bench.sweeps import manifest as manifests
from expo_bench.sweeps import memory as memory_plan
from expo_bench.sweeps import policies as trained
from expo_bench.sweeps.checkpoints import Checkpoints, Saved
from expo_bench.sweeps.compiled import Builder, Compiled, Work, legs_of
from expo_bench.sweeps.experiment import Experiment
from expo_bench.sweeps.folder import RunFolder, Spectator
from expo_bench.sweeps.grid import Program
from expo_bench.sweeps.interrupts import Interrupts
from expo_bench.sweeps.program import ProgramRun
from expo_bench.sweeps.progress import Heartbeat, Progress, duration
from expo_bench.sweeps.schedule import effort
from expo_bench.training import loop

if TYPE_CHECKING:
    import pandas as pd

Rows = list[dict[str, Any]]


def work_name(i: int, task: str, agent: str) -> str:
    """What the file of results of program i is called."""
    return f"{i:03}-{task.replace('/', '-')}-{agent}"


def finished(program: Program, rows: Rows) -> tuple[int, Rows]:
    """How many of a program's training runs, from the first on, have all their rows of results, and these rows."""
    evaluations = sum(leg.evaluation is not None for leg in legs_of(program))
    key = lambda seed, labels: json.dumps([seed, labels])
    own = [key(row["seed"], {name: row.get(name) for name in program.rows[0].labels}) for row in rows]
    found = Counter(own)
    done = list(itertools.takewhile(lambda k: found[k] >= evaluations, (key(row.seed, row.labels) for row in program.rows)))
    kept = set(done)
    return len(done), [row for k, row in zip(own, rows, strict=True) if k in kept]


def refuse_another(folder: RunFolder | Spectator, manifest: dict[str, Any], keys: Sequence[str]) -> None:
    """Raise UserError if the folder holds a run that differs from `manifest` in these parts of what an experiment is."""
    if folder.manifest is None:
        return
    if found := manifests.difference(folder.manifest, manifest, keys):
        where, there, here = found
        raise UserError(f"{folder.path}: holds another experiment: {where} is {there} there and {here} here; name a new folder")


def _planned(manifest: Mapping[str, Any]) -> bool:
    """Whether a run came to the choice of its blocks; else nothing of it has run."""
    return all(p.get("block_rows") is not None for p in manifest["programs"])


class Sweep:
    """The programs of an experiment, one after the other, in one locked folder. Where several processes run it, the first one writes."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder | Spectator,
        progress: Progress,
        resume_anyway: bool,
        policies: bool = True,
        memory: str = memory_plan.DEFAULT,
        interrupts: Callable[[], Interrupts] = Interrupts,
    ) -> None:
        self.experiment, self.folder, self.progress, self.resume_anyway = experiment, folder, progress, resume_anyway
        self.keeps_policies, self.memory, self.interrupts = policies, memory, interrupts
        self.writes = distributed.first()

    def run(self, work: Sequence[Work], manifest: dict[str, Any], devices: Sequence[jax.Device], minutes: float) -> pd.DataFrame:
        """Everything that is not done yet -> all rows of results."""
        import pandas as pd

        self.work, self.manifest, self.devices, self.started = list(work), manifest, devices, time.perf_counter()
        self.begun: tuple[float, float] | None = None  # when the first program began to run here, and what was done by then
        refuse_another(self.folder, manifest, manifests.IDENTITY)
        old = self.folder.manifest
        path = self.folder.make(self.experiment.name)
        rows = [results.read_rows(self.folder.run, w.name) for w in work]
        distributed.wait_for_all("the rows so far are read")
        left = [i for i, w in enumerate(work) if finished(w.program, rows[i])[0] < len(w.program.rows)]
        if old is None or left or not old.get("finished"):
            self._begin(old, path)
            self._go_on(rows, left, minutes)
        else:
            self.progress.say(f"{path}: complete already, nothing is left to run")
        frame = pd.concat([pd.DataFrame(part) for part in rows], ignore_index=True)
        frame.attrs["folder"] = str(self.folder.run)
        return frame

    def _begin(self, old: Mapping[str, Any] | None, path: Path) -> None:
        """Write the manifest."""
        if old is not None:
            self.manifest = self._continued(old)
        self.heart = Heartbeat(path)
        if self.writes:
            results.write_agent_files(path, (w.program.module for w in self.work))
        self._write_manifest()

    def _write_manifest(self) -> None:
        if self.writes:
            results.write_manifest(self.folder.path, self.manifest)

    def _continued(self, old: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest of a run that goes on: what was measured stays, and how the plan differs is kept."""
        planned = old if _planned(old) else {**old, "programs": self.manifest["programs"]}
        differs = manifests.differences_of_plan(planned, self.manifest)
        if differs and not self.resume_anyway:
            where, (there, here) = next(iter(differs.items()))
            raise UserError(
                f"{self.folder.path}: was run under another plan: {where} is {there} there and {here} here, so that its curves would not go on "
                "as they began, bit for bit; --resume-anyway goes on all the same"
            )
        kept = {
            key: old[key]
            for key in ("definition", "search", "agent_files", "command", "created", "git_commit", "compile_wall_s", "wall_s")
            if key in old
        }
        measured = [{key: p[key] for key in ("timings", "env_steps_per_s") if key in p} for p in old["programs"]]
        resumed = {"at": manifests.now(), "git_commit": self.manifest["git_commit"], "differs": differs}
        return {
            **self.manifest,
            **kept,
            "programs": [{**p, **m} for p, m in zip(self.manifest["programs"], measured, strict=True)],
            "resumed": [*old.get("resumed", []), resumed],
        }

    def _go_on(self, rows: list[Rows], left: Sequence[int], minutes: float) -> None:
        """Run what is left of the programs, each from its checkpoint or its first run that is not finished; `rows` are filled up."""
        with contextlib.closing(Checkpoints(self.folder.path, minutes)) as checkpoints:
            saved = checkpoints.newest(self.progress.say)
            self.wall_before = max(self.manifest.get("wall_s", 0.0), saved.place["wall_s"] if saved else 0.0)
            self._beat("compiling")
            compiled = self._compile(left)
            with self.interrupts() as interrupts:
                for i in left:
                    count, done = finished(self.work[i].program, rows[i])
                    own = saved if saved is not None and saved.place["program"] == i and saved.place["first"] >= count else None
                    if rows[i] or own:
                        self._say_where(self.work[i].program, count, own)
                    rows[i] = self._run_one(i, compiled[i], done, len(rows[i]), own, self._pause(i, checkpoints, interrupts))
            self.manifest |= {"finished": manifests.now(), "wall_s": self._wall()}
            self._write_manifest()
        if self.writes:
            checkpoints.remove()
        self._beat("done")

    def _compile(self, left: Sequence[int]) -> dict[int, Compiled]:
        """The programs that are left, with as many rows at a time as fit; how many these are is written down before the first one runs."""
        began = time.perf_counter()
        limit = memory_plan.limit(self.memory, self.devices)
        with contextlib.closing(Builder(self.devices, self.experiment.precision, self.experiment.denoiser_precision)) as builder:
            own = {i: self.work[i] for i in left}
            planned = memory_plan.plan(own, builder, limit, memory_plan.of_data(self.work), self.progress.say, self.progress.update)
        for i, (work, _) in planned.items():
            self.work[i] = work
            self.manifest["programs"][i]["block_rows"] = work.block
        seconds = time.perf_counter() - began
        self.manifest["compile_wall_s"] = round(self.manifest.get("compile_wall_s", 0.0) + seconds, 2)
        self._write_manifest()
        self.progress.say(f"compiled {len(planned)} programs in {duration(seconds)}")
        return {i: compiled for i, (_, compiled) in planned.items()}

    def _run_one(
        self, i: int, compiled: Compiled, done: Rows, on_disk: int, saved: Saved | None, pause: Callable[[ProgramRun], None]
    ) -> Rows:
        """Run program i to its end -> its rows."""
        work = self.work[i]
        keeper = self._keeper(work) if self.keeps_policies else None
        run = ProgramRun(self.experiment.name, work.program, compiled, work.dataset, self.devices, work.block, self.progress, keeper)

        def write() -> None:
            if self.writes and len(run.rows) > on_disk:  # a run that was killed may have evaluated further than its checkpoint
                results.write_rows(self.folder.run, work.name, run.rows)

        try:
            run.execute(done, saved, write, lambda: pause(run))
        except jax.errors.JaxRuntimeError as error:
            raise memory_plan.exhausted(error, work, self.folder.with_block) or error from None
        self.manifest["programs"][i].update(timings=dataclasses.asdict(run.timings), env_steps_per_s=run.rate)
        self.manifest["wall_s"] = self._wall()
        self._write_manifest()
        return run.rows

    def _keeper(self, work: Work) -> trained.Keeper:
        spec = loop.spec_of(work.env, work.program.protocol)
        known = trained.about(work.program, spec, work.env.engine, self.manifest["code_sha256"])
        return trained.Keeper(self.folder.run, work.name, known, trained.acting_leaves(work.program, spec))

    def _pause(self, i: int, checkpoints: Checkpoints, interrupts: Interrupts) -> Callable[[ProgramRun], None]:
        """What happens wherever program i may be saved."""

        def pause(run: ProgramRun) -> None:
            if self.heart.due():
                self._beat("running", i, run)
            caught, warned, due = distributed.agree(interrupts.caught or 0, interrupts.warned, checkpoints.due())
            if not (caught or warned or due):
                return
            interrupts.warned = False
            checkpoints.save({**run.place(), "program": i, "wall_s": self._wall()}, run.arrays())
            if caught:
                checkpoints.wait()
                distributed.wait_for_all("the checkpoint is written")
                self._beat("interrupted", i, run)
                raise Interrupted(int(caught), f"`{self.folder.again}` goes on from here")

        return pause

    def _beat(self, state: str, i: int | None = None, run: ProgramRun | None = None) -> None:
        """Say how far the sweep is, in the units of `effort`: programs come one after the other."""
        if not self.writes:
            return
        of_program = [len(w.program.rows) * sum(effort(w.program.protocol, legs_of(w.program))) for w in self.work]
        more: dict[str, Any] = {"total": sum(of_program)}
        if run is not None and i is not None:
            done = sum(of_program[:i]) + run.effort_done()
            self.begun = self.begun or (time.perf_counter(), done)
            began, before = self.begun
            seconds = time.perf_counter() - began
            more |= {"done": done, "rate": (done - before) / seconds if seconds > 1 else None}
        self.heart.beat(state, **more)

    def _say_where(self, program: Program, count: int, saved: Saved | None) -> None:
        text = f"{program.task} {program.label}: goes on with {count} of {len(program.rows)} runs finished"
        self.progress.say(text + (f", the next from checkpoint {saved.path.name}" if saved else ""))

    def _wall(self) -> float:
        """Seconds at work, as far as is known of processes that were killed."""
        return round(self.wall_before + time.perf_counter() - self.started, 2)
