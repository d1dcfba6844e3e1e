"""FQL: flow Q-learning (Park et al., arXiv 2502.02538), as released.

A flow imitates; a one-step policy mu(s, z) is distilled from it and maximises Q at the same time, so that no gradient runs through the flow's
steps. One joint Adam over critics, flow and one-step policy; the same losses run offline and online; data of both phases form one buffer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from expo_bench import networks
from expo_bench.agents.base import Agent, Metrics, Spec, per_batch
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import base_policy, critics, joint, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    flow_steps: int = static(10, "Euler steps of the flow")
    hidden: tuple = static((512, 512, 512, 512), "widths of all networks (GELU; LayerNorm after it in the critics)")
    critics: int = static(2, "K: critics")
    q_aggregate: str = static("mean", "target value over the critics: 'mean' or 'min' (Adroit, large AntMaze: 'min')")
    normalise_q: bool = static(False, "divide the policy's Q loss by mean |Q|")
    distill: float = traced(
        10.0, "alpha: weight of the distillation; tuned per task by the authors (10 AntMaze, 300 cube, 1000-30000 Adroit)"
    )
    discount: float = traced(0.99, "discount")
    lr: float = traced(3e-4, "learning rate of everything")
    tau: float = traced(0.005, "Polyak step of the target critics")


# One uniform buffer of offline and online data; critic, flow and one-step policy are pretrained together. Offline to online the authors
# pretrain for 1,000,000 steps on every task; their 500,000 on D4RL's are for offline runs.
PROTOCOL = Protocol(
    offline_steps=1_000_000, online_steps=1_000_000, updates=1, batch_size=256, sampling="union", eval_every=50_000, eval_episodes=50
)
SUITES = {
    "adroit": {"config": {"distill": 1000.0, "q_aggregate": "min"}, "protocol": {"eval_every": 5_000}},
    "antmaze": {"protocol": {"reward_shift": -1.0}},
}


def validate(config: Config, where: str) -> None:
    if config.q_aggregate not in ("mean", "min"):
        raise UserError(f"{where}: q_aggregate must be 'mean' or 'min', got {config.q_aggregate!r}")


class Params(NamedTuple):
    critic: critics.Params
    flow: networks.Params
    one_step: networks.Params


class Draws(NamedTuple):
    next_noise: jax.Array  #     [B, A] of the one-step policy at s'
    x0: jax.Array  #             [B, A] of the flow loss
    t: jax.Array  #              [B] of the flow loss
    distill_noise: jax.Array  #  [B, A] shared by flow and one-step policy


def make(config: Config, spec: Spec) -> Agent:
    critic = critics.ensemble(
        obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, widths=config.hidden, norm="post", activation=nn.gelu
    )
    policy = base_policy.flow_mlp(obs_size=spec.obs_size, action_size=spec.action_size, steps=config.flow_steps, widths=config.hidden)
    one_step_net = networks.MLP(config.hidden, out=spec.action_size, activation=nn.gelu)
    optimiser = optim.adam(config.lr)
    aggregate = jnp.mean if config.q_aggregate == "mean" else jnp.min

    def init(key: jax.Array) -> joint.Joint:
        critic_key, flow_key, one_step_key = jax.random.split(key, 3)
        one_step = networks.init(one_step_net, one_step_key, jnp.zeros(spec.obs_size + spec.action_size))
        return joint.start(optimiser, Params(critic.init(critic_key), policy.init(flow_key), one_step))

    def one_step(params: networks.Params, obs: jax.Array, noise: jax.Array) -> jax.Array:
        """mu(s, z), unclipped."""
        return networks.apply(one_step_net, params, jnp.concatenate([obs, noise], axis=-1))

    def critic_loss(params: Params, target: critics.Params, batch: Batch, draws: Draws) -> tuple[jax.Array, Metrics]:
        next_action = jnp.clip(one_step(jax.lax.stop_gradient(params.one_step), batch.next_obs, draws.next_noise), -1, 1)
        value = aggregate(critic.values(target, batch.next_obs, next_action), axis=0)
        y = critics.td_target(batch.reward, batch.terminated, config.discount, value)
        loss, q = critics.td_loss(critic, params.critic, batch.obs, batch.action, y, batch.td_weight)
        return loss, {"critic_loss": loss, "q_mean": q}

    def actor_loss(params: Params, batch: Batch, draws: Draws) -> tuple[jax.Array, Metrics]:
        """Flow imitation + alpha * distillation - Q of the one-step policy."""
        imitation = base_policy.LossDraws(draws.x0, draws.t, None)
        bc_flow_loss = policy.loss(params.flow, batch.obs, batch.action, imitation, batch.action_weight)
        of_flow = base_policy.SampleDraws(draws.distill_noise[..., None, :], None)
        flow_action = policy.sample(jax.lax.stop_gradient(params.flow), batch.obs, of_flow)[..., 0, :]
        action = one_step(params.one_step, batch.obs, draws.distill_noise)
        distill_loss = jnp.mean((action - flow_action) ** 2)
        q = jnp.mean(critic.values(jax.lax.stop_gradient(params.critic), batch.obs, jnp.clip(action, -1, 1)), axis=0)
        q_loss = -jnp.mean(q)
        if config.normalise_q:
            q_loss = q_loss / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
        loss = bc_flow_loss + config.distill * distill_loss + q_loss
        return loss, {"bc_flow_loss": bc_flow_loss, "distill_loss": distill_loss, "q_loss": q_loss, "actor_q": jnp.mean(q)}

    def total_loss(params: Params, target: critics.Params, batch: Batch, draws: Draws) -> tuple[jax.Array, Metrics]:
        of_critic, critic_info = critic_loss(params, target, batch, draws)
        of_actor, actor_info = actor_loss(params, batch, draws)
        return of_critic + of_actor, {**critic_info, **actor_info}

    def pretrain(state: joint.Joint, batch: Batch, draws: Draws) -> tuple[joint.Joint, Metrics]:
        return joint.step(optimiser, lambda params: total_loss(params, state.target, batch, draws), state, config.tau)

    def draw(*lead: int) -> Callable[[jax.Array], Draws]:
        """The draws of a batch [B], or of U batches [U, B]."""
        noise = (*lead, spec.batch_size, spec.action_size)
        return bulk(lambda tape: Draws(tape.normal(noise), tape.normal(noise), tape.uniform(noise[:-1]), tape.normal(noise)))

    return Agent(
        init=init,
        draw_pretrain=draw(),
        pretrain=pretrain,
        draw=draw(spec.updates),
        learn=per_batch(pretrain),
        draw_act=lambda key, explore: jax.random.normal(key, (spec.action_size,)),
        act=lambda state, obs, draws, *, explore: (jnp.clip(one_step(state.trained.params.one_step, obs, draws), -1, 1), {}),
        value=lambda state, obs, action: jnp.mean(critic.values(state.trained.params.critic, obs, action)),
    )
