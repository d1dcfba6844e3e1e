"""RLPD: efficient online reinforcement learning with offline data (Ball et al., arXiv 2302.02948), as released.

Soft actor-critic with an ensemble of K LayerNorm critics, the minimum of a random subset of M in the backup (REDQ), U critic steps and then
one actor and one temperature step on the last batch; half of every batch is offline data. No offline phase. Evaluated at the policy's mode.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.agents.base import Agent, Metrics, Spec, last
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import actors, critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple = static((256, 256, 256), "widths of critics and actor")
    critics: int = static(10, "K: critics")
    critic_subset: int = static(2, "M: critics in a minimum (num-min-Q)")
    critic_layer_norm: bool = static(True, "LayerNorm in the critics")
    backup_entropy: bool = static(False, "subtract alpha log pi(a'|s') in the backup (off for AntMaze and Adroit in RLPD)")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of the critics")
    actor_lr: float = traced(3e-4, "learning rate of the actor")
    alpha_lr: float = traced(3e-4, "learning rate of the temperature")
    init_alpha: float = traced(1.0, "first temperature")
    tau: float = traced(0.005, "Polyak step of the target critics")


PROTOCOL = Protocol(warmup_steps=5_000, online_steps=250_000, updates=20, batch_size=256, eval_every=5_000, eval_episodes=100)
SUITES = {
    "adroit": {"protocol": {"online_steps": 1_000_000}},
    "antmaze": {"config": {"critic_subset": 1}, "protocol": {"online_steps": 300_000, "reward_shift": -1.0}},
}


def validate(config: Config, where: str) -> None:
    if not 1 <= config.critic_subset <= config.critics:
        raise UserError(f"{where}: critic_subset must lie in 1..critics ({config.critics}), got {config.critic_subset}")


class RlpdState(NamedTuple):
    actor: actors.SoftActor
    critic: critics.Critic


class Draws(NamedTuple):
    next_action: actors.GaussianDraws  #  [U, B]
    subset: jax.Array  #                  [U, M]
    action: actors.GaussianDraws  #       [B]


def make(config: Config, spec: Spec) -> Agent:
    actor = actors.tanh_gaussian(input_size=spec.obs_size, action_size=spec.action_size, widths=config.hidden)
    critic = critics.ensemble(
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        members=config.critics,
        widths=config.hidden,
        norm="pre" if config.critic_layer_norm else "none",
    )
    actor_optimiser, alpha_optimiser, critic_optimiser = (optim.adam(lr) for lr in (config.actor_lr, config.alpha_lr, config.critic_lr))

    def init(key: jax.Array) -> RlpdState:
        actor_key, critic_key = jax.random.split(key)
        return RlpdState(
            actors.start(actor, actor_optimiser, alpha_optimiser, actor_key, config.init_alpha),
            critics.start(critic, critic_optimiser, critic_key),
        )

    def act(state: RlpdState, obs: jax.Array, draws: actors.GaussianDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        params = state.actor.actor.params
        return (actor.sample(params, obs, draws)[0] if explore else actor.mode(params, obs)), {}

    def draw(tape: Tape) -> Draws:
        return Draws(
            actor.draw(tape, (spec.updates, spec.batch_size)),
            tape.subset(config.critics, config.critic_subset, (spec.updates,)),
            actor.draw(tape, (spec.batch_size,)),
        )

    def critic_steps(state: RlpdState, batches: Batch, draws: Draws) -> tuple[critics.Critic, Metrics]:
        """U TD steps; the actor does not change meanwhile, so the next actions of all U batches are sampled in one call."""
        next_action, next_log_prob = actor.sample(state.actor.actor.params, batches.next_obs, draws.next_action)
        alpha = jnp.exp(state.actor.log_alpha.params)

        def td_step(carry: critics.Critic, inputs: tuple) -> tuple[critics.Critic, Metrics]:
            batch, action, log_prob, subset = inputs
            value = critics.min_of(critic, carry.target, subset, batch.next_obs, action)
            if config.backup_entropy:
                value = value - alpha * log_prob
            target = critics.td_target(batch.reward, batch.terminated, config.discount, value)
            return critics.td_step(critic, critic_optimiser, carry, batch.obs, batch.action, target, config.tau, batch.td_weight)

        return jax.lax.scan(td_step, state.critic, (batches, next_action, next_log_prob, draws.subset))

    def learn(state: RlpdState, batches: Batch, draws: Draws) -> tuple[RlpdState, Metrics]:
        critic_state, metrics = critic_steps(state, batches, draws)
        batch = last(batches)
        soft_actor, info = actors.soft_step(
            actor_optimiser,
            alpha_optimiser,
            state.actor,
            lambda params: actor.sample(params, batch.obs, draws.action),
            lambda action: critic.values(critic_state.online.params, batch.obs, action),
            -spec.action_size / 2,
        )
        return RlpdState(soft_actor, critic_state), {**{name: value[-1] for name, value in metrics.items()}, **info}

    return Agent(
        init=init,
        draw_pretrain=None,
        pretrain=None,
        draw=bulk(draw),
        learn=learn,
        draw_act=lambda key, explore: bulk(lambda tape: actor.draw(tape, ()))(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
    )
