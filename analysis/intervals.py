"""Intervals of a mean, an IQM or a median over the seeds of one agent on one task: several kinds of each, and which one is the default.

    interval([0.7, 0.9, 1.0, 0.4, 0.8], "iqm")            # the kind whose coverage was measured to be best
    interval(scores, "median", kind="percentile", rng=3)  # another one; every draw comes from `rng`

All three quantities are weighted sums of the ordered seeds, so a bootstrap of any number of data sets is one matrix product: the weights
that every resample gives to the ordered seeds, [resamples, n], are drawn once and serve all of them.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics import CONFIDENCE, Interval, order_weights, ordered_seeds

RESAMPLES = 4_000
BLOCK = 4_000_000  # numbers held at once: data sets x resamples
FEW = 5  # seeds; with fewer, nothing that stays inside the range of the seeds can cover
# The kind with (fewer than FEW, at least FEW) seeds: of those measured in docs/coverage.md the one nearest 95 % from above.
DEFAULT = {"mean": ("t", "t"), "median": ("scaled", "percentile"), "iqm": ("scaled", "expanded")}

Limits = tuple[np.ndarray, np.ndarray]  # [C] each, of C data sets


class Bootstrap:
    """Resamples of n seeds: `ranks` [B, n] says which order statistics each one holds, in increasing order."""

    def __init__(self, n: int, resamples: int, rng: np.random.Generator | int):
        self.n = n
        self.ranks = np.sort(np.random.default_rng(rng).integers(0, n, (resamples, n)), axis=1)

    def spread(self, weights: np.ndarray) -> np.ndarray:
        """Weights [n] of a resample's order statistics -> weights [B, n] of the original ones."""
        resamples = len(self.ranks)
        cells = (np.arange(resamples)[:, None] * self.n + self.ranks).ravel()
        return np.bincount(cells, np.tile(weights, resamples), resamples * self.n).reshape(resamples, self.n)


