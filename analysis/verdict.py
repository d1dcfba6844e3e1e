"""The answer in sentences: who ends highest on each task, and how the reference stands against all others over all tasks."""

from collections.abc import Sequence

import numpy as np

from analysis import summary
from analysis.findings import Findings, Overall
from analysis.load import Method
from analysis.statistics import mean_interval
from analysis.summary import Paired, Summary, compare
from analysis.tables import show_interval


def verdict(summaries: Sequence[Summary], reference: Method, threshold: float = summary.THRESHOLD) -> list[tuple[str, list[str]]]:
    """(task, sentences): first who ends highest and whether that lead can be told from chance, then the reference against behavior cloning
    and against its own random selection, where those were run, and how many steps the strongest other takes to the threshold."""
    tasks = list(dict.fromkeys(summary.task for summary in summaries))
    return [(task, _task_verdict([s for s in summaries if s.task == task], reference, threshold)) for task in tasks]


def _task_verdict(summaries: list[Summary], reference: Method, threshold: float) -> list[str]:
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
    own = {summary.method: summary for summary in scored}.get(reference)
    if own is None:
        return [*sentences, f"{reference.label} has no final score here."]
    top = {best.label, ranked[1].label}
    for other in scored:
        random_selection = other.method.agent == reference.agent and "random" in other.method.variant.lower()
        if (other.method.agent == "bc" or random_selection) and other.method != reference and {own.label, other.label} != top:
            sentences.append(f"{own.label} against {other.label}: {_judgement(compare(own, other))}.")
    strongest = next(summary for summary in ranked if summary is not own)
    ratio = summary.time_ratio(strongest, own)
    if ratio.bound != "none":
        sentences.append(f"Environment steps to {100 * threshold:g} %, {strongest.label} over {own.label}: {ratio.text}.")
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


def overall_sentence(findings: Findings) -> str:
    """One sentence: the reference against every other method, over every task on which both were run."""
    own, tasks = findings.reference.label, findings.results.tasks
    where = f"On {tasks[0]}" if len(tasks) == 1 else f"Over {len(tasks)} tasks"
    if not findings.overall:
        return f"{where}, no other method shares a task and seeds with {own}: nothing to compare it with."
    better, worse, level = ([one.other.label for one in part] for part in findings.judged)
    others = len(findings.overall)
    closest = min(findings.overall, key=lambda one: float(one.interval.estimate))
    gap = show_interval(closest.interval, digits=3, sign=True)
    return (
        f"{where}, {own} ends above {len(better)} of {others} other method{'s' if others > 1 else ''}, below {_named(worse)}, and cannot be "
        f"told from {_named(level)} (5 % level, Holm's correction for {others}); its difference to {closest.other.label}, the strongest of "
        f"them, is {gap}{_over(closest, tasks)}."
    )


def _named(labels: list[str]) -> str:
    """`none`, `2 (idql, rlpd)`, and the bare number where the names would be a list of their own."""
    return "none" if not labels else f"{len(labels)} ({', '.join(labels)})" if len(labels) <= 4 else f"{len(labels)}"


def _over(one: Overall, tasks: Sequence[str]) -> str:
    """Where a mean is not over all tasks, say over which."""
    return "" if len(one.tasks) == len(tasks) else f" (on {', '.join(one.tasks)})"
