"""The pieces of the HTML page: what comes from a file is escaped here. No network, no script; light and dark, phone and paper."""

import html
from collections.abc import Iterable, Sequence

LONG = 34  # characters from which a table's cell wraps

STYLE = """
:root { --page: #ffffff; --ink: #1b1f24; --muted: #5d6771; --grid: #e3e6e9; --shade: #f4f5f6; --context: #c6ccd2; --accent: #0072b2; --warn: #b35900;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color-scheme: light dark; }
@media screen and (prefers-color-scheme: dark) {
  :root { --page: #15181c; --ink: #e6e8ea; --muted: #9aa4ae; --grid: #2d3238; --shade: #1d2126; --context: #4a525a;
    --accent: #56b4e9; --warn: #f0a860; }
  figure svg { filter: brightness(1.3); } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 var(--font); -webkit-text-size-adjust: 100%; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1.1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.4rem 0 0.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 0.7rem; padding-bottom: 0.3rem; border-bottom: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 1.4rem 0 0.4rem; overflow-wrap: anywhere; }
p { margin: 0.5rem 0; max-width: 48rem; }
.meta, .note, figcaption { color: var(--muted); font-size: 0.875rem; }
.verdict { border-left: 3px solid var(--accent); background: var(--shade); padding: 0.7rem 1rem; margin: 0.8rem 0;
  border-radius: 0 6px 6px 0; }
.verdict h3 { margin: 0 0 0.2rem; }
.verdict p { margin: 0.25rem 0; max-width: none; }
.overall p:first-of-type { font-size: 1.06rem; font-weight: 600; }
.notice { border-left-color: var(--warn); }
.notice b { color: var(--warn); }
.verdict:not(.overall):not(.notice) p ~ p { font-size: 0.9rem; color: var(--muted); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.6rem 2rem; }
figure { margin: 0; max-width: 40rem; }
figure svg { display: block; width: 100%; height: auto; }
figure.wide { max-width: none; margin: 1rem 0 1.6rem; }
.multiples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.6rem), 1fr)); gap: 0.7rem 0.8rem; }
figcaption { margin-top: 0.3rem; }
.switch { font-size: 0.875rem; color: var(--muted); margin-left: 0.35rem; cursor: pointer; }
.toggle:not(:checked) ~ * .seeds { display: none; }
.scroll { overflow-x: auto; margin: 0.6rem 0; background: linear-gradient(90deg, var(--page) 40%, transparent) 0 0 / 2.5rem 100% no-repeat local,
  linear-gradient(-90deg, var(--page) 40%, transparent) 100% 0 / 2.5rem 100% no-repeat local,
  linear-gradient(90deg, var(--context), transparent) 0 0 / 0.5rem 100% no-repeat,
  linear-gradient(-90deg, var(--context), transparent) 100% 0 / 0.5rem 100% no-repeat; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.75rem 0.35rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
th { color: var(--muted); font-weight: 600; }
tr.group td { font-weight: 600; padding-top: 0.9rem; }
td.number, th.number { text-align: right; }
td.long { white-space: normal; min-width: 17rem; }
ul { padding-left: 1.2rem; }
li { margin: 0.2rem 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; background: var(--shade); padding: 0.7rem 0.9rem; border-radius: 6px; font-size: 0.8rem; line-height: 1.45; }
details { margin: 0.4rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
@media (min-width: 62rem) { .multiples { grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); } }
@media (max-width: 40rem) {
  td:first-child { white-space: normal; min-width: 6rem; position: sticky; left: 0; background: var(--page); }
}
@media print {
  :root { --ink: #000000; --muted: #444444; --grid: #cccccc; }
  body { font-size: 10pt; } main { max-width: none; padding: 0; } h2, h3 { break-after: avoid; }
  figure:not(.wide), .verdict, tr { break-inside: avoid; } .scroll { overflow: visible; background: none; }
  .toggle, .switch { display: none; } .multiples { grid-template-columns: repeat(5, 1fr); } .multiples svg { break-inside: avoid; }
  .figures { grid-template-columns: 1fr 1fr; } table { font-size: 7pt; } td:first-child { white-space: normal; }
  pre { white-space: pre-wrap; }
}
"""


def escape(text: object) -> str:
    """Text that is safe as content and inside a quoted attribute."""
    return html.escape(str(text), quote=True)


def document(title: str, body: Iterable[str], refresh: int = 0) -> str:
    """A whole page, which loads itself again after `refresh` seconds unless that is 0."""
    again = refresh_tag(refresh) if refresh else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{again}"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def refresh_tag(seconds: int) -> str:
    """What makes an open page load itself again."""
    return f'<meta http-equiv="refresh" content="{seconds}">\n'


def section(title: str, *parts: str) -> str:
    """A section with its heading; parts are HTML."""
    return "<section>\n" + "\n".join([f"<h2>{escape(title)}</h2>", *parts]) + "\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def bullets(items: Iterable[str]) -> str:
    """A list of plain sentences."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = (), group: bool = False) -> str:
    """A table that scrolls sideways on a narrow screen. `numbers`: the columns set flush right. `group`: where the first column (the
    task) changes, its value becomes a row of its own."""
    kinds = [' class="number"' if name in numbers else "" for name in header]
    shown = slice(1, None) if group else slice(None)
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in list(zip(header, kinds, strict=True))[shown])
    lines, last = [], None
    for row in rows:
        if group and row[0] != last:
            last = row[0]
            lines.append(f'<tr class="group"><td colspan="{len(header) - 1}">{escape(last)}</td></tr>')
        cells = list(zip(row, kinds, strict=True))[shown]
        lines.append("<tr>" + "".join(f"<td{kind or _long(cell)}>{escape(cell)}</td>" for cell, kind in cells) + "</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n' + "\n".join(lines) + "\n</tbody></table></div>"


def _long(cell: str) -> str:
    """Sentences wrap; numbers and intervals do not."""
    return ' class="long"' if len(cell) > LONG else ""


def figure(svg: str, caption: str) -> str:
    """A figure; `svg` is trusted markup, the caption plain text."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def multiples(svgs: Sequence[str], title: str, caption: str) -> str:
    """Small figures in a grid, under one title and one caption."""
    return (
        f'<figure class="wide"><h3>{escape(title)}</h3><div class="multiples">{"".join(svgs)}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def grid(figures: Sequence[str]) -> str:
    """Figures beside each other where there is room."""
    return f'<div class="figures">{"".join(figures)}</div>' if figures else ""


def seeds_switch(name: str) -> str:
    """A box to tick that shows the single seeds in all figures after it; `name`: unique on the page. Works without a script."""
    return (
        f'<input type="checkbox" class="toggle" id="seeds-{name}" autocomplete="off">'
        f'<label class="switch" for="seeds-{name}">show every seed</label>'
    )


def card(title: str, lines: Sequence[str]) -> str:
    """A part of the verdict; without a title it is the one over all tasks."""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="verdict{"" if title else " overall"}">{head}{"".join(map(paragraph, lines))}</div>'


def notice(word: str, text: str) -> str:
    """Something that a reader has to know before the rest."""
    return f'<div class="verdict notice"><p><b>{escape(word)}.</b> {escape(text)}</p></div>'


def fold(title: str, *parts: str) -> str:
    """A part that is closed until it is opened."""
    return f"<details><summary>{escape(title)}</summary>" + "".join(parts) + "</details>"


def code(text: str) -> str:
    """Preformatted text."""
    return f"<pre>{escape(text)}</pre>"
