"""What amortised proposals save and cost: `python -m benchmarks.amortised RUN...` rewrites the tables of docs/amortised.md and their picture
from the runs of experiments/amortised.py.

The prose of the page stays; what lies between its two marks is written anew. Arithmetic is counted (benchmarks/flops.py), not measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import envs
from analysis import ResultsError, efficiency, statistics
from analysis.comparisons import holm, p_value
from analysis.figures import style
from analysis.load import Results, load
from analysis.tables import markdown_table, show_interval
from benchmarks import flops
from experiments.amortised import EXPERIMENT
from expo_bench import agents
from expo_bench.config import fields, replace

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- tables: python -m benchmarks.amortised -->", "<!-- end of the tables -->"
PAPER = {"obs": 19, "action": 7, "offline": 20_000}  # robomimic's square, and as many offline transitions as 100 to 200 episodes have
RATES = (1, 4, 8, 16, 64)
MEASURES = {  # (metric, what is read off its curve)
    "success at the end": ("success", efficiency.final),
    "success over the run": ("success", efficiency.area),
    "q_bias at the end": ("q_bias", efficiency.final),
}
WIDTH, HEIGHT = 3.3, 2.5  # inches of a panel


def flop_of(agent: str, values: dict[str, Any], protocol: dict[str, Any], obs: int, action: int, offline: int) -> float:
    """Per environment step of one seed, the first samples of the `offline` transitions spread over all steps."""
    module = agents.load(agent)
    known = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items() if name in fields(module.Config)}
    config = replace(module.Config(), agent, **known)
    return flops.per_env_step(agent, config, replace(module.PROTOCOL, agent, **protocol), obs, action, offline).flop


def paper_table() -> str:
    """GFLOP per environment step at the authors' sizes."""
    rows = []
    for agent, protocol in (("expo", {"updates": 20}), ("expo", {"updates": 1}), ("idql_online", {"updates": 20}), ("qc", {})):
        count = [flop_of(agent, {"refresh_every": k}, protocol, **PAPER) for k in RATES]
        updates = protocol.get("updates", agents.load(agent).PROTOCOL.updates)
        rows.append((f"`{agent}`, U {updates}", *(f"{x / 1e9:.4g} ({count[0] / x:.1f})" for x in count)))
    return markdown_table(("GFLOP per environment step (times less)", *(f"k = {k}" for k in RATES)), rows)


def upto(curve: efficiency.Curve, stop: int) -> efficiency.Curve:
    """The evaluations until a step."""
    kept = curve.steps <= stop
    return dataclasses.replace(curve, steps=curve.steps[kept], values=curve.values[:, kept], evaluated=curve.evaluated[:, kept])


