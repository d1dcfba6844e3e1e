"""The report of one or several run folders: a page that stands alone, figures, and the table as Markdown and CSV."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis import ResultsError, page, summary, tables
from analysis.load import Manifest, Method, Results, load
from analysis.summary import DEFAULT_REFERENCE, THRESHOLD, Paired, Summary
from analysis.tables import text_table

__all__ = ["text_table", "write_report"]

PHASES = ("compile", "offline", "online", "evaluation")


def write_report(
    runs: Sequence[Path | str] | Path | str,
    out: Path | str | None = None,
    reference: str = DEFAULT_REFERENCE,
    threshold: float = THRESHOLD,
) -> Path:
    """Write `report.html`, `table.md`, `table.csv` and `figures/` (PNG and PDF) into `out` (by default the first run folder).

    Returns the path of the page, which needs no other file. `reference`: the label or agent that the others are compared with, seed by
    seed. `threshold`: the score in [0, 1] that "steps to" is about. Raises ResultsError: whatever `load` raises, an unknown reference, a
    folder that cannot be written.
    """
    results = load(runs)
    folder = Path(out) if out is not None else results.manifests[0].folder
    anchor = summary.reference_method(results, reference)
    summaries = summary.summarise(results, threshold)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        curves, gaps = _figures(results, summaries, anchor, folder / "figures")
        _write(folder / "table.md", tables.markdown(summaries, threshold))
        _write(folder / "table.csv", tables.csv_table(summaries, threshold))
        _write(folder / "report.html", _page(results, summaries, anchor, threshold, curves, gaps))
    except OSError as error:
        raise ResultsError(
            f"{folder}: the report cannot be written ({error.strerror or error}); expected a folder with free space"
        ) from None
    return folder / "report.html"


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a report that is being read is never half a report."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _figures(results: Results, summaries: Sequence[Summary], anchor: Method, folder: Path) -> tuple[list[str], list[str]]:
    """Draw every task's figures, save them, and return them as HTML: (learning curves, paired differences)."""
    from analysis import plots  # matplotlib takes a second to import, and the terminal table does without it

    curves, gaps, names = [], [], _file_names(results.tasks)
    for task, name in names.items():
        chosen = [s for s in summaries if s.task == task]
        both = any(s.success_differs for s in chosen)
        for metric, label in [("score", "score"), ("success", "success")] if both else [("score", _score_name(chosen))]:
            drawn = plots.learning_curves(results, chosen, metric, label)
            stem = name if metric == "score" else f"{name}.{metric}"
            plots.save(drawn, folder / f"curve-{stem}")
            about = page.escape(f"Learning curves on {task}, {label}: {plots.caption(chosen)}")
            curves.append(page.figure(plots.inline_svg(drawn, f"curve-{stem}", about), _curve_caption(label, chosen)))
        pairs = [pair for pair in summary.paired(chosen, anchor) if pair.interval.n]
        if pairs:
            drawn = plots.paired_plot(results, pairs)
            plots.save(drawn, folder / f"paired-{name}")
            about = page.escape(f"Paired differences of the final score on {task}")
            shared = sorted({int(pair.interval.n) for pair in pairs})
            count = f"{shared[0]}" if len(shared) == 1 else f"{shared[0]} to {shared[-1]}"
            gaps.append(page.figure(plots.inline_svg(drawn, f"paired-{name}", about), f"{task}: {count} shared seeds per pair."))
    return curves, gaps


def _score_name(summaries: Sequence[Summary]) -> str:
    """Where the published metric is the success rate, say so."""
    return "success rate" if all(np.isfinite(s.success).any() and not s.success_differs for s in summaries) else "score"


def _curve_caption(label: str, summaries: Sequence[Summary]) -> str:
    """What the figure does not say itself."""
    text = f"{summaries[0].task}, {label}; bands are drawn inside [0, 1]. Thin dotted: fewer seeds than the method has"
    return text + (", or the level of a method that never went online." if any(s.final_phase == "offline" for s in summaries) else ".")


