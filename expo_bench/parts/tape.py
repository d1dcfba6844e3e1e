"""Random numbers in bulk: one draw for all that a step needs, handed out in slices.

A threefry call costs the compiler and a small program alike; an update has a dozen of them. `bulk` makes one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Tape:
    """Hands out independent random numbers of any shape, in the order in which they are asked for."""

    def __init__(self, numbers: jax.Array | None) -> None:
        self._numbers = numbers  # uniform in [0, 1); None: only count
        self.used = 0

    def uniform(self, shape: tuple[int, ...] = ()) -> jax.Array:
        """[*shape] float32 in [0, 1)."""
        size = int(np.prod(shape, dtype=np.int64))
        start, self.used = self.used, self.used + size
        if self._numbers is None:
            return jnp.zeros(shape, jnp.float32)
        return jax.lax.slice_in_dim(self._numbers, start, start + size).reshape(shape)

    def normal(self, shape: tuple[int, ...] = ()) -> jax.Array:
        """[*shape] standard normal."""
        # The same inverse as jax.random.normal, over (-1, 1): 0 itself would give -inf.
        u = jnp.maximum(2.0 * self.uniform(shape) - 1.0, np.nextafter(np.float32(-1.0), np.float32(0.0)))
        return np.float32(np.sqrt(2)) * jax.lax.erf_inv(u)

    def keep(self, rate: float, shape: tuple[int, ...]) -> jax.Array:
        """Dropout masks [*shape], scaled so that the mean is kept: 0, or 1 / (1 - rate) with probability 1 - rate."""
        return (self.uniform(shape) >= rate).astype(jnp.float32) / (1.0 - rate)

    def subset(self, members: int, size: int, shape: tuple[int, ...] = ()) -> jax.Array:
        """[*shape, M] int32: M distinct members of K, uniformly (REDQ's random subset, Chen et al. 2021)."""
        return jax.lax.top_k(self.uniform((*shape, members)), size)[1].astype(jnp.int32)


def bulk(draw: Callable[[Tape], Any]) -> Callable[[jax.Array], Any]:
    """A function of a tape as a function of a key (consumed)."""

    def from_key(key: jax.Array) -> Any:
        counter = Tape(None)
        jax.eval_shape(lambda: draw(counter))
        return draw(Tape(jax.random.uniform(key, (counter.used,))))

    return from_key
