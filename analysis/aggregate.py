"""Across tasks: mean, median and IQM of one agent, performance profile, probability of improvement. Tasks are fixed, seeds are resampled.

Every task counts the same, however many seeds it has, so the numbers of seeds need not be equal. As in rliable (Agarwal et al., 2021) the
median is that of the tasks' mean scores and the IQM is over the seeds of all tasks together. Scores come as {task: values over seeds};
NaN is no seed. The intervals speak about new seeds on these tasks, not about new tasks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis import ResultsError, comparisons, intervals
from analysis.comparisons import satterthwaite
from analysis.intervals import RESAMPLES, Bootstrap, Limits, tails
from analysis.statistics import CONFIDENCE, Interval

DEFAULT = {"mean": "t", "median": "inflated", "iqm": "inflated"}  # by docs/coverage.md
PROFILE, IMPROVEMENT = "wilson", "score t"

Scores = Mapping[str, ArrayLike]


def tasks_in_common(methods: Mapping[str, Scores]) -> tuple[list[str], list[str]]:
    """(tasks on which every method has a finite score, sentences that name what is left out). Raises ResultsError if there is no such task."""
    finite = {label: {task for task, values in scores.items() if np.isfinite(values).any()} for label, scores in methods.items()}
    common = set.intersection(*finite.values()) if finite else set()
    if not common:
        raise ResultsError(
            f"{' and '.join(finite) or 'nothing'}: no task on which all have a finite score; expected at least one in common"
        )
    notes = []
    for label, scores in methods.items():
        alone = sorted(set(scores) - common)
        missing = {task: int((~np.isfinite(scores[task])).sum()) for task in sorted(common) if not np.isfinite(scores[task]).all()}
        notes += [f"left out of {label}, as not all methods have a finite score there: {', '.join(alone)}"] if alone else []
        if missing:
            notes.append(
                f"seeds of {label} without a finite score, left out: " + ", ".join(f"{n} on {task}" for task, n in missing.items())
            )
    return sorted(common), notes


def _samples(scores: Scores, tasks: Sequence[str] | None) -> list[np.ndarray]:
    """The finite values of every task, [1, n_k] each."""
    chosen = sorted(scores) if tasks is None else tasks
    if not len(chosen):
        raise ResultsError("no task to aggregate over; expected at least one")
    samples = []
    for task in chosen:
        values = np.asarray(scores.get(task, []), dtype=np.float64)
        if not np.isfinite(values).any():
            raise ResultsError(f"{task}: no finite score; expected at least one seed with one on every task to aggregate over")
        samples.append(values[np.isfinite(values)][None])
    return samples


def point(samples: Sequence[np.ndarray], quantity: str) -> np.ndarray:
    """The aggregate [...] of tasks' scores [..., n_k]: quantity "mean", "median" or "iqm"."""
    if quantity == "iqm":
        return _pooled_iqm(samples)
    means = np.stack([sample.mean(axis=-1) for sample in samples])
    return means.mean(axis=0) if quantity == "mean" else np.median(means, axis=0)


def _pooled_iqm(samples: Sequence[np.ndarray]) -> np.ndarray:
    """The middle half of all seeds, each weighing 1 / (tasks x seeds of its task); one that lies half inside counts half."""
    values = np.concatenate(samples, axis=-1)
    counts = [sample.shape[-1] for sample in samples]
    weights = np.concatenate([np.full(n, 1 / (len(counts) * n)) for n in counts])
    if len(set(counts)) == 1:  # equal weights need no sorting along with the values
        ordered, upper = np.sort(values, axis=-1), np.cumsum(weights)
    else:
        order = np.argsort(values, axis=-1)
        ordered, weights = np.take_along_axis(values, order, axis=-1), weights[order]
        upper = np.cumsum(weights, axis=-1)
    inside = np.clip(np.minimum(upper, 0.75) - np.maximum(upper - weights, 0.25), 0.0, None)
    return (ordered * inside).sum(axis=-1) / inside.sum(axis=-1)


def _draws(samples: Sequence[np.ndarray], quantity: str, rng: np.random.Generator, inflate: bool) -> np.ndarray:
    """Bootstrap aggregates [C, B], seeds resampled within tasks. `inflate`: resampled deviations from the task's mean times
    sqrt(n / (n - 1)), so that they have the variance that the seeds are estimated to have."""
    parts = []
    for sample in samples:
        n = sample.shape[-1]
        factor = np.sqrt(n / (n - 1)) if inflate and n > 1 else 1.0
        centre = sample.mean(axis=-1, keepdims=True)
        ordered = np.sort(centre + factor * (sample - centre), axis=-1)
        boot = Bootstrap(n, RESAMPLES, rng)
        if quantity == "iqm":
            parts.append(ordered[:, boot.ranks])
        else:
            parts.append((ordered @ boot.spread(np.full(n, 1 / n)).T)[..., None])
    return point(parts, quantity)


