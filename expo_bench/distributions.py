"""The Gaussian, and the tanh-squashed one with its noise as an argument.

distrax draws its own noise and its bijectors invert the sample, which loses the tail where tanh saturates in float32; here the log-density
is computed from the value before the tanh. A test holds it against distrax.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def tanh_gaussian(mean: jax.Array, log_std: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """tanh(mean + std * noise) [..., A] and its log-density [...]; `noise` is standard normal [..., A]."""
    unsquashed = mean + jnp.exp(log_std) * noise
    normal = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi)
    # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which stays finite where tanh is 1 in float32.
    jacobian = 2.0 * (jnp.log(2.0) - unsquashed - jax.nn.softplus(-2.0 * unsquashed))
    return jnp.tanh(unsquashed), jnp.sum(normal - jacobian, axis=-1)


def gaussian_log_prob(mean: jax.Array, log_std: jax.Array, value: jax.Array) -> jax.Array:
    """The log-density of independent Gaussians at value [..., A] -> [...]."""
    noise = (value - mean) * jnp.exp(-log_std)
    return jnp.sum(-0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi), axis=-1)
