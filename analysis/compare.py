"""One method against another: better, worse or not separable, on every task that both ran and over all of these; the text is
`compare_text.text`.

By final score and by sample efficiency, which is the area under the learning curve: the mean score over the environment steps that both
cover. Seeds that both have are compared in pairs, since a seed gives every method the same evaluation episodes; imported curves and methods
that share few seeds as two independent samples. The intervals and p are Student's t throughout, Welch's for two samples, Satterthwaite's
over tasks, which count the same. "better" and "worse" need p <= 0.05, by Holm's method for the tasks of one measure.

    print(text(compare("runs/sweep", "my_agent", "expo")))
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from analysis import ResultsError, aggregate, comparisons, seeds, summary, survival
from analysis.appendix import protocol_differences
from analysis.load import Method, Results, load
from analysis.seeds import SeedsNeeded
from analysis.statistics import CONFIDENCE, Interval
from analysis.summary import DEFAULT_REFERENCE, THRESHOLD, Summary

BETTER, WORSE, NOT_SEPARABLE, NO_VERDICT = "better", "worse", "not separable", "no verdict"
LEVEL = 1 - CONFIDENCE
NO_SPREAD = 1e-12
MEASURES = {"final score": "score", "area": "area"}  # name -> field of `Summary`


@dataclass(frozen=True)
class Sample:
    """The seeds that are compared on one task by one measure: values of the candidate [n] and of the reference [m]."""

    candidate: np.ndarray
    reference: np.ndarray
    paired: bool  # value i of both is that of the same seed

    @property
    def n(self) -> int:
        """Seeds; of two independent samples, those of the smaller one."""
        return min(self.candidate.size, self.reference.size)

    @property
    def parts(self) -> list[np.ndarray]:
        """The independent samples whose means make the difference: the differences in pairs, or both sides."""
        return [self.candidate - self.reference] if self.paired else [self.candidate, self.reference]

    @property
    def gap(self) -> float:
        """Mean of the candidate minus mean of the reference."""
        return float(self.candidate.mean() - self.reference.mean()) if self.n else np.nan


@dataclass(frozen=True)
class Finding:
    """Candidate minus reference by one measure, on one task or as the mean over several."""

    verdict: str  # BETTER, WORSE, NOT_SEPARABLE or NO_VERDICT
    note: str  # what a reader of the verdict must know, or why there is none; mostly ""
    candidate: Interval
    reference: Interval
    difference: Interval
    improvement: Interval  # probability that a seed of the candidate ends above one of the reference
    p: float  # two-sided; of a task adjusted by Holm for all tasks; NaN where there is none
    design: str  # "paired", "unpaired", or "mixed" over tasks
    needed: SeedsNeeded | None  # only of what is not separable


@dataclass(frozen=True)
class TaskComparison:
    """Both methods on one task."""

    candidate: Summary
    reference: Summary
    findings: dict[str, Finding]  # by `MEASURES`
    steps: survival.Ratio  # the reference's environment steps to the threshold over the candidate's

    @property
    def task(self) -> str:
        """The task's name."""
        return self.candidate.task


@dataclass(frozen=True)
class Comparison:
    """Everything that `text` and `as_json` say."""

    candidate: Method
    reference: Method
    threshold: float
    tasks: tuple[TaskComparison, ...]  # by name
    overall: dict[str, Finding]  # by `MEASURES`; of one task, that task's
    remarks: tuple[str, ...]  # what limits the comparison, in sentences


def compare(
    runs: Sequence[Path | str] | Path | str, candidate: str, reference: str = DEFAULT_REFERENCE, threshold: float = THRESHOLD
) -> Comparison:
    """Compare two methods, each named by its label or its agent, on the tasks that both ran. `threshold`: the score of "steps to".

    Raises ResultsError: whatever `load` raises, a method that is not there, twice the same one, no task in common, a threshold that is no
    number.
    """
    if not np.isfinite(threshold):
        raise ResultsError(f"threshold: found {threshold}, expected a finite score such as {THRESHOLD}")
    results = load(runs)
    methods = [results.find(name) for name in (candidate, reference)]
    labels = [method.label for method in methods]
    if labels[0] == labels[1]:
        raise ResultsError(f"candidate {candidate!r} and reference {reference!r} are both {labels[0]!r}; expected two methods")
    ran = [set(results.frame.loc[results.frame["method"] == label, "task"]) for label in labels]
    common = sorted(ran[0] & ran[1])
    if not common:
        where = ", ".join(f"{label} ran {_few(sorted(tasks))}" for label, tasks in zip(labels, ran, strict=True))
        raise ResultsError(f"no task in common: {where}; expected at least one task that both ran")
    remarks = [_stands_for(results, name, method) for name, method in zip((candidate, reference), methods, strict=True)]
    for label, own in zip(labels, ran, strict=True):
        if own - set(common):
            remarks.append(f"Left out, as only {label} ran there: {', '.join(sorted(own - set(common)))}.")
    results = _restricted(results, labels, common)
    summaries = summary.summarise(results, threshold)
    pairs = [tuple(next(s for s in summaries if (s.task, s.label) == (task, label)) for label in labels) for task in common]
    tasks, overall = _judged(pairs)
    remarks += [*summary.remarks(results, summaries), *_seed_remarks(results), *_protocol_remarks(results, methods)]
    return Comparison(*methods, threshold, tasks, overall, tuple(filter(None, remarks)))


