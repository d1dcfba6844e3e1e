"""What a report is made of: the summaries, the comparisons with the reference on every task and over all of them, and what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from analysis import ResultsError, aggregate, comparisons, progress, seeds, statistics, summary
from analysis.load import Method, Results
from analysis.statistics import CONFIDENCE, Interval
from analysis.summary import THRESHOLD, Paired, Summary

ALPHA = 1 - CONFIDENCE


@dataclass(frozen=True)
class Overall:
    """Reference minus one other method, the mean over the tasks on which they share seeds, every task counting the same."""

    other: Method
    tasks: tuple[str, ...]
    interval: Interval
    p: float  # Student's t with Satterthwaite's degrees of freedom; NaN where there is no spread, or a task has one shared seed


@dataclass(frozen=True)
class Findings:
    """Everything that the sections and figures of a report read."""

    results: Results
    summaries: tuple[Summary, ...]
    reference: Method
    threshold: float

    @cached_property
    def finals(self) -> list[Paired]:
        """Reference minus every other method by final score, task by task."""
        return summary.paired(self.summaries, self.reference)

    @cached_property
    def areas(self) -> list[Paired]:
        """The same by area under the curve."""
        return summary.paired(self.summaries, self.reference, "area")

    @cached_property
    def by_name(self) -> dict[tuple[str, str], Summary]:
        """(task, label) -> summary."""
        return {(s.task, s.label): s for s in self.summaries}

    @cached_property
    def scores(self) -> dict[str, dict[str, np.ndarray]]:
        """label -> task -> final scores [S], of methods with a finite one."""
        out: dict[str, dict[str, np.ndarray]] = {}
        for s in self.summaries:
            if np.isfinite(s.score).any():
                out.setdefault(s.label, {})[s.task] = s.score
        return {label: out[label] for label in self.results.labels if label in out}

    @cached_property
    def common(self) -> tuple[list[str], list[str]]:
        """(tasks on which every method has a finite final score, sentences on what is left out); no task where there is none."""
        try:
            return aggregate.tasks_in_common(self.scores)
        except ResultsError as error:
            return [], [f"No table and no profile over all tasks: {error}."]

    @cached_property
    def overall(self) -> list[Overall]:
        """The reference against every other method that shares seeds with it somewhere."""
        found: dict[Method, dict[str, np.ndarray]] = {}
        for pair in self.finals:
            if pair.differences.size:
                found.setdefault(pair.other, {})[pair.task] = pair.differences
        return [
            Overall(
                other, tuple(gaps), aggregate.over_tasks(gaps) if len(gaps) > 1 else statistics.mean_interval(*gaps.values()), mean_p(gaps)
            )
            for other, gaps in found.items()
        ]

    @cached_property
    def judged(self) -> tuple[list[Overall], list[Overall], list[Overall]]:
        """`overall` as (reference is better, worse, not separable), after Holm's correction for all of them."""
        adjusted = comparisons.holm([one.p for one in self.overall])
        better, worse, level = [], [], []
        for one, p in zip(self.overall, adjusted, strict=True):
            (level if not p < ALPHA else better if one.interval.estimate > 0 else worse).append(one)
        return better, worse, level

    @cached_property
    def improvement(self) -> dict[str, tuple[Interval, list[str]]]:
        """label -> (probability that the reference ends above it, the tasks that is over)."""
        own, out = self.scores.get(self.reference.label, {}), {}
        for label, scores in self.scores.items():
            tasks = sorted(set(own) & set(scores))
            if label != self.reference.label and tasks:
                out[label] = aggregate.improvement_over_tasks(own, scores, tasks=tasks), tasks
        return out

    @cached_property
    def needed(self) -> list[tuple[Paired, seeds.SeedsNeeded | None]]:
        """The pairs that are not separable, with the seeds that would separate them; None where their seeds show no spread to plan with."""
        return [(pair, seeds.to_separate(pair.differences)) for pair in self.finals if pair.interval.n and not pair.separable]

    @cached_property
    def progress(self) -> list[progress.Progress]:
        """Of the run folders that are not finished."""
        return progress.unfinished(self.results)

    @cached_property
    def marks(self) -> Mapping[tuple[str, str], str]:
        """(task, label) -> the mark of a method that is still running."""
        return progress.marks(self.progress)

    def of(self, task: str) -> list[Summary]:
        """The summaries of one task."""
        return [s for s in self.summaries if s.task == task]


def find(results: Results, reference: str, threshold: float = THRESHOLD) -> Findings:
    """The findings of these results. Raises ResultsError for a reference that is not there."""
    anchor = summary.reference_method(results, reference)
    return Findings(results, tuple(summary.summarise(results, threshold)), anchor, threshold)


def mean_p(gaps: Mapping[str, Sequence[float]]) -> float:
    """Two-sided p for a mean difference of 0 over tasks [task -> differences]; of one task, that of `comparisons.p_value`."""
    samples = [np.asarray(values, dtype=np.float64) for values in gaps.values()]
    if min(sample.size for sample in samples) < 2:
        return np.nan
    parts = [(sample.var(ddof=1) / sample.size / len(samples) ** 2, sample.size) for sample in samples]
    variance, freedom = comparisons.satterthwaite(parts)
    mean = np.mean([sample.mean() for sample in samples])
    return float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), freedom)) if variance > 1e-24 else np.nan
