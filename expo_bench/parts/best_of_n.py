"""A flow policy that acts with the best of N of its samples under critics that are trained jointly with it: IFQL and Q-chunking.

Shape letters: N samples, K critics, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from expo_bench.parts import base_policy, candidates, critics, proposals
from expo_bench.parts.joint import Joint
from expo_bench.parts.tape import Tape, bulk

Params = Any  # a named tuple with `flow` and `critic`


class BestOfN(NamedTuple):
    flow: base_policy.BasePolicy
    critic: critics.Ensemble
    draw: Callable[[Tape, tuple[int, ...]], base_policy.SampleDraws]  #  (tape, shape [...]) -> of N samples each
    choose: Callable[[Params, jax.Array, base_policy.SampleDraws], tuple[jax.Array, jax.Array]]
    # ^ (params, obs [..., O], draws) -> the sample of highest Q [..., A], and the Q of all samples [K, ..., N]
    among: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]  # the same of given samples [..., N, A]
    acting: dict[str, Callable]  #  the fields of an agent, with a `Joint` state, that say how it acts


def make(
    *,
    obs_size: int,
    action_size: int,
    widths: Sequence[int],
    steps: int,
    members: int,
    n_samples: int,
    aggregate: Callable,
    hand_out: bool = False,
) -> BestOfN:
    """With FQL's networks; `steps` are the flow's, `aggregate` over the K critics (jnp.mean, jnp.min) is what selects.

    `hand_out`: in exploration `act` returns its samples too.
    """
    flow = base_policy.flow_mlp(obs_size=obs_size, action_size=action_size, steps=steps, widths=widths)
    critic = critics.ensemble(obs_size=obs_size, action_size=action_size, members=members, widths=widths, norm="post", activation=nn.gelu)

    def draw(tape: Tape, shape: tuple[int, ...]) -> base_policy.SampleDraws:
        return flow.draw_samples(tape, (*shape, n_samples))

    def among(params: Params, obs: jax.Array, samples: jax.Array) -> tuple[jax.Array, jax.Array]:
        q = critic.values(params.critic, obs[..., None, :], samples)
        return candidates.best(samples, aggregate(q, axis=0)), q

    def choose(params: Params, obs: jax.Array, draws: base_policy.SampleDraws) -> tuple[jax.Array, jax.Array]:
        return among(params, obs, flow.sample(params.flow, obs, draws))

    def act(state: Joint, obs: jax.Array, draws: base_policy.SampleDraws, *, explore: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        samples = flow.sample(state.trained.params.flow, obs, draws)
        action, q = among(state.trained.params, obs, samples)
        if explore:
            return action, {proposals.DRAWN: samples} if hand_out else {}
        return action, candidates.examine(q)

    def value(state: Joint, obs: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.mean(critic.values(state.trained.params.critic, obs, action))

    draw_act = lambda key, explore: bulk(lambda tape: draw(tape, ()))(key)
    return BestOfN(flow, critic, draw, choose, among, {"draw_act": draw_act, "act": act, "value": value})
