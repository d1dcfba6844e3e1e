"""Candidates and selection: which of several proposed actions is taken.

Shape letters: N candidates, A action, K critics.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def take(candidates: jax.Array, index: jax.Array) -> jax.Array:
    """candidates [..., N, A], index [...] -> [..., A]."""
    return jnp.take_along_axis(candidates, index[..., None, None], axis=-2)[..., 0, :]


def best(candidates: jax.Array, q: jax.Array) -> jax.Array:
    """The candidate of highest q [..., N] -> [..., A]."""
    return take(candidates, jnp.argmax(q, axis=-1))


def top(candidates: jax.Array, q: jax.Array, n: int) -> jax.Array:
    """The n candidates of highest q [..., N], the best first -> [..., n, A]; all of them where there are no more than n."""
    index = jax.lax.top_k(q, min(n, q.shape[-1]))[1]
    return jnp.take_along_axis(candidates, index[..., None], axis=-2)


def softmax(candidates: jax.Array, q: jax.Array, temperature: jax.Array, uniform: jax.Array) -> jax.Array:
    """A candidate with probability proportional to exp(q / temperature), q [..., N] -> [..., A]; `uniform` [..., N] in [0, 1).

    By the Gumbel trick: the highest of q + temperature * Gumbel noise, which is `best` at temperature 0.
    """
    gumbel = -jnp.log(-jnp.log(jnp.clip(uniform, 1e-7, 1 - 1e-7)))
    return best(candidates, q + temperature * gumbel)


def standardised(q: jax.Array) -> jax.Array:
    """q [..., N] in units of its standard deviation over the candidates, about its mean: what makes one temperature fit all scales of Q."""
    mean, deviation = jnp.mean(q, axis=-1, keepdims=True), jnp.std(q, axis=-1, keepdims=True)
    return (q - mean) / jnp.maximum(deviation, 1e-6)


def examine(q: jax.Array, among: jax.Array | None = None) -> dict[str, jax.Array]:
    """What taking the maximum over candidates adds to the estimates q [K, N] of K critics, for the evaluations' tables.

    max_gain: the mean critic's maximum over the candidates less its mean over them.
    max_bias: a critic's estimate of the candidate that it likes best less what the other critics say of that candidate, mean over critics
    (the double estimator of van Hasselt 2010; critics that share their data share errors that this cannot see). 0 for a single critic.
    `among` [N]: which candidates count; None: all.
    """
    among = jnp.ones(q.shape[-1], bool) if among is None else among
    mean, members = jnp.mean(q, axis=0), len(q)
    favourite = jnp.argmax(jnp.where(among, q, -jnp.inf), axis=-1)
    own = jnp.take_along_axis(q, favourite[:, None], axis=-1)[:, 0]
    of_all = mean[favourite]  # [K] the mean critic's estimate of each member's favourite, its own included
    gain = jnp.max(jnp.where(among, mean, -jnp.inf)) - jnp.sum(jnp.where(among, mean, 0.0)) / jnp.sum(among)
    return {"max_gain": gain, "max_bias": jnp.mean(own - of_all) * members / max(members - 1, 1)}
