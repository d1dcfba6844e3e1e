"""The Gaussian policy that learns by weighted likelihood (AWR, Peng et al., arXiv 1910.00177): AWAC's and IQL's actor.

Its standard deviation does not depend on the state. Samples are clipped to [-1, 1], not squashed, and the likelihood knows of no clipping.
Shape letters: B batch, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from expo_bench import distributions, networks
from expo_bench.parts import critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape

Masks = tuple[jax.Array, ...] | None  # dropout masks [..., width] of every layer; None without dropout


class Params(NamedTuple):
    mean: Any  #            of the MLP
    log_std: jax.Array  #   [A]


class Policy(NamedTuple):
    init: Callable[[jax.Array], Params]
    log_prob: Callable[..., jax.Array]  #   (params, obs [..., O], action [..., A], masks = None) -> [...]
    sample: Callable[..., jax.Array]  #     (params, obs [..., O], standard normal [..., A] or None: the mean) -> [..., A] in [-1, 1]
    draw_masks: Callable[[Tape, tuple[int, ...]], Masks]  # (tape, shape [...]), for the likelihood in training


def make(*, obs_size: int, action_size: int, widths: Sequence[int], bounded_mean: bool, log_std_min: float, dropout: float = 0.0) -> Policy:
    """`bounded_mean` passes the mean through a tanh (IQL); log_std starts at 0 and is clipped to [log_std_min, 2]."""
    net = networks.MLP(tuple(widths), out=action_size)

    def init(key: jax.Array) -> Params:
        return Params(networks.init(net, key, jnp.zeros(obs_size)), jnp.zeros(action_size))

    def mean_and_log_std(params: Params, obs: jax.Array, masks: Masks = None) -> tuple[jax.Array, jax.Array]:
        mean = networks.apply(net, params.mean, obs, masks)
        return jnp.tanh(mean) if bounded_mean else mean, jnp.clip(params.log_std, log_std_min, 2.0)

    def log_prob(params: Params, obs: jax.Array, action: jax.Array, masks: Masks = None) -> jax.Array:
        return distributions.gaussian_log_prob(*mean_and_log_std(params, obs, masks), action)

    def sample(params: Params, obs: jax.Array, noise: jax.Array | None) -> jax.Array:
        mean, log_std = mean_and_log_std(params, obs)
        return jnp.clip(mean if noise is None else mean + jnp.exp(log_std) * noise, -1, 1)

    def draw_masks(tape: Tape, shape: tuple[int, ...]) -> Masks:
        return tuple(tape.keep(dropout, (*shape, width)) for width in widths) if dropout else None

    return Policy(init, log_prob, sample, draw_masks)


def advantage_weight(scaled_advantage: jax.Array) -> jax.Array:
    """min(exp(A / temperature), 100), the clip of IQL's and CORL's code; `scaled_advantage` is A / temperature."""
    return jnp.minimum(jnp.exp(scaled_advantage), 100.0)


def weighted_step(
    policy: Policy, optimiser: optax.GradientTransformation, state: optim.Trained, batch: Batch, weight: jax.Array, masks: Masks = None
) -> tuple[optim.Trained, dict[str, jax.Array]]:
    """One gradient step on -mean of weight [B] log pi(a|s), at the actions of a batch."""

    def loss(params: Params) -> jax.Array:
        return -critics.weighted_mean(weight * policy.log_prob(params, batch.obs, batch.action, masks), batch.td_weight)

    actor_loss, grads = jax.value_and_grad(loss)(state.params)
    return optim.step(optimiser, state, grads), {"actor_loss": actor_loss, "advantage_weight": jnp.mean(weight)}
