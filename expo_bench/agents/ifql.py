"""IFQL: implicit flow Q-learning, the flow variant of IDQL (Hansen-Estruch et al., arXiv 2304.10573) as FQL's authors released it for
comparison (Park et al., arXiv 2502.02538).

V learns an upper expectile of the target critics' minimum at dataset actions, the critics r + discount V(s') (IQL, eq. 5 and 6 of Kostrikov et
al., arXiv 2110.06169); a flow imitates. Acting takes the best of N flow samples under the minimum of the online critics. One joint Adam over
V, critics and flow, so that the critics' target is the V before its step; the same losses run offline and online.
Deviation: the TD error is the mean over the critics, not their sum, a factor that Adam cancels.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from expo_bench import networks
from expo_bench.agents import fql
from expo_bench.agents.base import Agent, Metrics, Spec, one_step_agent
from expo_bench.config import static, traced
from expo_bench.parts import base_policy, best_of_n, critics, joint, optim
from expo_bench.parts.replay import Batch


@dataclasses.dataclass(frozen=True)
class Config:
    n_samples: int = static(32, "N: flow samples per state to act (64 in antsoccer, 128 in Adroit)")
    flow_steps: int = static(10, "Euler steps of the flow")
    hidden: tuple = static((512, 512, 512, 512), "widths of all networks (GELU; LayerNorm after it in critics and value function)")
    critics: int = static(2, "K: critics; the minimum of all is taken")
    expectile: float = traced(0.9, "expectile of the value function")
    discount: float = traced(0.99, "discount")
    lr: float = traced(3e-4, "learning rate of everything")
    tau: float = traced(0.005, "Polyak step of the target critics")


# The same repository's protocol; N from the FQL paper's table of offline-to-online settings (AntMaze: the default).
PROTOCOL = fql.PROTOCOL
SUITES = {
    "adroit": {"config": {"n_samples": 128}, "protocol": fql.SUITES["adroit"]["protocol"]},
    "antmaze": {"protocol": fql.SUITES["antmaze"]["protocol"]},
}


class Params(NamedTuple):
    critic: critics.Params
    value: networks.Params
    flow: base_policy.Params


def make(config: Config, spec: Spec) -> Agent:
    sizes = {"widths": config.hidden, "steps": config.flow_steps, "members": config.critics, "n_samples": config.n_samples}
    policy = best_of_n.make(obs_size=spec.obs_size, action_size=spec.action_size, **sizes, aggregate=jnp.min)
    flow, critic = policy.flow, policy.critic
    value_net = networks.MLP(config.hidden, out=1, norm="post", activation=nn.gelu)
    optimiser = optim.adam(config.lr)

    def init(key: jax.Array) -> joint.Joint:
        critic_key, value_key, flow_key = jax.random.split(key, 3)
        value = networks.init(value_net, value_key, jnp.zeros(spec.obs_size))
        return joint.start(optimiser, Params(critic.init(critic_key), value, flow.init(flow_key)))

    def v(params: networks.Params, obs: jax.Array) -> jax.Array:
        return networks.apply(value_net, params, obs)[..., 0]

    def value_loss(params: Params, target: critics.Params, batch: Batch) -> jax.Array:
        """IQL eq. 5: V towards an upper expectile of the target critics' minimum at dataset actions."""
        error = jnp.min(critic.values(target, batch.obs, batch.action), axis=0) - v(params.value, batch.obs)
        return critics.weighted_mean(critics.expectile_loss(error, config.expectile), batch.td_weight)

    def critic_loss(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """IQL eq. 6: the critics towards r + discount V(s')."""
        y = critics.td_target(batch.reward, batch.terminated, config.discount, v(jax.lax.stop_gradient(params.value), batch.next_obs))
        return critics.td_loss(critic, params.critic, batch.obs, batch.action, y, batch.td_weight)

    def total_loss(params: Params, target: critics.Params, batch: Batch, draws: base_policy.LossDraws) -> tuple[jax.Array, Metrics]:
        of_value = value_loss(params, target, batch)
        of_critics, q = critic_loss(params, batch)
        of_flow = flow.loss(params.flow, batch.obs, batch.action, draws, batch.action_weight)
        metrics = {"value_loss": of_value, "critic_loss": of_critics, "imitation_loss": of_flow, "q_mean": q}
        return of_value + of_critics + of_flow, metrics

    def step(state: joint.Joint, batch: Batch, draws: base_policy.LossDraws) -> tuple[joint.Joint, Metrics]:
        return joint.step(optimiser, lambda params: total_loss(params, state.target, batch, draws), state, config.tau)

    return one_step_agent(
        init,
        lambda tape: flow.draw_loss(tape, spec.batch_size),
        step,
        spec.updates,
        **policy.acting,
        base_act=lambda state, obs, draws: flow.sample(state.trained.params.flow, obs, draws)[..., 0, :],
    )
