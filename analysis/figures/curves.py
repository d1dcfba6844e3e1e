"""Learning curves: mean over seeds against environment steps, the offline phase squeezed in on the left."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis import efficiency
from analysis.figures import style
from analysis.figures.drawing import FEW_LINES, Drawing, method_panels, panels_note, span_of
from analysis.figures.style import MUTED, SHADE
from analysis.load import Results
from analysis.summary import Summary, show_episodes

OFFLINE_SHARE = 0.25  # of the online width, for the offline phase


def learning_curves(
    results: Results,
    summaries: Sequence[Summary],
    metric: str = "score",
    name: str = "score",
    published: pd.DataFrame | None = None,
    reference: str = "",
    stem: str = "curve",
    styles: Mapping[str, tuple[str, object]] | None = None,
) -> Drawing:
    """Mean over seeds of one task's methods against online environment steps, with 95 % t bands; the offline phase, where it was evaluated
    on the way, is drawn left of 0 over its gradient steps.

    `summaries`: the methods to draw, all of one task. `name`: the metric's name on the axis. `published`: rows of `analysis.published` of
    this task and metric, to stand beside the measured curves. `reference`: the method drawn along in every panel of small multiples.
    `styles`: (colour, line style) of every label, where not `style.colours`.
    """
    task, styles = summaries[0].task, styles or style.colours(results.methods)
    both = {s.label: phases(results.rows(task, s.label), metric) for s in summaries}
    span = Axis(list(both.values()))
    series = [] if published is None or not span.online_end else [part for _, part in published.groupby(["key", "method"], sort=False)]
    by_agent = {method.agent: styles[method.label][0] for method in reversed(results.methods) if method.label in styles}
    single = len(both) <= FEW_LINES
    agents = {s.label: s.method.agent for s in summaries}

    def draw(axes: Axes, label: str, colour: str, dashes, shade: float) -> None:
        draw_method(axes, span, both[label], colour, dashes, shade, (0.0, 1.0))
        if shade and not single:
            for part in series:
                if part["agent"].iloc[0] == agents[label]:
                    _draw_published(axes, span, part, by_agent)

    def finish(axes: Axes) -> None:
        for part in series if single else []:
            _draw_published(axes, span, part, by_agent)
        span.decorate(axes, small=not single)
        axes.set_ylim(*span.limits)
        if single:
            axes.set_ylabel(name)
            style.head(axes, task, caption(summaries))

    handles = [_published_handle(span, part, by_agent) for part in series] if single else []
    ends = {label: last_mean(curves) for label, curves in both.items()}
    panels, size = method_panels(list(both), styles, reference, draw, finish, ends, f"learning curve on {task}, {name}", handles)
    said = _said(name, summaries, series) + panels_note(list(both), reference)
    return Drawing(stem, f"{task}: {name}", said, panels, _data(task, both), size)


def _said(name: str, summaries: Sequence[Summary], series: Sequence[pd.DataFrame]) -> str:
    """What the figure does not say itself."""
    text = f"{summaries[0].task}, {name} against environment steps: {caption(summaries)}. Bands are drawn inside [0, 1]. Thin dotted: fewer seeds than the method has"
    text += ", or the level of a method that never went online." if any(s.final_phase == "offline" for s in summaries) else "."
    if series:
        text += " Hollow marks, greyed: as published, not measured here; a triangle: the last number lies right of this axis."
    return text


Phases = tuple[efficiency.Curve, efficiency.Curve]


def phases(rows: pd.DataFrame, metric: str) -> Phases:
    """(offline curve, online curve) of one method on one task."""
    return efficiency.offline_curve(rows, metric), efficiency.online_curve(rows, metric)


def last_mean(both: Sequence[efficiency.Curve]) -> float:
    """The mean at the right end of a method's curve; NaN where there is none."""
    means = np.concatenate([curve.interval().mean for curve in both])
    means = means[np.isfinite(means)]
    return float(means[-1]) if means.size else np.nan


