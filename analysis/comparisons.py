"""Two agents on one task: difference of means, ratio of means, probability of improvement; and the correction for many comparisons.

Where seeds are shared, `statistics.paired_difference` is the sharper tool: a seed gives both agents the same evaluation episodes. The
functions here take two independent samples, of any two numbers of seeds. The default kinds are chosen by docs/coverage.md.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.intervals import BLOCK, RESAMPLES, Bootstrap, Limits, Parts, bootstrap_t, tails
from analysis.statistics import CONFIDENCE, Interval

DIFFERENCE, RATIO, IMPROVEMENT = "t", "log t", "score"  # the default kinds


def satterthwaite(parts: Sequence[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(variance, degrees of freedom of Student's t) of a sum, from every part's squared standard error and number of seeds.

    Satterthwaite (1946), Welch (1947). Without any variance the degrees of freedom are 1, and the interval has no width.
    """
    total = sum(square for square, _ in parts)
    weighed = sum(square**2 / (n - 1) for square, n in parts)
    return total, np.where(weighed > 0, total**2 / np.where(weighed > 0, weighed, 1.0), 1.0)


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and their squared standard errors, [C] each."""
    return x.mean(axis=1), x.var(axis=1, ddof=1) / x.shape[1]


def _bootstrap_moments(x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same of resamples, [C, B] each."""
    n = x.shape[1]
    weights = Bootstrap(n, RESAMPLES, rng).spread(np.full(n, 1 / n)).T
    centre = x.mean(axis=1, keepdims=True)
    means = (x - centre) @ weights
    return centre + means, np.maximum((x - centre) ** 2 @ weights - means**2, 0.0) / (n - 1)


