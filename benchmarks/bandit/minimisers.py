"""What a sampler draws when nothing is learnt: the noise or velocity that minimises a loss, in closed form, in the suite's own samplers.

A mixture of Gaussians stays one when noise is added, so that its score at every noise level is known. What is left between these samples and
the density that a method claims is the method's own: its objective and its number of steps.
"""

from __future__ import annotations

from collections.abc import Callable

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


def diffuse(epsilon: Callable, schedule: diffusion.Schedule, sampler: Callable, count: int, seed: int = 0) -> np.ndarray:
    """[count, D] by a sampler of parts/diffusion.py."""
    noise = jax.random.normal(jax.random.key(seed), (len(schedule.beta) + 1, count, densities.DIMENSIONS))
    return np.asarray(jax.jit(lambda x, z: sampler(epsilon, schedule, x, z))(noise[0], noise[1:]))


def integrate(velocity: Callable, steps: int, count: int, seed: int = 0) -> np.ndarray:
    """[count, D] by a flow's Euler steps."""
    noise = jax.random.normal(jax.random.key(seed), (count, densities.DIMENSIONS))
    return np.asarray(jax.jit(lambda x: flow.sample(velocity, x, steps))(noise))
