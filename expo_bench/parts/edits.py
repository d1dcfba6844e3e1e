"""The edit policy of EXPO (Dong et al., arXiv 2507.07986, eq. 1 and 2): an action shifted by beta u(s, a), u a tanh-Gaussian.

Shape letters: B batch, N actions per state, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from expo_bench.parts import actors


class EditPolicy(NamedTuple):
    """A tanh-Gaussian policy of [s, a] and what its edits make of an action."""

    init: Callable[[jax.Array], actors.Params]
    draw: Callable[..., actors.GaussianDraws]  # (tape, shape [...], training=False)
    edited: Callable[[actors.Params, jax.Array, jax.Array, actors.GaussianDraws], tuple[jax.Array, jax.Array]]
    # ^ eq. 1: (params, obs [..., O], action [..., A], draws) -> action + beta u [..., A], log-density of beta u [...]
    mode: Callable[[actors.Params, jax.Array, jax.Array], jax.Array]  # (params, obs, action) -> action + beta u at u's mode [..., A]


def make(
    *,
    obs_size: int,
    action_size: int,
    widths: Sequence[int],
    scale: jax.Array | float,
    dropout: float = 0.0,
    clip: bool = False,
    activation: Callable = nn.relu,
) -> EditPolicy:
    """`scale` is beta; `clip`: edited actions are clipped to [-1, 1] (FASTER, QAM) or left as they are (EXPO)."""
    actor = actors.tanh_gaussian(
        input_size=obs_size + action_size, action_size=action_size, widths=widths, dropout=dropout, activation=activation
    )

    def edited(params: actors.Params, obs: jax.Array, action: jax.Array, draws: actors.GaussianDraws) -> tuple[jax.Array, jax.Array]:
        edit, log_prob = actor.sample(params, jnp.concatenate([obs, action], axis=-1), draws)
        action = action + scale * edit
        return jnp.clip(action, -1.0, 1.0) if clip else action, log_prob - action_size * jnp.log(scale)

    def mode(params: actors.Params, obs: jax.Array, action: jax.Array) -> jax.Array:
        action = action + scale * actor.mode(params, jnp.concatenate([obs, action], axis=-1))
        return jnp.clip(action, -1.0, 1.0) if clip else action

    return EditPolicy(actor.init, actor.draw, edited, mode)


def of_first(policy: EditPolicy, params: actors.Params, obs: jax.Array, samples: jax.Array, draws: actors.GaussianDraws) -> jax.Array:
    """The edits of the first n of the samples [..., N, A] of obs [..., O] -> [..., n, A]; n is that of `draws`."""
    first = samples[..., : draws.noise.shape[-2], :]
    obs = jnp.broadcast_to(obs[..., None, :], (*first.shape[:-1], obs.shape[-1]))
    return policy.edited(params, obs, first, draws)[0]


def soft_step(
    policy: EditPolicy,
    optimisers: tuple[optax.GradientTransformation, optax.GradientTransformation],
    state: actors.SoftActor,
    obs: jax.Array,
    action: jax.Array,
    draws: actors.GaussianDraws,
    value: Callable[[jax.Array], jax.Array],
    entropy: jax.Array | float,
    weight: jax.Array | None = None,
) -> tuple[actors.SoftActor, dict[str, jax.Array]]:
    """Eq. 2 for the edits of action [B, A] at obs [B, O]: a step of the policy and one of its temperature, by their `optimisers`.

    `value(edited action)` gives the critics' [K, B], whose mean is maximised; `entropy` is the target. `weight` [B]: the rows
    whose action counts (all of it lies in the episode); None: all.
    """
    return actors.soft_step(*optimisers, state, lambda params: policy.edited(params, obs, action, draws), value, entropy, weight)


def target_entropy(action_size: int, scale: jax.Array | float, reachable: bool) -> jax.Array | float:
    """-A / 2 of the scaled edit (released), which beta < 0.303 cannot reach; `reachable`: -A / 2 + A log beta, that of u."""
    return -action_size / 2 + action_size * jnp.log(scale) if reachable else -action_size / 2
