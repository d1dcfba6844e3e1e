"""Flow matching of actions: imitation loss and Euler sampler (Lipman et al. 2023, as FQL released it).

The network comes in as a function `velocity(x, t)`; everything random comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def imitation_loss(velocity: Callable, action: jax.Array, x0: jax.Array, t: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """mean over rows and dimensions of weight (v(x_t, t) - (a - x0))^2 with x_t = (1 - t) x0 + t a.

    action, x0 [..., A], t [...] in [0, 1]; weight [..., A], None: 1.
    """
    x_t = (1 - t[..., None]) * x0 + t[..., None] * action
    error = (velocity(x_t, t) - (action - x0)) ** 2
    return jnp.mean(error if weight is None else weight * error)


def sample(velocity: Callable, x0: jax.Array, steps: int) -> jax.Array:
    """Euler steps x += v(x, i / steps) / steps from x0 [..., A], clipped to [-1, 1] at the end only. `velocity` gets a scalar t."""

    def euler(x: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        return x + velocity(x, i / steps) / steps, None

    x, _ = jax.lax.scan(euler, x0, jnp.arange(steps, dtype=jnp.float32))
    return jnp.clip(x, -1.0, 1.0)
