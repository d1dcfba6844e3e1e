"""One panel per method: where its samples lie, over the density that it claims or over the reward that it maximises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from analysis.figures import style
from benchmarks.bandit import densities

DOTS = 1_200  # of all seeds together
SIDE, HEAD = 1.62, 0.42  # inches of a panel, and of its title
LIMIT = 1.04
SAMPLES, DENSITY = "#0072B2", "#D55E00"
FINE = np.linspace(-LIMIT, LIMIT, 161)


def grid() -> np.ndarray:
    """[161, 161, D], the second coordinate along the first axis, as contours are drawn."""
    return np.stack(np.meshgrid(FINE, FINE), axis=-1)


def panel(axes: Axes, samples: np.ndarray, title: str, note: str) -> None:
    """Dots of samples [seeds, count, D] on what is drawn already."""
    share = DOTS // len(samples)
    dots = samples[:, :share].reshape(-1, densities.DIMENSIONS)
    axes.scatter(*dots.T, s=1.8, color=SAMPLES, alpha=0.3, linewidths=0, zorder=3)
    axes.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xticks=(), yticks=())
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=style.GRID)
    axes.annotate(title, (0, 1), (0, 13), xycoords="axes fraction", textcoords="offset points", fontsize=8, fontweight="bold")
    axes.annotate(note, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=6.5, color=style.MUTED)


def claimed(axes: Axes, density: Callable[[np.ndarray], np.ndarray]) -> None:
    """The smallest regions that hold 50 and 90 % of a density."""
    p = density(grid())
    ordered = np.sort(p.ravel())[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    levels = [ordered[np.searchsorted(held, share)] for share in (0.9, 0.5)]
    axes.contour(FINE, FINE, p, levels=levels, colors=DENSITY, linewidths=(0.9, 1.4), linestyles="solid", zorder=4)


def landscape(axes: Axes) -> None:
    """The reward as contours, two standard deviations of behaviour as circles."""
    levels = np.array([-4, -3, -2, -1.5, -1, -0.5, -0.1])
    axes.contour(FINE, FINE, densities.reward(grid()), levels=levels, colors=style.CONTEXT, linewidths=0.6, linestyles="solid", zorder=1)
    angle = np.linspace(0, 2 * np.pi, 100)
    for mean, deviation in zip(densities.BEHAVIOUR.means, densities.BEHAVIOUR.deviations, strict=True):
        axes.plot(
            mean[0] + 2 * deviation * np.cos(angle), mean[1] + 2 * deviation * np.sin(angle), color=style.MUTED, lw=0.7, ls=(0, (4, 2))
        )


def draw(stem: Path, panels: Sequence[tuple[str, str, np.ndarray, Callable | None]], columns: int) -> None:
    """Write `stem`.png of panels (title, note, samples [seeds, count, D], claimed density or None)."""
    lines = -(-len(panels) // columns)
    with matplotlib.rc_context(style.STYLE):
        figure = style.new_figure(columns * SIDE, lines * (SIDE + HEAD), layout=None)
        figure.subplots_adjust(
            left=0.01, right=0.99, bottom=0.01, top=1 - 0.9 * HEAD / (lines * (SIDE + HEAD)), wspace=0.08, hspace=HEAD / SIDE
        )
        for i, (title, note, samples, density) in enumerate(panels):
            axes = figure.add_subplot(lines, columns, i + 1)
            landscape(axes) if density is None else claimed(axes, density)
            panel(axes, samples, title, note)
        stem.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(stem.with_name(stem.name + ".png"), dpi=160, metadata={"Software": None})
