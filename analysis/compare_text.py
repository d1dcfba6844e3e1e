"""What `compare` found, in words for a terminal."""

import textwrap

import numpy as np

from analysis import seeds, tables
from analysis.compare import LEVEL, Comparison, Finding, TaskComparison
from analysis.seeds import SeedsNeeded


def text(found: Comparison) -> str:
    """The verdict in one sentence, then the numbers overall and on every task, then what to know before quoting it."""
    several = len(found.tasks) > 1
    words = [f"{each.verdict} by {_name(measure)}" for measure, each in found.overall.items()]
    lines = [f"{found.candidate.label} against {found.reference.label}: {', '.join(words)}"]
    if several:
        lines += ["", f"overall: mean of {len(found.tasks)} tasks"]
        lines += [line for measure, each in found.overall.items() for line in _block(measure, each, found, "over the steps in common")]
    for task in found.tasks:
        window = "over environment steps {:,.0f} to {:,.0f}".format(*task.candidate.window)
        lines += ["", task.task]
        lines += [line for measure, each in task.findings.items() for line in _block(measure, each, found, window)]
        lines += _steps(task, found)
    lines += ["", "Before quoting this:", *(f"  - {remark}" for remark in found.remarks)] if found.remarks else []
    how = f", by Holm's method for the {len(found.tasks)} tasks of a measure" if several else ""
    lines += ["", f"Brackets: 95 % intervals over seeds. Better, worse: p at most {LEVEL:.2f}{how}. Not separable does not mean equal."]
    return "\n".join(part for line in lines for part in _wrapped(line)) + "\n"


def _name(measure: str) -> str:
    return {"area": "sample efficiency"}.get(measure, measure)


def _wrapped(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip(" -")) + 2) if line.startswith(" ") else ""
    return textwrap.wrap(line, tables.WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def _block(measure: str, one: Finding, found: Comparison, window: str) -> list[str]:
    """`  final score: better` and, indented below it, the numbers it rests on."""
    what = f" (mean score {window})" if measure == "area" and one.difference.n else ""
    lines = [f"  {_name(measure)}{what}: {one.verdict}" + (f"; {one.note}" if one.note else "")]
    if not one.difference.n:
        return lines
    ours, theirs = (f"{tables.show_number(side.estimate, 3)}" for side in (one.candidate, one.reference))
    p = f", {_show_p(one.p)}" if np.isfinite(one.p) else ""
    gap = tables.show_interval(one.difference, digits=3, sign=True)
    lines.append(f"    {ours} against {theirs}, difference {gap}{p}; {_seeds(one)}")
    if one.difference.n > 1:
        chance = tables.show_interval(one.improvement)
        lines.append(f"    probability that a seed of {found.candidate.label} comes out above one of {found.reference.label}: {chance}")
    return lines + ([f"    {_show_needed(one.needed)}"] if one.needed else [])


def _seeds(one: Finding) -> str:
    """`10 seeds, paired`; `5 and 8 seeds, unpaired`. Over tasks these are the smallest numbers."""
    counts = sorted({int(one.candidate.n), int(one.reference.n)})
    number = f"{one.candidate.n} and {one.reference.n}" if len(counts) > 1 else f"{counts[0]}"
    return f"{number} seed{'s' if counts[-1] > 1 else ''}, {one.design}"


def _show_p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _show_needed(needed: SeedsNeeded) -> str:
    """How many seeds it would take, and how little that is known."""
    span = f"{_count(needed.fewest)} to {_count(needed.most)}"
    if not np.isfinite(needed.estimate):
        return f"to separate them: {_count(np.inf)} seeds of each, if the difference is the one measured; over its interval {span}"
    more = _count(max(needed.estimate - needed.have, 0))
    return (
        f"to separate them: about {more} more seeds of each, {_count(needed.estimate)} in all, if the difference is the one measured "
        f"(power {100 * needed.power:g} %); over its interval {span} in all"
    )


def _count(n: float) -> str:
    """Two digits of what is a rough plan: `17`, `280`, `7,100`."""
    return f"{float(f'{n:.2g}'):,.0f}" if np.isfinite(n) else f"more than {seeds.MOST:,}"


def _steps(task: TaskComparison, found: Comparison) -> list[str]:
    """Environment steps to the threshold of both, and their ratio, which is a bound where seeds never got there."""
    head = f"  steps to a score of {found.threshold:g}: "
    if not np.isfinite(task.steps.horizon):
        return [f"{head}nothing to compare without two online evaluations of both"]
    times = f"{head}{task.candidate.steps.text} against {task.reference.steps.text}"
    if task.steps.bound == "none":
        return [f"{times}; no seed of either gets there in the steps in common"]
    return [times, f"    steps of {found.reference.label} over those of {found.candidate.label}: {task.steps.text}"]
