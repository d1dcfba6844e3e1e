"""Adjoint matching of a flow (Domingo-Enrich et al., arXiv 2409.08861), as QAM released it (Li and Levine, arXiv 2601.14234).

A flow of velocity v_slow, sampled with the memoryless noise sigma(t), is to be tilted by exp(-cost): v_fast learns the velocity whose
samples have density proportional to that of v_slow times exp(-cost(x_1)). No gradient runs through a chain of v_fast: along a chain of it
the lean adjoint goes backwards by vector-Jacobian products of the fixed v_slow, and v_fast regresses on it, step by step.

Velocities come in as functions `velocity(x, t)`, x [..., A], t [...]; everything random as an argument. K Euler steps of h = 1 / K.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def times(steps: int) -> jax.Array:
    """t_i = i / K -> [K]."""
    return jnp.arange(steps) / steps


def sigma(t: jax.Array, h: float) -> jax.Array:
    """The memoryless noise sqrt(2 (1 - t + h) / (t + h)), the h keeping it finite at t = 0 and above 0 at the last step."""
    return jnp.sqrt(2 * (1 - t + h) / (t + h))


def pull(t: jax.Array, h: float) -> jax.Array:
    """1 / (t + h), taken once and multiplied: XLA may or may not make a division of many numbers by one into that (`optim.adam`)."""
    return 1 / (t + h)


def rollout(fast: Callable, slow: Callable, x0: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A chain of the memoryless SDE of v_fast -> x_i at every t_i [K, ..., A], and where it ends [..., A], not clipped.

    x += h (2 v_fast(x, t) - x / (t + h)) + sqrt(h) sigma(t) noise from x0 [..., A] with noise [K - 1, ..., A]; the last step is v_slow's
    own x += h v_slow(x, t), without noise.
    """
    steps = len(noise) + 1
    h, t = 1 / steps, times(steps)

    def step(x: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        t, noise = inputs
        return x + h * (2 * fast(x, t) - x * pull(t, h)) + jnp.sqrt(h) * sigma(t, h) * noise, x

    x, before = jax.lax.scan(step, x0, (t[:-1], noise))
    return jnp.concatenate([before, x[None]]), x + h * slow(x, t[-1])


def lean_adjoints(slow: Callable, chain: jax.Array, last: jax.Array) -> jax.Array:
    """The lean adjoint at every x_i of a chain [K, ..., A], from the gradient of the cost at its end, `last` [..., A] -> [K, ..., A].

    a_i = a_{i+1} + h J_i^T a_{i+1}, J_i the Jacobian of 2 v_slow(x, t_i + h) - x / (t_i + h) at x_i.
    """
    h = 1 / len(chain)

    def step(adjoint: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, t = inputs
        _, pull_back = jax.vjp(lambda x: 2 * slow(x, t + h) - x * pull(t, h), x)
        adjoint = adjoint + h * pull_back(adjoint)[0]
        return adjoint, adjoint

    return jax.lax.scan(step, last, (chain, times(len(chain))), reverse=True)[1]


def matching_loss(fast: Callable, slow: Callable, chain: jax.Array, adjoints: jax.Array) -> jax.Array:
    """mean over rows of the sum over steps and dimensions of (2 (v_fast - v_slow) / sigma + sigma a)^2, at chain, adjoints [K, ..., A]."""
    t = times(len(chain)).reshape(-1, *[1] * (chain.ndim - 2))
    scale = sigma(t, 1 / len(chain))[..., None]
    error = 2 * (fast(chain, t) - slow(chain, t)) * (1 / scale) + scale * adjoints
    return jnp.mean(jnp.sum(error**2, axis=(0, -1)))
