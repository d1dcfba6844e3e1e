"""Transitions, and where they are kept: a fixed array of packed rows, so that one gather fetches a whole transition.

The number of stored transitions is not part of the buffer: it follows from the run's clock, which all rows of a sweep share.
Shape letters: B batch, U updates, O observation, A action, C action-chunk length, W = 2 O + A + 3 packed width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Batch(NamedTuple):
    """Transitions; `next_obs` is the true one. All float32 but the index.

    With action chunks (C > 1) a transition is a window of C steps of one episode: `action` holds its C actions [..., C A], `reward` their
    discounted sum, `next_obs` what follows the window. A window that crosses its episode's end is marked in `valid`.
    """

    obs: jax.Array  #         [..., O]
    action: jax.Array  #      [..., A]
    reward: jax.Array  #      [...]
    terminated: jax.Array  #  [...] 1 ends without bootstrap
    next_obs: jax.Array  #    [..., O]
    valid: jax.Array | None = None  #      [..., C] 1 where a step of the window belongs to the episode; None: single steps
    mc_return: jax.Array | None = None  #    [...] return to go, -inf where it is not known yet; None: the agent does not ask for it
    next_action: jax.Array | None = None  #  [..., A] what the data do after the transition; None: online batches
    next_valid: jax.Array | None = None  #   [..., C] 1 where a step of next_action belongs to the transition's episode
    next_index: jax.Array | None = None  #   [...] int32, the stored step that led to next_obs, offline ones first; None: not asked for

    @property
    def td_weight(self) -> jax.Array | None:
        """[...] what a transition weighs in a loss on its reward or its whole action: 0 for a window beyond its episode's end; None: 1."""
        return None if self.valid is None else self.valid[..., -1]

    @property
    def action_weight(self) -> jax.Array | None:
        """[..., A] what each action dimension weighs in an imitation loss; None: 1."""
        return None if self.valid is None else self._per_dimension(self.valid)

    @property
    def next_action_weight(self) -> jax.Array:
        """[..., A] what each dimension of next_action weighs: 0 after the episode's end."""
        return self._per_dimension(self.next_valid)

    def _per_dimension(self, valid: jax.Array) -> jax.Array:
        """[..., C] -> [..., A]."""
        return jnp.repeat(valid, self.action.shape[-1] // valid.shape[-1], axis=-1)


def pack(batch: Batch, last: jax.Array) -> jax.Array:
    """Single steps and whether each is the `last` of its episode [...] -> [..., W]."""
    f32 = lambda x: jnp.asarray(x, jnp.float32)
    scalars = jnp.stack([f32(batch.reward), f32(batch.terminated), f32(last)], axis=-1)
    return jnp.concatenate([f32(batch.obs), f32(batch.action), scalars, f32(batch.next_obs)], axis=-1)


def unpack(rows: jax.Array, obs_size: int, action_size: int) -> Batch:
    """[..., W] -> Batch of single steps."""
    o, end = obs_size, obs_size + action_size
    return Batch(rows[..., :o], rows[..., o:end], rows[..., end], rows[..., end + 1], rows[..., end + 3 :])


def last(rows: jax.Array, obs_size: int, action_size: int) -> jax.Array:
    """[..., W] -> [...] 1 where a step is the last of its episode."""
    return rows[..., obs_size + action_size + 2]


def map_reward(rows: jax.Array, obs_size: int, action_size: int, change: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """[..., W] -> [..., W] with changed rewards."""
    place = obs_size + action_size
    return rows.at[..., place].set(change(rows[..., place]))


def windows(rows: jax.Array, stored: jax.Array, obs_size: int, action_size: int, discount: jax.Array) -> Batch:
    """C successive steps each, [..., C, W], of which `stored` [..., C] exist -> Batch with action [..., C A].

    reward = sum over the valid steps of discount^k r_k; actions beyond the episode's end are 0, so that nothing of the next one is seen; bootstrap from the end of the window with discount^C (Q. Li et al. 2025, eq. 3).
    """
    steps = unpack(rows, obs_size, action_size)
    length = rows.shape[-2]
    ended = jnp.cumsum(last(rows, obs_size, action_size), axis=-1)
    before = jnp.concatenate([jnp.zeros_like(ended[..., :1]), ended[..., :-1]], axis=-1)
    valid = ((before == 0) & stored).astype(jnp.float32)
    reward = jnp.sum(valid * discount ** jnp.arange(length) * steps.reward, axis=-1)
    action = (valid[..., None] * steps.action).reshape(*steps.reward.shape[:-1], length * action_size)
    return Batch(steps.obs[..., 0, :], action, reward, jnp.max(valid * steps.terminated, axis=-1), steps.next_obs[..., -1, :], valid)


def empty(capacity: int, obs_size: int, action_size: int) -> jax.Array:
    """An empty buffer [capacity, W]."""
    return jnp.zeros((capacity, width(obs_size, action_size)), jnp.float32)


def width(obs_size: int, action_size: int) -> int:
    """W, numbers per packed step."""
    return 2 * obs_size + action_size + 3


def insert(buffer: jax.Array, rows: jax.Array, stored: jax.Array) -> jax.Array:
    """Write rows [n, W] behind the `stored` ones; a full buffer is overwritten from its start. n has to divide the capacity."""
    return jax.lax.dynamic_update_slice_in_dim(buffer, rows, stored % len(buffer), axis=0)


def index(uniform: jax.Array, size: jax.Array | int) -> jax.Array:
    """floor(uniform * size): cheaper under vmap than randint per row. Never `size` itself, whatever the rounding."""
    return jnp.minimum(jnp.floor(uniform * size).astype(jnp.int32), size - 1)
