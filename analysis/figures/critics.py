"""What the critics say of themselves, where it was logged: the bias of their values, what the maximum gains and by how much it deceives."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from analysis.figures import style
from analysis.figures.curves import Axis, curve_data, draw_method, last_mean, phases
from analysis.figures.drawing import FEW_LINES, Drawing, method_panels, panels_note, span_of
from analysis.figures.style import INK
from analysis.load import Results


def critics_plot(
    results: Results, task: str, labels: Sequence[str], metric: str, said: str, reference: str, stem: str = "critics"
) -> Drawing:
    """One of the critics' estimates over the steps of both phases: mean over seeds and 95 % t band."""
    styles = style.colours(results.methods)
    both = {label: phases(results.rows(task, label), metric) for label in labels}
    curves = {label: online for label, (_, online) in both.items()}
    few = len(labels) <= FEW_LINES
    span = Axis(list(both.values()))
    means = np.concatenate([curve.interval().mean for curve in curves.values()])
    means = means[np.isfinite(means)]
    wide = np.abs(means).max(initial=0.0) > 20 * max(np.median(np.abs(means)) if means.size else 0.0, 1e-9)

    def draw(axes: Axes, label: str, colour: str, dashes, shade: float) -> None:
        draw_method(axes, span, both[label], colour, dashes, shade)

    def finish(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=0.7, zorder=1.5)
        low, high = means.min(initial=0.0), means.max(initial=0.0)
        margin = 0.12 * max(high - low, 1e-6)
        if wide:
            axes.set_yscale("symlog", linthresh=max(float(np.median(np.abs(means))), 1e-3))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(low - margin, high + margin)
        span.decorate(axes, small=not few)
        if few:
            axes.set_ylabel(metric)
            style.head(axes, f"{task}: {metric}", "mean over seeds, band: 95 % t interval")

    ends = {label: last_mean((curve,)) for label, curve in curves.items()}
    panels, size = method_panels(labels, styles, reference, draw, finish, ends, f"{metric} on {task}")
    note = " The vertical axis is logarithmic away from 0." if wide else ""
    count = span_of(curve.seeds.size for curve in curves.values())
    text = f"{task}, {metric} against environment steps: {said}. Mean over {count} seeds, band: 95 % t interval, cut at the axis.{note}{panels_note(labels, reference)}"
    parts = [curve_data(curve, task=task, method=label, metric=metric) for label, curve in curves.items()]
    return Drawing(stem, f"{task}: {metric}", text, panels, pd.concat(parts, ignore_index=True), size)
