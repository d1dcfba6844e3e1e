"""One program from its first parameters to its last evaluation, wave after wave of rows; it can begin wherever a checkpoint was."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from expo_bench.sweeps import devices as device_rows
from expo_bench.sweeps import distributed, grid, policies
from expo_bench.sweeps.checkpoints import Saved
from expo_bench.sweeps.compiled import Compiled, stack, wave_rows
from expo_bench.sweeps.progress import Progress, duration
from expo_bench.sweeps.schedule import Leg, effort, legs
from expo_bench.training import loop, tally

CHUNK_SECONDS = 2.0  # a call of a program aims at this long, so that progress shows and a signal is heard
FIRST_CHUNK = 8  #     steps of the first call, before anything is known of their speed


@dataclasses.dataclass
class Timings:
    """Wall-clock seconds of one program."""

    compile_s: float = 0.0
    offline_s: float = 0.0
    online_s: float = 0.0
    evaluation_s: float = 0.0


class ProgramRun:
    """What is at work: `first` and `wave` say which rows, `leg` and `done` how far they are, `state` and `seen` hold what they are."""

    def __init__(
        self,
        experiment: str,
        program: grid.Program,
        compiled: Compiled,
        dataset: jax.Array,
        devices: Sequence[jax.Device],
        block: int,
        progress: Progress,
        keeper: policies.Keeper | None,
    ) -> None:
        self.experiment, self.program, self.compiled, self.progress, self.keeper = experiment, program, compiled, progress, keeper
        self.size = wave_rows(program, block, devices)
        used = devices[: self.size // block]
        self.sharding = device_rows.row_sharding(used)
        self.dataset = device_rows.put(dataset, device_rows.shared_sharding(used))
        self.legs = legs(program.protocol, compiled.calls)
        self.timings = Timings(compile_s=round(compiled.seconds, 2))
        self.rows: list[dict[str, Any]] = []
        self.rate = 0.0  #           environment steps per second of the online phase, all rows of a wave
        self.latest = float("nan")  # mean success of the newest evaluation
        self.chunk: dict[str, int] = {}  # steps of the next call of each phase

    def execute(self, rows: list[dict[str, Any]], saved: Saved | None, write: Callable[[], None], pause: Callable[[], None]) -> None:
        """Run all waves that are left: `rows` are the results of the first training runs, which are finished, and `saved` is the
        checkpoint of those that follow. `write` is called after every evaluation, `pause` wherever the run may be saved."""
        self.rows, self.write, self.pause = list(rows), write, pause
        first = len(rows) // sum(leg.evaluation is not None for leg in self.legs)
        while first < len(self.program.rows):
            if saved is None or not self._restore(saved):
                self._begin(first, min(self.size, len(self.program.rows) - first))
            saved = None
            while self.leg < len(self.legs):
                self._run(self.legs[self.leg])
            first = self.first + len(self.wave)
        online = self.program.protocol.online_steps * len(self.program.rows)
        self.rate = round(online / self.timings.online_s, 1) if self.timings.online_s and "online" in self.compiled.calls else 0.0
        self.progress.say(self._summary())

    # -- where it is -------------------------------------------------------------------------------------------------------------------

    def _begin(self, first: int, count: int) -> None:
        self._take(first, count)
        seeds, _ = stack(self.wave, self.size)
        self.state = self.compiled.calls["init"](device_rows.put(seeds, self.sharding), self.hyper)

    def _take(self, first: int, count: int) -> None:
        """Rows `first` to `first + count` become the wave, at their beginning."""
        self.first, self.wave = first, self.program.rows[first : first + count]
        if self.keeper is not None:
            self.keeper.begin(first, self.wave)
        self.hyper = device_rows.put(stack(self.wave, self.size)[1], self.sharding)
        self.leg, self.done, self.seen = 0, 0, None
        self.diverged = np.full(self.size, -1, np.int32)  # [size] the step at which a row did; -1: it did not
        self.wave_started = time.perf_counter()

    def place(self) -> dict[str, Any]:
        """All that is not in `arrays`, as JSON values."""
        return {
            "first": self.first,
            "count": len(self.wave),
            "leg": self.leg,
            "done": self.done,
            "phase": None if self.seen is None else self.legs[self.leg].phase,
            "diverged": self.diverged.tolist(),
            "rows": list(self.rows),  # it grows while a checkpoint is being written
            "timings": dataclasses.asdict(self.timings),
            "elapsed": time.perf_counter() - self.wave_started,
            "latest": self.latest,
        }

    def effort_done(self) -> float:
        """What is behind all rows so far, in the units of `effort`."""
        of_leg = effort(self.program.protocol, self.legs)
        own = float(sum(of_leg[: self.leg]))
        if self.leg < len(self.legs) and self.seen is not None:
            leg = self.legs[self.leg]
            own += of_leg[self.leg] * (self.done - leg.start) / (leg.stop - leg.start)
        return self.first * sum(of_leg) + len(self.wave) * own

    def arrays(self) -> Any:
        """What the wave is, [size, ...]."""
        return {"state": self.state, "seen": self.seen}

    def _restore(self, saved: Saved) -> bool:
        """Whether the wave of a checkpoint fits in here, and was taken up where it was."""
        place = saved.place
        seen = self.compiled.tallies.get(place["phase"])
        arrays = saved.arrays({"state": self.compiled.state, "seen": seen}) if place["count"] <= self.size else None
        if arrays is None:
            self.progress.say(f"warning: checkpoint {saved.path} was made for programs of another shape; its runs start again")
            return False
        self._take(place["first"], place["count"])
        real = np.minimum(np.arange(self.size), place["count"] - 1)  # padded as `stack` does
        arrays = device_rows.put(jax.tree.map(lambda x: x[real], arrays), self.sharding)
        self.state, self.seen = arrays["state"], arrays["seen"]
        self.leg, self.done, self.latest = place["leg"], place["done"], place["latest"]
        self.diverged = np.asarray(place["diverged"], np.int32)[real]
        self.rows = [{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()} for row in place["rows"]]
        self.timings = dataclasses.replace(Timings(**place["timings"]), compile_s=self.timings.compile_s)
        self.wave_started = time.perf_counter() - place["elapsed"]
        return True

    # -- what it does ------------------------------------------------------------------------------------------------------------------

    def _run(self, leg: Leg) -> None:
        if leg.phase is not None:
            self._learn(leg, leg.phase)
        if leg.evaluation is not None:
            self._evaluate(leg)
        self.leg, self.seen = self.leg + 1, None
        if leg.evaluation is not None:
            self.write()
        self.pause()

    def _learn(self, leg: Leg, phase: str) -> None:
        """The rest of a leg, in calls of about CHUNK_SECONDS."""
        if self.seen is None:
            self.done, self.seen = leg.start, device_rows.put(self.compiled.tally(phase, self.diverged), self.sharding)
        pretrain = phase == "pretrain"
        per_iteration = 1 if pretrain else self.program.protocol.num_envs
        while self.done < leg.stop:
            count = min(self.chunk.get(phase, FIRST_CHUNK), (leg.stop - self.done) // per_iteration)
            (seconds,) = distributed.agree(self._call(phase, count))
            self.done += count * per_iteration
            field = "offline_s" if pretrain else "online_s"
            setattr(self.timings, field, getattr(self.timings, field) + seconds)
            self._show(phase, count * per_iteration / seconds)
            wanted = int(max(1, min(4 * count, CHUNK_SECONDS * count / max(seconds, 1e-6))))
            if wanted < count or count >= self.chunk.get(phase, FIRST_CHUNK):  # the short rest of a leg says nothing of what is too long
                self.chunk[phase] = wanted
            if self.done < leg.stop:
                self.pause()
        self.diverged = distributed.whole(self.seen.diverged)

    def _call(self, phase: str, count: int) -> float:
        """`count` iterations -> seconds."""
        began = time.perf_counter()
        pretrain = phase == "pretrain"
        numbers = (self.done, 0) if pretrain else (0, self.done)
        clock = loop.Clock(*map(np.int32, numbers))
        call = self.compiled.calls[phase]
        self.state, self.seen = call(self.state, clock, np.int32(count), self.hyper, self.dataset, self.seen)
        jax.block_until_ready(self.seen)
        return time.perf_counter() - began

    def _evaluate(self, leg: Leg) -> None:
        began = time.perf_counter()
        at = leg.evaluation
        outcome = self.compiled.calls["evaluate"](self.state, np.int32(at.number), self.hyper)
        measured = {name: distributed.whole(value) for name, value in outcome.items()}
        self.timings.evaluation_s += time.perf_counter() - began
        # Parameters that are not finite count as much as a metric; which step broke them is then known to an evaluation only.
        step = at.grad_step if at.phase == "offline" else at.env_step
        self.diverged = np.where((self.diverged < 0) & measured["diverged"], np.int32(step), self.diverged)
        measured |= {"diverged": self.diverged >= 0, "diverged_step": self.diverged}
        if self.keeper is not None:  # before the results: runs whose results are there are not repeated
            self.keeper.see(self.state.agent, at, measured["score"], measured["diverged"])
        metrics = self._means() if leg.reported else {}
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
                    "phase": at.phase,
                    "env_step": at.env_step,
                    "grad_step": at.grad_step,
                    "wall_s": elapsed,
                    **{name: value[i].item() for name, value in measured.items()},
                    "eval_episodes": self.program.protocol.eval_episodes,
                    **{name: float(value[i]) for name, value in metrics.items()},
                }
            )
        self.latest = float(np.mean(measured["success"][: len(self.wave)]))

    def _means(self) -> dict[str, np.ndarray]:
        """The metrics of the leg, each [size] float64."""
        if self.seen is None:
            return {}
        return tally.means(jax.tree.map(lambda x: distributed.whole(x).astype(np.float64), self.seen))

    # -- what is said of it ------------------------------------------------------------------------------------------------------------

    def _show(self, phase: str, rate: float) -> None:
        protocol = self.program.protocol
        total, noun = (protocol.offline_steps, "gradient steps") if phase == "pretrain" else (protocol.online_steps, "seed-steps")
        left = duration((total - self.done) / rate) if rate else "?"
        self.progress.update(
            f"{self.program.task} {self.program.label} {phase} {self.done:,}/{total:,}  {rate * len(self.wave):,.0f} {noun}/s  left {left}  "
            f"success {self.latest:.2f}"
        )

    def _summary(self) -> str:
        t = self.timings
        rate = f", {self.rate:,.0f} environment steps/s" if self.rate else ""
        times = f"offline {duration(t.offline_s)}, online {duration(t.online_s)}, evaluation {duration(t.evaluation_s)}"
        return f"{self.program.task} {self.program.label}: success {self.latest:.2f} ({len(self.program.rows)} runs; {times}{rate})"
