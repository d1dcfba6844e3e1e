"""Measure speed and memory: `python -m benchmarks` writes JSON and prints a table.

Every case (agent x number of seeds) runs in a process of its own with an empty compilation cache. This process loads no jax: its own memory
would otherwise count in the peaks of the others.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from expo_bench.sweeps.experiment import PRECISIONS

ROOT = Path(__file__).resolve().parent.parent
SPEEDS = ("compile s", "env steps/s", "updates/s", "ms/env step", "GFLOP/step", "GFLOP/s", "of peak")
COLUMNS = ("agent", "task", "seeds", *SPEEDS, "peak MiB", "state MiB", "scratch MiB")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", choices=("quickstart", "paper"), default="quickstart", help="the quickstart's networks or the published ones")
    p.add_argument("--agents", nargs="+", default=["expo", "rlpd", "idql", "fql"])
    p.add_argument("--seeds", nargs="+", type=int, default=[1, 8], help="numbers of seeds trained together")
    p.add_argument("--task", help="default: push-disc; at paper size a task without physics (obs 19, action 7)")
    p.add_argument("--iterations", type=int, help="environment steps per repetition (default: about 2 s of them, at least one)")
    p.add_argument("--repetitions", type=int, default=5, help="fewer where --seconds does not allow them (then automatic iterations only)")
    p.add_argument("--seconds", type=float, default=30.0, help="time for a case's repetitions, compilation apart")
    p.add_argument("--updates", type=int, help="updates per environment step (default: the protocol's; EXPO's and RLPD's paper: 20)")
    p.add_argument("--precision", choices=PRECISIONS, default="float32", help="of matrix products")
    p.add_argument("--out", type=Path, help="default: benchmarks/results/<device>/<date>-<size>.json")
    return p.parse_args(argv)


def child(module: str, options: dict[str, Any], cold: bool = True) -> dict[str, Any]:
    """Run a module of this folder in a process of its own, with an empty compilation cache or (not `cold`) this process's -> the JSON of
    its last line, or {"error": why}."""
    command = [sys.executable, "-m", f"benchmarks.{module}"]
    command += [text for name, value in options.items() if value is not None for text in (f"--{name}", str(value))]
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": empty} if cold else None
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def with_utilisation(case: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """The case with its achieved rate over the GEMM peak of all devices, and over that of the devices it used.

    The latter is None on a CPU, where the devices are one pool of cores and not so many separate machines.
    """
    peak, achieved = machine.get("gemm_peak_flop_per_s"), case.get("achieved_flop_per_s")
    if not peak or not achieved:
        return {**case, "utilisation": None, "utilisation_of_devices_used": None}
    of_all = achieved["median"] / peak
    of_used = None if machine["platform"] == "cpu" else of_all * machine["devices"] / case["devices_used"]
    return {**case, "utilisation": of_all, "utilisation_of_devices_used": of_used}


def table(cases: list[dict[str, Any]]) -> str:
    """The cases as text, medians; a failed case gives its error instead."""
    lines = [COLUMNS]
    for c in cases:
        if "error" in c:
            lines.append((c["agent"], c["task"] or "", str(c["seeds"]), f"failed: {c['error']}"))
            continue
        rate = [f"{c['flop_per_env_step'] / 1e9:,.3g}", f"{c['achieved_flop_per_s']['median'] / 1e9:,.3g}"]
        memory = [f"{c[name] / 2**20:,.0f}" for name in ("peak_resident_bytes", "state_bytes", "scratch_bytes")]
        medians = c["env_steps_per_s"]["median"], c["updates_per_s"]["median"], 1e3 * c["seconds_per_env_step"]["median"]
        speed = [f"{value:,.4g}" for value in medians]
        share = "-" if c["utilisation"] is None else f"{c['utilisation']:.0%}"
        lines.append((c["agent"], c["task"], str(c["seeds"]), f"{c['compile_s']:.1f}", *speed, *rate, share, *memory))
    widths = [max((len(line[i]) for line in lines if len(line) == len(COLUMNS)), default=0) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=False)) for line in lines)


def default_path(machine: dict[str, Any], size: str, now: datetime.datetime) -> Path:
    device = f"{machine['devices']}x-{machine['device']}" if "device" in machine else "unknown"
    return ROOT / "benchmarks" / "results" / re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") / f"{now:%Y-%m-%d}-{size}.json"


def write(path: Path, report: dict[str, Any]) -> None:
    """The report so far, whole under a temporary name and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(path)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    now = datetime.datetime.now(datetime.UTC)
    machine = child("machine", {"precision": args.precision})
    path = args.out or default_path(machine, args.size, now)
    report = {"date": now.isoformat(timespec="seconds"), "size": args.size, "precision": args.precision, "machine": machine, "cases": []}
    shared = {name: getattr(args, name) for name in ("size", "task", "iterations", "repetitions", "seconds", "updates", "precision")}
    for agent in args.agents:
        for seeds in args.seeds:
            print(f"{agent}, {seeds} seed{'s' * (seeds > 1)} ...", file=sys.stderr, flush=True)
            asked = {"agent": agent, "seeds": seeds, **shared}
            case = child("case", asked)
            report["cases"].append({**asked, **case} if "error" in case else with_utilisation(case, machine))
            write(path, report)  # after every case: an interrupted run keeps what it has measured
    failed = "error" in machine
    peak = f"no GEMM peak: {machine['error']}" if failed else f"GEMM peak {machine['gemm_peak_flop_per_s'] / 1e9:,.0f} GFLOP/s"
    measured = [c for c in report["cases"] if "error" not in c]
    chosen = [f"{c['agent']}/{c['seeds']}: {c['repetitions']} x {c['iterations']} ({c['iterations_chosen']})" for c in measured]
    print("repetitions x iterations: " + "; ".join(chosen))
    name = f"{machine.get('devices', '?')} x {machine.get('device', '?')}, jax {machine.get('jax', '?')}"
    print(f"{name}, {args.precision}, {peak}; written to {path}")
    print(table(report["cases"]))
    return int(failed or len(measured) < len(report["cases"]))


if __name__ == "__main__":
    sys.exit(main())
