"""What an algorithm is: pure functions and a small typed state (optax's habit).

Shape letters: B batch, U updates per call of `learn`, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.parts.proposals import Keeping
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk

State = Any
Draws = Any
Metrics = dict[str, jax.Array]


class Spec(NamedTuple):
    """The sizes that an algorithm has to know of its task and protocol."""

    obs_size: int  #     O
    action_size: int  #  A; with action chunks C actions end to end, which an algorithm treats as one
    batch_size: int  #   B
    updates: int  #      U, batches per call of `learn`
    stored: int = 0  #   transitions that can be stored, offline and online ones together


class Agent(NamedTuple):
    """`make(config, spec)` is called inside the traced function, so that the config's traced fields may be tracers.

    Everything random comes in through `draws`, made in bulk by the draw functions (their key is consumed): the functions that train also
    replay recorded numbers.
    """

    init: Callable[[jax.Array], State]
    draw_pretrain: Callable[[jax.Array], Draws] | None
    pretrain: Callable[[State, Batch, Draws], tuple[State, Metrics]] | None  # one gradient step of the offline phase on [B]; None: has none
    draw: Callable[[jax.Array], Draws] | None
    learn: Callable[[State, Batch, Draws], tuple[State, Metrics]] | None  # all learning of one environment step on [U, B]; None: frozen
    draw_act: Callable[..., Draws]  #  (key, explore)
    act: Callable[..., tuple[jax.Array, Metrics]]
    # ^ (state, obs [O], draws, *, explore) -> action [A], nominally in [-1, 1], and scalars that evaluations (explore=False) average;
    #   in exploration nothing, or what `keep` takes from it
    value: Callable[[State, jax.Array, jax.Array], jax.Array] | None  # (state, obs [O], action [A]) -> the critics' mean; None: no critic
    base_act: Callable[[State, jax.Array, Draws], jax.Array] | None = None
    # ^ (state, obs [O], draws of act) -> an action of the pretrained base policy alone, for a warm-up by it; None: `act` is meant
    mc_return: bool = False  # whether batches have to carry the Monte-Carlo return to go
    keep: Keeping | None = None  # of an agent that keeps samples per stored transition: its online batches carry `next_index`


def per_batch(step: Callable[[State, Batch, Draws], tuple[State, Metrics]]) -> Callable[[State, Batch, Draws], tuple[State, Metrics]]:
    """A `learn` that takes one step on each of the U batches, with draws [U, ...]; its metrics are the last step's."""

    def learn(state: State, batches: Batch, draws: Draws) -> tuple[State, Metrics]:
        state, metrics = jax.lax.scan(lambda carry, inputs: step(carry, *inputs), state, (batches, draws))
        return state, {name: value[-1] for name, value in metrics.items()}

    return learn


def one_step_agent(
    init: Callable[[jax.Array], State],
    draw: Callable[[Tape], Draws],
    step: Callable[[State, Batch, Draws], tuple[State, Metrics]],
    updates: int,
    draw_online: Callable[[Tape], Draws] | None = None,
    **acting: Any,
) -> Agent:
    """The agent of an algorithm that takes the same step offline, on a batch, and online, on each of the U batches.

    `draw` makes the draws of one step, `draw_online` those of one online where they are others, `acting` are the other fields of `Agent`.
    """
    draws = lambda tape: jax.tree.map(lambda *x: jnp.stack(x), *[(draw_online or draw)(tape) for _ in range(updates)])
    return Agent(init=init, draw_pretrain=bulk(draw), pretrain=step, draw=bulk(draws), learn=per_batch(step), **acting)


def last(batches: Batch) -> Batch:
    """The last of U batches [U, B, ...] -> [B, ...]: the one that RLPD and EXPO train their policies on."""
    return jax.tree.map(lambda x: x[-1], batches)
