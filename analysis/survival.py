"""Times to an event that evaluations only bracket: steps to a threshold, steps to recover. Nothing is dropped and nothing is imputed.

A seed that got there between two evaluations has its time in (left, right]; one that never did has (last evaluation, infinity]. The
distribution of the times is Turnbull's (1976) nonparametric maximum likelihood, which with one common grid of evaluations is the plain
count, and with runs of unequal length is Kaplan and Meier's. Means are restricted to a horizon: a time beyond it counts as the horizon, so
that a mean exists although seeds never got there. What the evaluation grid leaves open is carried along: every mean is a pair (all times
at their left ends, all at their right ends), and limits are taken from the outer end of the pair.

    times = efficiency.times_to(curve, 0.8)
    summarise(times).text            # '1,740 [1,200, 2,530]'
    ratio(slow, fast).text           # 'at least 1.60x [1.13, ...]'
"""

from dataclasses import dataclass

import numpy as np

from analysis import comparisons, intervals
from analysis.statistics import CONFIDENCE, Interval

RESAMPLES = 1_000
STEPS, TOLERANCE = 20_000, 1e-10  # of the EM iteration


@dataclass(frozen=True)
class Times:
    """When each of S seeds got there. Units: those of the curve's axis, mostly environment steps."""

    left: np.ndarray  # [S] not yet there
    right: np.ndarray  # [S] there; inf if never seen. Equal to `left` where the time is known exactly
    horizon: float  # the last step at which arriving could have been seen: NaN without an evaluation

    @property
    def n(self) -> int:
        """Seeds."""
        return self.left.size

    @property
    def reached(self) -> int:
        """Seeds that got there."""
        return int(np.isfinite(self.right).sum())


@dataclass(frozen=True)
class Distribution:
    """Where the probability lies: `mass` [..., J] in the intervals (left, right] [J], in increasing order. Inside one, nothing is known."""

    left: np.ndarray
    right: np.ndarray
    mass: np.ndarray

    def mean(self, horizon: float) -> tuple[np.ndarray, np.ndarray]:
        """Restricted mean, at least and at most: [...] each."""
        return self.mass @ np.minimum(self.left, horizon), self.mass @ np.minimum(self.right, horizon)

    def median(self) -> tuple[np.ndarray, np.ndarray]:
        """The interval (left, right] in which half of the probability is passed; right is inf if that is never seen. [...] each."""
        at = np.argmax(np.cumsum(self.mass, axis=-1) >= 0.5 - 1e-9, axis=-1)
        return self.left[at], self.right[at]


def npmle(times: Times, weights: np.ndarray | None = None) -> Distribution:
    """Turnbull's maximum likelihood by self-consistency (EM). `weights` [..., S]: of the seeds, as in a bootstrap; by default 1 each."""
    weights = np.ones(times.n) if weights is None else np.asarray(weights, dtype=np.float64)
    # A bound is (step, after it?): (left, right] begins after left and ends after right, an exact time begins before itself.
    begin = list(zip(times.left, times.left < times.right, strict=True))
    end = [(step, True) for step in times.right]
    bounds = sorted(set(begin + end))
    first, last = (np.array([bounds.index(bound) for bound in side]) for side in (begin, end))
    # Only where some seed's interval begins and, next, one ends, can the likelihood want any probability.
    cells = np.array([j for j in range(len(bounds) - 1) if j in first and j + 1 in last])
    member = ((first[:, None] <= cells) & (cells < last[:, None])).astype(np.float64)  # [S, J]
    share = weights / weights.sum(axis=-1, keepdims=True)
    mass = np.full((*share.shape[:-1], cells.size), 1.0 / cells.size)
    for _ in range(STEPS):
        covered = mass @ member.T
        update = mass * ((share / np.where(covered > 0, covered, 1.0)) @ member)
        change = np.abs(update - mass).max()
        mass = update
        if change < TOLERANCE:
            break
    step = np.array([bound[0] for bound in bounds])
    return Distribution(step[cells], step[cells + 1], mass / mass.sum(axis=-1, keepdims=True))


