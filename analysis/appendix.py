"""The back of a report: what it cost, under which protocols, and everything that is needed to repeat it."""

import json
from collections.abc import Sequence

import numpy as np

from analysis import page
from analysis.axes import FLOP
from analysis.load import Manifest, Results
from analysis.progress import protocol_key

PHASES = ("compile", "offline", "online", "evaluation")


def compute_section(manifests: Sequence[Manifest]) -> str:
    """Wall clock, compilation, speed and, where known, FLOP: one row per program."""
    programs = [(manifest, program) for manifest in manifests for program in manifest.get("programs", [])]
    if not programs:
        return page.section("Compute", page.paragraph("The manifest lists no programs."))
    counted = any(isinstance(program.get(FLOP), int | float) for _, program in programs)
    header = ["task", "method", "rows", *(f"{phase} (s)" for phase in PHASES), "environment steps per s"]
    header += ["GFLOP per environment step"] if counted else []
    rows = []
    for _, program in programs:
        seconds = program.get("timings") if isinstance(program.get("timings"), dict) else {}
        name = str(program.get("agent", "-")) + (f" ({program['variant']})" if program.get("variant") else "")
        row = [str(program.get("task", "-")), name, _count(program.get("rows"))]
        row += [*(_number(seconds.get(f"{phase}_s")) for phase in PHASES), _number(program.get("env_steps_per_s"))]
        flop = program.get(FLOP)
        rows.append([*row, *([f"{flop / 1e9:,.3g}" if isinstance(flop, int | float) else "-"] if counted else [])])
    rows.sort(key=lambda row: row[0])
    totals = [text for manifest in manifests if (text := _total(manifest))]
    note = "One program runs all its rows (seeds and cells) at once; a program that has not ended yet has no times."
    note += "" if counted else " The manifests do not hold the FLOP of a step."
    return page.section(
        "Compute", *map(page.paragraph, totals), page.table(header, rows, numbers=header[2:], group=True), page.paragraph(note, "note")
    )


def _total(manifest: Manifest) -> str:
    """`selection: 52 min in all on 2 cpu devices in float32, of which ...`; "" where the manifest has no total."""
    wall, compiling = manifest.get("wall_s"), manifest.get("compile_wall_s")
    if not isinstance(wall, int | float):
        return ""
    where = (
        f"{_count(manifest.get('devices'))} x {manifest.get('device', 'unknown device')}, {manifest.get('precision', 'unknown precision')}"
    )
    part = f", of which {compiling / 60:,.1f} min compiling" if isinstance(compiling, int | float) else ""
    return f"{manifest.data['experiment']}: {wall / 60:,.1f} min wall clock{part}; {where}."


def _number(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, int | float) and np.isfinite(value) else "-"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def protocol_differences(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header (task, field, then the methods) and one row for every protocol field that is not the same for all methods of a task."""
    protocols: dict[str, dict[str, dict]] = {}
    for manifest in results.manifests:
        for key, fields in manifest.get("protocols", {}).items():
            task, agent, variant = protocol_key(str(key), results)
            name = agent + (f" ({variant})" if variant else "")
            entry = protocols.setdefault(task, {})
            if name in entry and entry[name] != fields:  # one method, two protocols: show both
                name = f"{name} [{manifest.folder.name}]"
            entry[name] = fields
    methods = list(dict.fromkeys(name for entry in protocols.values() for name in entry))
    rows = []
    for task, entry in sorted(protocols.items()):
        for field in dict.fromkeys(field for fields in entry.values() for field in fields):
            values = {name: _value(fields[field]) if field in fields else "-" for name, fields in entry.items()}
            if len(set(values.values())) > 1:
                rows.append([task, field, *(values.get(name, "") for name in methods)])
    return ["task", "field", *methods], rows


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def protocols_section(results: Results) -> str:
    title = "Protocol differences between methods"
    if not any(manifest.get("protocols") for manifest in results.manifests):
        return page.section(
            title, page.paragraph("The manifest lists no protocols, so whether the methods ran under equal ones is not known.")
        )
    header, rows = protocol_differences(results)
    if not rows:
        return page.section(title, page.paragraph("None: every method of a task ran under the same protocol."))
    note = page.paragraph("Only the fields that differ; all of them are in the appendix.", "note")
    return page.section(title, page.table(header, rows, group=True), note)


def search_section(manifests: Sequence[Manifest], best: int = 5) -> str:
    """How hyperparameters were chosen, where a search chose them; nothing otherwise."""
    parts = []
    for manifest in manifests:
        search = manifest.get("search")
        if not isinstance(search, dict):
            continue
        choosing, reporting = (_span(manifest_seeds) for manifest_seeds in (search["seeds"], manifest.get("seeds", [])))
        ranges = "; ".join(
            f"{axis} from {r['low']:g} to {r['high']:g}{' (logarithmic)' if r['log'] else ''}" for axis, r in search["ranges"].items()
        )
        tried = search["tried"]
        count = len({json.dumps(point["values"]) for point in tried})
        how = (
            f"{manifest.data['experiment']}: {count} points of a Sobol sequence over {ranges}. Chosen by the mean final score over tasks on "
            f"{choosing}, which are in no number above; those come from {reporting}. The best of many scores is an overestimate: its score "
            f"here is not the method's. All points: run folder {search['folder']}."
        )
        rows = []
        for method in dict.fromkeys((point["agent"], point["variant"]) for point in tried):
            for place, point in enumerate([p for p in tried if (p["agent"], p["variant"]) == method][:best]):
                name = f"{method[0]} ({method[1]})" if method[1] else method[0]
                values = ", ".join(f"{axis.partition('.')[2]} {value:g}" for axis, value in point["values"].items())
                score = "diverged" if point["score"] is None else f"{point['score']:.3f}"
                rows.append([name, values, score, "chosen" if place == 0 else ""])
        header = ["method", "values", "score in the search", ""]
        parts += [page.paragraph(how), page.table(header, rows, numbers=header[2:3], group=True)]
    return page.section("Chosen by search", *parts) if parts else ""


def _span(seeds: Sequence[int]) -> str:
    return f"seeds {min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}" if seeds else "no seeds"


def appendix_section(manifests: Sequence[Manifest]) -> str:
    parts = []
    for manifest in manifests:
        computed = ("git_commit", "device", "devices", "precision", "denoiser_precision", "block_rows")
        shown = ("imported", "created", "finished", *computed, "seeds")
        facts = [[key.replace("_", " "), _value(manifest.get(key))] for key in shown if manifest.get(key) is not None]
        parts += [f"<h3>{page.escape(manifest.data['experiment'])}</h3>", page.paragraph(f"run folder {manifest.folder.name}", "note")]
        parts.append(page.code(manifest.get("command", "the manifest has no command")))
        parts.append(page.table(["", ""], facts))
        if manifest.get("notes"):
            parts.append(page.bullets(map(str, manifest.get("notes"))))
        folds = {"Versions": manifest.get("versions"), "Protocols": manifest.get("protocols")}
        folds["Configurations"] = [{k: v for k, v in program.items() if k != "timings"} for program in manifest.get("programs", [])]
        parts += [page.fold(name, page.code(json.dumps(content, indent=2, default=str))) for name, content in folds.items() if content]
    return page.section("To repeat it", *parts)
