"""How far a sweep is, from what lies in its run folder and, where there is one, what Slurm says. Needs no jax."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expo_bench.errors import UserError
from expo_bench.sweeps.folder import MANIFEST, RESULTS, in_use, job_path, read_manifest
from expo_bench.sweeps.progress import duration, read_heartbeat

FRESH_SECONDS = 60.0  # a heartbeat of another host counts so long, should the file system keep its lock to itself
ALIVE = (
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "PREEMPTED",
    "SIGNALING",
)
STATES = ("running", "pending", "requeued", "failed", "stopped", "done")


def of(run: Path) -> dict[str, Any]:
    """State, jobs, runs, evaluations, rate and time left of a run folder. A sweep without --cluster is one job. Efforts and rates are in
    gradient steps; an evaluation counts as one. Raises UserError for a folder that is none of a run."""
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; expected the --out folder of a sweep")
    manifest = read_manifest(run)
    jobs = _jobs(run, manifest)
    rates = [job["rate"] for job in jobs if job["state"] == "running" and job["rate"]]
    left = _effort_left(jobs)
    return {
        "folder": str(run),
        "experiment": manifest.get("experiment"),
        "state": _state(manifest, jobs),
        **_rows(run, manifest),
        "rate": sum(rates) if rates else None,
        "seconds_left": 0.0 if manifest.get("finished") else left / sum(rates) if rates and left is not None else None,
        "jobs": jobs,
    }


def _jobs(run: Path, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    programs, cluster = manifest.get("programs", []), manifest.get("cluster")
    if cluster is None:
        return [{"job": 0, "part": f"{len(programs)} programs", "slurm": None, **_job(run, manifest.get("finished"), None, in_use(run))}]
    ids = cluster["jobs"]
    known = slurm_states(list(ids.values()))
    found = []
    for n, part in enumerate(cluster["parts"]):
        path, program = job_path(run, n), programs[part["program"]]
        finished = (path / MANIFEST).exists() and read_manifest(path).get("finished")
        label = " ".join(filter(None, (program["task"], program["agent"], program["variant"] and f"({program['variant']})")))
        rows = f"{label}, runs {part['first']} to {part['first'] + part['rows'] - 1}"
        submitting = cluster["kind"] == "local" and in_use(run)
        found.append({"job": n, "part": rows, "slurm": ids.get(str(n)), **_job(path, finished, known.get(ids.get(str(n))), submitting)})
    return found


def _job(path: Path, finished: Any, slurm: str | None, awaited: bool) -> dict[str, Any]:
    """What its folder and Slurm say of one job. `awaited`: a process is there that will start it, or that runs it."""
    beat = read_heartbeat(path)
    elsewhere = beat.get("host") != socket.gethostname() and time.time() - beat.get("at", 0) < FRESH_SECONDS
    at_it = in_use(path) or (elsewhere and beat.get("state") in ("compiling", "running"))
    if finished:
        state = "done"
    elif at_it or slurm in ("RUNNING", "COMPLETING", "SIGNALING"):
        state = "running"
    elif slurm is not None or awaited:
        state = "requeued" if beat else "pending"
    else:
        state = "failed" if beat.get("state") == "failed" else "stopped"
    total = beat.get("total")
    done = total if finished else beat.get("done", 0.0)
    rate = beat.get("rate") if state == "running" else None
    where = {key: beat.get(key) for key in ("host", "pid", "restarts")}
    return {"state": state, **where, "done": done, "total": total, "rate": rate, "error": beat.get("error") if state == "failed" else None}


def slurm_states(ids: Sequence[str]) -> dict[str, str]:
    """{id: state} of those of these jobs that Slurm still has to do with; {} where there is no Slurm."""
    if not ids or shutil.which("squeue") is None:
        return {}
    arrays = sorted({job.partition("_")[0] for job in ids})
    command = ["squeue", "--noheader", "--array", "--jobs", ",".join(arrays), "--states", "all", "--format", "%i %T"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    states = dict(line.split() for line in said.splitlines() if len(line.split()) == 2)
    return {job: states[job] for job in ids if states.get(job) in ALIVE}


def _state(manifest: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]) -> str:
    """The first of STATES that a job is in."""
    if manifest.get("finished"):
        return "done"
    return next(state for state in STATES if any(job["state"] == state for job in jobs))


def _effort_left(jobs: Sequence[Mapping[str, Any]]) -> float | None:
    """Of all jobs; those of which nothing is known yet are taken to be like the others."""
    known = [job["total"] - (job["done"] or 0) for job in jobs if job["total"]]
    totals = [job["total"] for job in jobs if job["total"]]
    if not known:
        return None
    return sum(known) + (len(jobs) - len(known)) * sum(totals) / len(totals)


def _rows(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Training runs that are finished and that diverged, and evaluations, of how many."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    frames = []
    for path in sorted((run / RESULTS).glob("*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                frames.append(file.read().to_pandas())
        except (OSError, pa.ArrowException):  # it was replaced just now, or is damaged, which `--resume` says
            continue
    programs = manifest.get("programs", [])
    planned = [p["evaluations"] * p["rows"] for p in programs if "evaluations" in p]
    found = {
        "runs": sum(p["rows"] for p in programs),
        "runs_done": 0,
        "runs_diverged": 0,
        "evaluations": sum(planned) if len(planned) == len(programs) else None,
        "evaluations_done": 0,
    }
    if not frames:
        return found
    frame = pd.concat(frames, ignore_index=True)
    keys = ["task", "agent", "variant", *(name for name in frame.columns if "." in name), "seed"]
    each = frame[keys].astype(str).assign(diverged=frame["diverged"].fillna(False).astype(bool)).groupby(keys, dropna=False)["diverged"]
    counted = each.agg(["size", "any"]).reset_index()
    wanted = {(p["task"], p["agent"], p["variant"]): p.get("evaluations") for p in programs}
    complete = [size >= (wanted.get((t, a, v)) or float("inf")) for t, a, v, size in counted[["task", "agent", "variant", "size"]].values]
    return found | {
        "runs_done": sum(complete) if found["evaluations"] else None,
        "runs_diverged": int(counted["any"].sum()),
        "evaluations_done": len(frame),
    }


def line(found: Mapping[str, Any]) -> str:
    """All of it in one line."""
    diverged = f"{found['runs_diverged']} diverged" if found["runs_diverged"] else "none diverged"
    evaluations = f"{found['evaluations_done']} of {found['evaluations'] or '?'} evaluations"
    parts = [f"{'?' if found['runs_done'] is None else found['runs_done']} of {found['runs']} runs finished", diverged, evaluations]
    if found["rate"]:
        parts.append(f"{found['rate']:,.0f} gradient steps/s")
    if found["seconds_left"]:
        parts.append(f"about {duration(found['seconds_left'])} left")
    return f"{found['folder']}: {found['state']}, {', '.join(parts)}"


def text(found: Mapping[str, Any]) -> str:
    """What `expo-bench status` prints."""
    lines = [line(found)]
    for job in found["jobs"]:
        share = f"{job['done'] / job['total']:4.0%}" if job["total"] and job["done"] is not None else "   ?"
        at = f"process {job['pid']} on {job['host']}" if job["state"] == "running" and job["pid"] else ""
        slurm = f" (Slurm {job['slurm']})" if job["slurm"] else ""
        name = f"job {job['job']:03}{slurm}" if len(found["jobs"]) > 1 or slurm else "sweep"
        again = f"requeued {job['restarts']}x" if job["restarts"] not in (None, "0") else ""
        lines.append("  " + "  ".join(filter(None, (f"{name}  {job['state']:8} {share}  {job['part']}", at, again, job["error"]))))
    return "\n".join(lines)
