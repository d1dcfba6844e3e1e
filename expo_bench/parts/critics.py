"""Ensembles of critics and their temporal-difference update.

Shape letters: K critics, M subset of the critics, B batch, O observation, A action. Parameters of an ensemble have a leading K on every leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from expo_bench import networks
from expo_bench.parts import optim

Params = Any


class Ensemble(NamedTuple):
    """K critics Q_i(s, a) of the same shape."""

    init: Callable[[jax.Array], Params]
    values: Callable[[Params, jax.Array, jax.Array], jax.Array]  # (params, obs [..., O], action [..., A]) -> [K, ...]


def ensemble(
    *, obs_size: int, action_size: int, members: int, widths: Sequence[int], norm: str = "pre", activation: Callable = nn.relu
) -> Ensemble:
    """Critics Dense-LN-ReLU (norm "pre", RLPD and EXPO), Dense-act-LN ("post", FQL) or plain ("none", IDQL) with one linear output."""
    net = networks.MLP(tuple(widths), out=1, norm=norm, activation=activation)

    def init(key: jax.Array) -> Params:
        return jax.vmap(lambda k: networks.init(net, k, jnp.zeros(obs_size + action_size)))(jax.random.split(key, members))

    def values(params: Params, obs: jax.Array, action: jax.Array) -> jax.Array:
        obs = jnp.broadcast_to(obs, (*action.shape[:-1], obs.shape[-1]))
        inputs = jnp.concatenate([obs, action], axis=-1)
        return jax.vmap(lambda p: networks.apply(net, p, inputs)[..., 0])(params)

    return Ensemble(init, values)


def members(params: Params, subset: jax.Array) -> Params:
    """The parameters of the members in `subset` [M]."""
    return jax.tree.map(lambda p: p[subset], params)


def min_of(critic: Ensemble, params: Params, subset: jax.Array, obs: jax.Array, action: jax.Array) -> jax.Array:
    """min over the members in `subset` [M] of Q(s, a) -> [...]."""
    return jnp.min(critic.values(members(params, subset), obs, action), axis=0)


def action_gradient(critic: Ensemble, params: Params, obs: jax.Array, action: jax.Array) -> jax.Array:
    """The gradient of mean over members of Q(s, a) with respect to a, row by row -> [..., A]."""
    return jax.grad(lambda a: jnp.sum(jnp.mean(critic.values(params, obs, a), axis=0)))(action)


def td_target(reward: jax.Array, terminated: jax.Array, discount: jax.Array, next_value: jax.Array) -> jax.Array:
    """y = r + discount (1 - terminated) V(s') -> [B]; a truncated episode bootstraps."""
    return reward + discount * (1.0 - terminated) * next_value


def weighted_mean(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """The mean of values [..., B] with those of weight [B] 0 counted as 0 (a window beyond its episode's end); weight None: all count."""
    return jnp.mean(values if weight is None else weight * values)


def td_loss(
    critic: Ensemble, params: Params, obs: jax.Array, action: jax.Array, target: jax.Array, weight: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """mean over members and rows of weight (Q_i(s, a) - y)^2, and the mean Q; y [B], or [K, B], for each member its own."""
    q = critic.values(params, obs, action)
    return weighted_mean((q - target) ** 2, weight), jnp.mean(q)


class Critic(NamedTuple):
    """An ensemble in training with its target network."""

    online: optim.Trained
    target: Params


def start(critic: Ensemble, optimiser: optax.GradientTransformation, key: jax.Array) -> Critic:
    params = critic.init(key)
    return Critic(optim.start(optimiser, params), params)


def regress(
    critic: Ensemble,
    optimiser: optax.GradientTransformation,
    state: optim.Trained,
    obs: jax.Array,
    action: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
) -> tuple[optim.Trained, dict[str, jax.Array]]:
    """One gradient step on the loss of `td_loss`."""
    (loss, q), grads = jax.value_and_grad(lambda p: td_loss(critic, p, obs, action, target, weight), has_aux=True)(state.params)
    return optim.step(optimiser, state, grads), {"critic_loss": loss, "q_mean": q}


def td_step(
    critic: Ensemble,
    optimiser: optax.GradientTransformation,
    state: Critic,
    obs: jax.Array,
    action: jax.Array,
    target: jax.Array,
    tau: jax.Array,
    weight: jax.Array | None = None,
) -> tuple[Critic, dict[str, jax.Array]]:
    """One gradient step on the TD loss and one Polyak step of the target network."""
    online, info = regress(critic, optimiser, state.online, obs, action, target, weight)
    return Critic(online, optim.polyak(state.target, online.params, tau)), info


def expectile_loss(difference: jax.Array, expectile: jax.Array) -> jax.Array:
    """|expectile - 1[u <= 0]| u^2 elementwise for u = q - v (IQL, Kostrikov et al. 2022, eq. 5)."""
    weight = jnp.where(difference > 0, expectile, 1.0 - expectile)
    return weight * difference**2
