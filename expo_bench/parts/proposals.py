"""Amortised proposals, this suite's own: the base samples at a backup's next states are kept per stored transition and used more than once.

EXPO draws N base samples anew at every next state of every batch, which is nearly all of its arithmetic, although the base policy changes once per
environment step and by little, and the offline transitions return thousands of times. Here a table in the agent's state holds the samples at
the next state of every transition that can be stored, offline ones first, then those of the replay. Of each batch one row in k draws its samples
anew and writes them back, the others read theirs: a transition is refreshed once in k times that it is drawn, on average. What is made of
the samples (edits, Q, selection) is never kept. An entry is there before it is first read:
- offline transitions get theirs when online learning begins (`filled`); the offline phase itself draws all samples anew;
- a new transition gets its own from the loop that stores it: drawn for it, or (`from_acting`) those that were drawn to act in its next state.
  These are known one step later; until then, and for good where the time limit ended the episode, the samples of the state that the
  transition left stand in. EXPO acts by the EMA of the base policy, so that such first entries come from it. (A row that takes the place of a
  blow-up holds a copy of another transition; its stand-in is of the state in which the physics blew up.)

The table takes 4 N A bytes per transition: 224 for N 8, A 7, beside 4 (2 O + A + 3) of the transition itself.
Shape letters: B batch, U updates, N samples per state, O observation, A action, k `refresh_every`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.errors import UserError
from expo_bench.parts import base_policy, replay
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol

State = Any  # of an agent, with a field `table`: [stored, N, A]
DRAWN = "samples"  # the name under which `act` hands out what it drew in exploration, [N, A]
BLOCK = 256  # states that are filled at a time


class Keeping(NamedTuple):
    """What the loop needs of an agent whose state has a `table`."""

    draw: Callable[[Tape, tuple[int, ...]], base_policy.SampleDraws]  #             (tape, shape [...]) -> of N samples each
    sample: Callable[
        [State, jax.Array, base_policy.SampleDraws], jax.Array
    ]  #  (state, obs [..., O], draws) -> as the backup does [..., N, A]
    from_acting: bool  #                                                         whether `act` hands out what it drew


def validate(config: Any, where: str) -> None:
    """Raise one clear line where the fields of a config contradict each other."""
    if config.proposals_from_acting and config.refresh_every == 1:
        raise UserError(f"{where}: proposals_from_acting needs refresh_every of at least 2, which keeps samples at all; got 1")


def validate_batch(config: Any, protocol: Protocol, where: str) -> None:
    """Raise one clear line where no whole number of a batch's rows can be refreshed."""
    if protocol.batch_size % config.refresh_every:
        raise UserError(
            f"{where}: refresh_every must divide batch_size ({protocol.batch_size}), since every k-th row is refreshed; got {config.refresh_every}"
        )


def empty(stored: int, n_samples: int, action_size: int) -> jax.Array:
    """The table before anything is known: zeros [stored, N, A]."""
    return jnp.zeros((stored, n_samples, action_size), jnp.float32)


def write(table: jax.Array, index: jax.Array, samples: jax.Array) -> jax.Array:
    """The table with entries `index` [n] replaced by `samples` [n, N, A]; those beyond its end are dropped.

    Where an entry is written twice the first samples win, whatever the order in which a device writes.
    """
    first = jnp.argmax(index[:, None] == index[None, :], axis=1)
    return table.at[index].set(samples[first], mode="drop")


def refreshed(
    table: jax.Array, batch: replay.Batch, every: int, uniform: jax.Array, sample: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """(the table, samples [..., B, N, A]) of batches [..., B], after every k-th row of each, from a random one on, was drawn anew.

    Each row has the same chance 1 / k, and the offline and the online half of a batch have their share. `uniform` [...] in [0, 1) says from
    which row on; `sample` draws at next states [..., B / k, O].
    """
    size = batch.next_index.shape[-1]
    rows = replay.index(uniform, every)[..., None] + jnp.arange(0, size, every)
    index = jnp.take_along_axis(batch.next_index, rows, axis=-1)
    drawn = sample(jnp.take_along_axis(batch.next_obs, rows[..., None], axis=-2))
    table = write(table, index.reshape(-1), drawn.reshape(-1, *table.shape[1:]))
    return table, table[batch.next_index]


def filled(keeping: Keeping, state: State, key: jax.Array, count: int, next_obs: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The table with samples for the first `count` transitions, block after block; `next_obs` maps indices [n] to next states [n, O]."""
    size = min(BLOCK, count)
    draw = bulk(lambda tape: keeping.draw(tape, (size,)))

    def block(table: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        samples = keeping.sample(state, next_obs(start + jnp.arange(size)), draw(jax.random.fold_in(key, start)))
        return jax.lax.dynamic_update_slice_in_dim(table, samples, start, axis=0), None

    starts = jnp.minimum(jnp.arange(0, count, size), count - size)
    return jax.lax.scan(block, state.table, starts)[0]


def stored(
    keeping: Keeping, state: State, key: jax.Array, index: jax.Array, next_obs: jax.Array, led_here: jax.Array, drawn: jax.Array | None
) -> jax.Array:
    """The table with the first samples of new transitions `index` [n] that lead to `next_obs` [n, O].

    From acting: `drawn` [n, N, A] are the samples at the states that they left, to which the transitions `led_here` [n] led (beyond the
    table's end: none did).
    """
    if keeping.from_acting:
        return write(state.table, jnp.concatenate([led_here, index]), jnp.concatenate([drawn, drawn]))
    draws = bulk(lambda tape: keeping.draw(tape, index.shape))(key)
    return write(state.table, index, keeping.sample(state, next_obs, draws))
