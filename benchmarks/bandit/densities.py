"""The bandit in closed form: behaviour, reward, and what tilting the one by the other gives; and the distance of samples from a density.

Behaviour is an equal mixture of two Gaussians. The reward is a soft maximum of two paraboloids, the hills, of heights 0 and
temperature log(lesser), each above one of the Gaussians:

    r(a) = temperature log sum_j h_j exp(-|a - c_j|^2 / 2 w^2),

so that exp(r / temperature) is a mixture too, and so is behaviour(a) exp(r(a) / temperature): of all products of a Gaussian and a hill.
Shape letters: K components, D dimensions (2), G cells along one side of the grid.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

DIMENSIONS = 2
TEMPERATURE = 1.0
CELLS = 20  # G: cells of 0.1, two thirds of a mode's standard deviation


class Mixture(NamedTuple):
    """Isotropic Gaussians."""

    weights: np.ndarray  #     [K], of sum 1
    means: np.ndarray  #       [K, D]
    deviations: np.ndarray  #  [K]


BEHAVIOUR = Mixture(np.array([0.5, 0.5]), np.array([[-0.45, -0.2], [0.45, -0.2]]), np.array([0.15, 0.15]))
# Beside and above the modes of behaviour: what is best lies off the middle of the data, within their reach.
HILLS = Mixture(np.array([0.2, 0.8]), np.array([[-0.45, 0.2], [0.45, 0.2]]), np.array([0.35, 0.35]))
BETTER = 1  # the mode of behaviour that the reward prefers


def log_density(mixture: Mixture, action: Any) -> Any:
    """log p(a) of action [..., D] -> [...]; numpy in, numpy out, and jax alike."""
    xp = jnp if isinstance(action, jax.Array) else np
    weights, means, deviations = (xp.asarray(x, action.dtype) for x in mixture)
    distance = xp.sum((action[..., None, :] - means) ** 2, axis=-1)
    parts = xp.log(weights) - distance / (2 * deviations**2) - DIMENSIONS * xp.log(deviations * np.sqrt(2 * np.pi))
    top = xp.max(parts, axis=-1)
    return top + xp.log(xp.sum(xp.exp(parts - top[..., None]), axis=-1))


def reward(action: Any) -> Any:
    """r(a) of action [..., D] -> [...]: 0 on top of the better hill, but for the other one's share of e^-10."""
    scale = np.log(HILLS.weights[BETTER]) - DIMENSIONS * np.log(HILLS.deviations[BETTER] * np.sqrt(2 * np.pi))
    return TEMPERATURE * (log_density(HILLS, action) - scale)


def product(p: Mixture, q: Mixture) -> Mixture:
    """p(a) q(a), normalised: K_p K_q components.

    N(a; m, s^2) N(a; c, w^2) is N(m; c, s^2 + w^2) times a Gaussian of mean (w^2 m + s^2 c) / (s^2 + w^2) and variance s^2 w^2 / (s^2 + w^2).
    """
    s2, w2 = p.deviations[:, None] ** 2, q.deviations[None] ** 2
    m, c = p.means[:, None], q.means[None]
    both = s2 + w2
    mass = p.weights[:, None] * q.weights * np.exp(-np.sum((m - c) ** 2, axis=-1) / (2 * both)) / both ** (DIMENSIONS / 2)
    means = (w2[..., None] * m + s2[..., None] * c) / both[..., None]
    return Mixture((mass / mass.sum()).ravel(), means.reshape(-1, DIMENSIONS), np.sqrt(s2 * w2 / both).ravel())


TILTED = product(BEHAVIOUR, HILLS)  # behaviour exp(r / temperature), normalised


def matched(mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviations [D] of a mixture: of all Gaussians with a diagonal covariance, the one that its likelihood prefers."""
    mean = mixture.weights @ mixture.means
    spread = mixture.weights @ (mixture.deviations[:, None] ** 2 + mixture.means**2) - mean**2
    return mean, np.sqrt(spread)


def draw(mixture: Mixture, pick: jax.Array, noise: jax.Array) -> jax.Array:
    """Samples [..., D] from uniform `pick` [...] and standard normal `noise` [..., D], in [-1, 1] as agents and environments have it."""
    component = jnp.searchsorted(jnp.cumsum(jnp.asarray(mixture.weights, jnp.float32))[:-1], pick, side="right")
    means, deviations = jnp.asarray(mixture.means, jnp.float32), jnp.asarray(mixture.deviations, jnp.float32)
    return jnp.clip(means[component] + deviations[component][..., None] * noise, -1.0, 1.0)


def sample(mixture: Mixture, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, D] of the mixture, clipped to [-1, 1]."""
    component = rng.choice(len(mixture.weights), count, p=mixture.weights)
    noise = rng.standard_normal((count, DIMENSIONS))
    return np.clip(mixture.means[component] + mixture.deviations[component, None] * noise, -1, 1)


# -- distance ------------------------------------------------------------------------------------------------------------------------------

EDGES = np.linspace(-1, 1, CELLS + 1)


def middles() -> np.ndarray:
    """The middle of every cell [G, G, D]."""
    middle = (EDGES[:-1] + EDGES[1:]) / 2
    return np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1)


def cells(mixture: Mixture) -> np.ndarray:
    """The probability of every cell of the grid on [-1, 1]^2 [G, G], exactly; what lies outside belongs to the cells at the edge."""
    return separable(mixture.weights, mixture.means, np.broadcast_to(mixture.deviations[:, None], mixture.means.shape))


def separable(weights: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """`cells` of Gaussians of weights [K], means and standard deviations along each axis [K, D]."""
    edges = np.concatenate([[-np.inf], EDGES[1:-1], [np.inf]])
    share = np.diff(special.ndtr((edges - means[..., None]) / deviations[..., None]), axis=-1)
    return np.einsum("k,kx,ky->xy", weights, share[:, 0], share[:, 1])


def within(mixture: Mixture) -> np.ndarray:
    """`cells` of the mixture cut off at the edge of [-1, 1]^2 and normalised."""
    share = np.diff(special.ndtr((EDGES - mixture.means[..., None]) / mixture.deviations[:, None, None]), axis=-1)
    mass = np.einsum("k,kx,ky->xy", mixture.weights, share[:, 0], share[:, 1])
    return mass / mass.sum()


def histogram(samples: np.ndarray) -> np.ndarray:
    """The share of samples [n, D] in every cell [G, G]."""
    inside = np.clip(samples, -1, 1)
    return np.histogram2d(inside[:, 0], inside[:, 1], bins=(EDGES, EDGES))[0] / len(samples)


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Half the sum of |p - q| over cells: the largest difference that any set of cells can show; 0 for equal, 1 for disjoint."""
    return 0.5 * float(np.abs(p - q).sum())


def noise_floor(target: np.ndarray, count: int, rng: np.random.Generator, repeats: int = 50) -> float:
    """The mean total variation of `count` exact samples from their own density, cells [G, G]."""
    drawn = rng.multinomial(count, target.ravel(), size=repeats) / count
    return float(np.mean(0.5 * np.abs(drawn - target.ravel()).sum(axis=1)))


def at_better(samples: np.ndarray) -> np.ndarray:
    """Which samples [..., D] are nearer to the better mode of behaviour than to the other -> bool [...]."""
    distance = np.sum((samples[..., None, :] - BEHAVIOUR.means) ** 2, axis=-1)
    return np.argmin(distance, axis=-1) == BETTER
