"""Diffusion-QL: diffusion policies for offline reinforcement learning (Wang et al., arXiv 2208.06193), as released.

A diffusion policy imitates and at the same time maximises Q at its own samples: the value's gradient runs back through all T denoising steps
(eq. 3; here a_0(theta) is a sample of the chain with its noises held fixed, pathwise):
- actor: |epsilon(s, a_t, t) - noise|^2 - eta Q_i(s, a_0(theta)) / mean |Q_j(s, a_0)|, (i, j) two different critics drawn anew for every
  step, no gradient in the divisor; both terms are means over action dimensions, so eta does not depend on their number;
- critic: y = r + discount min_K Q'_k(s', a'), a' one sample of the actor's EMA, or (`max_q_backup`, their AntMaze) each critic's own maximum
  over `backup_samples` of them; gradients of actor and of critics are clipped by their global norm;
- EMA: one step of 0.005 on every fifth update from the thousandth on, before which it is the policy as it was initialised.
Acting, in evaluation too: one of N samples of the actor (not its EMA), drawn with probability softmax(min_K Q' / temperature).

Protocol: the release is offline only. Offline to online the same losses go on over one uniform buffer, which is this suite's choice (that of
FQL, whose FBRAC is this algorithm with a flow).
Not checked against the official code. Deviations from it: Xavier initialisation (released: PyTorch's uniform of 1 / sqrt(fan-in)); more than
two critics are allowed; no cosine decay (a flag there), no early stopping or choice of checkpoints by a loss, and Adroit's rewards are not
standardised (released for pen: (r - mean) / deviation of the data).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.agents.base import Agent, Metrics, Spec, one_step_agent
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import base_policy, candidates, critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    denoising_steps: int = static(5, "T: denoising steps")
    base_hidden: int = static(256, "width of the denoiser's three layers (mish)")
    time_features: int = static(16, "sinusoidal features of the denoising time")
    hidden: tuple = static((256, 256, 256), "widths of the critics (mish)")
    critics: int = static(2, "K: critics, at least 2")
    n_samples: int = static(50, "N: samples of the policy to act")
    max_q_backup: bool = static(False, "back up each critic's maximum over backup_samples actions (their AntMaze)")
    backup_samples: int = static(10, "actions per next state of the maximum backup")
    ema_every: int = static(5, "updates per step of the policy's EMA")
    ema_start: int = static(1_000, "updates before the EMA's first step", least=0)
    eta: float = traced(1.0, "eta: weight of the Q loss; tuned per task by the authors (0.1 Adroit to 4.5 AntMaze)")
    temperature: float = traced(1.0, "of the softmax over Q that picks an action")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of the critics")
    actor_lr: float = traced(3e-4, "learning rate of the policy (Adroit: 3e-5)")
    grad_clip: float = traced(1.0, "largest global norm of a gradient; tuned per task by the authors (1 to 10)")
    tau: float = traced(0.005, "Polyak step of the target critics")
    ema_tau: float = traced(0.005, "Polyak step of the policy's EMA")


PROTOCOL = Protocol(
    offline_steps=1_000_000, online_steps=1_000_000, updates=1, batch_size=256, sampling="union", eval_every=50_000, eval_episodes=100
)
# Adroit is pen-cloned; AntMaze is large-diverse, its reward 4 (r - 0.5).
SUITES = {
    "adroit": {"config": {"eta": 0.1, "actor_lr": 3e-5, "grad_clip": 8.0}},
    "antmaze": {
        "config": {"eta": 3.5, "grad_clip": 7.0, "max_q_backup": True},
        "protocol": {"reward_scale": 4.0, "reward_shift": -2.0},
    },
}


def validate(config: Config, where: str) -> None:
    if config.critics < 2:
        raise UserError(f"{where}: critics must be at least 2, one that is maximised and one that scales it, got {config.critics}")


class DiffusionQlState(NamedTuple):
    actor: base_policy.Imitation
    critic: critics.Critic
    updates: jax.Array  #  [] int32


class Draws(NamedTuple):
    next_action: base_policy.SampleDraws  #  [B, 1 or backup_samples]
    imitation: base_policy.LossDraws  #      [B]
    action: base_policy.SampleDraws  #       [B, 1] of the chain that the gradient runs through
    pair: jax.Array  #                       [2] the critic that is maximised and the one that scales it


class ActDraws(NamedTuple):
    samples: base_policy.SampleDraws  #  [N]
    pick: jax.Array  #                   [N] uniform, of the softmax


def make(config: Config, spec: Spec) -> Agent:
    policy = base_policy.diffusion_mlp(
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        steps=config.denoising_steps,
        widths=(config.base_hidden,) * 3,
        time_features=config.time_features,
        time_widths=(2 * config.time_features, config.time_features),
        sampler="posterior",
    )
    critic = critics.ensemble(
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        members=config.critics,
        widths=config.hidden,
        norm="none",
        activation=jax.nn.mish,
    )
    actor_optimiser = optim.clipped_adam(config.actor_lr, config.grad_clip)
    # Released is the sum of the critics' losses, here their mean: the norm at which their gradient is clipped is K times smaller.
    critic_optimiser = optim.clipped_adam(config.critic_lr, config.grad_clip / config.critics)

    def init(key: jax.Array) -> DiffusionQlState:
        actor_key, critic_key = jax.random.split(key)
        actor = base_policy.start(policy, actor_optimiser, actor_key)
        return DiffusionQlState(actor, critics.start(critic, critic_optimiser, critic_key), jnp.zeros((), jnp.int32))

    def draw(tape: Tape) -> Draws:
        batch = spec.batch_size
        return Draws(
            policy.draw_samples(tape, (batch, config.backup_samples if config.max_q_backup else 1)),
            policy.draw_loss(tape, batch),
            policy.draw_samples(tape, (batch, 1)),
            tape.subset(config.critics, 2),
        )

    def td_target(state: DiffusionQlState, batch: Batch, draws: base_policy.SampleDraws) -> jax.Array:
        """y [B]; of one sample the maximum is the sample itself."""
        action = policy.sample(state.actor.ema, batch.next_obs, draws)
        q = critic.values(state.critic.target, batch.next_obs[:, None], action)
        return critics.td_target(batch.reward, batch.terminated, config.discount, jnp.min(jnp.max(q, axis=-1), axis=0))

    def actor_loss(params: base_policy.Params, online: critics.Params, batch: Batch, draws: Draws) -> tuple[jax.Array, Metrics]:
        imitation_loss = policy.loss(params, batch.obs, batch.action, draws.imitation, batch.action_weight) / spec.action_size
        action = policy.sample(params, batch.obs, draws.action)[:, 0]
        q, scale = critic.values(critics.members(online, draws.pair), batch.obs, action)
        q_loss = -jnp.mean(q) / jax.lax.stop_gradient(jnp.mean(jnp.abs(scale)))
        return imitation_loss + config.eta * q_loss, {"imitation_loss": imitation_loss, "q_loss": q_loss, "actor_q": jnp.mean(q)}

    def step(state: DiffusionQlState, batch: Batch, draws: Draws) -> tuple[DiffusionQlState, Metrics]:
        target = td_target(state, batch, draws.next_action)
        critic_state, metrics = critics.td_step(
            critic, critic_optimiser, state.critic, batch.obs, batch.action, target, config.tau, batch.td_weight
        )
        grads, info = jax.grad(actor_loss, has_aux=True)(state.actor.base.params, critic_state.online.params, batch, draws)
        base = optim.step(actor_optimiser, state.actor.base, grads)
        ema_tau = optim.every(state.updates, config.ema_every, config.ema_start, config.ema_tau)
        actor = base_policy.Imitation(base, optim.polyak(state.actor.ema, base.params, ema_tau))
        return DiffusionQlState(actor, critic_state, state.updates + 1), {**metrics, **info}

    def act(state: DiffusionQlState, obs: jax.Array, draws: ActDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        samples = policy.sample(state.actor.base.params, obs, draws.samples)
        q = jnp.min(critic.values(state.critic.target, obs, samples), axis=0)
        return candidates.softmax(samples, q, config.temperature, draws.pick), {}

    return one_step_agent(
        init,
        draw,
        step,
        spec.updates,
        draw_act=lambda key, explore: bulk(
            lambda tape: ActDraws(policy.draw_samples(tape, (config.n_samples,)), tape.uniform((config.n_samples,)))
        )(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
    )
