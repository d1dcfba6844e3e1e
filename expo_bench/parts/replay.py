"""Transitions, and where they are kept: a fixed array of packed rows, so that one gather fetches a whole transition.

The number of stored transitions is not part of the buffer: it follows from the run's clock, which all rows of a sweep share.
Shape letters: B batch, U updates, O observation, A action, C capacity, W = 2 O + A + 2 packed width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Batch(NamedTuple):
    """Transitions; `next_obs` is the true one. All float32."""

    obs: jax.Array  #         [..., O]
    action: jax.Array  #      [..., A]
    reward: jax.Array  #      [...]
    terminated: jax.Array  #  [...] 1 ends without bootstrap
    next_obs: jax.Array  #    [..., O]


def pack(batch: Batch) -> jax.Array:
    """-> [..., W]."""
    f32 = lambda x: jnp.asarray(x, jnp.float32)
    parts = (f32(batch.obs), f32(batch.action), f32(batch.reward)[..., None], f32(batch.terminated)[..., None], f32(batch.next_obs))
    return jnp.concatenate(parts, axis=-1)


def unpack(rows: jax.Array, obs_size: int, action_size: int) -> Batch:
    """[..., W] -> Batch."""
    o, a = obs_size, action_size
    return Batch(rows[..., :o], rows[..., o : o + a], rows[..., o + a], rows[..., o + a + 1], rows[..., o + a + 2 :])


def empty(capacity: int, obs_size: int, action_size: int) -> jax.Array:
    """An empty buffer [C, W]."""
    return jnp.zeros((capacity, 2 * obs_size + action_size + 2), jnp.float32)


def insert(buffer: jax.Array, rows: jax.Array, stored: jax.Array) -> jax.Array:
    """Write rows [n, W] behind the `stored` ones; a full buffer is overwritten from its start. n has to divide the capacity."""
    return jax.lax.dynamic_update_slice_in_dim(buffer, rows, stored % len(buffer), axis=0)


def index(uniform: jax.Array, size: jax.Array | int) -> jax.Array:
    """floor(uniform * size): cheaper under vmap than randint per row. Never `size` itself, whatever the rounding."""
    return jnp.minimum(jnp.floor(uniform * size).astype(jnp.int32), size - 1)
