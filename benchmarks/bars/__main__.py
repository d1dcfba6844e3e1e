"""Every bar of the suite's speed: `python -m benchmarks.bars` writes JSON and a plot of time per seed, and prints a table.

Every module of bars runs in a process of its own with an empty compilation cache. The exit code is 1 where a bar could not be measured for an
error; a missed bar is a result. Machines are noisy: leave this one alone meanwhile, and compare ratios of one run only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from benchmarks.__main__ import child, default_path, write
from expo_bench.sweeps.experiment import PRECISIONS

MODULES = ("overhead", "paper_update", "small_loop", "compile_time", "seeds")
HEAD = ("bar", "limit", "measured", "met", "GEMM rate, GFLOP/s")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.bars", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--only",
        nargs="+",
        choices=MODULES,
        default=list(MODULES),
        metavar="BAR",
        help=f"some of {', '.join(MODULES)}; --out keeps what it holds of the others",
    )
    p.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="of matrix products; the GPU's bar on the update wants bfloat16"
    )
    p.add_argument("--out", type=Path, help="default: benchmarks/results/<device>/<date>-bars.json")
    p.add_argument("--plot", type=Path, help="picture of the time per seed; default: beside --out, .png")
    return p.parse_args(argv)


def processor() -> str:
    """What the machine is, in a few words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores {platform.machine()}"


def verdict(bar: dict[str, Any]) -> str:
    if "error" in bar:
        return f"failed: {bar['error']}"
    return f"needs {bar['needs']}" if bar["met"] is None else ("yes" if bar["met"] else "NO")


def table(bars: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for bar in bars:
        if "error" in bar:
            lines.append(f"| {bar['bar']} | | | {verdict(bar)} | |")
            continue
        limit = f"{'at most' if bar['at_most'] else 'at least'} {bar['limit']:.3g}"
        measured = "" if bar["measured"] is None else f"{bar['measured']:.3g}"
        gemm = "" if bar["gemm_flop_per_s"] is None else f"{bar['gemm_flop_per_s'] / 1e9:.0f}"
        lines.append(f"| {bar['what']} | {limit} | {measured} | {verdict(bar)} | {gemm} |")
    return "\n".join(lines) + "\n"


def draw(path: Path, points: list[dict[str, Any]], stops: int | None) -> None:
    """The best time per seed over the number of seeds, shaded up to the median, and where more seeds stop paying."""
    import matplotlib

    from analysis.figures import style

    seeds = [p["seeds"] for p in points]
    best, median = ([1e3 * p["s_per_env_step_and_seed"][name] for p in points] for name in ("min", "median"))
    with matplotlib.rc_context(style.STYLE):
        figure = style.new_figure(4.2, 2.8)
        axes = figure.add_subplot()
        axes.fill_between(seeds, best, median, color=style.COLOURS["expo"], alpha=0.2, lw=0)
        axes.plot(seeds, best, "o-", color=style.COLOURS["expo"])
        if stops is not None:
            axes.axvline(stops, color=style.MUTED, lw=0.8, ls=(0, (4, 2)))
            axes.annotate("more seeds save\nless than 10 %", (stops, max(median)), (4, 0), textcoords="offset points", va="top", fontsize=7)
        axes.set_xscale("log", base=2)
        axes.set_xticks(seeds, [str(n) for n in seeds])
        axes.set_ylim(0, None)
        axes.set_xlabel("seeds trained together")
        axes.set_ylabel("ms per environment step and seed")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160, metadata={"Software": None})


def kept(path: Path, asked: list[str]) -> list[dict[str, Any]]:
    """The bars of an earlier report that are not measured now."""
    return [bar for bar in json.loads(path.read_text())["bars"] if bar["bar"] not in asked] if path.exists() else []


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    now = datetime.datetime.now(datetime.UTC)
    machine = child("machine", {"precision": args.precision})
    path = args.out or default_path(machine, "bars", now)
    report = {"date": now.isoformat(timespec="seconds"), "processor": processor(), "machine": machine, "bars": kept(path, args.only)}
    order = lambda bar: MODULES.index(bar["bar"])
    for name in args.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found = child(f"bars.{name}", {"precision": args.precision})
        found = [{"bar": name, **found}] if isinstance(found, dict) else found
        stamp = {"date": report["date"], "git_commit": machine.get("git_commit"), "precision": args.precision}
        report["bars"] = sorted([*report["bars"], *({**bar, **stamp} for bar in found)], key=order)
        write(path, report)  # after every bar: an interrupted run keeps what it has measured
    curve = [bar for bar in report["bars"] if bar["bar"] == "seeds" and "error" not in bar]
    for bar in curve:
        draw(args.plot or path.with_suffix(".png"), bar["details"]["points"], bar["details"]["stops_paying_beyond"])
    print(f"{report['processor']}, {machine.get('device', '?')}, jax {machine.get('jax', '?')}; written to {path}\n")
    print(table(report["bars"]))
    return int(any("error" in bar for bar in report["bars"]))


if __name__ == "__main__":
    sys.exit(main())
