"""Implicit Q-learning: V and Q learnt from the data's own actions, without querying a policy (Kostrikov et al., arXiv 2110.06169).

Shape letters: B batch, O observation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from expo_bench import networks
from expo_bench.parts import critics, optim
from expo_bench.parts.replay import Batch

Params = Any


class ValueFunction(NamedTuple):
    """V(s)."""

    init: Callable[[jax.Array], Params]
    values: Callable[[Params, jax.Array], jax.Array]  # (params, obs [..., O]) -> [...]


def value_function(
    *, obs_size: int, widths: Sequence[int], norm: str = "none", norm_input: bool = False, activation: Callable = nn.relu
) -> ValueFunction:
    """An MLP with one linear output; `norm` as in `critics.ensemble`, `norm_input` puts a LayerNorm on the observation (IDQL)."""
    net = networks.MLP(tuple(widths), out=1, norm=norm, norm_input=norm_input, activation=activation)
    return ValueFunction(
        lambda key: networks.init(net, key, jnp.zeros(obs_size)), lambda params, obs: networks.apply(net, params, obs)[..., 0]
    )


def advantage(value: ValueFunction, critic: critics.Ensemble, params: Params, target: critics.Params, batch: Batch) -> jax.Array:
    """min over the target critics of Q(s, a), less V(s), at the actions of a batch -> [B]."""
    return jnp.min(critic.values(target, batch.obs, batch.action), axis=0) - value.values(params, batch.obs)


def step(
    value: ValueFunction,
    critic: critics.Ensemble,
    optimiser: optax.GradientTransformation,
    state: Any,
    batch: Batch,
    expectile: jax.Array,
    discount: jax.Array,
    tau: jax.Array,
) -> tuple[Any, dict[str, jax.Array]]:
    """One step of V towards an upper expectile of Q (eq. 5), then one of the critics towards r + discount V(s') (eq. 6) with the new V.

    `state` is an algorithm's: a named tuple with `value`, an optim.Trained, and `critic`, a critics.Critic, among its fields.
    """

    def value_loss(params: Params) -> jax.Array:
        error = advantage(value, critic, params, state.critic.target, batch)
        return critics.weighted_mean(critics.expectile_loss(error, expectile), batch.td_weight)

    loss, grads = jax.value_and_grad(value_loss)(state.value.params)
    new_value = optim.step(optimiser, state.value, grads)
    target = critics.td_target(batch.reward, batch.terminated, discount, value.values(new_value.params, batch.next_obs))
    new_critic, info = critics.td_step(critic, optimiser, state.critic, batch.obs, batch.action, target, tau, batch.td_weight)
    return state._replace(value=new_value, critic=new_critic), {"value_loss": loss, **info}
