"""What becomes of the results of run folders: `report`, `table`, `compare`, `export`, `import`."""

from __future__ import annotations

import json

from expo_bench.options import Compare, Export, Import, Report, Table


def report(args: Report) -> None:
    from analysis.load import load
    from analysis.report import text_table, write_report

    options = {"out": args.out, "reference": args.reference, "published": args.published, "figures": args.figures}
    if args.watch:
        from analysis.watch import watch

        path = watch(args.runs, **options)
        if path is None:
            raise KeyboardInterrupt  # before there was anything to show
    else:
        path = write_report(args.runs, **options)
    results = load(args.runs, partial=True)
    for note in results.notes:
        print(note)
    print(text_table(results))
    print(f"report: {path}")
    if args.figures is not None:
        print(f"figures: {args.figures}")


def table(args: Table) -> None:
    from analysis.matrix import matrix
    from analysis.tables import markdown_table

    print(markdown_table(*matrix(args.runs, args.metrics)), end="")


def compare_methods(args: Compare) -> None:
    from analysis.compare import as_json, compare
    from analysis.compare_text import text

    found = compare(args.runs, args.candidate, args.reference, args.threshold)
    print(json.dumps(as_json(found), indent=2) if args.json else text(found).rstrip())


def export(args: Export) -> None:
    from analysis import exporting

    print(exporting.DONE[args.format].format(out=exporting.export(args.runs, args.out, args.format)))


def import_curves(args: Import, command: str) -> None:
    from analysis.importing import import_csv

    for line in import_csv(args.file, args.out, args.source, args.task, args.agent, args.columns, command):
        print(line)
    print(f"run folder: {args.out}")
