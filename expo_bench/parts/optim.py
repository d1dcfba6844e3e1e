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


def clipped_adam(learning_rate: optax.ScalarOrSchedule, max_norm: jax.Array | float) -> optax.GradientTransformation:
    """Adam on a gradient whose global norm is at most `max_norm`."""
    return optax.chain(optax.clip_by_global_norm(max_norm), optax.adam(learning_rate))


def every(updates: jax.Array, period: int, start: int, tau: jax.Array) -> jax.Array:
    """The Polyak step of a target that moves on every `period`-th update from the `start`-th on and is left alone between: tau or 0."""
    return jnp.where((updates >= start) & (updates % period == 0), tau, 0.0)


def log_scalar(value: float | jax.Array) -> jax.Array:
    """log(value) as a strong float32: a weakly typed scalar in the state makes the next call a new program."""
    return jnp.log(jnp.asarray(value, jnp.float32))