def _minus(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(difference, share of its variance due to x, due to y) from moments."""
    return x[0] - y[0], x[1], y[1]


def _log_over(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log of the ratio, and its variance in two shares by the delta method) from moments; NaN where a mean is not positive."""
    positive = (x[0] > 0) & (y[0] > 0)
    a, b = (np.where(positive, part, np.nan) for part in (x[0], y[0]))
    return np.log(a / b), x[1] / a**2, y[1] / b**2


Contrast = Callable[[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], tuple[np.ndarray, np.ndarray, np.ndarray]]


def t(x: np.ndarray, y: np.ndarray, contrast: Contrast, confidence: float, rng: np.random.Generator) -> Limits:
    """Student's t for two variances that need not be equal (Welch, 1947)."""
    middle, left, right = contrast(_moments(x), _moments(y))
    variance, freedom = satterthwaite([(left, x.shape[1]), (right, y.shape[1])])
    half = stats.t.ppf(0.5 + confidence / 2, freedom) * np.sqrt(variance)
    return middle - half, middle + half


def percentile(x: np.ndarray, y: np.ndarray, contrast: Contrast, confidence: float, rng: np.random.Generator) -> Limits:
    """Quantiles of the bootstrap distribution, both agents resampled."""
    draws, _, _ = contrast(_bootstrap_moments(x, rng), _bootstrap_moments(y, rng))
    return tails(draws, 0.5 - confidence / 2)


def studentised(x: np.ndarray, y: np.ndarray, contrast: Contrast, confidence: float, rng: np.random.Generator) -> Limits:
    """Bootstrap-t; infinite where `intervals.studentised` is."""
    middle, left, right = contrast(_moments(x), _moments(y))
    draws, lefts, rights = contrast(_bootstrap_moments(x, rng), _bootstrap_moments(y, rng))
    return bootstrap_t(middle, np.sqrt(left + right), draws, np.sqrt(lefts + rights), confidence)


KINDS = {"t": t, "percentile": percentile, "studentised": studentised}


def _contrast(x: ArrayLike, y: ArrayLike, contrast: Contrast, kind: str, axis: int, confidence: float, rng, name: str) -> Interval:
    parts, rng = Parts([x, y], axis), np.random.default_rng(rng)
    for rows, (a, b) in parts.groups():
        middle = contrast((a.mean(axis=1), 0.0), (b.mean(axis=1), 0.0))[0]
        if min(a.shape[1], b.shape[1]) == 1:
            parts.fill(rows, middle)
            continue
        for block in np.array_split(np.arange(rows.size), -(-rows.size * RESAMPLES // BLOCK)):
            parts.fill(rows[block], middle[block], *KINDS[kind](a[block], b[block], contrast, confidence, rng), kind=name)
    return parts.interval()


def difference(
    x: ArrayLike, y: ArrayLike, kind: str = DIFFERENCE, axis: int = 0, confidence: float = CONFIDENCE, rng: np.random.Generator | int = 0
) -> Interval:
    """Mean of x minus mean of y over seeds, two independent samples; `axis` is the seeds of both, the other axes are kept. NaN is no seed.

    No interval where either has one seed. `kind`: one of `KINDS`.
    """
    return _contrast(x, y, _minus, kind, axis, confidence, rng, kind)


def ratio(
    x: ArrayLike, y: ArrayLike, kind: str = RATIO, axis: int = 0, confidence: float = CONFIDENCE, rng: np.random.Generator | int = 0
) -> Interval:
    """Mean of x over mean of y, of positive values such as times; the interval is made for the logarithm. Otherwise as `difference`.

    NaN where a mean is not positive. `kind`: "log " and one of `KINDS`.
    """
    log = _contrast(x, y, _log_over, kind.removeprefix("log "), axis, confidence, rng, kind)
    with np.errstate(over="ignore"):
        return Interval(np.exp(log.estimate), np.exp(log.low), np.exp(log.high), log.n, log.method)


def wins(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each seed of x beats each seed of y, ties counting half: [C, n, m]."""
    return (x[:, :, None] > y[:, None, :]) + 0.5 * (x[:, :, None] == y[:, None, :])


def score(x: np.ndarray, y: np.ndarray, confidence: float, rng: np.random.Generator, freedom: float = np.inf) -> Limits:
    """All values within z standard errors of the estimate, each with the standard error it would itself have (Newcombe, 2006, method 5).

    The variance is Hanley and McNeil's (1982); z is the normal quantile, or Student's with `freedom` degrees of freedom. Has a width also where one agent wins every pair, as 5 seeds against 5 often do.
    """
    n, m = x.shape[1], y.shape[1]
    middle = wins(x, y).mean(axis=(1, 2))
    z, pseudo = stats.t.ppf(0.5 + confidence / 2, freedom), (n + m) / 2 - 1

    def inside(p: np.ndarray) -> np.ndarray:
        variance = p * (1 - p) * (1 + pseudo * ((1 - p) / (2 - p) + p / (1 + p))) / (n * m)
        return np.abs(middle - p) <= z * np.sqrt(variance)

    limits = []
    for end in (0.0, 1.0):
        inner, outer = middle.copy(), np.full_like(middle, end)
        for _ in range(50):  # bisection to 1e-15
            half = (inner + outer) / 2
            inner, outer = np.where(inside(half), half, inner), np.where(inside(half), outer, half)
        limits.append(inner)
    return limits[0], limits[1]


def score_t(x: np.ndarray, y: np.ndarray, confidence: float, rng: np.random.Generator) -> Limits:
    """`score` with Student's quantile of n + m - 2 degrees of freedom: too wide for one task, but right where tasks are averaged."""
    return score(x, y, confidence, rng, x.shape[1] + y.shape[1] - 2)


def brunner_munzel(x: np.ndarray, y: np.ndarray, confidence: float, rng: np.random.Generator) -> Limits:
    """Student's t from the placements' variances (Brunner and Munzel, 2000)."""
    won = wins(x, y)
    middle, parts = won.mean(axis=(1, 2)), []
    for placements in (won.mean(axis=2), won.mean(axis=1)):
        parts.append((_moments(placements)[1], placements.shape[1]))
    variance, freedom = satterthwaite(parts)
    half = stats.t.ppf(0.5 + confidence / 2, freedom) * np.sqrt(variance)
    return middle - half, middle + half


def improvement_percentile(x: np.ndarray, y: np.ndarray, confidence: float, rng: np.random.Generator) -> Limits:
    """Quantiles of the bootstrap distribution, both agents resampled: rliable's kind."""
    left, right = (Bootstrap(s.shape[1], RESAMPLES, rng).spread(np.full(s.shape[1], 1 / s.shape[1])) for s in (x, y))
    return tails(np.einsum("cnb,bn->cb", wins(x, y) @ right.T, left), 0.5 - confidence / 2)


IMPROVEMENT_KINDS = {"score": score, "score t": score_t, "t": brunner_munzel, "percentile": improvement_percentile}


def improvement(
    x: ArrayLike, y: ArrayLike, kind: str = IMPROVEMENT, axis: int = 0, confidence: float = CONFIDENCE, rng: np.random.Generator | int = 0
) -> Interval:
    """Probability that a seed of x ends above a seed of y, ties counting half (Agarwal et al., 2021), and its interval.

    `axis` is the seeds of both, the other axes are kept; NaN is no seed. No interval where either has one seed.
    """
    parts, rng = Parts([x, y], axis), np.random.default_rng(rng)
    for rows, (a, b) in parts.groups():
        n, m = a.shape[1], b.shape[1]
        for block in np.array_split(np.arange(rows.size), -(-rows.size * n * max(RESAMPLES, m) // BLOCK)):
            limits = (np.nan, np.nan) if min(n, m) == 1 else IMPROVEMENT_KINDS[kind](a[block], b[block], confidence, rng)
            parts.fill(rows[block], wins(a[block], b[block]).mean(axis=(1, 2)), *limits, kind=kind)
    return parts.interval()


def p_value(differences: ArrayLike) -> float:
    """Two-sided p of Student's t for paired differences [S] of mean 0; NaN with fewer than two, or where all are equal."""
    gaps = np.asarray(differences, dtype=np.float64)
    gaps = gaps[np.isfinite(gaps)]
    error = gaps.std(ddof=1) / np.sqrt(gaps.size) if gaps.size > 1 else 0.0
    return float(2 * stats.t.sf(abs(gaps.mean()) / error, gaps.size - 1)) if error > 1e-12 else np.nan


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's (1979) adjusted p: below alpha where the hypothesis falls with the chance of any false one at most alpha, whatever their
    dependence. NaN, a comparison without a p, stays NaN but counts as one of the comparisons made."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p)  # NaN last
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
