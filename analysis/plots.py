"""Figures: learning curves and paired differences. The only module that imports matplotlib, and without a display (Agg)."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis import efficiency
from analysis.load import Method, Results
from analysis.summary import Paired, Summary, show_episodes
from analysis.tables import shorten

# Okabe and Ito's palette and two of Tol's colours: told apart with every common colour blindness. An agent has one colour in every figure.
COLOURS = {
    "expo": "#0072B2", "idql": "#E69F00", "rlpd": "#009E73", "fql": "#CC79A7", "bc": "#888888", "iql": "#56B4E9", "cal_ql": "#D55E00",
    "dsrl": "#AA4499", "qc": "#44AA99", "sac": "#882255",
}  # fmt: skip
SPARE = ("#D55E00", "#44AA99", "#AA4499", "#999933", "#882255", "#56B4E9", "#117733", "#B8860B")
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (5, 1.4, 1.4, 1.4)))
IMPORTED_DASHES = (0, (8, 1.4, 1.4, 1.4, 1.4, 1.4))
INK, MUTED, GRID, SHADE = "#1b1f24", "#66707a", "#e3e6e9", "#f4f5f6"
STYLE = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8, "axes.labelsize": 8.5, "legend.fontsize": 8,
    "legend.frameon": False, "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.linewidth": 0.7, "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    "xtick.major.size": 3, "ytick.major.size": 0, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.7, "axes.axisbelow": True, "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round", "pdf.fonttype": 42, "svg.fonttype": "none", "figure.facecolor": "white",
    "savefig.facecolor": "white", "figure.constrained_layout.h_pad": 0.06,
    "text.parse_math": False,  # names come from files: a lone $ is no formula
}  # fmt: skip
LABEL_WIDTH = 40  # characters
OFFLINE_SHARE = 0.25  # of the online width, for the offline phase


FEW = 3  # so many siblings of one agent can be told apart by tints of its colour


def colours(methods: Sequence[Method]) -> dict[str, tuple[str, object]]:
    """(colour, line style) of every label, no two alike while colours and dashes last.

    An agent has its own colour in every figure. Its further variants or cells are lighter and dashed while they are few; where they are many
    (an ablation) they take the colours that no agent here needs. What was imported has dashes that nothing else has.
    """
    agents = list(dict.fromkeys(method.agent for method in methods))
    own = {agent: COLOURS[agent] for agent in agents if agent in COLOURS}
    free = [colour for colour in dict.fromkeys((*SPARE, *COLOURS.values())) if colour not in own.values()] or list(SPARE)
    totals = {agent: sum(method.agent == agent for method in methods) for agent in agents}
    ranks: dict[str, int] = {}
    styles, taken = {}, 0
    for method in methods:
        rank = ranks.get(method.agent, 0)
        ranks[method.agent] = rank + 1
        dashes = DASHES[rank % len(DASHES)]
        if method.agent in own and (rank == 0 or totals[method.agent] <= FEW):
            colour = to_hex((1 - 0.25 * rank) * np.array(to_rgb(own[method.agent])) + 0.25 * rank)
        else:
            colour, dashes = free[taken % len(free)], DASHES[taken // len(free) % len(DASHES)]
            taken += 1
        styles[method.label] = (colour, IMPORTED_DASHES if method.imported else dashes)
    return styles


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _laid_out(figure: Figure) -> Figure:
    """Fix the layout now: it would be computed anew for each of the three files made of a figure."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _head(axes: Axes, title: str, note: str) -> None:
    """Title and note flush with the figure, not with the axes: long method names push those to the right."""
    place = {"xycoords": ("figure fraction", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(note, (0.012, 1), (0, 4), fontsize=7, color=MUTED, **place)
    axes.annotate(shorten(title, 60), (0.012, 1), (0, 16), fontsize=10, fontweight="bold", **place)


def learning_curves(
    results: Results, summaries: Sequence[Summary], metric: str = "score", name: str = "score", published: pd.DataFrame | None = None
) -> Figure:
    """Mean over seeds of one task's methods against online environment steps, with 95 % t bands; the offline phase, where it was evaluated
    on the way, is drawn left of 0 over its gradient steps.

    `summaries`: the methods to draw, all of one task. `name`: the metric's name on the axis. `published`: rows of `analysis.published` of
    this task and metric, to stand beside the measured curves.
    """
    with matplotlib.rc_context(STYLE):
        series = [] if published is None else [rows for _, rows in published.groupby(["key", "method"], sort=False)]
        labels = [shorten(s.label, LABEL_WIDTH) for s in summaries] + [_published_label(rows) for rows in series]
        longest = max(map(len, labels))
        columns = min(1 if longest > 30 else 2 if longest > 14 else 4, len(labels))
        figure = _figure(4.8, 3.1 + 0.17 * -(-len(labels) // columns))
        axes = figure.add_subplot()
        styles = colours(results.methods)
        span = _Axis([results.rows(s.task, s.label) for s in summaries], metric)
        for summary in reversed(summaries):  # the first method lies on top
            _draw_method(axes, span, results.rows(summary.task, summary.label), metric, *styles[summary.label], 0.14 if len(summaries) <= 5 else 0.06)
        by_agent = {method.agent: styles[method.label][0] for method in reversed(results.methods)}
        drawn = [_draw_published(axes, span, rows, by_agent) for rows in series if span.online_end]
        span.decorate(axes)
        low, high = axes.dataLim.intervaly
        axes.set_ylim(min(-0.03, low), max(1.03, high))
        axes.set_ylabel(name)
        handles = [_handle(s.label, *styles[s.label]) for s in summaries] + drawn
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, handlelength=2.2, columnspacing=1.4, labelspacing=0.35)
        _head(axes, summaries[0].task, caption(summaries))
        return _laid_out(figure)


def _handle(label: str, colour: str, dashes) -> Line2D:
    return Line2D([], [], color=colour, linestyle=dashes, label=shorten(label, LABEL_WIDTH))


def caption(summaries: Sequence[Summary]) -> str:
    """`mean over 5 seeds, band: 95 % t interval; 20 episodes per evaluation`."""
    seeds = sorted({summary.seeds.size for summary in summaries})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    band = "no band" if seeds[-1] == 1 else "band: 95 % t interval"
    what = "one seed" if seeds == [1] else f"mean over {count} seeds"
    return f"{what}, {band}; {show_episodes(summaries)} episodes per evaluation"


class _Axis:
    """Where evaluations lie on the x axis: online steps from 0, the offline phase squeezed into a strip left of it."""

    def __init__(self, groups: Sequence, metric: str):
        online = [efficiency.online_curve(rows, metric) for rows in groups]
        offline = [efficiency.offline_curve(rows, metric) for rows in groups]
        self.online_end = max((float(curve.steps[-1]) for curve in online if curve.steps.size), default=0.0)
        self.offline_end = max((float(curve.steps[-1]) for curve in offline if curve.steps.size), default=0.0)
        self.switches = any(curve.steps.size for curve in offline) and self.online_end > 0
        self.strip = any(curve.steps.size > 1 for curve in offline) and self.offline_end > 0
        self.scale = OFFLINE_SHARE * self.online_end / self.offline_end if self.strip and self.online_end else 1.0

    def offline_x(self, steps: np.ndarray) -> np.ndarray:
        """Gradient steps of one method -> x: its last one is where its online phase begins."""
        return (steps - steps[-1]) * self.scale if self.online_end else steps

    def decorate(self, axes: Axes) -> None:
        """Ticks, limits, names of the two phases and the mark where one becomes the other."""
        if not self.online_end:
            axes.set_xlabel("gradient steps (offline phase)")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
            return
        left = -self.offline_end * self.scale if self.strip else 0.0
        round_steps = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, self.online_end)
        ticks = [tick for tick in round_steps if 0 <= tick <= self.online_end * 1.001]
        labels = [_thousands(tick) for tick in ticks]
        if self.strip:
            ticks, labels = [left, *ticks], [f"\N{MINUS SIGN}{_thousands(self.offline_end)}", *labels]
        axes.set_xticks(ticks, labels)
        axes.set_xlim(left * 1.02 - 0.01 * self.online_end, self.online_end * 1.02)
        below = dict(
            xycoords=axes.get_xaxis_transform(), xytext=(0, -17), textcoords="offset points", ha="center", va="top", linespacing=1.25
        )
        axes.annotate("online\nenvironment steps", (self.online_end / 2, 0), **below)
        if self.switches:
            axes.axvline(0, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1.5)
        if self.strip:
            axes.axvspan(axes.get_xlim()[0], 0, color=SHADE, linewidth=0, zorder=0)
            axes.annotate("offline\ngradient steps", (left / 2, 0), **below)


def _draw_method(axes: Axes, span: _Axis, rows, metric: str, colour: str, dashes, shade: float) -> None:
    offline = efficiency.offline_curve(rows, metric)
    online = efficiency.online_curve(rows, metric)
    if offline.steps.size > 1 or (offline.steps.size and not online.steps.size):
        _draw_curve(axes, span.offline_x(offline.steps), offline, colour, dashes, shade)
    if online.steps.size:
        _draw_curve(axes, online.steps, online, colour, dashes, shade)
    elif offline.steps.size and span.online_end:  # never went online: its level, to compare the others with
        level = offline.interval().mean[-1]
        axes.plot([0, span.online_end], [level, level], color=colour, linewidth=1.0, linestyle=(0, (1, 2)))


def _draw_curve(axes: Axes, x: np.ndarray, curve: efficiency.Curve, colour: str, dashes, shade: float) -> None:
    """Solid where every seed has a value, thin where some are missing: a jump there is a change of seeds, not of skill."""
    interval = curve.interval()
    low, high = np.clip(interval.low, 0, 1), np.clip(interval.high, 0, 1)  # clipped in the drawing only
    axes.fill_between(x, low, high, where=np.isfinite(low), color=colour, alpha=shade, linewidth=0)
    full = interval.n == curve.seeds.size
    if not full.all():
        axes.plot(x, interval.mean, color=colour, linewidth=0.9, alpha=0.6, linestyle=(0, (1, 1.5)))
    axes.plot(x, np.where(full, interval.mean, np.nan), color=colour, linestyle=dashes, marker="o" if x.size == 1 else None, markersize=4)


def _published_label(rows: pd.DataFrame) -> str:
    """`expo, as published (EXPO Fig. 5): 0.65 at 200k`; the source's own name where it is not the agent's."""
    last = rows.iloc[-1]
    where = f"at {_thousands(last['env_step'])}" if last["phase"] == "online" else "after the offline phase"
    return f"{last['agent']}, as published ({last['label']}): {last['score']:.2f} {where}"


def _draw_published(axes: Axes, span: _Axis, rows: pd.DataFrame, colours: dict[str, str]) -> Line2D:
    """One published method, its rows in order: greyed, with hollow marks, and thin and dashed where they are a curve (of two points nobody
    knows what lies between). What is right of the axis is not drawn; the last number then stands as a triangle on the right edge. Returns
    the handle for the legend."""
    last = rows.iloc[-1]
    colour = to_hex(0.5 * np.array(to_rgb(colours.get(last["agent"], MUTED))) + 0.5 * np.array(to_rgb(MUTED)))
    dashes = (0, (4, 2.5)) if len(rows) > 2 else "none"
    style = {"color": colour, "linewidth": 0.9, "linestyle": dashes, "markerfacecolor": "white", "markeredgewidth": 0.8}
    marker, size = ("o", 2.4) if len(rows) > 3 else ("D", 3.6)
    axes.plot(rows["env_step"], rows["score"], marker=marker, markersize=size, zorder=1.8, **style)
    axes.vlines(rows["env_step"], rows["low"], rows["high"], color=colour, linewidth=0.7, zorder=1.7)
    if last["env_step"] > span.online_end:
        marker, size = ">", 5.0
        axes.plot(1, last["score"], marker=marker, markersize=size, clip_on=False, transform=axes.get_yaxis_transform(), **style)
    return Line2D([], [], marker=marker, markersize=size, label=_published_label(rows), **style)


def paired_plot(results: Results, pairs: Sequence[Paired]) -> Figure:
    """Reference minus the others on one task: a dot per seed, the mean and its 95 % t interval; right of 0 the reference is better."""
    with matplotlib.rc_context(STYLE | {"axes.grid.axis": "x", "xtick.major.size": 0, "axes.spines.bottom": False}):
        figure = _figure(4.8, 1.15 + 0.42 * len(pairs))
        axes = figure.add_subplot()
        styles = colours(results.methods)
        for y, pair in enumerate(reversed(pairs)):
            colour = styles[pair.other.label][0]
            below = np.full(pair.differences.size, y - 0.2)
            axes.plot(pair.differences, below, "o", color=colour, alpha=0.45, markersize=3, markeredgewidth=0)
            interval = pair.interval
            if interval.n > 1:
                axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=2.2)
            axes.plot(interval.mean, y, "o", color=colour, markersize=6, markeredgecolor="white", markeredgewidth=1)
        axes.axvline(0, color=INK, linewidth=0.9, zorder=1.5)
        axes.set_yticks(range(len(pairs)), [shorten(pair.other.label, LABEL_WIDTH) for pair in reversed(pairs)])
        axes.set_ylim(-0.6, len(pairs) - 0.4)
        low, high = axes.dataLim.intervalx
        low, high = min(low, -0.05), max(high, 0.05)
        axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        axes.set_xlabel(f"{pairs[0].metric}: {shorten(pairs[0].reference.label, LABEL_WIDTH)} minus the other method")
        _head(axes, pairs[0].task, "bar: 95 % t interval of the paired difference; small dots: seeds")
        return _laid_out(figure)


def _thousands(value: float) -> str:
    """12000 -> 12k, 1500000 -> 1.5M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:g}"


def save(figure: Figure, stem: Path) -> None:
    """Write `stem`.png (200 dpi) and `stem`.pdf, without dates, so that the same results give the same files. Raises OSError."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(stem.with_name(stem.name + ".png"), dpi=200, metadata={"Software": None})
        figure.savefig(stem.with_name(stem.name + ".pdf"), metadata={"CreationDate": None, "Creator": None, "Producer": None})


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an <svg> element for a page: its greys follow the page (CSS variables --ink, --muted, --grid, --shade, --page), its
    text is text, and its ids, salted with `name`, are its own. `description`: what a screen reader says, already escaped for HTML."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for grey, variable in ((INK, "ink"), (MUTED, "muted"), (GRID, "grid"), (SHADE, "shade"), ("#ffffff", "page")):
        svg = svg.replace(f": {grey}", f": var(--{variable})")
    svg = re.sub(r' id="[\w.]*_\d+"', "", svg)  # names of groups, which nothing refers to and every figure repeats
    svg = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1var(--font)", svg)
    size = re.search(r'viewBox="([^"]*)"', svg).group(1)
    return f'<svg role="img" aria-label="{description}" viewBox="{size}">' + svg[svg.index(">") + 1 :]
