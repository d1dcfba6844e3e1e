"""Batches from the offline data and the online replay, of single steps or of windows of C steps.

Shape letters: B batch, U updates, C action-chunk length, W packed width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.parts import replay
from expo_bench.parts.replay import Batch
from expo_bench.protocol import Protocol
from expo_bench.training import returns


class Offline(NamedTuple):
    """The offline data as a row of the sweep sees it."""

    rows: jax.Array  #               [n, W], shared by all rows of the sweep
    mc_return: jax.Array | None  #   [n], by the row's own discount; None: not asked for


class Sampler(NamedTuple):
    """How the batches of one run are drawn. `size` is the number of offline transitions (0: none)."""

    obs_size: int
    action_size: int
    protocol: Protocol
    size: int
    indexed: bool = False  # whether batches say which stored step leads to their next state

    def offline(self, key: jax.Array, data: Offline, discount: jax.Array) -> Batch:
        """[B] offline transitions, with what follows each in its episode."""
        u = jax.random.uniform(key, (self.protocol.batch_size,))
        chunk = self.protocol.chunk
        both = self._windows(data.rows, self._index(u), 1, self.size, discount, 2 * chunk)  # each window and the one that follows it
        next_action = both.action[..., chunk * self.action_size :]
        return self._offline(u, data, discount)._replace(next_action=next_action, next_valid=both.valid[..., chunk:])

    def mixed(
        self,
        key: jax.Array,
        data: Offline,
        buffer: jax.Array,
        to_go: returns.Returns | None,
        stored: jax.Array,
        horizon: int,
        discount: jax.Array,
    ) -> Batch:
        """[U, B] transitions of the offline data and of the `stored` online ones, as the protocol mixes them."""
        stored = jnp.minimum(stored, len(buffer))
        shape = (self.protocol.updates * self.protocol.num_envs, self.protocol.batch_size)
        u = jax.random.uniform(key, shape)
        online = lambda u: self._online(u, buffer, to_go, stored, horizon, discount)
        if self.protocol.sampling == "union":
            if not self.size:
                return online(u)
            share = self.size / (self.size + stored)
            of_data, of_replay = self._offline(u / share, data, discount), online((u - share) / (1.0 - share))
            pick = lambda a, b: jnp.where((u < share).reshape(u.shape + (1,) * (a.ndim - u.ndim)), a, b)
            return jax.tree.map(pick, of_data, of_replay)
        rows = self.protocol.offline_rows
        if not rows:
            return online(u)
        parts = self._offline(u[:, :rows], data, discount), online(u[:, rows:])
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), *parts)

    def _offline(self, u: jax.Array, data: Offline, discount: jax.Array) -> Batch:
        """Offline transitions at the uniform numbers u [...]; those outside [0, 1) are clipped."""
        index = self._index(u)
        if self.protocol.chunk == 1:
            batch = replay.unpack(data.rows[index], self.obs_size, self.action_size)
        else:
            batch = self._windows(data.rows, index, 1, self.size, discount, self.protocol.chunk)
        batch = batch._replace(next_index=self._last(index, 1, len(data.rows), 0))
        return batch if data.mc_return is None else batch._replace(mc_return=data.mc_return[index])

    def _index(self, u: jax.Array) -> jax.Array:
        """The offline transitions at the uniform numbers u [...]."""
        return replay.index(jnp.clip(u, 0.0, 1.0), max(1, self.size - self.protocol.chunk + 1))

    def _online(
        self, u: jax.Array, buffer: jax.Array, to_go: returns.Returns | None, stored: jax.Array, horizon: int, discount: jax.Array
    ) -> Batch:
        """Online transitions at the uniform numbers u [...]. A window beyond the newest transition is not valid throughout."""
        chunk, n = self.protocol.chunk, self.protocol.num_envs
        index = replay.index(jnp.clip(u, 0.0, 1.0), jnp.maximum(stored - (chunk - 1) * n, 1))
        if chunk == 1:
            batch = replay.unpack(buffer[index], self.obs_size, self.action_size)
        else:
            batch = self._windows(buffer, index, n, stored, discount, chunk)
        batch = batch._replace(next_index=self._last(index, n, len(buffer), self.size))
        return batch if to_go is None else batch._replace(mc_return=returns.stored_value(to_go, horizon, n, index))

    def _last(self, first: jax.Array, stride: int, rows: int, before: int) -> jax.Array | None:
        """The last step of each window, as `_windows` takes it, behind the `before` ones of another array; None: nobody asks."""
        return before + jnp.minimum(first + (self.protocol.chunk - 1) * stride, rows - 1) if self.indexed else None

    def _windows(self, rows: jax.Array, first: jax.Array, stride: int, stored: jax.Array | int, discount: jax.Array, length: int) -> Batch:
        """The windows of `length` steps that begin at `first` [...]; the steps of one environment are `stride` rows apart."""
        places = first[..., None] + jnp.arange(length) * stride
        exist = places < stored
        return replay.windows(rows[jnp.minimum(places, len(rows) - 1)], exist, self.obs_size, self.action_size, discount)
