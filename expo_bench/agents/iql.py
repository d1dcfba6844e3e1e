"""IQL: implicit Q-learning (Kostrikov et al., arXiv 2110.06169), as released, in its online fine-tuning.

V follows an upper expectile of Q at the data's actions (eq. 5), Q is regressed on r + discount V(s') (eq. 6), and a Gaussian policy is
extracted by likelihood weighted with min(exp(beta (Q(s, a) - V(s))), 100) (eq. 7). No policy is queried to learn. One step of V, policy and
critics per batch, in that order: the policy sees the new V, and the target critics before their step. The same losses run offline and
online; data of both phases form one buffer. Acts with a sample to explore, with the mean in evaluation.
Deviations: Xavier-uniform initialisation (released: orthogonal); the critics' loss is a mean over the critics, where the released code sums.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from expo_bench.agents.base import Agent, Metrics, Spec, per_batch
from expo_bench.config import static, traced
from expo_bench.parts import critics, gaussian, implicit, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple = static((256, 256), "widths of all networks")
    critics: int = static(2, "K: critics; the minimum of all is taken")
    actor_dropout: float = static(0.0, "dropout of the policy in training (Adroit: 0.1)", least=0, below=1)
    actor_decay_steps: int = static(
        0, "updates until a cosine schedule of the policy reaches 0; 0: constant (released: 0 to fine-tune, 1,000,000 offline)", least=0
    )
    expectile: float = traced(0.7, "expectile of the value function (AntMaze: 0.9)")
    inverse_temperature: float = traced(3.0, "beta: factor of the advantage in the policy's weights (AntMaze: 10, Adroit: 0.5)")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of critics and value function")
    actor_lr: float = traced(3e-4, "learning rate of the policy")
    tau: float = traced(0.005, "Polyak step of the target critics")


PROTOCOL = Protocol(offline_steps=1_000_000, online_steps=1_000_000, updates=1, batch_size=256, sampling="union")
SUITES = {
    # Released are fine-tuning settings for AntMaze alone; Adroit has those of its offline runs.
    "adroit": {"config": {"inverse_temperature": 0.5, "actor_dropout": 0.1}},
    "antmaze": {"config": {"expectile": 0.9, "inverse_temperature": 10.0}, "protocol": {"reward_shift": -1.0, "eval_every": 100_000}},
}


class IqlState(NamedTuple):
    actor: optim.Trained
    value: optim.Trained
    critic: critics.Critic


def make(config: Config, spec: Spec) -> Agent:
    sizes = {"obs_size": spec.obs_size, "action_size": spec.action_size, "widths": config.hidden}
    policy = gaussian.make(**sizes, bounded_mean=True, log_std_min=-5.0, dropout=config.actor_dropout)
    value = implicit.value_function(obs_size=spec.obs_size, widths=config.hidden)
    critic = critics.ensemble(**sizes, members=config.critics, norm="none")
    decay = config.actor_decay_steps
    actor_optimiser = optim.adam(optax.cosine_decay_schedule(config.actor_lr, decay) if decay else config.actor_lr)
    critic_optimiser = optim.adam(config.critic_lr)

    def init(key: jax.Array) -> IqlState:
        actor_key, value_key, critic_key = jax.random.split(key, 3)
        return IqlState(
            optim.start(actor_optimiser, policy.init(actor_key)),
            optim.start(critic_optimiser, value.init(value_key)),
            critics.start(critic, critic_optimiser, critic_key),
        )

    def pretrain(state: IqlState, batch: Batch, masks: gaussian.Masks) -> tuple[IqlState, Metrics]:
        """All three losses on one batch."""
        target = state.critic.target
        state, metrics = implicit.step(value, critic, critic_optimiser, state, batch, config.expectile, config.discount, config.tau)
        advantage = implicit.advantage(value, critic, state.value.params, target, batch)
        weight = gaussian.advantage_weight(config.inverse_temperature * advantage)
        actor, info = gaussian.weighted_step(policy, actor_optimiser, state.actor, batch, weight, masks)
        return state._replace(actor=actor), {**metrics, **info}

    return Agent(
        init=init,
        draw_pretrain=bulk(lambda tape: policy.draw_masks(tape, (spec.batch_size,))),
        pretrain=pretrain,
        draw=bulk(lambda tape: policy.draw_masks(tape, (spec.updates, spec.batch_size))),
        learn=per_batch(pretrain),
        draw_act=lambda key, explore: jax.random.normal(key, (spec.action_size,)),
        act=lambda state, obs, noise, *, explore: (policy.sample(state.actor.params, obs, noise if explore else None), {}),
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
    )
