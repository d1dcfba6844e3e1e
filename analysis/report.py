"""The report of one or several run folders: a page that stands alone, and on demand its figures and tables as files."""

import os
from collections.abc import Sequence
from pathlib import Path

from analysis import ResultsError, appendix, page, sections, tables
from analysis.findings import Findings, find
from analysis.load import load
from analysis.summary import DEFAULT_REFERENCE, THRESHOLD
from analysis.tables import text_table

__all__ = ["text_table", "write_report"]


def write_report(
    runs: Sequence[Path | str] | Path | str,
    out: Path | str | None = None,
    reference: str = DEFAULT_REFERENCE,
    threshold: float = THRESHOLD,
    published: bool = False,
    figures: Path | str | None = None,
    refresh: int = 0,
) -> Path:
    """Write the page and return its path; it needs no other file.

    `out`: a file that ends in .html, or the folder that report.html comes to lie in; by default the first run folder that could be read.
    `reference`: the label or agent that the others are compared with, seed by seed. `threshold`: the score in [0, 1] that "steps to" is
    about. `published`: draw the published numbers of the same tasks and agents beside the measured curves, and list all of those tasks.
    `figures`: a folder for every figure as PDF and PNG with a CSV of what is drawn, and the table as Markdown, LaTeX and CSV. `refresh`:
    seconds after which an open page loads itself again; 0: never.

    What cannot be read is left out and named on the page. Raises ResultsError: nothing can be read, an unknown reference, a path that
    cannot be written.
    """
    results = load(runs, partial=True)
    path = page_path(out, results.manifests[0].folder)
    findings = find(results, reference, threshold)
    from analysis.gallery import gallery  # matplotlib takes a second to import, and the terminal table does without it

    drawings = gallery(findings, published)
    text = _page(findings, drawings, published, refresh)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise ResultsError(f"{path}: the report cannot be written ({error.strerror or error}); expected a place with free space") from None
    if figures is not None:
        _write_figures(findings, [drawing for part in drawings.values() for drawing in part], Path(figures))
    return path


def page_path(out: Path | str | None, folder: Path) -> Path:
    """Where the page goes: see `write_report`."""
    place = Path(out) if out is not None else folder
    return place if place.suffix == ".html" else place / "report.html"


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all: a report that is being read is never half a report. Raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_figures(findings: Findings, drawings: Sequence, folder: Path) -> None:
    from analysis.figures import drawing, style

    header, rows = tables.table_rows(findings.summaries, findings.threshold, findings.marks)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in drawings:
            style.save(drawing.paper_figure(one), folder / one.stem)
            write_whole(folder / f"{one.stem}.csv", one.data.to_csv(index=False, lineterminator="\n"))
        captions = "".join(f"{one.stem}: {one.caption}\n" for one in drawings)
        write_whole(folder / "captions.txt", captions)
        write_whole(folder / "table.md", tables.markdown_table(header, rows))
        write_whole(folder / "table.tex", tables.latex_table(header, rows))
        write_whole(folder / "table.csv", tables.csv_table(findings.summaries, findings.threshold))
    except OSError as error:
        raise ResultsError(
            f"{folder}: the figures cannot be written ({error.strerror or error}); expected a folder with free space"
        ) from None


def _page(findings: Findings, drawings: dict, published: bool, refresh: int) -> str:
    figures = {name: [_figure(one) for one in part] for name, part in drawings.items()}
    manifests = findings.results.manifests
    title = " and ".join(dict.fromkeys(manifest.data["experiment"] for manifest in manifests))
    body = [
        f"<header><h1>{page.escape(title)}</h1>{page.paragraph(sections.headline(findings), 'meta')}</header>",
        sections.verdict_section(findings),
        sections.curves_section(figures["curves"]),
        sections.results_section(findings),
        sections.published_section(findings) if published else "",
        sections.across_section(findings, figures["profiles"]),
        sections.improvement_section(findings, figures["improvement"]),
        sections.paired_section(findings, figures["paired"]),
        sections.efficiency_section(findings),
        sections.needed_section(findings),
        sections.settings_section(figures["settings"]),
        sections.critics_section(figures["critics"]),
        sections.remarks_section(findings),
        appendix.search_section(manifests),
        appendix.compute_section(manifests),
        appendix.protocols_section(findings.results),
        appendix.appendix_section(manifests),
    ]
    return page.document(f"{title}: results", [part for part in body if part], refresh)


def _figure(drawing) -> str:
    """A drawing as HTML: one large panel, or a grid of small ones under its title."""
    from analysis.figures import style
    from analysis.figures.drawing import panel_figure

    svgs = [
        style.inline_svg(panel_figure(drawing, panel), f"{drawing.stem}.{i}", page.escape(panel.name))
        for i, panel in enumerate(drawing.panels)
    ]
    return page.multiples(svgs, drawing.title, drawing.caption) if drawing.small else page.figure(svgs[0], drawing.caption)
