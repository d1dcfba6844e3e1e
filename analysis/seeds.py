"""How many seeds are enough: how wide an interval is with n seeds, and how many it takes to tell two agents apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.comparisons import difference
from analysis.intervals import interval
from analysis.statistics import CONFIDENCE, mean_interval

POWER = 0.8
MOST = 10_000  # seeds; needing more is reported as inf


def widths(
    values: ArrayLike,
    counts: Sequence[int],
    quantity: str = "mean",
    samples: int = 400,
    confidence: float = CONFIDENCE,
    rng: np.random.Generator | int = 0,
) -> np.ndarray:
    """Mean width of the default interval with each number of seeds in `counts`, by resampling the seeds there are: [counts].

    Resampled deviations are inflated by sqrt(n / (n - 1)), since n seeds vary less among themselves than new ones would. NaN with fewer than
    two seeds. Extrapolation beyond the seeds there are takes their spread for the true one.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size < 2:
        return np.full(len(counts), np.nan)
    spread = values.mean() + np.sqrt(values.size / (values.size - 1)) * (values - values.mean())
    rng = np.random.default_rng(rng)
    found = [interval(rng.choice(spread, (n, samples)), quantity, confidence=confidence, rng=rng) for n in counts]
    return np.array([(one.high - one.low).mean() for one in found])


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds per agent after which an interval is expected to leave out 0 with probability `power`; inf beyond `MOST`.

    `estimate` takes the measured difference for the true one. That is itself uncertain: `fewest` takes the far limit of its interval,
    `most` the near one, inf where the interval includes 0.
    """

    estimate: float
    fewest: float
    most: float
    have: int
    power: float

    @property
    def text(self) -> str:
        """`12 seeds (6 to more than 10,000)`."""
        shown = lambda n: f"{n:,.0f}" if np.isfinite(n) else f"more than {MOST:,}"
        return f"{shown(self.estimate)} seeds ({shown(self.fewest)} to {shown(self.most)})"


def power_of(effect: ArrayLike, n: ArrayLike, freedom: ArrayLike, confidence: float = CONFIDENCE) -> np.ndarray:
    """Probability that a two-sided t interval leaves out 0: noncentral t with noncentrality `effect` sqrt(n)."""
    shift = np.abs(effect) * np.sqrt(n)
    bound = stats.t.ppf(0.5 + confidence / 2, freedom)
    return np.nan_to_num(stats.nct.sf(bound, freedom, shift), nan=1.0) + np.nan_to_num(stats.nct.cdf(-bound, freedom, shift))


def _needed(effect: float, freedom_per_seed: float, power: float, confidence: float) -> float:
    """Smallest n >= 2 of that power, by bisection: power grows with n."""
    if not np.isfinite(effect) or effect == 0:
        return np.inf
    enough = lambda n: power_of(effect, n, freedom_per_seed * (n - 1), confidence) >= power
    low, high = 1, 2
    while not enough(high):
        if high >= MOST:
            return np.inf
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(high)


def to_separate(differences: ArrayLike, power: float = POWER, confidence: float = CONFIDENCE) -> SeedsNeeded | None:
    """Seeds needed to tell two agents apart by the paired t interval, from their differences over shared seeds [S].

    None with fewer than two seeds, and where all differences are equal: there is no spread to plan with.
    """
    gaps = np.asarray(differences, dtype=np.float64)
    gaps = gaps[np.isfinite(gaps)]
    if gaps.size < 2 or gaps.std(ddof=1) <= 1e-12:
        return None
    found = mean_interval(gaps, confidence=confidence)
    return plan(found.estimate, found.low, found.high, gaps.std(ddof=1), 1.0, gaps.size, power, confidence)


def to_separate_unpaired(x: ArrayLike, y: ArrayLike, power: float = POWER, confidence: float = CONFIDENCE) -> SeedsNeeded | None:
    """The same for Welch's interval of two independent samples, with equal numbers of further seeds; None as for `to_separate`."""
    x, y = (np.asarray(side, dtype=np.float64) for side in (x, y))
    x, y = x[np.isfinite(x)], y[np.isfinite(y)]
    if min(x.size, y.size) < 2 or max(np.ptp(x), np.ptp(y)) <= 1e-12:
        return None
    a, b = x.var(ddof=1), y.var(ddof=1)
    found = difference(x, y, confidence=confidence)
    freedom = (a + b) ** 2 / (a**2 + b**2)  # Satterthwaite's, per n - 1
    return plan(found.estimate, found.low, found.high, np.sqrt(a + b), freedom, min(x.size, y.size), power, confidence)


def plan(
    gap: float,
    low: float,
    high: float,
    spread: float,
    freedom: float,
    have: int,
    power: float = POWER,
    confidence: float = CONFIDENCE,
) -> SeedsNeeded:
    """Seeds needed for a t interval of `gap`, whose limits are now `low` and `high` with `have` seeds.

    n seeds give it the standard error spread / sqrt(n) and freedom (n - 1) degrees of freedom.
    """
    far = max(abs(low), abs(high))
    near = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    numbers = [_needed(float(size) / spread, freedom, power, confidence) for size in (gap, far, near)]
    return SeedsNeeded(*numbers, have, power)
