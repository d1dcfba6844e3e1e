"""Candidates and selection: which of several proposed actions is taken.

Shape letters: N candidates, A action, K critics.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

RULES = ("max", "random")


def take(candidates: jax.Array, index: jax.Array) -> jax.Array:
    """candidates [..., N, A], index [...] -> [..., A]."""
    return jnp.take_along_axis(candidates, index[..., None, None], axis=-2)[..., 0, :]


def best(candidates: jax.Array, q: jax.Array) -> jax.Array:
    """The candidate of highest q [..., N] -> [..., A]."""
    return take(candidates, jnp.argmax(q, axis=-1))


def examine(q: jax.Array) -> dict[str, jax.Array]:
    """What taking the maximum over candidates adds to the estimates q [K, N] of K critics, for the evaluations' tables.

    max_gain: the mean critic's maximum over the candidates less its mean over them.
    max_bias: a critic's estimate of the candidate that it likes best less what the other critics say of that candidate, mean over critics
    (the double estimator of van Hasselt 2010; critics that share their data share errors that this cannot see). 0 for a single critic.
    """
    mean = jnp.mean(q, axis=0)
    members = len(q)
    favourite = jnp.argmax(q, axis=-1)
    own = jnp.max(q, axis=-1)
    of_all = jnp.mean(q[:, favourite], axis=0)  # [K] the mean critic's estimate of each member's favourite, its own included
    bias = jnp.mean(own - of_all) * members / max(members - 1, 1)
    return {"max_gain": jnp.max(mean) - jnp.mean(mean), "max_bias": bias}
