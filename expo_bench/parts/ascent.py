"""Gradient ascent on actions: a map on candidates that follows the critics' slope (DIPO's action gradient, PA-RL's local optimisation).

Shape letter: A action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Climbed(NamedTuple):
    last: jax.Array  #  [..., A] where the last step led
    best: jax.Array  #  [..., A] the action of highest value on the way, start and end included
    value: jax.Array  # [...] its value


def climb(value: Callable, action: jax.Array, optimiser: optax.GradientTransformation, steps: int) -> Climbed:
    """`steps` steps of `optimiser` from action [..., A] up `value(action)` [...], clipped to [-1, 1] after each.

    No gradient runs through it. An optimiser that looks at all of its gradient (a clip of its norm) looks at all actions at once.
    """

    def slope(action: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, pull_back = jax.vjp(value, action)
        return values, -pull_back(jnp.ones_like(values))[0]

    def better(best: tuple, action: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.where((values > best[1])[..., None], action, best[0]), jnp.maximum(values, best[1])

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        action, opt, best = carry
        values, grads = slope(action)
        updates, opt = optimiser.update(grads, opt, action)
        return (jnp.clip(action + updates, -1.0, 1.0), opt, better(best, action, values)), None

    nothing = (action, jnp.full(action.shape[:-1], -jnp.inf, action.dtype))
    (last, _, best), _ = jax.lax.scan(step, (action, optimiser.init(action), nothing), None, length=steps)
    return jax.lax.stop_gradient(Climbed(last, *better(best, last, value(last))))
