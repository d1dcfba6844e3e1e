"""The summaries as text: for the terminal, as Markdown, as LaTeX, as CSV."""

import csv
import io
import re
from collections.abc import Mapping, Sequence

import numpy as np

from analysis import intervals
from analysis.load import Results
from analysis.statistics import Interval, mean_interval
from analysis.summary import THRESHOLD, Summary, show_episodes, summarise

WIDTH = 110


def show_interval(interval: Interval, digits: int = 2, sign: bool = False) -> str:
    """`0.92 [0.85, 0.99]`; `0.92 [one seed]`, `1.00 [all equal]`, and `-` where there is nothing to show."""
    if not interval.n:
        return "-"
    number = lambda value: f"{value:{'+' if sign else ''}.{digits}f}"
    if interval.n == 1:
        return f"{number(interval.mean)} [one seed]"
    return f"{number(interval.mean)} [all equal]" if interval.zero_width else (
        f"{number(interval.mean)} [{number(interval.low)}, {number(interval.high)}]"
    )  # fmt: skip


def text_table(results: Results, threshold: float = THRESHOLD) -> str:
    """The results for a terminal: one block per task, plain ASCII where the names are, at most about 110 columns."""
    blocks = []
    summaries = summarise(results, threshold)
    for task in results.tasks:
        chosen = [summary for summary in summaries if summary.task == task]
        blocks.append("\n".join([f"{task}: {_final_step(chosen)}", *_aligned(*_text_columns(chosen, threshold))]))
    notes = "means and 95 % t intervals over seeds; AUC: mean score over the online steps that all methods share;"
    notes += f"\nsteps to {100 * threshold:g} %: until two consecutive evaluations at or above it; >= where not all seeds got there"
    return "\n\n".join([*blocks, notes]) + "\n"


def _final_step(summaries: Sequence[Summary]) -> str:
    steps = sorted({(s.final_phase, s.final_step) for s in summaries})
    where = " or ".join(f"{step:,} {'environment' if phase == 'online' else 'offline gradient'} steps" for phase, step in reversed(steps))
    return f"final = at {where}, {show_episodes(summaries)} episodes per evaluation"


def _text_columns(summaries: Sequence[Summary], threshold: float) -> tuple[list[str], list[list[str]]]:
    success = any(summary.success_differs for summary in summaries)
    scored = any(np.isfinite(summary.success).any() for summary in summaries) and not success
    final = ["score [95 %]", "success [95 %]"] if success else ["final success [95 %]" if scored else "final score [95 %]"]
    header = ["method", "n", *final, "AUC [95 %]", f"steps to {100 * threshold:g} %"]
    rows = []
    for s in summaries:
        extra = [show_interval(mean_interval(s.success))] if success else []
        cells = [s.label, s.count, show_interval(mean_interval(s.score)), *extra, show_interval(mean_interval(s.area)), s.steps.text]
        rows.append(cells)
    return header, rows


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    rest = [max(len(row[i]) for row in [header, *rows]) for i in range(1, len(header))]
    room = max(16, WIDTH - sum(rest) - 2 * len(rest))
    names = [shorten(row[0], room) for row in [header, *rows]]
    widths = [max(map(len, names)), *rest]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip([name, *row[1:]], widths, strict=True)).rstrip()
             for name, row in zip(names, [header, *rows], strict=True)]  # fmt: skip
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def shorten(label: str, width: int) -> str:
    """At most `width` characters, cut in the middle: the agent stands first and the cell's value last."""
    if len(label) <= width:
        return label
    tail = (width - 2) // 3
    return f"{label[: width - 2 - tail]}..{label[-tail:]}"


def file_names(labels: Sequence[str]) -> dict[str, str]:
    """File names for tasks or methods, whose names may hold anything; unique."""
    names: dict[str, str] = {}
    for label in labels:
        stem = name = re.sub(r"[^A-Za-z0-9_-]+", "-", label).strip("-") or "unnamed"
        number = 2
        while name.lower() in {used.lower() for used in names.values()}:
            name, number = f"{stem}-{number}", number + 1
        names[label] = name
    return names


def show_number(value: float, digits: int = 2) -> str:
    """A number, or `-` for one that is not finite."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def table_rows(
    summaries: Sequence[Summary], threshold: float = THRESHOLD, marks: Mapping[tuple[str, str], str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the full table, as the report and its files show it. `marks`: (task, label) -> what stands behind the name."""
    success = any(summary.success_differs for summary in summaries)
    header = ["task", "method", "seeds", "final score [95 %]", "IQM [95 %]", *(["success [95 %]"] if success else []), "AUC [95 %]"]
    header += [f"steps to {100 * threshold:g} %", "switch [95 %]"]
    rows = []
    for s in summaries:
        row = [
            s.task,
            s.label + (marks or {}).get((s.task, s.label), ""),
            s.count,
            show_interval(mean_interval(s.score)),
            show_interval(intervals.interval(s.score, "iqm")),
        ]
        row += [show_interval(mean_interval(s.success))] if success else []
        rows.append([*row, show_interval(mean_interval(s.area)), s.steps.text, show_interval(s.drop, sign=True)])
    return header, rows


def markdown(summaries: Sequence[Summary], threshold: float = THRESHOLD) -> str:
    """The full table in Markdown."""
    return markdown_table(*table_rows(summaries, threshold))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells as a Markdown table."""
    line = lambda cells: "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"
    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)]) + "\n"


LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"}


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells as a LaTeX tabular with booktabs' rules; a rule where the first column (the task) changes."""
    escape = lambda cell: "".join(LATEX.get(char, "\\" + char if char in "&%$#_{}" else char) for char in cell).replace(
        r"\textgreater{}=", r"$\geq$"
    )
    line = lambda cells: " & ".join(map(escape, cells)) + r" \\"
    lines, last = [], None
    for row in rows:
        lines += [r"\midrule"] if row[0] != last else []
        last = row[0]
        lines.append(line(row))
    begin = r"\begin{tabular}{" + "l" * len(header) + "}  % needs \\usepackage{booktabs}"
    return "\n".join([begin, r"\toprule", line(header), *lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def csv_table(summaries: Sequence[Summary], threshold: float = THRESHOLD) -> str:
    """The full table as numbers: one row per task and method, empty cells where there is no number."""
    records = []
    for s in summaries:
        iqm = intervals.interval(s.score, "iqm")
        record = {"task": s.task, "method": s.label, "agent": s.method.agent, "variant": s.method.variant, "seeds": s.seeds.size}
        record |= {"final_phase": s.final_phase, "final_step": s.final_step, "score_iqm": float(iqm.estimate)}
        record |= {"score_iqm_low": iqm.low, "score_iqm_high": iqm.high}
        parts = {
            "score": mean_interval(s.score),
            "success": mean_interval(s.success),
            "auc": mean_interval(s.area),
            "switch_change": s.drop,
        }
        for name, interval in parts.items():
            record |= {f"{name}_mean": interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high, f"{name}_n": interval.n}
        steps = s.steps
        record |= {"auc_from": s.window[0], "auc_to": s.window[1], "threshold": threshold, "threshold_reached": steps.reached}
        record |= {"steps_horizon": steps.horizon, "steps_restricted_mean": steps.mean.estimate, "steps_restricted_low": steps.mean.low}
        record |= {"steps_restricted_high": steps.mean.high, "steps_median_from": steps.median[0], "steps_median_to": steps.median[1]}
        records.append(
            {key: "" if isinstance(v, float | np.ndarray | np.floating) and not np.isfinite(v) else v for key, v in record.items()}
        )
    out = io.StringIO()
    writer = csv.DictWriter(out, records[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()