def _file_names(tasks: Sequence[str]) -> dict[str, str]:
    """File names for tasks, whose names may hold anything; unique."""
    names: dict[str, str] = {}
    for task in tasks:
        stem = name = re.sub(r"[^A-Za-z0-9_-]+", "-", task).strip("-") or "task"
        number = 2
        while name.lower() in {used.lower() for used in names.values()}:
            name, number = f"{stem}-{number}", number + 1
        names[task] = name
    return names


def _page(
    results: Results, summaries: Sequence[Summary], anchor: Method, threshold: float, curves: Sequence[str], gaps: Sequence[str]
) -> str:
    experiments = list(dict.fromkeys(manifest.data["experiment"] for manifest in results.manifests))
    body = [
        f"<header><h1>{page.escape(' and '.join(experiments))}</h1>{page.paragraph(_headline(results), 'meta')}</header>",
        _verdict(summaries, anchor),
        page.section("Learning curves", f'<div class="figures">{"".join(curves)}</div>'),
        _results_table(summaries, threshold),
        _paired(summaries, anchor, gaps),
        _remarks(results, summaries),
        _time(results.manifests),
        _protocols(results),
        _appendix(results.manifests),
    ]
    return page.document(f"{' and '.join(experiments)}: results", body)


def _headline(results: Results) -> str:
    frame = results.frame
    counts = [(len(results.tasks), "task"), (len(results.methods), "method"), (frame["seed"].nunique(), "seed"), (len(frame), "evaluation")]
    parts = [", ".join(f"{count:,} {noun}{'s' if count != 1 else ''}" for count, noun in counts)]
    for manifest in results.manifests:
        facts = [manifest.get("device"), str(manifest.get("finished") or manifest.get("created") or "")[:10]]
        facts.append(f"commit {str(manifest.get('git_commit'))[:10]}" if manifest.get("git_commit") else "")
        parts.append(", ".join(str(fact) for fact in facts if fact))
    return " \N{MIDDLE DOT} ".join(part for part in dict.fromkeys(parts) if part)


def _verdict(summaries: Sequence[Summary], anchor: Method) -> str:
    cards = [
        f'<div class="verdict"><h3>{page.escape(task)}</h3>{"".join(page.paragraph(sentence) for sentence in sentences)}</div>'
        for task, sentences in tables.verdict(summaries, anchor)
    ]
    how = (
        "Final score: the last evaluation. Brackets: 95 % t intervals over seeds; differences are taken seed by seed, on the same "
        "evaluation episodes. Separable: that interval leaves out 0. Intervals are not widened for the number of comparisons made; the p below are."
    )
    return page.section("Verdict", *cards, page.paragraph(how, "note"))


def _results_table(summaries: Sequence[Summary], threshold: float) -> str:
    header, rows = tables.table_rows(summaries, threshold)
    windows = {s.task: s.window for s in summaries if np.isfinite(s.window).all()}
    spans = "; ".join(f"{task}: {low:,.0f} to {high:,.0f}" for task, (low, high) in windows.items())
    how = (
        "IQM: mean of the middle half of the seeds. AUC: mean score over the online steps that every method of the task covers "
        f"({spans or 'none'}), by the trapezoid rule. Steps to {100 * threshold:g} %: environment steps until two consecutive evaluations "
        "are at or above it, mean over seeds; a seed gets there somewhere between two evaluations, and the interval allows for all of that "
        "gap; >= where seeds never got there (how many did), their steps counting up to the end. Switch: the change from offline to online, "
        "first online evaluation minus last offline one. Seeds as 4/5: one of five has no finite final score. No interval is clipped: one "
        "may pass 0 or 1."
    )
    return page.section("Results", page.table(header, rows, numbers=("seeds",), group=True), page.paragraph(how, "note"))


