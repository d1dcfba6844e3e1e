"""The summaries as text: for the terminal, as Markdown, as CSV, and the verdict in sentences."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from analysis import intervals
from analysis.load import Method, Results
from analysis.statistics import Interval, mean_interval
from analysis.summary import THRESHOLD, Paired, Summary, compare, summarise

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
    episodes = "/".join(map(str, sorted({count for s in summaries for count in s.episodes})))
    return f"final = at {where}, {episodes} episodes per evaluation"


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


def table_rows(summaries: Sequence[Summary], threshold: float = THRESHOLD) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the full table, as the report and the Markdown file show it."""
    success = any(summary.success_differs for summary in summaries)
    header = ["task", "method", "seeds", "final score [95 %]", "IQM [95 %]", *(["success [95 %]"] if success else []), "AUC [95 %]"]
    header += [f"steps to {100 * threshold:g} %", "switch [95 %]"]
    rows = []
    for s in summaries:
        row = [s.task, s.label, s.count, show_interval(mean_interval(s.score)), show_interval(intervals.interval(s.score, "iqm"))]
        row += [show_interval(mean_interval(s.success))] if success else []
        rows.append([*row, show_interval(mean_interval(s.area)), s.steps.text, show_interval(s.drop, sign=True)])
    return header, rows


def markdown(summaries: Sequence[Summary], threshold: float = THRESHOLD) -> str:
    """The full table in Markdown."""
    header, rows = table_rows(summaries, threshold)
    line = lambda cells: "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"
    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)]) + "\n"


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


def verdict(summaries: Sequence[Summary], reference: Method) -> list[tuple[str, list[str]]]:
    """(task, sentences): first who ends highest and whether that lead can be told from chance, then the reference against behavior cloning
    and against its own random selection, where those were run."""
    tasks = list(dict.fromkeys(summary.task for summary in summaries))
    return [(task, _task_verdict([s for s in summaries if s.task == task], reference)) for task in tasks]


def _task_verdict(summaries: list[Summary], reference: Method) -> list[str]:
    scored = [summary for summary in summaries if np.isfinite(summary.score).any()]
    if not scored:
        return ["No method has a final score."]
    ranked = sorted(scored, key=lambda summary: -float(mean_interval(summary.score).mean))
    best = ranked[0]
    final = mean_interval(best.score)
    seeds = f"{final.n} seed{'s' if final.n != 1 else ''}"
    if len(ranked) == 1:
        return [f"{best.label} ends at {show_interval(final)} over {seeds}; no other method has a final score to compare with."]
    pair = compare(best, ranked[1])
    tied = abs(float(final.mean - mean_interval(ranked[1].score).mean)) < 1e-9
    head = f"{best.label} and {ranked[1].label} end level at the top" if tied else f"{best.label} has the highest final score"
    sentences = [f"{head}, {show_interval(final)} over {seeds}; against {ranked[1].label}: {_judgement(pair)}."]
    by_method = {summary.method: summary for summary in scored}
    own = by_method.get(reference)
    for other in scored if own else []:
        random_selection = other.method.agent == reference.agent and "random" in other.method.variant.lower()
        if (other.method.agent == "bc" or random_selection) and other.method != reference and {own.label, other.label} != {
            best.label, ranked[1].label
        }:  # fmt: skip
            sentences.append(f"{own.label} against {other.label}: {_judgement(compare(own, other))}.")
    return sentences


def _judgement(pair: Paired) -> str:
    """The paired difference and what it allows to say."""
    n = int(pair.interval.n)
    if n == 0:
        return "no shared seed, so no paired comparison"
    shown = show_interval(pair.interval, digits=3, sign=True)
    if n == 1:
        return f"{shown}, from which nothing follows"
    if pair.interval.zero_width:
        return f"{float(pair.interval.mean):+.3f} in each of {n} shared seeds, an interval without width"
    return f"{shown}, {'separable from 0' if pair.separable else 'not separable from 0'} over {n} shared seeds"
