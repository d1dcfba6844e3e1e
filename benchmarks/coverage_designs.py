"""What the coverage of intervals is simulated on: distributions of scores and of times over seeds, with their true values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

EPISODES = 32
EVALUATIONS = 20  # per run, one per unit of time; the last one confirms, so that times are known up to HORIZON
HORIZON = EVALUATIONS - 1.0
LEVEL, STEEPNESS = 0.8, 1.0  # the threshold, and how many units of time a success rate takes to rise


@dataclass(frozen=True)
class Normal:
    """Normal scores."""

    mean: float
    deviation: float

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Seeds' scores."""
        return rng.normal(self.mean, self.deviation, shape)

    def quantity(self, name: str) -> float:
        """Mean, median and IQM are one number."""
        return self.mean

    def above(self, threshold: float) -> float:
        """Chance of a score above the threshold."""
        return float(stats.norm.sf(threshold, self.mean, self.deviation))

    def lack(self, target: float) -> float:
        """Optimality gap: mean of what a score lacks of the target."""
        z = (target - self.mean) / self.deviation
        return float(self.deviation * (z * stats.norm.cdf(z) + stats.norm.pdf(z)))


@dataclass(frozen=True)
class Discrete:
    """Scores of finitely many values, in increasing order."""

    values: np.ndarray
    chances: np.ndarray

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Seeds' scores."""
        upper = np.cumsum(self.chances)
        return self.values[np.minimum(np.searchsorted(upper, rng.random(shape), side="right"), self.values.size - 1)]

    def quantity(self, name: str) -> float:
        """True mean, median (the smallest value that half of the seeds do not exceed) or IQM (of the quantiles between 1/4 and 3/4)."""
        upper = np.cumsum(self.chances)
        if name == "mean":
            return float(self.values @ self.chances)
        if name == "median":
            return float(self.values[np.argmax(upper >= 0.5 - 1e-12)])
        inside = np.clip(np.minimum(upper, 0.75) - np.maximum(upper - self.chances, 0.25), 0.0, None)
        return float(self.values @ inside / 0.5)

    def above(self, threshold: float) -> float:
        """Chance of a score above the threshold."""
        return float(self.chances[self.values > threshold].sum())

    def lack(self, target: float) -> float:
        """Optimality gap: mean of what a score lacks of the target."""
        return float(self.chances @ np.maximum(target - self.values, 0.0))


def success(mean: float, concentration: float = 3.0) -> Discrete:
    """Success rates of 32 episodes: every seed's own chance of success is beta distributed, its standard deviation 0.2 for a mean of 0.8."""
    chances = stats.betabinom.pmf(np.arange(EPISODES + 1), EPISODES, mean * concentration, (1 - mean) * concentration)
    return Discrete(np.arange(EPISODES + 1) / EPISODES, chances)


def solves(chance: float) -> Discrete:
    """Seeds that solve the task (1) or do not (0)."""
    return Discrete(np.array([0.0, 1.0]), np.array([1 - chance, chance]))


def gap(x: Normal | Discrete, y: Normal | Discrete) -> Normal | Discrete:
    """The distribution of a seed of x minus one of y, independent."""
    if isinstance(x, Normal):
        return Normal(x.mean - y.mean, float(np.hypot(x.deviation, y.deviation)))
    values, place = np.unique(np.subtract.outer(x.values, y.values).round(12), return_inverse=True)
    return Discrete(values, np.bincount(place.ravel(), np.outer(x.chances, y.chances).ravel()))


def better(x: Normal | Discrete, y: Normal | Discrete) -> float:
    """Probability that a seed of x ends above one of y, ties counting half."""
    difference = gap(x, y)
    if isinstance(difference, Normal):
        return float(stats.norm.cdf(difference.mean / difference.deviation))
    return float(difference.chances @ ((difference.values > 0) + 0.5 * (difference.values == 0)))


def mixture(parts: Sequence[Normal | Discrete]) -> Normal | Discrete:
    """Seeds of several tasks together, for the true IQM over them: of normals, a stand-in with the IQM of a symmetric mixture."""
    if isinstance(parts[0], Normal):
        return Normal(float(np.mean([part.mean for part in parts])), np.nan)
    return Discrete(parts[0].values, np.mean([part.chances for part in parts], axis=0))


ONE = {"normal": Normal(0.6, 0.2), "success": success(0.8), "solve 0.8": solves(0.8), "solve 0.6": solves(0.6)}
TWO = {
    "normal": (Normal(0.6, 0.2), Normal(0.4, 0.1)),
    "success": (success(0.8), success(0.5)),
    "solve": (solves(0.8), solves(0.4)),
}


def tasks(design: str, count: int) -> list[Normal | Discrete]:
    """Tasks of one agent, from hard (0.3) to easy (0.9), symmetric about 0.6."""
    make = {"normal": lambda mean: Normal(mean, 0.15), "success": success, "solve": solves}[design]
    return [make(float(mean)) for mean in np.linspace(0.3, 0.9, count)]


@dataclass(frozen=True)
class Arrival:
    """Times to a threshold: log-normal, for the share of seeds that ever get there."""

    median: float
    share: float = 1.0
    spread: float = 0.4  # of the logarithm
    noisy: bool = False  # evaluations of 32 episodes instead of exact ones

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """(left, right] as the evaluations bracket the times, right inf for a seed that never got there."""
        times = np.exp(rng.normal(np.log(self.median), self.spread, shape))
        times = np.where(rng.random(shape) < self.share, times, np.inf)
        return brackets(evaluations(times, rng) if self.noisy else times[..., None] <= np.arange(EVALUATIONS + 1))

    def mean(self) -> float:
        """True mean of the times up to the horizon."""
        mu, top = np.log(self.median), np.log(HORIZON)
        below = np.exp(mu + self.spread**2 / 2) * stats.norm.cdf((top - mu - self.spread**2) / self.spread)
        return float(self.share * (below + HORIZON * stats.norm.sf((top - mu) / self.spread)) + (1 - self.share) * HORIZON)

    def middle(self) -> float:
        """True median time."""
        return float(np.exp(np.log(self.median) + self.spread * stats.norm.ppf(0.5 / self.share)))


def evaluations(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether success rates of 32 episodes are at the threshold, [..., evaluation], where the true rate passes it at `times`."""
    middle = times - STEEPNESS * np.log(LEVEL / (1 - LEVEL))
    rate = 1 / (1 + np.exp(-(np.arange(EVALUATIONS + 1) - middle[..., None]) / STEEPNESS))
    return rng.binomial(EPISODES, rate) / EPISODES >= LEVEL


def brackets(above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`efficiency.times_to` for evaluations [..., step] at 0, 1, 2, ...: (left, right), of two in a row."""
    twice = above[..., :-1] & above[..., 1:]
    first, there = twice.argmax(axis=-1), twice.any(axis=-1)
    last = above.shape[-1] - 1
    left = np.where(there, np.maximum(first - 1, 0), np.where(above[..., -1], last - 1, last))
    return left.astype(np.float64), np.where(there, first, np.inf)


TIMES = {
    "exact": (Arrival(12.0), Arrival(6.0)),
    "episodes": (Arrival(12.0, noisy=True), Arrival(6.0, noisy=True)),
    "solve": (Arrival(12.0, share=0.6), Arrival(6.0, share=0.8)),
}