def _few(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _stands_for(results: Results, name: str, method: Method) -> str:
    """An agent's name that several of its methods answer to takes the first of them: say which."""
    others = [m.label for m in results.methods if m.agent == name and m != method]
    return f"{name!r} is taken as {method.label!r}; there are also {_few(others)}." if others and method.label != name else ""


def _restricted(results: Results, labels: Sequence[str], tasks: Sequence[str]) -> Results:
    """The rows of two methods on the tasks they share, and the manifests of the folders these came from."""
    frame = results.frame[results.frame["method"].isin(labels) & results.frame["task"].isin(tasks)]
    folders = {Path(source).parents[1] for source in frame["source"].unique()}
    manifests = tuple(manifest for manifest in results.manifests if manifest.folder in folders)
    return Results(frame, manifests, {label: results.catalogue[label] for label in labels}, results.notes)


def sample(candidate: Summary, reference: Summary, measure: str) -> Sample:
    """The finite values that are compared: over the shared seeds if these are more than half of the smaller method's and neither method is
    imported, otherwise all of both."""
    x, y = (getattr(side, MEASURES[measure]) for side in (candidate, reference))
    kept = [np.isfinite(values) for values in (x, y)]
    own = [side.seeds[keep] for side, keep in zip((candidate, reference), kept, strict=True)]
    x, y = x[kept[0]], y[kept[1]]
    _, left, right = np.intersect1d(*own, assume_unique=True, return_indices=True)
    if left.size > min(x.size, y.size) / 2 and not (candidate.method.imported or reference.method.imported):
        return Sample(x[left], y[right], True)
    return Sample(x, y, False)


def contrast(samples: Sequence[Sample]) -> tuple[Interval, float]:
    """(candidate minus reference as the mean over tasks, its two-sided p).

    Neither limits nor p where a task has one seed. Where no task has any spread between seeds Student's t says nothing; p is then that of
    the exact permutation test.
    """
    n = min(one.n for one in samples)
    gap = float(np.mean([one.gap for one in samples]))
    if n < 2:
        return Interval(gap, np.nan, np.nan, np.array(n)), np.nan
    variances, sizes = _variances(samples)
    square, freedom = comparisons.satterthwaite(list(zip(variances / sizes, sizes, strict=True)))
    error = np.sqrt(square)
    if error <= NO_SPREAD:
        return Interval(gap, gap, gap, np.array(n)), _permutation_p(samples)
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * error
    return Interval(gap, gap - half, gap + half, np.array(n)), float(2 * stats.t.sf(abs(gap) / error, freedom))


def _variances(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """(what one seed of each independent part adds to the variance of the mean over tasks, its number of seeds)."""
    parts = [part for one in samples for part in one.parts]
    return np.array([part.var(ddof=1) for part in parts]) / len(samples) ** 2, np.array([part.size for part in parts])


def _seeds_needed(samples: Sequence[Sample], difference: Interval, level: float) -> SeedsNeeded | None:
    """Seeds of each after which p <= `level` is to be expected; None without any spread to plan with."""
    if difference.n < 2 or difference.zero_width:
        return None
    variances, sizes = _variances(samples)
    square, freedom = comparisons.satterthwaite(list(zip(variances / sizes, sizes, strict=True)))
    gap, half = difference.estimate, stats.t.ppf(1 - level / 2, freedom) * np.sqrt(square)
    per_seed = variances.sum() ** 2 / (variances**2).sum()
    return seeds.plan(gap, gap - half, gap + half, np.sqrt(variances.sum()), per_seed, int(difference.n), confidence=1 - level)


def verdict(difference: Interval, p: float) -> str:
    """The word for a difference whose p is adjusted for the other comparisons made."""
    if difference.n < 2:
        return NO_VERDICT
    return NOT_SEPARABLE if not p <= LEVEL else BETTER if difference.estimate > 0 else WORSE


def _permutation_p(samples: Sequence[Sample]) -> float:
    """Two-sided p of samples without any spread: the difference seen is then the largest of all that relabelling the seeds could give.

    Relabelled are all seeds of a task where both methods end alike in every seed, otherwise the two of each pair. NaN where the tasks
    point in different directions, and the largest is not seen.
    """
    gaps = np.array([one.gap for one in samples])
    if np.all(np.abs(gaps) <= NO_SPREAD):
        return 1.0
    if not (np.all(gaps > NO_SPREAD) or np.all(gaps < -NO_SPREAD)):
        return np.nan
    flat = [max(np.ptp(one.candidate), np.ptp(one.reference)) <= NO_SPREAD for one in samples]
    sizes = [(one.candidate.size, one.reference.size) for one in samples]
    return 2 / math.prod(math.comb(x + y, x) if same else 2**x for (x, y), same in zip(sizes, flat, strict=True))


def _judged(pairs: Sequence[tuple[Summary, Summary]]) -> tuple[tuple[TaskComparison, ...], dict[str, Finding]]:
    by_measure, overall = {}, {}
    for measure in MEASURES:
        samples = [sample(*pair, measure) for pair in pairs]
        found = [contrast([one]) for one in samples]
        adjusted = comparisons.holm([p for _, p in found])
        reasons = [_reason(*pair, one, measure) for pair, one in zip(pairs, samples, strict=True)]
        columns = zip(samples, found, adjusted, reasons, strict=True)
        by_measure[measure] = [_finding([one], each, float(p), why, len(pairs)) for one, each, p, why in columns]
        kept = [one for one in samples if one.n > 1]
        if len(pairs) == 1:
            overall[measure] = by_measure[measure][0]
        elif not kept:
            overall[measure] = _finding(samples, contrast(samples), np.nan, "no task has two seeds of both to compare", 1)
        else:
            left = [pair[0].task for pair, one in zip(pairs, samples, strict=True) if one.n < 2]
            found = contrast(kept)
            overall[measure] = _finding(kept, found, found[1], f"without {', '.join(left)}, see there" if left else "", 1)
    findings = [dict(zip(MEASURES, column, strict=True)) for column in zip(*by_measure.values(), strict=True)]
    tasks = [TaskComparison(a, b, each, summary.time_ratio(b, a)) for (a, b), each in zip(pairs, findings, strict=True)]
    return tuple(tasks), overall


def _reason(candidate: Summary, reference: Summary, one: Sample, measure: str) -> str:
    """Why there is no verdict on a task; "" where there is one."""
    if one.n > 1:
        return ""
    offline = [side.label for side in (candidate, reference) if side.final_phase == "offline"]
    if measure == "area" and offline:
        return f"{' and '.join(offline)} never went online"
    if measure == "area" and not candidate.window[0] < candidate.window[1]:
        return "the two curves cover no stretch of environment steps in common"
    short = {side.label: values.size for side, values in ((candidate, one.candidate), (reference, one.reference)) if values.size < 2}
    count = lambda n: "one seed" if n else "no seed"
    kind = "finite final score" if measure == "final score" else "complete, finite curve over the common steps"
    return " and ".join(f"{label} has {count(n)} with a {kind}" for label, n in short.items())


def _finding(samples: Sequence[Sample], found: tuple[Interval, float], p: float, note: str, tasks: int) -> Finding:
    """`p`: that of `found` adjusted for the number of `tasks` that are judged one by one."""
    difference, alone = found
    notes, word = [note] if note else [], verdict(difference, p)
    if word == NOT_SEPARABLE and alone <= LEVEL:
        notes.append(f"alone it would be separable, but not as one of {tasks} tasks (Holm)")
    if difference.zero_width:
        notes.append("no spread between seeds: an interval without width is no certainty, and p is that of a permutation test")
    needed = _seeds_needed(samples, difference, LEVEL / tasks) if word == NOT_SEPARABLE else None
    designs = {"paired" if one.paired else "unpaired" for one in samples}
    scored = all(one.n for one in samples)
    nothing = Interval(np.nan, np.nan, np.nan, np.array(0))
    scores = [{str(i): getattr(one, side) for i, one in enumerate(samples)} for side in ("candidate", "reference")]
    sides = [aggregate.over_tasks(table, kind="t") if scored else nothing for table in scores]
    improvement = aggregate.improvement_over_tasks(*scores) if scored else nothing
    design = designs.pop() if len(designs) == 1 else "mixed"
    return Finding(word, "; ".join(notes), *sides, difference, improvement, p, design, needed)


def _seed_remarks(results: Results) -> list[str]:
    """Seeds that diverged, ended early, blew up or have evaluations without a finite score, a sentence per task and method."""
    out = []
    for (task, method), rows in summary.seed_remarks(results).groupby(["task", "method"], sort=False):
        kinds = {
            "diverged": rows["diverged_at"] != "",
            "ended early": rows["last_step"] < rows["final_step"],
            "have evaluations without a finite score": rows["not_finite"] > 0,
            "had physics blow-ups": rows["blowups"] > 0,
        }
        said = [f"{what}: {summary.show_seeds(rows.loc[mask, 'seed'].to_numpy())}" for what, mask in kinds.items() if mask.any()]
        out.append(f"{task}: seeds of {method} that {'; that '.join(said)}.")
    return out


def _protocol_remarks(results: Results, methods: Sequence[Method]) -> list[str]:
    """The protocol fields in which the two differ, a sentence per task, as far as the manifests list protocols."""
    header, rows = protocol_differences(results)
    names = [m.agent + (f" ({m.variant})" if m.variant else "") for m in methods]
    if not set(names) <= set(header):
        return []
    differing: dict[str, list[str]] = {}
    for row in rows:
        ours, theirs = (row[header.index(name)] for name in names)
        if row[0] in results.tasks and ours and theirs and ours != theirs:
            differing.setdefault(row[0], []).append(f"{row[1]} {ours} against {theirs}")
    return [f"{task}: the protocols differ ({', '.join(fields)})." for task, fields in differing.items()]


def as_json(found: Comparison) -> dict:
    """The comparison as numbers, strings, lists and objects; null is "no number": too few seeds, or beyond `seeds.MOST` seeds.

    `candidate`, `reference`: labels. `confidence`, `threshold`. `overall` and every value of `tasks` (by name): `final_score` and `area`,
    each with `verdict` ("better", "worse", "not separable", "no verdict"), `note`, `design` ("paired", "unpaired", "mixed"), `p` (by Holm
    for a task), `seeds_needed` (null, or `estimate`, `fewest`, `most`, `have`, `more`, `power`) and the intervals (`estimate`, `low`,
    `high`, `n` seeds) `candidate`, `reference`, `difference`, `improvement`. A task also has `steps`: `candidate` and `reference`
    (`reached` of `n` seeds, restricted mean as `estimate`, `low`, `high`), `ratio` (reference over candidate, an interval), `bound` ("exact",
    "at least", "at most", "restricted", "none"), `separable` and `horizon`; and `area_window`, the environment steps that the area is of.
    `remarks`: sentences.
    """
    tasks = {}
    for task in found.tasks:
        times = {
            side: {"reached": each.steps.reached, **_numbers(each.steps.mean), "n": each.steps.n}
            for side, each in (("candidate", task.candidate), ("reference", task.reference))
        }
        ratio = {"ratio": _numbers(task.steps.interval), "bound": task.steps.bound, "separable": task.steps.separable}
        tasks[task.task] = {_key(measure): _finding_json(each) for measure, each in task.findings.items()} | {
            "area_window": [_number(step) for step in task.candidate.window],
            "steps": {**times, **ratio, "horizon": _number(task.steps.horizon)},
        }
    return {
        "candidate": found.candidate.label,
        "reference": found.reference.label,
        "confidence": CONFIDENCE,
        "threshold": found.threshold,
        "overall": {_key(measure): _finding_json(each) for measure, each in found.overall.items()},
        "tasks": tasks,
        "remarks": list(found.remarks),
    }


def _key(measure: str) -> str:
    return measure.replace(" ", "_")


def _finding_json(one: Finding) -> dict:
    parts = {name: _numbers(getattr(one, name)) for name in ("candidate", "reference", "difference", "improvement")}
    needed = None
    if one.needed:
        counts = {name: getattr(one.needed, name) for name in ("estimate", "fewest", "most", "have")}
        counts["more"] = max(one.needed.estimate - one.needed.have, 0)
        needed = {name: int(n) if np.isfinite(n) else None for name, n in counts.items()} | {"power": one.needed.power}
    return {"verdict": one.verdict, "note": one.note, "design": one.design, "p": _number(one.p), **parts, "seeds_needed": needed}


def _numbers(interval: Interval) -> dict:
    return {name: _number(getattr(interval, name)) for name in ("estimate", "low", "high")} | {"n": int(interval.n)}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
