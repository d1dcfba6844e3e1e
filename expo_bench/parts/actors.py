"""The entropy-regularised actor on a = f(s, u), u a tanh-Gaussian (SAC, Haarnoja et al. 2018): RLPD's f = u, EXPO's f = a + beta u,
DSRL's f = b u, a noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from expo_bench import distributions, networks
from expo_bench.parts import optim
from expo_bench.parts.tape import Tape

Params = Any


class GaussianDraws(NamedTuple):
    noise: jax.Array  #                      [..., A] standard normal
    masks: tuple[jax.Array, ...] | None  #   [..., width] dropout masks of every layer, None without dropout


class Actor(NamedTuple):
    """A tanh-Gaussian policy of any input."""

    init: Callable[[jax.Array], Params]
    sample: Callable[[Params, jax.Array, GaussianDraws], tuple[jax.Array, jax.Array]]  # (params, input, draws) -> u [..., A], log pi [...]
    mode: Callable[[Params, jax.Array], jax.Array]  # (params, input) -> tanh(mean) [..., A]
    draw: Callable[..., GaussianDraws]  # (tape, shape [...], training=False); dropout only in training


def tanh_gaussian(
    *,
    input_size: int,
    action_size: int,
    widths: Sequence[int],
    dropout: float = 0.0,
    norm: str = "none",
    activation: Callable = nn.relu,
    log_std_offset: float = 0.0,
) -> Actor:
    """Dense-ReLU layers (RLPD, EXPO); `norm` and `activation` as of `networks.MLP`, `log_std_offset` as of `networks.TanhGaussian`."""
    net = networks.TanhGaussian(action_size, tuple(widths), activation, norm, log_std_offset)

    def sample(params: Params, inputs: jax.Array, draws: GaussianDraws) -> tuple[jax.Array, jax.Array]:
        mean, log_std = networks.apply(net, params, inputs, draws.masks)
        return distributions.tanh_gaussian(mean, log_std, draws.noise)

    def mode(params: Params, inputs: jax.Array) -> jax.Array:
        return jnp.tanh(networks.apply(net, params, inputs)[0])

    def draw(tape: Tape, shape: tuple[int, ...], training: bool = False) -> GaussianDraws:
        masks = tuple(tape.keep(dropout, (*shape, width)) for width in widths) if training and dropout else None
        return GaussianDraws(tape.normal((*shape, action_size)), masks)

    return Actor(lambda key: networks.init(net, key, jnp.zeros(input_size)), sample, mode, draw)


def centred(params: Params) -> Params:
    """A fresh actor whose mean is 0 at every input: a residual begins at no residual."""
    return {**params, "mean": jax.tree.map(jnp.zeros_like, params["mean"])}


class SoftActor(NamedTuple):
    """An actor in training with its temperature alpha = exp(log_alpha)."""

    actor: optim.Trained
    log_alpha: optim.Trained


def start(
    actor: Actor, optimiser: optax.GradientTransformation, alpha_optimiser: optax.GradientTransformation, key: jax.Array, alpha: Any
) -> SoftActor:
    return SoftActor(optim.start(optimiser, actor.init(key)), optim.start(alpha_optimiser, optim.log_scalar(alpha)))


def actor_loss(
    sample: Callable[[Params], tuple[jax.Array, jax.Array]],
    value: Callable[[jax.Array], jax.Array],
    params: Params,
    alpha: jax.Array,
    weight: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """mean of alpha log pi - Q(s, f(s, u)).

    `sample(params)` gives the action [B, A] and log pi [B], `value(action)` the critics' [K, B], whose mean is maximised. `weight` [B] (0 or
    1): the rows that count, where f starts from an action of the batch; None: all.
    """
    action, log_prob = sample(params)
    q = jnp.mean(value(action), axis=0)
    mean = jnp.mean if weight is None else lambda x: jnp.sum(weight * x) / jnp.maximum(jnp.sum(weight), 1.0)
    return mean(alpha * log_prob - q), {"entropy": -mean(log_prob), "actor_q": mean(q)}


def alpha_loss(log_alpha: jax.Array, entropy: jax.Array, target_entropy: jax.Array) -> jax.Array:
    """alpha (entropy - target entropy)."""
    return jnp.exp(log_alpha) * (entropy - target_entropy)


def soft_step(
    optimiser: optax.GradientTransformation,
    alpha_optimiser: optax.GradientTransformation,
    state: SoftActor,
    sample: Callable[[Params], tuple[jax.Array, jax.Array]],
    value: Callable[[jax.Array], jax.Array],
    target_entropy: jax.Array,
    weight: jax.Array | None = None,
) -> tuple[SoftActor, dict[str, jax.Array]]:
    """One actor step with the temperature before its update, then one temperature step."""
    alpha = jnp.exp(state.log_alpha.params)
    (loss, info), grads = jax.value_and_grad(lambda p: actor_loss(sample, value, p, alpha, weight), has_aux=True)(state.actor.params)
    actor = optim.step(optimiser, state.actor, grads)
    alpha_grad = jax.grad(alpha_loss)(state.log_alpha.params, info["entropy"], target_entropy)
    log_alpha = optim.step(alpha_optimiser, state.log_alpha, alpha_grad)
    return SoftActor(actor, log_alpha), {"actor_loss": loss, "alpha": alpha, **info}
