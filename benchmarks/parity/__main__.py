"""Our tasks beside those that they are ports of: `python -m benchmarks.parity` writes docs/parity.csv and tables of docs.

A family of tasks is a module of this folder with NAME, TASKS, PAGE (of docs), PARTS (part -> the precisions it is measured in) and a command line of its
own, `python -m benchmarks.parity.FAMILY --task T --parts P,P --precision float32|float64 [--data FOLDER]`, whose last line of output is the
JSON of its rows. Every (task, precision) runs in a process of its own, JAX's precision being fixed at its start, and the files are written
after each: rows that were not measured anew stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType

from benchmarks.__main__ import ROOT, child
from benchmarks.parity import adroit, antmaze, table

FAMILIES: tuple[ModuleType, ...] = (adroit, antmaze)
DOCS = ROOT / "docs"
CSV = DOCS / "parity.csv"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--tasks", nargs="+", choices=[task for family in FAMILIES for task in family.TASKS], help="default: all")
    p.add_argument("--parts", nargs="+", choices=sorted({part for family in FAMILIES for part in family.PARTS}), help="default: all")
    p.add_argument("--data", type=Path, help="folder with the trained policies (adroit/dapg_policy_TASK.npz)")
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    failed = False
    for family in FAMILIES:
        for task in family.TASKS:
            for precision in ("float32", "float64"):
                parts = [part for part, measured in family.PARTS.items() if precision in measured and part in (args.parts or family.PARTS)]
                if parts and task in (args.tasks or family.TASKS):
                    failed |= not measure(family, task, parts, precision, args.data)
    return int(failed)


def measure(family: ModuleType, task: str, parts: list[str], precision: str, data: Path | None) -> bool:
    """Measure some parts of one task and bring the files up to date; whether it went well."""
    what = f"{task}: {', '.join(parts)}, {precision}"
    print(f"{what} ...", file=sys.stderr, flush=True)
    options = {"task": task, "parts": ",".join(parts), "precision": precision, "data": data}
    answer = child(f"parity.{family.NAME}", options, cold="rates" in parts)  # which say how long a compilation takes
    if "error" in answer:
        print(f"{what}: {answer['error']}", file=sys.stderr)
        return False
    rows = table.merged(table.read(CSV), [table.Row(**row) for row in answer["rows"]])
    table.write(CSV, rows)
    update_pages(rows)
    return True


def update_pages(rows: list[table.Row]) -> None:
    for family in FAMILIES:
        for part in family.PARTS:
            table.into_page(DOCS / family.PAGE, family.NAME, part, table.markdown(rows, part, family.TASKS))


if __name__ == "__main__":
    sys.exit(main())