def t(x: np.ndarray, quantity: str, confidence: float, draws: Bootstrap) -> Limits:
    """Estimate +- t standard errors; Student's for a mean, Tukey and McLaughlin's (n - 2 floor(n / 4) - 1 degrees of freedom) for an IQM."""
    n = x.shape[1]
    freedom = n - 1 - (2 * (n // 4) if quantity == "iqm" else 0)
    half = stats.t.ppf(0.5 + confidence / 2, freedom) * standard_error(x, quantity)[:, 0]
    middle = x @ order_weights(quantity, n)
    return middle - half, middle + half


def percentile(x: np.ndarray, quantity: str, confidence: float, draws: Bootstrap) -> Limits:
    """Quantiles of the bootstrap distribution, rliable's kind."""
    return tails(x @ draws.spread(order_weights(quantity, draws.n)).T, 0.5 - confidence / 2)


def expanded(x: np.ndarray, quantity: str, confidence: float, draws: Bootstrap) -> Limits:
    """`percentile` at Hesterberg's (2015) levels, Phi(-sqrt(n / (n - 1)) t_{n-1}): they make a bootstrap as wide as Student's t would."""
    n = draws.n
    tail = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(0.5 - confidence / 2, n - 1))
    return tails(x @ draws.spread(order_weights(quantity, n)).T, tail)


def tails(estimates: np.ndarray, tail: float) -> Limits:
    """The quantiles `tail` and 1 - `tail` of estimates [C, B]."""
    low, high = np.quantile(estimates, [tail, 1 - tail], axis=1)
    return low, high


def scaled(x: np.ndarray, quantity: str, confidence: float, draws: Bootstrap) -> Limits:
    """Estimate +- t_{n-1} standard errors, these from the bootstrap, times sqrt(n / (n - 1)): a bootstrap divides squares by n."""
    n = draws.n
    spread = (x @ draws.spread(order_weights(quantity, n)).T).std(axis=1)
    half = stats.t.ppf(0.5 + confidence / 2, n - 1) * np.sqrt(n / (n - 1)) * spread
    middle = x @ order_weights(quantity, n)
    return middle - half, middle + half


def bca(x: np.ndarray, quantity: str, confidence: float, draws: Bootstrap) -> Limits:
    """Bias-corrected and accelerated percentiles (Efron, 1987), the acceleration by the jackknife."""
    n = draws.n
    estimates = np.sort(x @ draws.spread(order_weights(quantity, n)).T, axis=1)
    last = estimates.shape[1] - 1
    middle = (x @ order_weights(quantity, n))[:, None]
    near = 1e-9 * np.ptp(x, axis=1)[:, None]  # equal but for rounding counts half on either side
    below = 0.5 * ((estimates < middle - near).mean(axis=1) + (estimates <= middle + near).mean(axis=1))
    bias = stats.norm.ppf(np.clip(below, 1 / (last + 1), 1 - 1 / (last + 1)))
    left_out = np.array([np.insert(order_weights(quantity, n - 1), i, 0.0) for i in range(n)])
    influence = x @ (left_out.mean(axis=0) - left_out).T
    spread = (influence**2).sum(axis=1) ** 1.5
    skew = (influence**3).sum(axis=1) / np.where(spread > 0, 6 * spread, 1.0)
    limits = []
    for z in stats.norm.ppf([0.5 - confidence / 2, 0.5 + confidence / 2]):
        level = stats.norm.cdf(bias + (bias + z) / (1 - skew * (bias + z)))
        column = np.clip(np.round(level * last), 0, last).astype(int)
        limits.append(np.take_along_axis(estimates, column[:, None], axis=1)[:, 0])
    return limits[0], limits[1]


def studentised(x: np.ndarray, quantity: str, confidence: float, draws: Bootstrap) -> Limits:
    """Bootstrap-t (Efron, 1979): the quantiles of (resample - estimate) / its standard error take the place of Student's.

    Infinite where too many resamples have no spread of their own: always with three seeds, whose resamples are all equal in one of nine
    cases, and often where seeds tie.
    """
    weights = order_weights(quantity, draws.n)
    errors = standard_error(x, quantity, draws.spread)
    return bootstrap_t(x @ weights, standard_error(x, quantity)[:, 0], x @ draws.spread(weights).T, errors, confidence)


def bootstrap_t(middle: np.ndarray, error: np.ndarray, draws: np.ndarray, errors: np.ndarray, confidence: float) -> Limits:
    """Bootstrap-t limits [C] from estimates and their standard errors [C] and those of their resamples [C, B]."""
    small = 1e-9 * (1 + np.abs(middle))[:, None]
    gap = draws - middle[:, None]
    # without spread the ratio is 0 / 0 = 0 or infinite, not what rounding left of both
    limit = np.where(np.abs(gap) <= small, 0.0, np.copysign(np.inf, gap))
    ratios = np.where(errors > small, gap / np.where(errors > small, errors, 1.0), limit)
    low, high = np.quantile(ratios, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=1, method="inverted_cdf")
    spread = error > small[:, 0]  # a data set without has an interval without width
    return middle - np.where(spread, high, 0.0) * error, middle - np.where(spread, low, 0.0) * error


def order(x: np.ndarray, quantity: str, confidence: float, draws: Bootstrap) -> Limits:
    """Median only: the order statistics that enclose it with at least `confidence`, whatever the distribution (the sign test's interval).

    Below six seeds no pair does, and the smallest and the largest seed are taken: 0.75 with three seeds, 0.94 with five.
    """
    n = x.shape[1]
    k = max(int(stats.binom.ppf(0.5 - confidence / 2, n, 0.5)), 1)
    return x[:, k - 1], x[:, n - k]


def standard_error(x: np.ndarray, quantity: str, weigh: Callable[[np.ndarray], np.ndarray] = np.atleast_2d) -> np.ndarray:
    """Standard errors from ordered seeds [C, n]: [C, 1] of every data set, or [C, B] of every resample where `weigh` is `Bootstrap.spread`.

    Mean: s / sqrt(n). IQM: from winsorised squares (Tukey and McLaughlin, 1963). Median: McKean and Schrader's (1984), the distance of two
    order statistics around it.
    """
    n = x.shape[1]
    if quantity == "median":
        z = stats.norm.ppf(0.995)
        c = max(int(np.round((n + 1) / 2 - z * np.sqrt(n / 4))), 1)
        gap = np.zeros(n)
        gap[[c - 1, n - c]] = -1 / (2 * z), 1 / (2 * z)
        return x @ weigh(gap).T
    cut = n // 4 if quantity == "iqm" else 0
    weights = np.where((np.arange(n) >= cut) & (np.arange(n) < n - cut), 1.0, 0.0)
    weights[[cut, n - 1 - cut]] += cut
    weights = weigh(weights / n)
    variance = np.maximum((x**2) @ weights.T - (x @ weights.T) ** 2, 0.0)
    kept = n - 2 * cut
    return np.sqrt(variance * n / (kept * (kept - 1)))


KINDS: dict[str, Callable[[np.ndarray, str, float, Bootstrap], Limits]] = {
    "t": t, "percentile": percentile, "expanded": expanded, "scaled": scaled, "bca": bca, "studentised": studentised, "order": order,
}  # fmt: skip


class Parts:
    """Data sets of unequal numbers of seeds, taken apart by those numbers and put together again as one `Interval`."""

    def __init__(self, samples: Sequence[ArrayLike], axis: int = 0):
        ordered, counts = zip(*(ordered_seeds(sample, axis) for sample in samples), strict=True)
        self.shape = counts[0].shape
        self.ordered = [sample.reshape(counts[0].size, sample.shape[-1]) for sample in ordered]
        self.counts = np.stack([count.ravel() for count in counts], axis=1)  # [C, samples]
        self.middle, self.low, self.high = np.full((3, len(self.counts)), np.nan)
        self.kinds: set[str] = set()

    def groups(self) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """(rows, samples [rows, n] in increasing order) for every combination of numbers of seeds without a 0 in it."""
        for counts in np.unique(self.counts, axis=0):
            rows = np.flatnonzero((self.counts == counts).all(axis=1))
            if counts.all() and rows.size:
                yield rows, [sample[rows, :count] for sample, count in zip(self.ordered, counts, strict=True)]

    def fill(self, rows: np.ndarray, middle: np.ndarray, low: ArrayLike = np.nan, high: ArrayLike = np.nan, kind: str = "") -> None:
        """Set estimates and limits of some rows."""
        self.middle[rows], self.low[rows], self.high[rows] = middle, low, high
        self.kinds |= {kind} - {""}

    def interval(self) -> Interval:
        """All of it; n is the smaller number of seeds where there are two samples."""
        numbers = (self.middle, self.low, self.high, self.counts.min(axis=1))
        return Interval(*(part.reshape(self.shape)[()] for part in numbers), " or ".join(sorted(self.kinds)))


def default_kind(quantity: str, n: int) -> str:
    """The kind of interval that `interval` takes for a quantity of n seeds."""
    return DEFAULT[quantity][int(n >= FEW)]


def interval(
    values: ArrayLike,
    quantity: str = "mean",
    kind: str | None = None,
    axis: int = 0,
    confidence: float = CONFIDENCE,
    rng: np.random.Generator | int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean, median or IQM ("mean", "median", "iqm") over seeds and its interval; `axis` is the seeds, the other axes are kept.

    `kind`: one of `KINDS`, or None for the default. The optimality gap is the mean of `statistics.shortfall(values)`. NaN is no seed.
    """
    parts = Parts([values], axis)
    rng = np.random.default_rng(rng)
    for rows, (x,) in parts.groups():
        count = x.shape[1]
        centre = x.mean(axis=1, keepdims=True)  # taken off before anything is squared: steps are counted in millions
        x = x - centre
        middle = centre[:, 0] + x @ order_weights(quantity, count)
        if count == 1:
            parts.fill(rows, middle)
            continue
        name = kind or default_kind(quantity, count)
        draws = Bootstrap(count, resamples, rng)
        for block in np.array_split(np.arange(rows.size), -(-rows.size * resamples // BLOCK)):
            low, high = KINDS[name](x[block], quantity, confidence, draws)
            parts.fill(rows[block], middle[block], low + centre[block, 0], high + centre[block, 0], name)
    return parts.interval()