def _freedom(samples: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(variance of the mean over tasks, degrees of freedom), [C] each."""
    return satterthwaite([(s.var(axis=-1, ddof=1) / s.shape[-1] / len(samples) ** 2, s.shape[-1]) for s in samples])


def t(samples: Sequence[np.ndarray], quantity: str, confidence: float, rng: np.random.Generator) -> Limits:
    """Mean only: Student's t with Satterthwaite's degrees of freedom, variances task by task."""
    variance, freedom = _freedom(samples)
    half = stats.t.ppf(0.5 + confidence / 2, freedom) * np.sqrt(variance)
    middle = point(samples, "mean")
    return middle - half, middle + half


def percentile(samples: Sequence[np.ndarray], quantity: str, confidence: float, rng: np.random.Generator) -> Limits:
    """Quantiles of the stratified bootstrap: rliable's kind."""
    return tails(_draws(samples, quantity, rng, inflate=False), 0.5 - confidence / 2)


def inflated(samples: Sequence[np.ndarray], quantity: str, confidence: float, rng: np.random.Generator) -> Limits:
    """Quantiles of a stratified bootstrap with two small-sample corrections: deviations inflated by sqrt(n / (n - 1)) within every task,
    and levels Phi(-t) for Student's t with Satterthwaite's degrees of freedom."""
    draws = np.sort(_draws(samples, quantity, rng, inflate=True), axis=1)
    tail = stats.norm.cdf(stats.t.ppf(0.5 - confidence / 2, _freedom(samples)[1]))
    column = np.round(tail * (draws.shape[1] - 1)).astype(int)[:, None]
    low, high = (np.take_along_axis(draws, at, axis=1)[:, 0] for at in (column, draws.shape[1] - 1 - column))
    return low, high


KINDS = {"t": t, "percentile": percentile, "inflated": inflated}


def over_tasks(
    scores: Scores,
    quantity: str = "mean",
    kind: str | None = None,
    tasks: Sequence[str] | None = None,
    confidence: float = CONFIDENCE,
    rng: np.random.Generator | int = 0,
) -> Interval:
    """Mean, median (of the tasks' means) or IQM (over all seeds) across tasks, and its interval; `n` is the smallest number of seeds.

    The optimality gap is the mean of {task: statistics.shortfall(values)}; the paired difference of two agents that of their differences
    over shared seeds. No interval where a task has one seed; of a single task, that of `intervals`. `tasks`: by default all. Raises ResultsError for no task, and for a task
    without a finite score.
    """
    samples = _samples(scores, tasks)
    if len(samples) == 1 and kind is None:
        return intervals.interval(samples[0][0], "iqm" if quantity == "iqm" else "mean", confidence=confidence, rng=rng)
    kind = kind or DEFAULT[quantity]
    n = np.array(min(sample.shape[-1] for sample in samples))
    low, high = (np.full(1, np.nan),) * 2
    if n > 1:
        low, high = KINDS[kind](samples, quantity, confidence, np.random.default_rng(rng))
    return Interval(point(samples, quantity)[0], low[0], high[0], n, kind)


def mover(middles: ArrayLike, lows: ArrayLike, highs: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(estimate, low, high) of the mean of independent estimates [K, ...] from their limits, which need not be symmetric: distances to the
    limits add in squares (Zou and Donner, 2008)."""
    middles = np.asarray(middles)
    middle = middles.mean(axis=0)
    down, up = (np.sqrt(((middles - np.asarray(side)) ** 2).sum(axis=0)) / len(middles) for side in (lows, highs))
    return middle, middle - down, middle + up


def improvement_over_tasks(
    x: Scores, y: Scores, kind: str = IMPROVEMENT, tasks: Sequence[str] | None = None, confidence: float = CONFIDENCE
) -> Interval:
    """Mean over tasks of the probability that a seed of x ends above one of y, with its interval; see `comparisons.improvement`."""
    chosen = tasks_in_common({"the first": x, "the second": y})[0] if tasks is None else tasks
    parts = [
        comparisons.improvement(a[0], b[0], kind, confidence=confidence)
        for a, b in zip(_samples(x, chosen), _samples(y, chosen), strict=True)
    ]
    middle, low, high = mover(*zip(*((part.estimate, part.low, part.high) for part in parts), strict=True))
    return Interval(middle, low, high, np.array(min(part.n for part in parts)), kind)


def wilson(won: np.ndarray, n: int, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(share, low, high) of won out of n, Wilson's (1927) score interval: a width also where all or none are won."""
    z, share = stats.norm.ppf(0.5 + confidence / 2), won / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return share, middle - half, middle + half


def clopper(won: np.ndarray, n: int, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(share, low, high) of won out of n, Clopper and Pearson's (1934) exact interval, which covers at least `confidence`."""
    tail = 0.5 - confidence / 2
    low = np.where(won > 0, stats.beta.ppf(tail, np.maximum(won, 1), n - won + 1), 0.0)
    high = np.where(won < n, stats.beta.ppf(1 - tail, won + 1, np.maximum(n - won, 1)), 1.0)
    return won / n, low, high


PROFILE_KINDS = {"wilson": wilson, "clopper": clopper}


def profile(
    scores: Scores, thresholds: ArrayLike, kind: str = PROFILE, tasks: Sequence[str] | None = None, confidence: float = CONFIDENCE
) -> Interval:
    """Performance profile: share of seeds whose score exceeds each threshold, the tasks weighing the same; arrays [thresholds].

    The interval is pointwise: it holds at any one threshold, not for the whole curve at once.
    """
    samples = _samples(scores, tasks)
    above = [(sample[0][:, None] > np.asarray(thresholds, dtype=np.float64)).sum(axis=0) for sample in samples]
    parts = [PROFILE_KINDS[kind](won, sample.shape[-1], confidence) for won, sample in zip(above, samples, strict=True)]
    n = min(sample.shape[-1] for sample in samples)
    middle, low, high = mover(*zip(*parts, strict=True))
    low, high = (side if n > 1 else np.full_like(middle, np.nan) for side in (low, high))
    return Interval(middle, low, high, np.full(middle.shape, n), kind)
