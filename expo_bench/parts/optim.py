"""Parameters with their optimiser, and the few update rules that every algorithm shares."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Params = Any


class Trained(NamedTuple):
    """Parameters and the state of the optimiser that trains them."""

    params: Params
    opt: optax.OptState


def start(optimiser: optax.GradientTransformation, params: Params) -> Trained:
    return Trained(params, optimiser.init(params))


def step(optimiser: optax.GradientTransformation, trained: Trained, grads: Params) -> Trained:
    """One gradient step."""
    updates, opt = optimiser.update(grads, trained.opt, trained.params)
    return Trained(optax.apply_updates(trained.params, updates), opt)


def polyak(target: Params, online: Params, tau: jax.Array) -> Params:
    """tau * online + (1 - tau) * target, leaf by leaf."""
    return jax.tree.map(lambda t, o: tau * o + (1.0 - tau) * t, target, online)


def adam(learning_rate: optax.ScalarOrSchedule, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015): `optax.adam`, but for the rounding of its bias correction."""
    return optax.chain(_scale_by_adam(eps), optax.scale_by_learning_rate(learning_rate))


def adamw(learning_rate: optax.ScalarOrSchedule, weight_decay: jax.Array | float) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): `optax.adamw`, with the rounding of `adam`."""
    return optax.chain(_scale_by_adam(), optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(learning_rate))


def clipped_adam(learning_rate: optax.ScalarOrSchedule, max_norm: jax.Array | float, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam on a gradient whose global norm is at most `max_norm`."""
    return optax.chain(clip_by_global_norm(max_norm), adam(learning_rate, eps))


def clip_by_global_norm(max_norm: jax.Array | float) -> optax.GradientTransformation:
    """optax's, but for the rounding: one factor for the whole gradient instead of a division of every number of it, for the reason that
    `_scale_by_adam` gives."""

    def update(grads: Params, state: optax.EmptyState, params: Params | None = None) -> tuple[Params, optax.EmptyState]:
        del params
        factor = max_norm / jnp.maximum(optax.tree.norm(grads), max_norm)
        return jax.tree.map(lambda g: g * factor, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _scale_by_adam(eps: float = 1e-8, b1: float = 0.9, b2: float = 0.999) -> optax.GradientTransformation:
    """optax's, which divides the moments by 1 - b**t; here the reciprocals of these are taken first and multiplied. XLA makes the one into
    the other in a program for one device and not in one for several, so that a row's bits would depend on the number of devices."""

    def update(grads: Params, state: optax.ScaleByAdamState, params: Params | None = None) -> tuple[Params, optax.ScaleByAdamState]:
        del params
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, b2, 2)
        count = optax.safe_increment(state.count)
        first, second = 1.0 / (1.0 - b1**count), 1.0 / (1.0 - b2**count)
        scaled = jax.tree.map(lambda m, v: m * first / (jnp.sqrt(v * second) + eps), mu, nu)
        return scaled, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam(b1, b2, eps).init, update)


def every(updates: jax.Array, period: int, start: int, tau: jax.Array) -> jax.Array:
    """The Polyak step of a target that moves on every `period`-th update from the `start`-th on and is left alone between: tau or 0."""
    return jnp.where((updates >= start) & (updates % period == 0), tau, 0.0)


def log_scalar(value: float | jax.Array) -> jax.Array:
    """log(value) as a strong float32: a weakly typed scalar in the state makes the next call a new program."""
    return jnp.log(jnp.asarray(value, jnp.float32))