def _data(task: str, both: Mapping[str, Phases]) -> pd.DataFrame:
    """task, method, phase, step, seeds, mean, low, high: one row per point drawn."""
    named = [(label, phase, curve) for label, own in both.items() for phase, curve in zip(("offline", "online"), own, strict=True)]
    parts = [curve_data(curve, task=task, method=label, phase=phase) for label, phase, curve in named]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def curve_data(curve: efficiency.Curve, **columns: str) -> pd.DataFrame:
    """The columns, then step, seeds, mean, low, high: one row per step of the curve."""
    interval = curve.interval()
    numbers = {"step": curve.steps, "seeds": interval.n, "mean": interval.mean, "low": interval.low, "high": interval.high}
    return pd.DataFrame({**columns, **numbers})


def caption(summaries: Sequence[Summary]) -> str:
    """`mean over 5 seeds, band: 95 % t interval; 20 episodes per evaluation`."""
    count = span_of(summary.seeds.size for summary in summaries)
    band = "no band" if all(summary.seeds.size == 1 for summary in summaries) else "band: 95 % t interval"
    what = "one seed" if count == "1" else f"mean over {count} seeds"
    return f"{what}, {band}; {show_episodes(summaries)} episodes per evaluation"


class Axis:
    """Where evaluations lie on the x axis: online steps from 0, the offline phase squeezed into a strip left of it."""

    def __init__(self, methods: Sequence[Phases]):
        offline, online = zip(*methods, strict=True)
        self.online_end = max((float(curve.steps[-1]) for curve in online if curve.steps.size), default=0.0)
        self.offline_end = max((float(curve.steps[-1]) for curve in offline if curve.steps.size), default=0.0)
        self.switches = any(curve.steps.size for curve in offline) and self.online_end > 0
        self.strip = any(curve.steps.size > 1 for curve in offline) and self.offline_end > 0
        self.scale = OFFLINE_SHARE * self.online_end / self.offline_end if self.strip and self.online_end else 1.0
        values = np.concatenate([curve.values.ravel() for curve in (*online, *offline)])
        values = values[np.isfinite(values)]
        self.limits = min(-0.03, values.min(initial=0.0)), max(1.03, values.max(initial=1.0))

    def offline_x(self, steps: np.ndarray) -> np.ndarray:
        """Gradient steps of one method -> x: its last one is where its online phase begins."""
        return (steps - steps[-1]) * self.scale if self.online_end else steps

    def decorate(self, axes: Axes, small: bool = False) -> None:
        """Ticks, limits, names of the two phases and the mark where one becomes the other."""
        if not self.online_end:
            axes.set_xlabel("gradient steps" if small else "gradient steps (offline phase)")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.thousands(value)))
            return
        left = -self.offline_end * self.scale if self.strip else 0.0
        round_steps = MaxNLocator(4 if small else 5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, self.online_end)
        ticks = [tick for tick in round_steps if 0 <= tick <= self.online_end * 1.001]
        labels = [style.thousands(tick) for tick in ticks]
        if self.strip:
            ticks, labels = [left, *ticks], [f"\N{MINUS SIGN}{style.thousands(self.offline_end)}", *labels]
        axes.set_xticks(ticks, labels)
        axes.set_xlim(left * 1.02 - 0.01 * self.online_end, self.online_end * 1.02)
        if not small:
            self._name_phases(axes, left)
        if self.switches:
            axes.axvline(0, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1.5)
        if self.strip:
            axes.axvspan(axes.get_xlim()[0], 0, color=SHADE, linewidth=0, zorder=0)

    def _name_phases(self, axes: Axes, left: float) -> None:
        below = dict(
            xycoords=axes.get_xaxis_transform(), xytext=(0, -17), textcoords="offset points", ha="center", va="top", linespacing=1.25
        )
        axes.annotate("online\nenvironment steps", (self.online_end / 2, 0), **below)
        if self.strip:
            axes.annotate("offline\ngradient steps", (left / 2, 0), **below)


