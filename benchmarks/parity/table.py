"""What parity measures, as tidy rows in one CSV file, and the tables of docs that are made from it."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """One number. A table's lines are (task, variant) in the order of their first appearance, its columns the metrics, in the order of the
    line that has most of them."""

    task: str
    part: str  #      which table
    variant: str  #   an engine, or a change to the model
    metric: str
    value: Any  #     a number or a text
    low: float | None = None  #   of an interval
    high: float | None = None


FIELDS = tuple(field.name for field in dataclasses.fields(Row))


def read(path: Path) -> list[Row]:
    """The rows of a CSV file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [Row(**{**line, **{k: float(line[k]) if line[k] else None for k in ("low", "high")}}) for line in csv.DictReader(file)]


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """`new` in the place of whatever `old` has of the same task, part and variant; by part, then by task in order of appearance."""
    replaced = {(row.task, row.part, row.variant) for row in new}
    rows = [row for row in old if (row.task, row.part, row.variant) not in replaced] + new
    tasks = list(dict.fromkeys(row.task for row in rows))
    parts = list(dict.fromkeys(row.part for row in rows))
    return sorted(rows, key=lambda row: (parts.index(row.part), tasks.index(row.task)))


def write(path: Path, rows: list[Row]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in dataclasses.asdict(row).items()} for row in rows)
    temporary.replace(path)


def markdown(rows: list[Row], part: str, tasks: tuple[str, ...]) -> str:
    """The table of a part: a line per task and variant."""
    rows = [row for row in rows if row.part == part and row.task in tasks]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: tasks.index(row.task)):
        cells.setdefault((row.task, row.variant), {})[row.metric] = _cell(row)
    metrics = list(dict.fromkeys(metric for line in sorted(cells.values(), key=len, reverse=True) for metric in line))
    lines = ["| task | | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
    for (task, variant), found in cells.items():
        lines.append(f"| `{task}` | {variant} | " + " | ".join(found.get(metric, "") for metric in metrics) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Row) -> str:
    try:
        number = float(row.value)
        text = f"{number:.3g}" if abs(number) < 1000 else f"{number:,.0f}"
    except ValueError:
        return str(row.value)
    return text if row.low is None else f"{text} [{row.low:+.2f}, {row.high:+.2f}]"


def into_page(path: Path, family: str, part: str, table: str) -> None:
    """Put a table between its marks in a page.

    Raises:
        ValueError: the page has no such marks.
    """
    first, last = f"<!-- {family}: {part} -->\n", f"<!-- end of {family}: {part} -->"
    text = path.read_text()
    if text.count(first) != 1 or text.count(last) != 1:
        raise ValueError(f"{path}: expected the marks {first.strip()!r} and {last!r}, once each")
    head, tail = text.split(first)[0], text.split(last)[1]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(head + first + table + last + tail)
    temporary.replace(path)
