"""AWAC: advantage-weighted actor-critic (Nair et al., arXiv 2006.09359), as in CORL, whose settings and tables are in use.

Critics learn by TD with the policy's own next action and the minimum of the target critics. A Gaussian policy learns by likelihood weighted
with exp(A(s, a) / lambda), clipped at 100, where A(s, a) = Q(s, a) - Q(s, a') with a' one sample of the policy and Q the minimum of the
critics. One critic step, then one policy step per batch; the same losses run offline and online; data of both phases form one buffer. Acts
with a sample to explore, with the mean in evaluation.
Deviations: CORL normalises observations with the mean and standard deviation of the data; Xavier-uniform initialisation (CORL: PyTorch's).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.agents.base import Agent, Metrics, Spec, one_step_agent
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import critics, gaussian, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple = static((256, 256, 256), "widths of critics and policy")
    critics: int = static(2, "K: critics; the minimum of all is taken")
    temperature: float = traced(1.0, "lambda: what the advantage is divided by in the policy's weights (AntMaze, Adroit: 0.1)")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of the critics")
    actor_lr: float = traced(3e-4, "learning rate of the policy")
    tau: float = traced(0.005, "Polyak step of the target critics")


PROTOCOL = Protocol(offline_steps=1_000_000, online_steps=1_000_000, updates=1, batch_size=256, sampling="union")
SUITES = {  # CORL's configs/finetune/awac
    "adroit": {"config": {"temperature": 0.1}},
    "antmaze": {"config": {"temperature": 0.1}, "protocol": {"reward_shift": -1.0, "eval_every": 50_000}},
}


def validate(config: Config, where: str) -> None:
    if not config.temperature > 0:
        raise UserError(f"{where}: temperature must be above 0, got {config.temperature}")


class AwacState(NamedTuple):
    actor: optim.Trained
    critic: critics.Critic


class Draws(NamedTuple):
    next_noise: jax.Array  #  [B, A] of the policy at s'
    noise: jax.Array  #       [B, A] of the policy at s


def make(config: Config, spec: Spec) -> Agent:
    sizes = {"obs_size": spec.obs_size, "action_size": spec.action_size, "widths": config.hidden}
    policy = gaussian.make(**sizes, bounded_mean=False, log_std_min=-20.0)
    critic = critics.ensemble(**sizes, members=config.critics, norm="none")
    actor_optimiser, critic_optimiser = optim.adam(config.actor_lr), optim.adam(config.critic_lr)

    def init(key: jax.Array) -> AwacState:
        actor_key, critic_key = jax.random.split(key)
        return AwacState(optim.start(actor_optimiser, policy.init(actor_key)), critics.start(critic, critic_optimiser, critic_key))

    def q_min(params: critics.Params, obs: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.min(critic.values(params, obs, action), axis=0)

    def critic_step(state: AwacState, batch: Batch, noise: jax.Array) -> tuple[critics.Critic, Metrics]:
        next_action = policy.sample(state.actor.params, batch.next_obs, noise)
        next_value = q_min(state.critic.target, batch.next_obs, next_action)
        target = critics.td_target(batch.reward, batch.terminated, config.discount, next_value)
        return critics.td_step(critic, critic_optimiser, state.critic, batch.obs, batch.action, target, config.tau, batch.td_weight)

    def actor_step(state: AwacState, batch: Batch, noise: jax.Array) -> tuple[optim.Trained, Metrics]:
        online = state.critic.online.params
        own_action = policy.sample(state.actor.params, batch.obs, noise)
        advantage = q_min(online, batch.obs, batch.action) - q_min(online, batch.obs, own_action)
        weight = gaussian.advantage_weight(advantage / config.temperature)
        return gaussian.weighted_step(policy, actor_optimiser, state.actor, batch, weight)

    def pretrain(state: AwacState, batch: Batch, draws: Draws) -> tuple[AwacState, Metrics]:
        """One critic step, then one policy step against the new critics."""
        critic_state, metrics = critic_step(state, batch, draws.next_noise)
        state = state._replace(critic=critic_state)
        actor, info = actor_step(state, batch, draws.noise)
        return state._replace(actor=actor), {**metrics, **info}

    def draw(tape: Tape) -> Draws:
        noise = lambda: tape.normal((spec.batch_size, spec.action_size))
        return Draws(noise(), noise())

    return one_step_agent(
        init,
        draw,
        pretrain,
        spec.updates,
        draw_act=lambda key, explore: jax.random.normal(key, (spec.action_size,)),
        act=lambda state, obs, noise, *, explore: (policy.sample(state.actor.params, obs, noise if explore else None), {}),
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
    )