def draw_method(
    axes: Axes, span: Axis, both: Phases, colour: str, dashes, shade: float, clip: tuple[float, float] = (-np.inf, np.inf)
) -> None:
    """Both phases of one method; see `draw_curve`."""
    offline, online = both
    if offline.steps.size > 1 or (offline.steps.size and not online.steps.size):
        draw_curve(axes, span.offline_x(offline.steps), offline, colour, dashes, shade, clip)
    if online.steps.size:
        draw_curve(axes, online.steps, online, colour, dashes, shade, clip)
    elif offline.steps.size and span.online_end:  # never went online: its level, to compare the others with
        level = offline.interval().mean[-1]
        axes.plot([0, span.online_end], [level, level], color=colour, linewidth=1.0, linestyle=(0, (1, 2)))


def draw_curve(
    axes: Axes, x: np.ndarray, curve: efficiency.Curve, colour: str, dashes, shade: float, clip: tuple[float, float] = (-np.inf, np.inf)
) -> None:
    """Solid where every seed has a value, thin where some are missing: a jump there is a change of seeds, not of skill. Without a `shade`
    the curve is context: a thin line, no band, no seeds. `clip`: of the band, in the drawing only."""
    interval = curve.interval()
    width = None if shade else 0.9
    if shade:
        axes.fill_between(x, np.clip(interval.low, *clip), np.clip(interval.high, *clip), where=np.isfinite(interval.low), color=colour,
                          alpha=shade, linewidth=0)  # fmt: skip
    full = interval.n == curve.seeds.size
    if not full.all():
        axes.plot(x, interval.mean, color=colour, linewidth=0.9, alpha=0.6, linestyle=(0, (1, 1.5)))
    axes.plot(x, np.where(full, interval.mean, np.nan), color=colour, linestyle=dashes, linewidth=width,
              marker="o" if x.size == 1 else None, markersize=4)  # fmt: skip
    if shade and curve.seeds.size > 1:
        lines = [np.column_stack([x[seen], own[seen]]) for own, seen in zip(curve.values, curve.evaluated, strict=True)]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.6, alpha=0.55, gid=style.SEEDS), autolim=False)


def _published_label(rows: pd.DataFrame) -> str:
    """`expo, as published (EXPO Fig. 5): 0.65 at 200k`; the source's own name where it is not the agent's."""
    last = rows.iloc[-1]
    where = f"at {style.thousands(last['env_step'])}" if last["phase"] == "online" else "after the offline phase"
    return f"{last['agent']}, as published ({last['label']}): {last['score']:.2f} {where}"


def _published_style(span: Axis, rows: pd.DataFrame, colours: Mapping[str, str]) -> tuple[dict, str, float]:
    """(line style, marker, its size): greyed, hollow, thin and dashed where the rows are a curve (of two points nobody knows what lies
    between); a triangle where the last number lies right of the axis."""
    last = rows.iloc[-1]
    colour = to_hex(0.5 * np.array(to_rgb(colours.get(last["agent"], MUTED))) + 0.5 * np.array(to_rgb(MUTED)))
    dashes = (0, (4, 2.5)) if len(rows) > 2 else "none"
    look = {"color": colour, "linewidth": 0.9, "linestyle": dashes, "markerfacecolor": "white", "markeredgewidth": 0.8}
    return look, *(("o", 2.4) if len(rows) > 3 else ("D", 3.6))


def _published_handle(span: Axis, rows: pd.DataFrame, colours: Mapping[str, str]) -> Line2D:
    look, marker, size = _published_style(span, rows, colours)
    if rows.iloc[-1]["env_step"] > span.online_end:
        marker, size = ">", 5.0
    return Line2D([], [], marker=marker, markersize=size, label=_published_label(rows), **look)


def _draw_published(axes: Axes, span: Axis, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """One published method, its rows in order. What is right of the axis is not drawn; the last number then stands on the right edge."""
    look, marker, size = _published_style(span, rows, colours)
    axes.plot(rows["env_step"], rows["score"], marker=marker, markersize=size, zorder=1.8, **look)
    axes.vlines(rows["env_step"], rows["low"], rows["high"], color=look["color"], linewidth=0.7, zorder=1.7)
    last = rows.iloc[-1]
    if last["env_step"] > span.online_end:
        axes.plot(1, last["score"], marker=">", markersize=5.0, clip_on=False, transform=axes.get_yaxis_transform(), **look)
