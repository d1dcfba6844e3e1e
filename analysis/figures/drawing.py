"""What a figure is: panels that know how to draw themselves, a caption, and the numbers behind it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.figures.style import CONTEXT, LABEL_WIDTH, STYLE
from analysis.tables import shorten

FEW_LINES = 6  # so many curves with bands can be read in one panel; more become small multiples, one method each
SHORT = 22  # characters: names up to this length stand at the ends of their curves
SINGLE, SMALL = (4.5, 3.0), (2.3, 1.85)  # inches
MARGINS = (0.155, 0.125, 0.82, 0.755)  # left, bottom, width, height of a small panel's axes
PAPER_WIDTH = 6.75  # the text width of a two-column conference paper


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `draw` puts everything on them, title included."""

    name: str  # what it shows, for those who cannot see it
    draw: Callable[[Axes], None]
    legend: tuple[Line2D, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """One figure. `data`: what is drawn, tidy. `size`: inches of a panel."""

    stem: str  # the name of its files, and of its part of the page
    title: str
    caption: str
    panels: tuple[Panel, ...]
    data: pd.DataFrame = field(repr=False)
    size: tuple[float, float] = SINGLE
    styling: Mapping[str, object] = field(default_factory=dict)  # what differs from `STYLE`

    @property
    def small(self) -> bool:
        """Whether this is a grid of small multiples."""
        return len(self.panels) > 1


def panel_figure(drawing: Drawing, panel: Panel) -> Figure:
    """One panel by itself, for the page."""
    with matplotlib.rc_context(STYLE | drawing.styling):
        width, height = drawing.size
        if drawing.small:  # there may be dozens: equal margins, which also line the panels up, instead of a layout for each
            figure = style.new_figure(width, height, layout=None)
            panel.draw(figure.add_axes(MARGINS))
            return figure
        rows, columns = _legend_grid(panel.legend, width)
        figure = style.new_figure(width, height + 0.17 * rows)
        panel.draw(figure.add_subplot())
        _add_legend(figure, panel.legend, columns)
        return style.laid_out(figure)


def paper_figure(drawing: Drawing) -> Figure:
    """All panels in one figure at paper size, single seeds left out."""
    if not drawing.small:
        figure = panel_figure(drawing, drawing.panels[0])
    else:
        with matplotlib.rc_context(STYLE | drawing.styling | {"font.size": 7, "axes.labelsize": 7, "xtick.labelsize": 6.5}):
            columns = max(1, min(len(drawing.panels), int(PAPER_WIDTH / (0.72 * drawing.size[0]))))
            rows = -(-len(drawing.panels) // columns)
            width = PAPER_WIDTH if len(drawing.panels) > columns // 2 else 0.5 * PAPER_WIDTH
            figure = style.new_figure(width, rows * drawing.size[1] * width / columns / drawing.size[0] * 1.12)
            for i, panel in enumerate(drawing.panels):
                panel.draw(figure.add_subplot(rows, columns, i + 1))
            style.laid_out(figure)
    for artist in figure.findobj(lambda artist: artist.get_gid() == style.SEEDS):
        artist.remove()
    return figure


def _legend_grid(handles: Sequence[Line2D], width: float) -> tuple[int, int]:
    """(rows, columns) that fit below a figure of this width."""
    if not handles:
        return 0, 1
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(int(width / (0.55 + 0.068 * longest)), len(handles), 4))
    return -(-len(handles) // columns), columns


def _add_legend(figure: Figure, handles: Sequence[Line2D], columns: int) -> None:
    if handles:
        figure.legend(
            handles=list(handles), loc="outside lower left", ncols=columns, handlelength=2.2, columnspacing=1.4, labelspacing=0.35
        )


Draw = Callable[[Axes, str, str, object, float], None]  # (axes, label, colour, dashes, opacity of the band)


def method_panels(
    labels: Sequence[str],
    styles: Mapping[str, tuple[str, object]],
    reference: str,
    draw: Draw,
    finish: Callable[[Axes], None],
    ends: Mapping[str, float],
    about: str,
    extra: Sequence[Line2D] = (),
) -> tuple[tuple[Panel, ...], tuple[float, float]]:
    """(panels, size of each): all methods in one panel while they are few; otherwise one panel each, in which the reference is drawn along
    and the others are grey.

    `draw` adds one method, its band and seeds only where the band's opacity is not 0; `finish` sets the limits and names of the axes;
    `ends`: where a method's name belongs, for short names in a single panel; `extra`: handles of whatever `finish` adds.
    """
    if len(labels) <= FEW_LINES:
        direct = not extra and all(len(label) <= SHORT for label in labels) and len(labels) > 1

        def together(axes: Axes) -> None:
            for label in reversed(labels):  # the first method lies on top
                draw(axes, label, *styles[label], 0.14)
            finish(axes)
            if direct:
                style.direct_labels(axes, {label: ends[label] for label in labels}, styles)

        handles = () if direct else (*(style.handle(label, *styles[label]) for label in labels), *extra)
        return (Panel(about, together, handles),), SINGLE

    def alone(own: str) -> Callable[[Axes], None]:
        def one(axes: Axes) -> None:
            for label in labels:
                if label not in (own, reference):
                    draw(axes, label, CONTEXT, "-", 0.0)
            if reference in labels and own != reference:
                draw(axes, reference, styles[reference][0], "-", 0.0)
            draw(axes, own, *styles[own], 0.2)
            finish(axes)
            axes.set_title(shorten(own, 34), loc="left", fontsize=8, fontweight="bold", color=style.INK, pad=4)

        return one

    return tuple(Panel(f"{about}: {label}", alone(label)) for label in labels), SMALL


def span_of(counts: Iterable[int]) -> str:
    """`5`, or `3 to 5`."""
    counts = sorted(set(counts))
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def panels_note(labels: Sequence[str], reference: str) -> str:
    """What a caption says of the small multiples; "" where there is one panel."""
    if len(labels) <= FEW_LINES:
        return ""
    also = f", {shorten(reference, LABEL_WIDTH)} as a thin line in its own colour" if reference in labels else ""
    return f" One panel per method, with its band, all on the same axes; the others are grey{also}."
