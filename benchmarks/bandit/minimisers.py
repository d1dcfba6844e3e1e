"""What a sampler draws when nothing is learnt: the noise or velocity that minimises a loss, in closed form, in the suite's own samplers.

A mixture of Gaussians stays one when noise is added, so that its score at every noise level is known. What is left between these samples and
the density that a method claims is the method's own: its objective and its number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bandit import densities
from benchmarks.bandit.densities import Mixture
from expo_bench.parts import diffusion, flow


def score(mixture: Mixture, x: jax.Array, scale: jax.Array, noise: jax.Array) -> jax.Array:
    """grad log density of scale a + noise z, a of the mixture and z standard normal, at x [..., D]; `scale`, `noise` scalars."""
    weights, means, deviations = (jnp.asarray(v, jnp.float32) for v in mixture)
    variance = (scale * deviations) ** 2 + noise**2  # [K]
    error = scale * means - x[..., None, :]  # [..., K, D]
    logits = jnp.log(weights) - jnp.sum(error**2, axis=-1) / (2 * variance) - densities.DIMENSIONS / 2 * jnp.log(variance)
    return jnp.sum(jax.nn.softmax(logits, axis=-1)[..., None] * error / variance[:, None], axis=-2)


def noise_of(mixture: Mixture, schedule: diffusion.Schedule) -> Callable:
    """epsilon(x, t) of a mixture: the mean of the noise in x = a_t."""

    def epsilon(x: jax.Array, t: jax.Array) -> jax.Array:
        level = schedule.alpha_hat[t]
        return -jnp.sqrt(1 - level) * score(mixture, x, jnp.sqrt(level), jnp.sqrt(1 - level))

    return epsilon


def velocity_of(mixture: Mixture) -> Callable:
    """v(x, t) = E[a - x_0 | x] of a mixture, x = (1 - t) x_0 + t a: (x + (1 - t) score) / t, and E[a] at t = 0."""
    mean = jnp.asarray(mixture.weights @ mixture.means, jnp.float32)

    def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
        t = jnp.asarray(t, jnp.float32)
        later = (x + (1 - t) * score(mixture, x, t, 1 - t)) / jnp.maximum(t, 1e-3)
        return jnp.where(t > 1e-3, later, mean - x)

    return velocity


def reward_gradient(action: jax.Array) -> jax.Array:
    """grad r at action [..., D]."""
    return jax.vmap(jax.grad(densities.reward))(action.reshape(-1, densities.DIMENSIONS)).reshape(action.shape)


# -- what each objective's minimum samples ------------------------------------------------------------------------------------------------


def guided(schedule: diffusion.Schedule, factor: Callable) -> Callable:
    """epsilon_b(x, t) - factor(alpha_hat_t) grad r(x) / temperature: DAC's minimum with the factor sqrt(1 - alpha_hat_t) (soft) or 1 (hard)."""
    behaviour = noise_of(densities.BEHAVIOUR, schedule)
    return lambda x, t: behaviour(x, t) - factor(schedule.alpha_hat[t]) * reward_gradient(x) / densities.TEMPERATURE


def matched(schedule: diffusion.Schedule, factor: Callable) -> Callable:
    """-factor(alpha_hat_t) grad r(x) / temperature: QSM's minimum with the factor 1; sqrt(1 - alpha_hat_t) turns a score into noise."""
    return lambda x, t: -factor(schedule.alpha_hat[t]) * reward_gradient(x) / densities.TEMPERATURE


def imitating(schedule: diffusion.Schedule, weight: float) -> Callable:
    """(c epsilon_b(x, t) - M_q grad r(x)) / (1 + c), the minimum of QSM with imitation of weight c and M_q = (1 + c) / temperature."""
    behaviour = noise_of(densities.BEHAVIOUR, schedule)
    return lambda x, t: weight / (1 + weight) * behaviour(x, t) - reward_gradient(x) / densities.TEMPERATURE


def diffuse(epsilon: Callable, schedule: diffusion.Schedule, sampler: Callable, draws: jax.Array) -> jax.Array:
    """[count, D] by a sampler of parts/diffusion.py; draws [T + 1, count, D]."""
    return sampler(epsilon, schedule, draws[0], draws[1:])


BC_WEIGHT = 10.0  # of QSM with imitation
one, root = lambda level: 1.0, lambda level: jnp.sqrt(1 - level)
TILTED, BEHAVIOUR = densities.TILTED, densities.BEHAVIOUR
released_dac = partial(diffusion.sample_posterior, beta_noise=True)


class Minimum(NamedTuple):
    claim: str  #       of methods.CLAIMS
    epsilon: Callable  # schedule -> epsilon(x, t)
    sampler: Callable


EPSILONS = {
    "behaviour": Minimum("behaviour", partial(noise_of, BEHAVIOUR), diffusion.sample),
    "b exp(Q)": Minimum("tilted", partial(noise_of, TILTED), diffusion.sample),
    "b exp(Q), DAC's sampler": Minimum("tilted", partial(noise_of, TILTED), released_dac),
    "dac": Minimum("tilted", partial(guided, factor=root), released_dac),
    "dac hard": Minimum("tilted", partial(guided, factor=one), released_dac),
    "qsm": Minimum("reward", partial(matched, factor=one), diffusion.sample),
    "qsm, its noise scaled by sqrt(1 - alpha_hat)": Minimum("reward", partial(matched, factor=root), diffusion.sample),
    "qsm, imitating too": Minimum("tempered", partial(imitating, weight=BC_WEIGHT), diffusion.sample),
}
FLOW, SOFTMAX = "b exp(Q), flow", "softmax of 16"


def samples(name: str, steps: int, count: int, seed: int) -> np.ndarray:
    """[count, D] of a case of EPSILONS or of FLOW, in T = `steps` steps, or of SOFTMAX."""
    if name == SOFTMAX:
        return best_of(16, count, np.random.default_rng(seed))
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(11), seed), (steps + 1, count, densities.DIMENSIONS))
    if name == FLOW:
        return np.asarray(jax.jit(lambda x: flow.sample(velocity_of(TILTED), x, steps))(noise[0]))
    _, epsilon_of, sampler = EPSILONS[name]
    schedule = diffusion.vp_schedule(steps)
    return np.asarray(jax.jit(lambda draws: diffuse(epsilon_of(schedule), schedule, sampler, draws))(noise))


def best_of(candidates: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, D], each one of so many samples of behaviour, by softmax of r / temperature."""
    drawn = densities.sample(BEHAVIOUR, count * candidates, rng).reshape(count, candidates, densities.DIMENSIONS)
    gumbel = rng.gumbel(size=(count, candidates))
    pick = np.argmax(densities.reward(drawn) / densities.TEMPERATURE + gumbel, axis=1)
    return drawn[np.arange(count), pick]
