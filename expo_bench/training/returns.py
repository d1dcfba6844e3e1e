"""Discounted returns to go. An episode that its time limit cuts off is taken to go on with its last reward for ever, which is what bootstrapping
through the time limit makes a critic learn, and what Cal-QL assumes of an unsolved AntMaze episode (-1 / (1 - discount)).

Shape letters: n steps, in order, episode after episode.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


def to_go(reward: jax.Array, terminated: jax.Array, last: jax.Array, discount: jax.Array) -> jax.Array:
    """G_i = r_i + discount G_{i+1} within an episode, [n, ...] -> [n, ...]; at its last step r_i, or r_i / (1 - discount) if not terminated."""
    cut = last * (1.0 - terminated)
    start = jnp.where(cut > 0, reward / (1.0 - discount), reward)
    factor = discount * (1.0 - last)

    def compose(later: tuple[jax.Array, jax.Array], earlier: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """G_i = a + f G_j after G_j = b + g G_k."""
        b, g = later
        a, f = earlier
        return a + f * b, f * g

    return jax.lax.associative_scan(compose, (start, factor), reverse=True)[0]


class Returns(NamedTuple):
    """What the returns to go of the online transitions are made of; horizon * num_envs unused places lie in front of the first."""

    reward: jax.Array  #  [places]
    value: jax.Array  #   [places]; -inf until the episode has ended


def empty(capacity: int, horizon: int, num_envs: int) -> Returns:
    places = capacity + horizon * num_envs
    return Returns(jnp.zeros(places, jnp.float32), jnp.full(places, -jnp.inf, jnp.float32))


def insert(
    returns: Returns,
    stored: jax.Array,
    horizon: int,
    reward: jax.Array,
    terminated: jax.Array,
    last: jax.Array,
    length: jax.Array,
    discount: jax.Array,
) -> Returns:
    """Add a step of each environment [n] behind the `stored` ones, and fill in the episodes that it ended.

    `length` [n]: steps of each running episode, this one included. Within the last `horizon` steps lies all of every ended episode.
    """
    n = len(reward)
    rewards = jax.lax.dynamic_update_slice_in_dim(returns.reward, reward, horizon * n + stored, axis=0)
    window = lambda x: jax.lax.dynamic_slice_in_dim(x, stored + n, horizon * n).reshape(horizon, n)
    ends = jnp.zeros((horizon, n)).at[-1].set(1.0)
    value = to_go(window(rewards), ends * terminated, ends, discount)
    of_episode = jnp.arange(horizon)[:, None] >= horizon - length
    value = jnp.where(of_episode & (last > 0), value, window(returns.value))
    return Returns(rewards, jax.lax.dynamic_update_slice_in_dim(returns.value, value.reshape(-1), stored + n, axis=0))


def stored_value(returns: Returns, horizon: int, num_envs: int, index: jax.Array) -> jax.Array:
    """The return to go of the online transitions with these indices; -inf where the episode still runs."""
    return returns.value[index + horizon * num_envs]
