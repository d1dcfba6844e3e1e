"""One line per method, one column per run folder, task and metric: the table for comparisons that span several experiments."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis import ResultsError, efficiency
from analysis.load import Results, load
from analysis.statistics import mean_interval
from analysis.tables import show_interval


def matrix(runs: Sequence[Path | str], metrics: Sequence[str] = ("success",)) -> tuple[list[str], list[list[str]]]:
    """Header and cells: the last evaluation's mean over seeds with its 95 % interval, `-` where a method was not run.

    Several folders of one experiment are one column. Raises ResultsError: whatever `load` raises, a metric that no run has.
    """
    results = load(runs)
    for metric in metrics:
        if metric not in results.frame.columns or results.frame[metric].dtype.kind not in "fiub":
            numbers = [name for name in results.frame.columns if results.frame[name].dtype.kind in "fi" and "." not in name]
            raise ResultsError(f"no metric {metric!r} in these results; expected one of: {', '.join(numbers)}")
    experiments = list(dict.fromkeys(manifest.data["experiment"] for manifest in results.manifests))
    columns = [(e, task, metric) for task in results.tasks for e in experiments for metric in metrics if _rows(results, e, task).size]
    named = len(metrics) > 1 or metrics[0] != "success"
    header = [
        "method",
        *(" ".join([task, *([e] if len(experiments) > 1 else []), *([metric] if named else [])]) for e, task, metric in columns),
    ]
    methods = list(dict.fromkeys((m.agent, m.variant, m.hyperparameters) for m in results.methods))
    labels = {key: next(m for m in results.methods if (m.agent, m.variant, m.hyperparameters) == key) for key in methods}
    rows = []
    for key, method in labels.items():
        name = method.label.removesuffix(f" [{method.experiment}]") if method.experiment else method.label
        rows.append([name, *(_cell(results, key, *column) for column in columns)])
    return header, rows


def _rows(results: Results, experiment: str, task: str) -> np.ndarray:
    frame = results.frame
    return np.flatnonzero((frame["experiment"] == experiment) & (frame["task"] == task))


def _cell(results: Results, method: tuple, experiment: str, task: str, metric: str) -> str:
    """`0.71 [0.57, 0.85]`."""
    own = [m.label for m in results.methods if (m.agent, m.variant, m.hyperparameters) == method]
    rows = results.frame.iloc[_rows(results, experiment, task)]
    rows = rows[rows["method"].isin(own)]
    if rows.empty:
        return "-"
    return show_interval(mean_interval(efficiency.final(efficiency.final_curve(rows, metric))))
