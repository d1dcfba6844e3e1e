"""Figures of comparisons: paired differences, performance profiles, probability of improvement."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import aggregate
from analysis.figures import style
from analysis.figures.drawing import FEW_LINES, Drawing, Panel, method_panels, panels_note, span_of
from analysis.figures.style import INK, LABEL_WIDTH
from analysis.load import Results
from analysis.statistics import Interval
from analysis.summary import Paired
from analysis.tables import shorten

ROWS = {"axes.grid.axis": "x", "xtick.major.size": 0, "axes.spines.bottom": False}  # the look of a forest plot
THRESHOLDS = np.linspace(0.0, 1.0, 51)


def forest(
    labels: Sequence[str], intervals: Sequence[Interval], styles: Mapping[str, tuple[str, object]], dots: Sequence[np.ndarray] = ()
) -> Panel:
    """One row per label: estimate, limits, and the seeds as small dots below; to be finished by the caller's title and axis."""

    def draw(axes: Axes) -> None:
        for y, (label, interval) in enumerate(zip(reversed(labels), reversed(intervals), strict=True)):
            colour = styles[label][0]
            if len(dots):
                seeds = dots[len(labels) - 1 - y]
                axes.plot(seeds, np.full(len(seeds), y - 0.2), "o", color=colour, alpha=0.45, markersize=3, markeredgewidth=0)
            if interval.n > 1:
                axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=2.2)
            axes.plot(interval.estimate, y, "o", color=colour, markersize=6, markeredgecolor="white", markeredgewidth=1)
        axes.set_yticks(range(len(labels)), [shorten(label, LABEL_WIDTH) for label in reversed(labels)])
        axes.set_ylim(-0.6, len(labels) - 0.4)

    return Panel("", draw)


def _forest_drawing(stem, title, said, note, rows: Panel, labels, intervals, columns, decorate) -> Drawing:
    def draw(axes: Axes) -> None:
        rows.draw(axes)
        decorate(axes)
        style.head(axes, title, note)

    data = {"estimate": [float(i.estimate) for i in intervals], "low": [float(i.low) for i in intervals]}
    data |= {"high": [float(i.high) for i in intervals], "n": [int(i.n) for i in intervals]}
    frame = pd.DataFrame({**columns, "method": list(labels), **data})
    return Drawing(stem, title, said, (Panel(title, draw),), frame, (4.5, 0.95 + 0.27 * len(labels)), ROWS)


def paired_plot(results: Results, pairs: Sequence[Paired], stem: str = "paired") -> Drawing:
    """Reference minus the others on one task: a dot per seed, the mean and its 95 % t interval; right of 0 the reference is better."""
    labels, intervals = [pair.other.label for pair in pairs], [pair.interval for pair in pairs]
    rows = forest(labels, intervals, style.colours(results.methods), [pair.differences for pair in pairs])
    reference = shorten(pairs[0].reference.label, LABEL_WIDTH)

    def decorate(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=0.9, zorder=1.5)
        low, high = axes.dataLim.intervalx
        low, high = min(low, -0.05), max(high, 0.05)
        axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        axes.set_xlabel(f"{pairs[0].metric}: {reference} minus the other")

    count = span_of(int(pair.interval.n) for pair in pairs)
    said = f"{pairs[0].task}: {count} shared seeds per pair; bar: 95 % t interval of the mean difference, small dots: seeds."
    columns = {"task": pairs[0].task, "reference": pairs[0].reference.label}
    note = "bar: 95 % t interval of the paired difference; small dots: seeds"
    return _forest_drawing(stem, pairs[0].task, said, note, rows, labels, intervals, columns, decorate)


def improvement_plot(
    results: Results, reference: str, found: Mapping[str, tuple[Interval, Sequence[str]]], stem: str = "improvement"
) -> Drawing:
    """Probability that a seed of the reference ends above one of the other method. `found`: label -> (probability, tasks it is over)."""
    intervals = [interval for interval, _ in found.values()]
    rows = forest(list(found), intervals, style.colours(results.methods))

    def decorate(axes: Axes) -> None:
        axes.axvline(0.5, color=INK, linewidth=0.9, zorder=1.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(f"probability that {shorten(reference, LABEL_WIDTH)} ends above the other")

    counts = sorted({len(tasks) for _, tasks in found.values()})
    tasks = f"{counts[0]} task{'s' if counts[0] > 1 else ''}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} tasks"
    count = span_of(int(interval.n) for interval in intervals)
    said = (
        f"Probability that a randomly chosen seed of {reference} ends above one of the other method, ties counting half; mean over the tasks "
        f"both were run on ({tasks}), at least {count} seeds a side. Bar: 95 % score interval. Right of 0.5 {reference} is ahead."
    )
    columns = {"reference": reference, "tasks": [" ".join(tasks) for _, tasks in found.values()]}
    return _forest_drawing(stem, "Probability of improvement", said, "bar: 95 % interval", rows, list(found), intervals, columns, decorate)


def profile_plot(
    results: Results, scores: Mapping[str, Mapping[str, np.ndarray]], tasks: Sequence[str], reference: str, stem: str = "profile"
) -> Drawing:
    """Share of seeds whose final score exceeds each threshold, the tasks weighing the same. `scores`: label -> task -> [S]."""
    styles = style.colours(results.methods)
    found = {label: aggregate.profile(own, THRESHOLDS, tasks=tasks) for label, own in scores.items()}
    few = len(found) <= FEW_LINES

    def draw(axes: Axes, label: str, colour: str, dashes, shade: float) -> None:
        share = found[label]
        if shade:
            axes.fill_between(THRESHOLDS, share.low, share.high, color=colour, alpha=0.7 * shade, linewidth=0, step="post")
        axes.step(THRESHOLDS, share.estimate, where="post", color=colour, linestyle=dashes, linewidth=1.5 if shade else 0.9)

    def finish(axes: Axes) -> None:
        axes.set_xlim(0, 1.0 if few else 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xticks([0, 0.5, 1] if not few else np.linspace(0, 1, 6))
        if few:
            axes.set_xlabel("final score")
            axes.set_ylabel("share of seeds above it")
            style.head(axes, "Performance profiles", "band: 95 % Wilson interval at each score")

    labels = list(found)
    ends = {label: float(share.estimate[np.searchsorted(THRESHOLDS, 0.98)]) for label, share in found.items()}
    panels, size = method_panels(labels, styles, reference, draw, finish, ends, "performance profile")
    count = span_of(int(share.n[0]) for share in found.values())
    said = (
        f"Share of seeds (vertical) whose final score exceeds the value on the horizontal axis, {count} seeds on {', '.join(tasks)}; band: "
        f"95 % Wilson interval at each score by itself. The higher the better.{panels_note(labels, reference)}"
    )
    columns = lambda share: {"score": THRESHOLDS, "share": share.estimate, "low": share.low, "high": share.high, "n": share.n}
    data = pd.concat([pd.DataFrame({"method": label, **columns(share)}) for label, share in found.items()], ignore_index=True)
    return Drawing(stem, "Share of seeds above each final score", said, panels, data, size)