def _paired(summaries: Sequence[Summary], anchor: Method, gaps: Sequence[str]) -> str:
    final, area = summary.paired(summaries, anchor), summary.paired(summaries, anchor, "area")
    title = f"Paired differences: {anchor.label} minus the others"
    if not final:
        return page.section(title, page.paragraph("No task has another method to compare with."))
    header = [
        "task",
        "method",
        "shared seeds",
        "final score [95 %]",
        "",
        "p (Holm)",
        "AUC [95 %]",
        "",
        "p (Holm)",
        "steps to the threshold",
    ]
    by_name = {(s.task, s.method): s for s in summaries}
    ratios = [summary.time_ratio(by_name[f.task, f.other], by_name[f.task, anchor]).text for f in final]
    columns = zip(final, summary.adjusted_p(final), area, summary.adjusted_p(area), ratios, strict=True)
    rows = [
        [f.task, f.other.label, str(f.interval.n), _gap(f), _separable(f), _p(p), _gap(a), _separable(a), _p(q), steps]
        for f, p, a, q, steps in columns
    ]
    how = (
        f"Above 0: {anchor.label} is better. A seed gives every method the same evaluation episodes. p: Student's t on the differences, "
        f"adjusted by Holm's method for the {len(final)} comparisons of its column. Steps: how many times as many the other method takes."
    )
    note = page.paragraph(how, "note")
    return page.section(
        title, f'<div class="figures">{"".join(gaps)}</div>', page.table(header, rows, numbers=("shared seeds",), group=True), note
    )


def _gap(pair: Paired) -> str:
    return tables.show_interval(pair.interval, digits=3, sign=True)


def _p(value: float) -> str:
    return "-" if np.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _separable(pair: Paired) -> str:
    return pair.interval.note or ("separable" if pair.separable else "not separable")


def _remarks(results: Results, summaries: Sequence[Summary]) -> str:
    sentences = summary.remarks(results, summaries)
    seeds = summary.seed_remarks(results)
    parts = [page.bullets(sentences)] if sentences else []
    if len(seeds):
        header = [
            "task",
            "method",
            "seed",
            "diverged at",
            "scores not finite",
            "last online step",
            "of",
            "physics blow-ups (largest count)",
        ]
        rows = [
            [
                r.task,
                r.method,
                f"{r.seed}",
                r.diverged_at or "-",
                f"{r.not_finite}",
                f"{r.last_step:,}",
                f"{max(r.final_step, 0):,}",
                f"{r.blowups:,}",
            ]
            for r in seeds.itertuples()
        ]
        parts.append(page.table(header, rows, numbers=header[4:], group=True))
        parts.append(page.paragraph("Seeds listed here are in every number above, as far as they have a finite score there.", "note"))
    else:
        parts.append(page.paragraph("No seed diverged, ended early or had a physics blow-up."))
    return page.section("What to know before quoting this", *parts)


def _time(manifests: Sequence[Manifest]) -> str:
    rows = []
    for manifest in manifests:
        for program in manifest.get("programs", []):
            seconds = program.get("timings") if isinstance(program.get("timings"), dict) else {}
            name = str(program.get("agent", "-")) + (f" ({program['variant']})" if program.get("variant") else "")
            row = [str(program.get("task", "-")), name, _count(program.get("rows"))]
            rows.append([*row, *(_number(seconds.get(f"{phase}_s")) for phase in PHASES), _number(program.get("env_steps_per_s"))])
    if not rows:
        return page.section("Time", page.paragraph("The manifest lists no programs."))
    header = ["task", "method", "rows", *(f"{phase} (s)" for phase in PHASES), "environment steps per s"]
    note = page.paragraph("One program runs all its rows (seeds and cells) at once.", "note")
    return page.section("Time", page.table(header, rows, numbers=header[2:], group=True), note)


def _number(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, int | float) and np.isfinite(value) else "-"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def protocol_differences(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header (task, field, then the methods) and one row for every protocol field that is not the same for all methods of a task."""
    protocols: dict[str, dict[str, dict]] = {}
    for manifest in results.manifests:
        for key, fields in manifest.get("protocols", {}).items():
            task, name = _protocol_key(str(key), results)
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


def _protocol_key(key: str, results: Results) -> tuple[str, str]:
    """ "task/agent/variant" -> (task, "agent (variant)"); a task of these results is recognised whole, since its name may hold a slash."""
    task = next((task for task in sorted(results.tasks, key=len, reverse=True) if key.startswith(task + "/")), key.partition("/")[0])
    agent, _, variant = key[len(task) + 1 :].partition("/")
    return task, agent + (f" ({variant})" if variant else "")


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _protocols(results: Results) -> str:
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


def _appendix(manifests: Sequence[Manifest]) -> str:
    parts = []
    for manifest in manifests:
        shown = ("created", "finished", "git_commit", "device", "devices", "precision", "block_rows", "seeds")
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