def pseudo_values(times: Times, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """Every seed's part in the restricted mean, at least and at most: n mean - (n - 1) mean without it (Andersen et al., 2003). [S] each.

    With one grid for all seeds and no run ending early these are min(left, horizon) and min(right, horizon) themselves.
    """
    n = times.n
    everyone = npmle(times).mean(horizon)
    if n == 1:
        return np.atleast_1d(everyone[0]), np.atleast_1d(everyone[1])
    without = npmle(times, 1.0 - np.eye(n)).mean(horizon)
    low, high = (n * whole - (n - 1) * part for whole, part in zip(everyone, without, strict=True))
    return low, high


def outer_mean(low: np.ndarray, high: np.ndarray, kind: str = "log t", axis: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """Mean of times known to lie between `low` and `high` (seeds on `axis`), with the lower limit of `low` and the upper one of `high`.

    The estimate takes times as spread evenly in their intervals. `kind`: "t" or "log t", Student's t for the mean or for its logarithm.
    """
    below, above = (intervals.interval(side, "mean", "t", axis, confidence) for side in (low, high))
    bottom, top = below.low, above.high
    if kind != "t":
        bottom, top = _log_limit(below.estimate, below.low - below.estimate), _log_limit(above.estimate, above.high - above.estimate)
    return Interval((below.estimate + above.estimate) / 2, bottom, top, below.n, kind)


def _log_limit(mean: np.ndarray, half: np.ndarray) -> np.ndarray:
    """mean exp(half / mean); a mean of 0 is that of seeds that are all 0."""
    positive = mean > 0
    with np.errstate(over="ignore"):
        return np.where(positive, mean * np.exp(half / np.where(positive, mean, 1.0)), 0.0 * half)[()]


def outer_ratio(
    slow: tuple[np.ndarray, np.ndarray],
    fast: tuple[np.ndarray, np.ndarray],
    kind: str = comparisons.RATIO,
    axis: int = 0,
    confidence: float = CONFIDENCE,
    rng: np.random.Generator | int = 0,
) -> Interval:
    """Mean of `slow` over mean of `fast`, each (at least, at most): the lower limit is that of the least over the most, the upper one that
    of the most over the least.

    0 and infinity where an end of the grid's interval is 0: a policy that is there at the first evaluation may have been there at once.
    """
    rng = np.random.default_rng(rng)
    low = comparisons.ratio(slow[0], fast[1], kind, axis, confidence, rng)
    high = comparisons.ratio(slow[1], fast[0], kind, axis, confidence, rng)
    middle = comparisons.ratio(slow[0] + slow[1], fast[0] + fast[1], kind, axis, confidence, rng).estimate
    bottom = np.where(np.isnan(low.estimate), 0.0, low.low)
    top = np.where(np.isnan(high.estimate), np.inf, high.high)
    known = (low.n > 1) & np.isfinite(middle)
    return Interval(middle, np.where(known, bottom, np.nan)[()], np.where(known, top, np.nan)[()], low.n, kind)


@dataclass(frozen=True)
class TimeSummary:
    """Times of one agent. Where a seed never got there, `mean` is of the times up to `horizon`, and so at most the mean of all times."""

    n: int
    reached: int
    horizon: float
    mean: Interval
    span: tuple[float, float]  # the mean, as far as the grid leaves it open: at least and at most, without any sampling error
    median: tuple[float, float]  # lies in (low, high]; high is inf if fewer than half got there
    median_limits: tuple[float, float]  # percentile bootstrap, from `intervals.FEW` seeds on
    earliest: float  # no seed got there before or at this step

    @property
    def complete(self) -> bool:
        """Whether every seed got there by the horizon: only then is the restricted mean the mean."""
        return self.n > 0 and self.reached == self.n

    @property
    def note(self) -> str:
        """What a reader must know: "no data", "one seed: no interval", "all seeds between the same two evaluations", or ""."""
        if not self.n or not np.isfinite(self.horizon):
            return "no data"
        if self.n == 1:
            return "one seed: no interval"
        same = np.isclose(self.mean.low, self.span[0]) and np.isclose(self.mean.high, self.span[1])
        return "all seeds between the same two evaluations" if same and self.reached else ""

    @property
    def text(self) -> str:
        """`1,740 [1,200, 2,530]`, `>=2,900 (4 of 6)` where seeds are missing, `>4,000 (0 of 6)`, `-` without an evaluation."""
        if self.note == "no data":
            return "-"
        if not self.reached:
            return f">{self.earliest:,.0f} (0 of {self.n})"
        if not self.complete:
            return f">={self.mean.estimate:,.0f} ({self.reached} of {self.n})"
        bounds = "one seed" if self.n == 1 else f"{self.mean.low:,.0f}, {self.mean.high:,.0f}"
        return f"{self.mean.estimate:,.0f} [{bounds}]"


def summarise(
    times: Times, horizon: float | None = None, confidence: float = CONFIDENCE, rng: np.random.Generator | int = 0
) -> TimeSummary:
    """Restricted mean and median time of one agent, with limits; `horizon` is that of the times unless given."""
    horizon = times.horizon if horizon is None else min(horizon, times.horizon)
    reached = int((times.right <= horizon).sum())
    if not times.n or not np.isfinite(horizon):
        empty = (np.nan, np.nan)
        return TimeSummary(times.n, 0, np.nan, Interval(*np.full((3, 1), np.nan), np.array(0)), empty, empty, empty, np.nan)
    low, high = pseudo_values(times, horizon)
    whole = npmle(times)
    limits = (np.nan, np.nan)
    if times.n >= intervals.FEW:
        weights = np.random.default_rng(rng).multinomial(times.n, np.full(times.n, 1 / times.n), RESAMPLES)
        left, right = npmle(times, weights).median()
        tail = 0.5 - confidence / 2
        limits = tuple(float(np.quantile(side, q, method="inverted_cdf")) for side, q in ((left, tail), (right, 1 - tail)))
    return TimeSummary(
        n=times.n,
        reached=reached,
        horizon=horizon,
        mean=outer_mean(low, high, confidence=confidence),
        span=tuple(float(side) for side in whole.mean(horizon)),
        median=tuple(float(side) for side in whole.median()),
        median_limits=limits,
        earliest=float(times.left.min()),
    )


@dataclass(frozen=True)
class Ratio:
    """How many times as long one agent takes as another: `slow` over `fast`, of mean times up to a common horizon."""

    interval: Interval
    horizon: float
    slow: tuple[int, int]  # (seeds that got there by the horizon, seeds)
    fast: tuple[int, int]
    flat: bool = False  # each agent's seeds all between the same two evaluations: the interval is that of the grid alone

    @property
    def bound(self) -> str:
        """What the ratio of the restricted means is of the ratio of all times: "exact", "at least", "at most", or "restricted" where both
        agents have seeds that never got there; "none" where no seed of either got there, or there is nothing to compare."""
        if not (self.slow[0] or self.fast[0]) or not np.isfinite(self.interval.estimate):
            return "none"
        slow, fast = self.slow[0] == self.slow[1], self.fast[0] == self.fast[1]
        return "exact" if slow and fast else "at least" if fast else "at most" if slow else "restricted"

    @property
    def separable(self) -> bool:
        """Whether the interval, as far as it holds for all times, leaves out 1."""
        low = self.interval.low > 1 and self.bound in ("exact", "at least", "restricted")
        return bool(low or (self.interval.high < 1 and self.bound in ("exact", "at most", "restricted")))

    @property
    def text(self) -> str:
        """`2.31x [1.52, 3.60]`; `at least 1.80x [1.31, ...]` where the slower agent has seeds that never got there; see `bound`."""
        if self.bound == "none":
            return "no statement: neither got there" if np.isfinite(self.horizon) else "-"
        middle, low, high = map(_factor, (self.interval.estimate, self.interval.low, self.interval.high))
        shown = {"at least": f"[{low}, ...]", "at most": f"[..., {high}]"}.get(self.bound, f"[{low}, {high}]")
        if self.interval.n < 2:
            shown = "[one seed]"
        head = f"{self.bound} " if self.bound in ("at least", "at most") else ""
        counts = f"{self.slow[0]} of {self.slow[1]} and {self.fast[0]} of {self.fast[1]} seeds get there"
        tail = f" over the first {self.horizon:,.0f}, where {counts}" if self.bound == "restricted" else ""
        return f"{head}{middle}x {shown}{tail}" + (" (no spread between seeds)" if self.flat else "")


def _factor(value: float) -> str:
    """`2.31`, `14`, `1.2e+06`: intervals of three seeds can be that wide."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}" if value < 1e4 else f"{value:.1e}"


def ratio(slow: Times, fast: Times, confidence: float = CONFIDENCE) -> Ratio:
    """Mean time of `slow` over that of `fast`, both up to the smaller of their horizons: above 1, `fast` is that many times faster.

    Seeds that never got there count as the horizon, which makes the ratio a bound in a known direction: `Ratio.bound`.
    """
    horizon = min(slow.horizon, fast.horizon) if np.isfinite([slow.horizon, fast.horizon]).all() else np.nan
    counts = [(int((times.right <= horizon).sum()), times.n) for times in (slow, fast)]
    if not (slow.n and fast.n and np.isfinite(horizon)):
        return Ratio(Interval(*np.full((3, 1), np.nan), np.array(0)), np.nan, *counts)
    parts = [pseudo_values(times, horizon) for times in (slow, fast)]
    interval = outer_ratio(*parts, confidence=confidence)
    flat = interval.n > 1 and all(np.ptp(ends) <= 1e-6 * horizon for part in parts for ends in part)
    return Ratio(interval, horizon, *counts, bool(flat))
