"""What all figures share: the palette, the type, and how a figure becomes a file or a part of the page."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.load import Method
from analysis.tables import shorten

# Okabe and Ito's palette and two of Tol's colours: told apart with every common colour blindness. An agent has one colour in every figure.
COLOURS = {
    "expo": "#0072B2", "idql": "#E69F00", "rlpd": "#009E73", "fql": "#CC79A7", "bc": "#888888", "iql": "#56B4E9", "cal_ql": "#D55E00",
    "dsrl": "#AA4499", "qc": "#44AA99", "sac": "#882255",
}  # fmt: skip
SPARE = ("#D55E00", "#44AA99", "#AA4499", "#999933", "#882255", "#56B4E9", "#117733", "#B8860B")
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (5, 1.4, 1.4, 1.4)))
IMPORTED_DASHES = (0, (8, 1.4, 1.4, 1.4, 1.4, 1.4))
INK, MUTED, GRID, SHADE, CONTEXT = "#1b1f24", "#66707a", "#e3e6e9", "#f4f5f6", "#c6ccd2"
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
SEEDS = "seeds"  # the group id of what is drawn of single seeds, which the page hides until it is asked for
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


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """An empty figure with a canvas that needs no display; inches."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def laid_out(figure: Figure) -> Figure:
    """Fix the layout now: it would be computed anew for each file made of a figure."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def head(axes: Axes, title: str, note: str) -> None:
    """Title and note flush with the figure, not with the axes: long method names push those to the right."""
    place = {"xycoords": ("figure fraction", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(note, (0.012, 1), (0, 4), fontsize=7, color=MUTED, **place)
    axes.annotate(shorten(title, 60), (0.012, 1), (0, 16 if note else 4), fontsize=10, fontweight="bold", **place)


def handle(label: str, colour: str, dashes) -> Line2D:
    """A method's line for a legend."""
    return Line2D([], [], color=colour, linestyle=dashes, label=shorten(label, LABEL_WIDTH))


def direct_labels(axes: Axes, ends: dict[str, float], styles: dict[str, tuple[str, object]]) -> None:
    """Names at the right ends of curves, in the order of the ends [label -> y], moved apart where they would overlap. Call when the limits
    of the axis are final; what has no end is left out."""
    low, high = axes.get_ylim()
    placed = sorted(((y - low) / (high - low), label) for label, y in ends.items() if np.isfinite(y))
    room, heights = 0.058, []
    for y, _ in placed:
        heights.append(max(y, heights[-1] + room) if heights else y)
    over = max(heights[-1] - 1.0, 0.0) if heights else 0.0
    for i in reversed(range(len(heights))):  # push back down what was pushed off the top
        limit = 1.0 if i == len(heights) - 1 else heights[i + 1] - room
        heights[i] = min(heights[i], limit) if over else heights[i]
    for height, (_, label) in zip(heights, placed, strict=True):
        colour, dashes = styles[label]
        style = {"transform": axes.transAxes, "clip_on": False}
        axes.add_artist(Line2D([1.015, 1.055], [height, height], color=colour, linestyle=dashes, linewidth=1.7, **style))
        axes.annotate(label, (1.067, height), xycoords="axes fraction", va="center", fontsize=8, annotation_clip=False)


def thousands(value: float) -> str:
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
    """The figure as an <svg> element for a page: its greys follow the page (CSS variables --ink, --muted, --grid, --shade, --context,
    --page), its text is text, single seeds are a group of class "seeds", and its ids, salted with `name`, are its own. `description`: what a
    screen reader says, already escaped for HTML."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(f'<g id="{SEEDS}"', f'<g class="{SEEDS}"')
    for grey, variable in ((INK, "ink"), (MUTED, "muted"), (GRID, "grid"), (SHADE, "shade"), (CONTEXT, "context"), ("#ffffff", "page")):
        svg = svg.replace(f": {grey}", f": var(--{variable})")
    svg = re.sub(r' id="[\w.]*_\d+"', "", svg)  # names of groups, which nothing refers to and every figure repeats
    svg = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1var(--font)", svg)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is enough
    size = re.search(r'viewBox="([^"]*)"', svg).group(1)
    return f'<svg role="img" aria-label="{description}" viewBox="{size}">' + svg[svg.index(">") + 1 :]
