"""All networks of an agent under one optimiser, and the target network of its critics: FQL, IFQL and Q-chunking.

Deviation from their released code: the target critics follow the critics of after the step, not of before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from expo_bench.parts import critics, optim

Params = Any  # a named tuple of parameter pytrees, the critics' under `critic`


class Joint(NamedTuple):
    trained: optim.Trained  #  of Params
    target: critics.Params
    table: jax.Array | None = None  #  with amortised proposals (parts/proposals.py): [stored, N, A]


def start(optimiser: optax.GradientTransformation, params: Params) -> Joint:
    return Joint(optim.start(optimiser, params), params.critic)


def step(
    optimiser: optax.GradientTransformation,
    loss: Callable[[Params], tuple[jax.Array, dict[str, jax.Array]]],
    state: Joint,
    tau: jax.Array,
) -> tuple[Joint, dict[str, jax.Array]]:
    """One gradient step on `loss(params) -> (sum of all losses, metrics)`, then one Polyak step of the target critics."""
    grads, metrics = jax.grad(loss, has_aux=True)(state.trained.params)
    trained = optim.step(optimiser, state.trained, grads)
    return state._replace(trained=trained, target=optim.polyak(state.target, trained.params.critic, tau)), metrics
