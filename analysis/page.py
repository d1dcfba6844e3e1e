"""The pieces of the HTML page: what comes from a file is escaped here. No network, no script; light and dark, phone and paper."""

import html
from collections.abc import Iterable, Sequence

STYLE = """
:root { --page: #ffffff; --ink: #1b1f24; --muted: #5d6771; --grid: #e3e6e9; --shade: #f4f5f6; --accent: #0072b2;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color-scheme: light dark; }
@media screen and (prefers-color-scheme: dark) {
  :root { --page: #15181c; --ink: #e6e8ea; --muted: #9aa4ae; --grid: #2d3238; --shade: #1d2126;
    --accent: #56b4e9; }
  figure svg { filter: brightness(1.3); } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 var(--font); -webkit-text-size-adjust: 100%; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1.1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.4rem 0 0.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 0.7rem; padding-bottom: 0.3rem; border-bottom: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 1.4rem 0 0.4rem; overflow-wrap: anywhere; }
p { margin: 0.5rem 0; max-width: 48rem; }
.meta, .note, figcaption { color: var(--muted); font-size: 0.875rem; }
.verdict { border-left: 3px solid var(--accent); background: var(--shade); padding: 0.7rem 1rem; margin: 0.8rem 0;
  border-radius: 0 6px 6px 0; }
.verdict h3 { margin: 0 0 0.2rem; }
.verdict p { margin: 0.25rem 0; max-width: none; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.6rem 2rem; }
figure { margin: 0; max-width: 40rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: 0.3rem; }
.scroll { overflow-x: auto; margin: 0.6rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.75rem 0.35rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
th { color: var(--muted); font-weight: 600; }
tr.group td { font-weight: 600; padding-top: 0.9rem; }
td.number, th.number { text-align: right; }
ul { padding-left: 1.2rem; }
li { margin: 0.2rem 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; background: var(--shade); padding: 0.7rem 0.9rem; border-radius: 6px; font-size: 0.8rem; line-height: 1.45; }
details { margin: 0.4rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  td:first-child { white-space: normal; min-width: 6rem; position: sticky; left: 0; background: var(--page); }
}
@media print {
  :root { --ink: #000000; --muted: #444444; --grid: #cccccc; }
  body { font-size: 10pt; } main { max-width: none; padding: 0; } h2, h3 { break-after: avoid; }
  figure, .verdict, tr { break-inside: avoid; } .scroll { overflow: visible; }
  .figures { grid-template-columns: 1fr 1fr; } table { font-size: 7pt; } td:first-child { white-space: normal; }
  pre { white-space: pre-wrap; }
}
"""


def escape(text: object) -> str:
    """Text that is safe as content and inside a quoted attribute."""
    return html.escape(str(text), quote=True)


def document(title: str, body: Iterable[str]) -> str:
    """A whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


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
        lines.append(
            "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in list(zip(row, kinds, strict=True))[shown]) + "</tr>"
        )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n' + "\n".join(lines) + "\n</tbody></table></div>"


def figure(svg: str, caption: str) -> str:
    """A figure; `svg` is trusted markup, the caption plain text."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def fold(title: str, *parts: str) -> str:
    """A part that is closed until it is opened."""
    return f"<details><summary>{escape(title)}</summary>" + "".join(parts) + "</details>"


def code(text: str) -> str:
    """Preformatted text."""
    return f"<pre>{escape(text)}</pre>"
