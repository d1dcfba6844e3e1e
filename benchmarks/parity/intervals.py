"""95 % intervals of paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

NORMAL = 1.959964  # the 97.5 % point of the standard normal distribution


def difference_of_rates(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high) of a - b for paired yes/no outcomes [n]: the score interval (Tango 1998, Statistics in Medicine 17:891), which is
    not empty where no pair differs: of 100 such pairs +-0.037."""
    n, gained, lost = len(a), int(np.sum(a & ~b)), int(np.sum(~a & b))

    def score(difference: float) -> float:
        middle = -gained - lost + (2 * n - gained + lost) * difference
        shared = (math.sqrt(middle**2 + 8 * n * lost * difference * (1 - difference)) - middle) / (4 * n)
        return (gained - lost - n * difference) / math.sqrt(max(n * (2 * shared + difference * (1 - difference)), 1e-12))

    mean = (gained - lost) / n
    low = _root(lambda d: score(d) - NORMAL, -1.0 + 1e-9, mean) if mean > -1 else -1.0
    high = _root(lambda d: score(d) + NORMAL, mean, 1.0 - 1e-9) if mean < 1 else 1.0
    return mean, low, high


def _root(decreasing: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if decreasing(middle) > 0 else (low, middle)
    return (low + high) / 2


def difference_of_means(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high) of a - b for paired numbers [n], by the normal approximation."""
    difference = a - b
    half = NORMAL * difference.std(ddof=1) / math.sqrt(len(difference))
    return float(difference.mean()), float(difference.mean() - half), float(difference.mean() + half)
