"""Denoising diffusion (DDPM) of actions: schedule, imitation loss, ancestral sampler (Ho et al. 2020, as IDQL and EXPO released it), and the
sampler without noise (DDIM, Song et al. 2021, as FASTER released it).

The network comes in as a function `epsilon(noisy, t)`; everything random comes in as an argument. T denoising steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Schedule(NamedTuple):
    """Variance-preserving schedule, each [T] float32; index 0 is t = 1."""

    beta: jax.Array  #       noise added in a step: sigma_t^2
    alpha: jax.Array  #      1 - beta
    alpha_hat: jax.Array  #  running product of alpha


def vp_schedule(steps: int, b_min: float = 0.1, b_max: float = 10.0) -> Schedule:
    """alpha_t = exp(-b_min / T - (b_max - b_min) (2t - 1) / (2 T^2)), t = 1..T (Xiao et al. 2022)."""
    t = np.arange(1, steps + 1)
    alpha = np.exp(-b_min / steps - (b_max - b_min) * (2 * t - 1) / (2 * steps**2))
    return Schedule(*(jnp.asarray(v, jnp.float32) for v in (1 - alpha, alpha, np.cumprod(alpha))))


def cosine_schedule(steps: int, offset: float = 0.008) -> Schedule:
    """alpha_hat_t proportional to cos^2(pi / 2 (t / T + s) / (1 + s)), beta cut at 0.999 (Nichol and Dhariwal 2021)."""
    level = np.cos(np.pi / 2 * (np.arange(steps + 1) / steps + offset) / (1 + offset)) ** 2
    alpha = 1 - np.minimum(1 - level[1:] / level[:-1], 0.999)
    return Schedule(*(jnp.asarray(v, jnp.float32) for v in (1 - alpha, alpha, np.cumprod(alpha))))


SCHEDULES = {"vp": vp_schedule, "cosine": cosine_schedule}


def noised(schedule: Schedule, action: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """sqrt(alpha_hat_t) a + sqrt(1 - alpha_hat_t) noise for action, noise [..., A] and step index t [...]."""
    alpha_hat = schedule.alpha_hat[t][..., None]
    return jnp.sqrt(alpha_hat) * action + jnp.sqrt(1 - alpha_hat) * noise


def imitation_loss(
    epsilon: Callable, schedule: Schedule, action: jax.Array, noise: jax.Array, t: jax.Array, weight: jax.Array | None = None
) -> jax.Array:
    """mean over rows of sum over action dimensions of weight (epsilon(a_t, t) - noise)^2 -> scalar; weight [..., A], None: 1."""
    error = (epsilon(noised(schedule, action, noise, t), t) - noise) ** 2
    return jnp.mean(jnp.sum(error if weight is None else weight * error, axis=-1))


def sample(epsilon: Callable, schedule: Schedule, x_init: jax.Array, step_noise: jax.Array) -> jax.Array:
    """Ancestral sampling from x_init [..., A] with step_noise [T, ..., A] -> actions [..., A] in [-1, 1].

    Executed from time T - 1 down to 0, clipped to [-1, 1] after every step, no noise at time 0. `epsilon(noisy, t)` gets a scalar t.
    """

    def denoise(x: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        t, noise = inputs
        beta, alpha, alpha_hat = (v[t] for v in schedule)
        mean = (x - beta / jnp.sqrt(1 - alpha_hat) * epsilon(x, t)) / jnp.sqrt(alpha)
        return jnp.clip(mean + jnp.where(t > 0, jnp.sqrt(beta), 0.0) * noise, -1.0, 1.0), None

    steps = len(schedule.beta)
    return jax.lax.scan(denoise, x_init, (jnp.arange(steps - 1, -1, -1), step_noise))[0]


def start_of(schedule: Schedule, x: jax.Array, epsilon: jax.Array, t: jax.Array) -> jax.Array:
    """The action that x = a_t [..., A] and the noise in it stand for, (x - sqrt(1 - alpha_hat_t) epsilon) / sqrt(alpha_hat_t)."""
    alpha_hat = schedule.alpha_hat[t][..., None]
    return (x - jnp.sqrt(1 - alpha_hat) * epsilon) * (1 / jnp.sqrt(alpha_hat))  # not a division of x, see optim.adam


def sample_posterior(
    epsilon: Callable, schedule: Schedule, x_init: jax.Array, step_noise: jax.Array, beta_noise: bool = False
) -> jax.Array:
    """Ancestral sampling from q(a_{t-1} | a_t, a_0) with a_0 clipped to [-1, 1] (Ho et al. 2020, eq. 7), as Diffusion-QL, DIPO and QVPO released it.

    Shapes as in `sample`; smooth in `epsilon` wherever a_0 is not clipped, and clipped at the end. `beta_noise`: the variance of a step is
    beta_t instead of the posterior's beta_t (1 - alpha_hat_{t-1}) / (1 - alpha_hat_t), the larger of Ho et al.'s two choices (DAC).
    """
    before = jnp.concatenate([jnp.ones(1, schedule.alpha_hat.dtype), schedule.alpha_hat[:-1]])

    def denoise(x: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        t, noise = inputs
        beta, alpha, alpha_hat = (v[t] for v in schedule)
        start = jnp.clip(start_of(schedule, x, epsilon(x, t), t), -1.0, 1.0)
        of_start, of_x = (w / (1 - alpha_hat) for w in (jnp.sqrt(before[t]) * beta, jnp.sqrt(alpha) * (1 - before[t])))
        mean = of_start * start + of_x * x
        variance = jnp.where(t > 0, beta, 0.0) if beta_noise else beta * (1 - before[t]) / (1 - alpha_hat)  # 0 at time 0
        return mean + jnp.sqrt(variance) * noise, None

    steps = len(schedule.beta)
    x, _ = jax.lax.scan(denoise, x_init, (jnp.arange(steps - 1, -1, -1), step_noise))
    return jnp.clip(x, -1.0, 1.0)


def sample_ddim(epsilon: Callable, schedule: Schedule, x_init: jax.Array) -> jax.Array:
    """The deterministic sampler (Song et al., arXiv 2010.02502, eq. 12 with sigma = 0) from x_init [..., A] -> actions [..., A] in [-1, 1].

    x_{t-1} = sqrt(alpha_hat_{t-1}) x_0 + sqrt(1 - alpha_hat_{t-1}) epsilon(x_t, t) with the x_0 that epsilon stands for and alpha_hat_0 = 1;
    clipped to [-1, 1] after every step, all T steps of the schedule.
    """
    before = jnp.concatenate([jnp.ones(1, schedule.alpha_hat.dtype), schedule.alpha_hat[:-1]])

    def denoise(x: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        noise = epsilon(x, t)
        x_0 = start_of(schedule, x, noise, t)
        return jnp.clip(jnp.sqrt(before[t]) * x_0 + jnp.sqrt(1 - before[t]) * noise, -1.0, 1.0), None

    return jax.lax.scan(denoise, x_init, jnp.arange(len(schedule.beta) - 1, -1, -1))[0]
