"""What changes with a setting: curves per value, final score against the value, a heat map for two axes, and named variants side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from analysis.figures import style
from analysis.figures.comparing import ROWS, forest
from analysis.figures.curves import learning_curves
from analysis.figures.drawing import Drawing, Panel, span_of
from analysis.load import Results, show_value
from analysis.statistics import mean_interval
from analysis.summary import Summary

LOG_FROM = 8.0  # largest value over smallest from which the axis of values is logarithmic
MAP = "cividis"


@dataclass(frozen=True)
class Group:
    """The cells of one agent (and variant, and experiment) on one task that differ in one or more hyperparameters."""

    task: str
    name: str
    axes: tuple[str, ...]  # names of the hyperparameters that differ
    cells: tuple[tuple[tuple[Any, ...], Summary], ...]  # (values on the axes, summary), in the order of the values

    def values(self, axis: int) -> list:
        """The values that occur on one axis, in order."""
        return _ordered({values[axis] for values, _ in self.cells})


def _ordered(values) -> list:
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def groups(summaries: Sequence[Summary]) -> list[Group]:
    """Every group of at least two cells, by task."""
    found: dict[tuple, list[Summary]] = {}
    for s in summaries:
        if s.method.hyperparameters:
            found.setdefault((s.task, s.method.agent, s.method.variant, s.method.experiment, s.method.imported), []).append(s)
    out = []
    for (task, agent, variant, *rest), members in found.items():
        columns = [dict(s.method.hyperparameters) for s in members]
        names = [n for n in columns[0] if all(n in c for c in columns) and len({c[n] for c in columns}) > 1]
        cells = [(tuple(c[n] for n in names), s) for c, s in zip(columns, members, strict=True)]
        if names and len({values for values, _ in cells}) == len(cells):
            cells.sort(key=lambda cell: tuple((isinstance(value, str), value) for value in cell[0]))
            own = agent + (f" ({variant})" if variant else "") + "".join(f" [{name}]" for name in rest if name)
            out.append(Group(task, own, tuple(names), tuple(cells)))
    return out


def variants(summaries: Sequence[Summary]) -> list[list[Summary]]:
    """For every task and agent with named variants: all its methods without cells, in their order."""
    found: dict[tuple[str, str], list[Summary]] = {}
    for s in summaries:
        if not s.method.hyperparameters:
            found.setdefault((s.task, s.method.agent), []).append(s)
    return [members for members in found.values() if len({s.method.variant for s in members}) > 1]


def value_curves(results: Results, group: Group, name: str, stem: str) -> Drawing:
    """Learning curves of the cells, their colours in the order of the values."""
    shades = matplotlib.colormaps[MAP](np.linspace(0.05, 0.85, len(group.cells)))
    styles = {s.label: (to_hex(colour), "-") for (_, s), colour in zip(group.cells, shades, strict=True)}
    first = group.cells[0][1].label
    drawn = learning_curves(results, [s for _, s in group.cells], name=name, reference=first, stem=stem, styles=styles)
    return replace(drawn, caption=drawn.caption + " Colours run from dark to light in the order of the values.")


def sensitivity(group: Group, axis: int, stem: str) -> Drawing:
    """Final score against the value of one axis, a line for each combination of the others; bars are 95 % t intervals over seeds."""
    short = group.axes[axis].rpartition(".")[2]
    values = group.values(axis)
    x, logarithmic = _positions(values)
    lines: dict[tuple, list[tuple[Any, Summary]]] = {}
    for cell, s in group.cells:
        lines.setdefault(cell[:axis] + cell[axis + 1 :], []).append((cell[axis], s))
    others = [name.rpartition(".")[2] for i, name in enumerate(group.axes) if i != axis]
    shades = [to_hex(c) for c in matplotlib.colormaps[MAP](np.linspace(0.05, 0.85, len(lines)))]
    names = [", ".join(f"{n}={show_value(v)}" for n, v in zip(others, rest, strict=True)) or group.name for rest in lines]

    def draw(axes: Axes) -> None:
        for i, cells in enumerate(lines.values()):
            found = [mean_interval(s.score) for _, s in cells]
            middle = np.array([f.estimate for f in found])
            at = np.array([x[values.index(value)] for value, _ in cells], dtype=float)
            at = at * 1.03 ** (i - len(lines) / 2) if logarithmic and len(lines) > 1 else at
            axes.vlines(at, [f.low for f in found], [f.high for f in found], color=shades[i], linewidth=1.2)
            axes.plot(at, middle, "o-", color=shades[i], markersize=4, linewidth=1.3)
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xticks(x, [show_value(value) for value in values])
        axes.minorticks_off()
        low, high = axes.dataLim.intervaly
        axes.set_ylim(min(-0.03, low), max(1.03, high))
        axes.set_xlabel(short)
        axes.set_ylabel("final score")
        style.head(axes, f"{group.task}: {group.name}, {short}", "bar: 95 % t interval over seeds")

    legend = tuple(style.handle(n, c, "-") for n, c in zip(names, shades, strict=True)) if len(lines) > 1 else ()
    said = f"{group.task}: final score of {group.name} against {short}; mean over {_seeds(group)} seeds, bar: 95 % t interval."
    return Drawing(stem, f"{group.name}: {short}", said, (Panel(said, draw, legend),), _data(group))


def heat_map(group: Group, stem: str) -> Drawing:
    """Mean final score for every pair of values of two axes, with the half-width of its 95 % t interval."""
    columns, rows = group.values(0), group.values(1)
    found = {cell: mean_interval(s.score) for cell, s in group.cells}
    means = np.full((len(rows), len(columns)), np.nan)
    for (column, row), interval in found.items():
        means[rows.index(row), columns.index(column)] = interval.estimate
    low, high = min(0.0, np.nanmin(means, initial=0.0)), max(1.0, np.nanmax(means, initial=1.0))

    def draw(axes: Axes) -> None:
        axes.pcolormesh(np.ma.masked_invalid(means), cmap=MAP, vmin=low, vmax=high, edgecolors="white", linewidth=1.5)
        for (column, row), interval in found.items():
            half = f"\n\N{PLUS-MINUS SIGN}{(interval.high - interval.low) / 2:.2f}" if interval.n > 1 else ""
            dark = (interval.estimate - low) / (high - low) < 0.55
            axes.text(columns.index(column) + 0.5, rows.index(row) + 0.5, f"{interval.estimate:.2f}{half}", ha="center", va="center",
                      fontsize=7.5, color="#fefefe" if dark else "#101010")  # fmt: skip
        axes.set_xticks(np.arange(len(columns)) + 0.5, [show_value(value) for value in columns])
        axes.set_yticks(np.arange(len(rows)) + 0.5, [show_value(value) for value in rows])
        axes.set_xlabel(group.axes[0].rpartition(".")[2])
        axes.set_ylabel(group.axes[1].rpartition(".")[2])
        style.head(axes, f"{group.task}: {group.name}", "mean final score \N{PLUS-MINUS SIGN} half of its 95 % t interval")

    said = f"{group.task}: mean final score of {group.name} over {_seeds(group)} seeds, \N{PLUS-MINUS SIGN} half the width of its 95 % t interval."
    size = (4.5, 1.2 + 0.42 * len(rows))
    plain = {"axes.grid": False, "xtick.major.size": 0, "axes.spines.bottom": False}
    return Drawing(stem, f"{group.name}: two axes", said, (Panel(said, draw),), _data(group), size, plain)


def variant_plot(results: Results, members: Sequence[Summary], stem: str) -> Drawing:
    """Final score of an agent's named variants: mean, 95 % t interval, and a dot per seed."""
    intervals = [mean_interval(s.score) for s in members]
    labels = [s.label for s in members]
    rows = forest(labels, intervals, style.colours(results.methods), [s.score[np.isfinite(s.score)] for s in members])
    title = f"{members[0].task}: variants of {members[0].method.agent}"

    def draw(axes: Axes) -> None:
        rows.draw(axes)
        low, high = axes.dataLim.intervalx
        axes.set_xlim(min(-0.02, low), max(1.02, high))
        axes.set_xlabel("final score")
        style.head(axes, title, "bar: 95 % t interval over seeds; small dots: seeds")

    said = f"{title}; final score, mean over {span_of(s.seeds.size for s in members)} seeds, bar: 95 % t interval, small dots: seeds."
    records = [{"task": s.task, "method": s.label, "mean": float(i.estimate), "low": float(i.low), "high": float(i.high), "seeds": int(i.n)}
               for s, i in zip(members, intervals, strict=True)]  # fmt: skip
    return Drawing(stem, title, said, (Panel(title, draw),), pd.DataFrame(records), (4.5, 0.95 + 0.27 * len(members)), ROWS)


def _positions(values: Sequence) -> tuple[list, bool]:
    """(x of the values, whether on a logarithmic axis): numbers where they are, names side by side."""
    if not all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values):
        return list(range(len(values))), False
    return list(values), min(values) > 0 and max(values) / min(values) >= LOG_FROM


def _data(group: Group) -> pd.DataFrame:
    records = []
    for cell, s in group.cells:
        found = mean_interval(s.score)
        records.append({"task": group.task, "method": s.label, **dict(zip(group.axes, cell, strict=True)), "mean": float(found.estimate),
                        "low": float(found.low), "high": float(found.high), "seeds": int(found.n)})  # fmt: skip
    return pd.DataFrame(records)


def _seeds(group: Group) -> str:
    return span_of(s.seeds.size for _, s in group.cells)
