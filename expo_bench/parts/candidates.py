"""Candidates and selection: which of several proposed actions is taken.

Shape letters: N candidates, A action.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

RULES = ("max", "random")


def take(candidates: jax.Array, index: jax.Array) -> jax.Array:
    """candidates [..., N, A], index [...] -> [..., A]."""
    return jnp.take_along_axis(candidates, index[..., None, None], axis=-2)[..., 0, :]


def best(candidates: jax.Array, q: jax.Array) -> jax.Array:
    """The candidate of highest q [..., N] -> [..., A]."""
    return take(candidates, jnp.argmax(q, axis=-1))
