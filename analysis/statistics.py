"""Statistics over seeds. A seed is the replicate: episodes of one evaluation are not, so nothing here ever sees an episode.

Every function takes NaN as "this seed has no value here", leaves it out, and reports in `n` how many seeds are left.
Intervals are never clipped: the t interval of a success rate may pass 1, which says that the normal approximation is strained there.
What else is known of an interval, its measured coverage above all, stands in docs/coverage.md.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95

METHODS = {  # what the kinds of intervals are called in a caption
    "t": "Student's t",
    "log t": "Student's t on the log scale",
    "percentile": "percentile bootstrap",
    "expanded": "percentile bootstrap at the levels of Student's t",
    "scaled": "Student's t with the standard error of a bootstrap",
    "bca": "BCa bootstrap",
    "studentised": "bootstrap-t",
    "order": "order statistics",
    "inflated": "bootstrap within tasks with small-sample corrections",
    "score": "Newcombe's score interval",
    "score t": "Newcombe's score interval with Student's quantile",
    "wilson": "Wilson's score interval",
    "clopper": "Clopper and Pearson's exact interval",
}


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence limits; floats, or arrays of one shape. `low` and `high` are NaN with fewer than two seeds."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray  # seeds; of two agents, those of the smaller group
    method: str = "t"  # the kind of limits; "a or b" where it depends on the number of seeds

    @property
    def mean(self) -> np.ndarray:
        """The estimate, by its name where it is a mean."""
        return self.estimate

    @property
    def described(self) -> str:
        """How the limits were made, for a caption."""
        return " or ".join(METHODS.get(kind, kind) for kind in self.method.split(" or "))

    @property
    def zero_width(self) -> np.ndarray:
        """True where two or more seeds all agree: the interval then has no width, and says nothing about a seed not yet run."""
        return (self.n > 1) & (self.high - self.low <= 1e-12)

    @property
    def excludes_zero(self) -> np.ndarray:
        """True where the whole interval lies on one side of 0."""
        return (self.low > 0) | (self.high < 0)

    @property
    def note(self) -> str:
        """What a reader must know of a single interval: "no data", "one seed: no interval", "all seeds equal", or ""."""
        if self.n == 0:
            return "no data"
        if self.n == 1:
            return "one seed: no interval"
        return "all seeds equal" if self.zero_width else ""


def mean_interval(values: ArrayLike, axis: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """Mean over seeds with Student's t interval, mean +- t_{n-1} s / sqrt(n); `axis` is the seeds, the others are kept.

    Student's t, because a percentile bootstrap of five seeds covers the mean in about 83 % of cases, not in 95 %.
    """
    values = np.asarray(values, dtype=np.float64)
    present = np.isfinite(values)
    n = present.sum(axis=axis)
    mean = np.where(present, values, 0.0).sum(axis=axis) / np.where(n > 0, n, np.nan)
    squares = np.where(present, values - np.expand_dims(mean, axis), 0.0) ** 2
    freedom = np.where(n > 1, n - 1, np.nan)
    half = stats.t.ppf(0.5 + confidence / 2, freedom) * np.sqrt(squares.sum(axis=axis) / freedom / np.maximum(n, 1))
    return Interval(mean, mean - half, mean + half, n)


# Mean, IQM and median are one family: the mean of the middle part of the ordered seeds, n/2 - h to n/2 + h, for these h.
HALF = {"mean": lambda n: n / 2, "iqm": lambda n: n / 4, "median": lambda n: 0.5 + 0 * n}


def order_weights(quantity: str, n: ArrayLike, size: int | None = None) -> np.ndarray:
    """Weights of the order statistics x_(1) <= ... <= x_(n) in a quantity of `HALF`: [..., size], 0 beyond n; n may be an array.

    The IQM is the mean of the middle half exactly: a seed that lies half inside counts half (Agarwal et al., 2021, for any n).
    """
    n = np.asarray(n, dtype=np.float64)[..., None]
    rank = np.arange(int(n.max(initial=0)) if size is None else size)
    half = HALF[quantity](n)
    inside = np.minimum(rank + 1, n / 2 + half) - np.maximum(rank, n / 2 - half)  # the part of [rank, rank + 1] in the middle
    return np.where(n > 0, np.clip(inside, 0.0, None) / np.where(n > 0, 2 * half, 1.0), 0.0)


def ordered_seeds(values: ArrayLike, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(values with the seeds last and in increasing order, what is not finite as NaN at the end; number of finite ones)."""
    values = np.moveaxis(np.asarray(values, dtype=np.float64), axis, -1)
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=-1)
    return ordered, np.isfinite(ordered).sum(axis=-1)


def estimate(values: ArrayLike, quantity: str = "mean", axis: int = 0) -> np.ndarray:
    """Mean, median or IQM over seeds ("mean", "median", "iqm"); NaN where no seed has a value."""
    ordered, n = ordered_seeds(values, axis)
    total = (order_weights(quantity, n, ordered.shape[-1]) * np.nan_to_num(ordered)).sum(axis=-1)
    return np.where(n > 0, total, np.nan)


def interquartile_mean(values: ArrayLike, axis: int = 0) -> np.ndarray:
    """Mean of the middle half of the seeds (Agarwal et al., 2021), exactly: a seed that lies half inside counts half.

    Equal to a 25 % trimmed mean where n is a multiple of 4. rliable drops floor(n/4) whole values at each end, which for 5 seeds is the
    middle 60 %; here it is 50 % for every n. NaN where no seed has a value.
    """
    return estimate(values, "iqm", axis)


def shortfall(values: ArrayLike, target: float = 1.0) -> np.ndarray:
    """What each seed lacks of `target`, 0 where it is reached; its mean is the optimality gap (Agarwal et al., 2021)."""
    return np.maximum(target - np.asarray(values, dtype=np.float64), 0.0)


def unseen_share(n: int, confidence: float = CONFIDENCE) -> float:
    """The largest share of seeds that could end otherwise although n seeds all ended alike: 1 - (1 - confidence)^(1/n), exact and one-sided."""
    return 1 - (1 - confidence) ** (1 / n)


def differences(
    reference: ArrayLike, reference_seeds: ArrayLike, other: ArrayLike, other_seeds: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Reference minus other, seed by seed, over the seeds that both have a value for: (differences[S], seeds[S])."""
    seeds, left, right = np.intersect1d(reference_seeds, other_seeds, assume_unique=True, return_indices=True)
    gap = np.asarray(reference, dtype=np.float64)[left] - np.asarray(other, dtype=np.float64)[right]
    shared = np.isfinite(gap)
    return gap[shared], seeds[shared]


def paired_difference(
    reference: ArrayLike, reference_seeds: ArrayLike, other: ArrayLike, other_seeds: ArrayLike, confidence: float = CONFIDENCE
) -> Interval:
    """t interval of the mean difference over shared seeds. Paired, because a seed gives every agent the same evaluation episodes."""
    return mean_interval(differences(reference, reference_seeds, other, other_seeds)[0], confidence=confidence)
