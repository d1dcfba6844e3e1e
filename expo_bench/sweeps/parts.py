"""The parts that a sweep is cut into, one job each, and how what they wrote becomes the results of one sweep again."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expo_bench.errors import UserError
from expo_bench.sweeps import grid, results
from expo_bench.sweeps import manifest as manifests
from expo_bench.sweeps.folder import MANIFEST, RESULTS, RunFolder, job_path, read_manifest
from expo_bench.sweeps.sweep import work_name

LOCK_SECONDS = 60.0  # a job that comes to its end waits so long for who submits to be done with the run folder
PLACE = ("versions", "code_sha256", "device", "platform", "processor", "devices", "xla_flags")  # where a job ran


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows `first` to `first + rows` of a program, in their own file of results."""

    program: int
    first: int
    rows: int
    name: str


def cut(programs: Sequence[grid.Program], blocks: Sequence[int], devices: int, wanted: int) -> list[Part]:
    """Every program in at most `wanted` parts, each of whole waves: a block on each of the devices of a job."""
    parts = []
    for i, (program, block) in enumerate(zip(programs, blocks, strict=True)):
        waves = -(-len(program.rows) // (block * devices))
        count = min(wanted, waves)
        ends = [min(waves * k // count * block * devices, len(program.rows)) for k in range(count + 1)]
        name = work_name(i, program.task, program.agent)
        parts += [Part(i, a, b - a, name if count == 1 else f"{name}-{k:03}") for k, (a, b) in enumerate(itertools.pairwise(ends))]
    return parts


def of(manifest: Mapping[str, Any]) -> list[Part]:
    """The parts of a run folder."""
    return [Part(**part) for part in manifest["cluster"]["parts"]]


def done(run: Path, number: int) -> bool:
    """Whether a job has come to its end."""
    path = job_path(run, number) / MANIFEST
    return path.exists() and bool(json.loads(path.read_text()).get("finished"))


def join(run: Path, manifest: dict[str, Any]) -> None:
    """All jobs are done: the rows of a program become one file, and the manifest says what each job's says. May be cut short and begun again."""
    if manifest["finished"]:
        return
    parts = of(manifest)
    own = [read_manifest(job_path(run, n)) for n in range(len(parts))]
    for i, program in enumerate(manifest["programs"]):
        mine = [n for n, part in enumerate(parts) if part.program == i]
        if len(mine) > 1:
            _join_rows(run, work_name(i, program["task"], program["agent"]), [parts[n].name for n in mine])
        timed = [own[n]["programs"][0] for n in mine]
        timings = [p["timings"] for p in timed]
        program["timings"] = {name: round(sum(t[name] for t in timings), 2) for name in timings[0]}
        program["env_steps_per_s"] = round(sum(p["env_steps_per_s"] for p in timed) / len(timed), 1)  # of a job
    manifest |= {key: own[0][key] for key in PLACE}
    for each in own:
        manifest["tasks"] |= each["tasks"]
    manifest["cluster"]["differs"] = [d for d in (manifests.differences_of_plan(_placed(own[0]), _placed(m)) for m in own) if d]
    for key in ("wall_s", "compile_wall_s"):
        manifest[key] = round(sum(m.get(key, 0.0) for m in own), 2)
    results.write_manifest(run, {**manifest, "finished": manifests.now()})


def _placed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What jobs of different programs and tasks can agree in."""
    return {key: value for key, value in manifest.items() if key not in ("programs", "tasks")}


def _join_rows(run: Path, name: str, names: Sequence[str]) -> None:
    files = [run / RESULTS / f"{part}.parquet" for part in names]
    if not (run / RESULTS / f"{name}.parquet").exists():
        results.write_rows(run, name, [row for part in names for row in results.read_rows(run, part)])
    for file in files:
        file.unlink(missing_ok=True)


def join_if_all_done(run: Path) -> None:
    """By the last job, whichever that is. Where the run folder stays locked, the next `--resume` does it."""
    numbers = range(len(of(read_manifest(run))))
    began = time.monotonic()
    while all(done(run, n) for n in numbers):
        try:
            folder = RunFolder(run)
        except UserError:
            if time.monotonic() - began > LOCK_SECONDS:
                return
            time.sleep(1.0)
            continue
        with contextlib.closing(folder):
            return join(run, read_manifest(run))