class Runs:
    """The runs of experiments/amortised.py: the curves of its variants on every task until the last step that all of them have reached, and
    the arithmetic behind them."""

    def __init__(self, results: Results) -> None:
        self.results, self.tasks = results, results.tasks
        self.labels = {m.variant: m.label for m in results.methods}
        self.configs = {m.variant: m.config for m in EXPERIMENT.methods if m.variant in self.labels}
        self.released = EXPERIMENT.methods[0].variant
        self.flop = functools.cache(self._flop)

    def variants(self, task: str) -> list[str]:
        """Those that were run on a task."""
        return [variant for variant in self.configs if len(self.results.rows(task, self.labels[variant]))]

    def curve(self, task: str, variant: str, metric: str = "success") -> efficiency.Curve:
        of = lambda v: efficiency.online_curve(self.results.rows(task, self.labels[v]), metric)
        return upto(of(variant), min(of(v).steps[of(v).evaluated.all(axis=0)][-1] for v in self.variants(task)))

    def _flop(self, task: str, variant: str) -> float:
        env = envs.make(task, engine="mujoco")
        source = Path(self.results.rows(task, self.labels[variant])["source"].iloc[0])
        manifest = next(m for m in self.results.manifests if m.folder.resolve() in source.resolve().parents)
        definition, offline = manifest.get("definition"), manifest.get("tasks")[task]["transitions"]
        return flop_of("expo", definition["config"] | self.configs[variant], definition["protocol"], env.obs_size, env.action_size, offline)

    def table(self, task: str) -> str:
        """Every measure and its difference to the released algorithm, seed by seed; p values adjusted for all comparisons of the task."""
        variants, rows, tested = self.variants(task), [], []
        base = self.flop(task, self.released)
        for variant in variants:
            count = self.flop(task, variant)
            cells = [variant, f"{count / 1e9:.3f} ({base / count:.1f})"]
            for metric, measure in MEASURES.values():
                own, reference = self.curve(task, variant, metric), self.curve(task, self.released, metric)
                cells.append(show_interval(statistics.mean_interval(measure(own))))
                if variant == self.released:
                    cells.append("")
                    continue
                gaps, _ = statistics.differences(measure(own), own.seeds, measure(reference), reference.seeds)
                cells.append(show_interval(statistics.mean_interval(gaps), 3, sign=True))
                tested.append((len(rows), len(cells) - 1, p_value(gaps)))
            rows.append(cells)
        for (row, cell, p), adjusted in zip(tested, holm([p for *_, p in tested]), strict=True):
            rows[row][cell] += f", p {p:.2f}{f' (adjusted {adjusted:.3f})' if adjusted < 0.05 else ''}" if np.isfinite(p) else ""
        header = ("variant", "GFLOP per step (times less)", *(name for m in MEASURES for name in (m, f"minus {self.released}")))
        last = self.curve(task, self.released)
        said = f"{len(last.seeds)} seeds, evaluations until {last.steps[-1]:,} environment steps."
        return f"{said}\n\n{markdown_table(header, rows)}"

    def draw(self, path: Path) -> None:
        """Success against environment steps, and against the arithmetic so far: a row per task."""
        colours = dict(zip(self.configs, ("#1b1f24", "#0072B2", "#009E73", "#D55E00", "#AA4499", "#E69F00"), strict=False))
        with matplotlib.rc_context(style.STYLE):
            figure = style.new_figure(2 * WIDTH, len(self.tasks) * HEIGHT + 0.3)
            grid = figure.subplots(len(self.tasks), 2, squeeze=False, sharey="row")
            for (left, right), task in zip(grid, self.tasks, strict=True):
                for variant in self.variants(task):
                    curve, interval = self.curve(task, variant), self.curve(task, variant).interval()
                    dashes = (0, (4, 1.5)) if "acting" in variant else "-"
                    for axes, x in ((left, curve.steps), (right, curve.steps * self.flop(task, variant) / 1e12)):
                        (line,) = axes.plot(x, interval.mean, color=colours[variant], linestyle=dashes, label=variant)
                        axes.fill_between(
                            x, np.clip(interval.low, 0, 1), np.clip(interval.high, 0, 1), color=line.get_color(), alpha=0.1, lw=0
                        )
                left.set_title(task, loc="left", fontsize=9)
                left.set(xlabel="environment steps", ylabel="success", ylim=(0, 1.02))
                right.set(xlabel="TFLOP so far, one seed", xlim=(0, None))
            handles, labels = max((axes.get_legend_handles_labels() for axes in grid[:, 0]), key=lambda both: len(both[1]))
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=1.8, columnspacing=1.2)
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=160, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.amortised", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("runs", nargs="+", type=Path, help="folders of `expo-bench sweep experiments/amortised.py`, finished or not")
    p.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of amortised.md and images/ (default: docs)")
    args = p.parse_args(argv)
    try:
        runs = Runs(load(args.runs))
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    parts = [("At the authors' sizes, by arithmetic", paper_table())]
    parts += [(f"{task}, measured at the quickstart's sizes", runs.table(task)) for task in runs.tasks]
    text = "\n".join(f"### {title}\n\n{table}" for title, table in parts)
    print(text)
    runs.draw(args.out / "images/amortised.png")
    page = args.out / "amortised.md"
    old = page.read_text(encoding="utf-8") if page.exists() else f"# Amortised proposals\n\n{BEGIN}\n{END}\n"
    head, _, rest = old.partition(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
