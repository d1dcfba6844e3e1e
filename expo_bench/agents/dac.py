"""DAC: diffusion actor-critic (Fang et al., arXiv 2405.20555), as released.

The policy that maximises Q under a bound on its divergence from the data has the data's score plus a multiple of the action gradient of Q;
its denoiser is learnt by regression at noised replay actions a_t, without sampling the chain (eq. 14; Q-guidance):
- actor: eta |epsilon(s, a_t, t) - noise|^2 + w_t <grad_a Q'(s, a_t) / mean |Q'(s, a)|, epsilon(s, a_t, t)>, Q' the mean of the target
  critics, w_t = sqrt(1 - alpha_hat_t) ("soft") or 1 ("hard"); both terms are means over action dimensions. The minimum is
  epsilon = E[noise | a_t] - w_t grad Q' / (2 eta mean |Q'|): soft, the score of data times exp(Q' / (2 eta mean |Q'|)), so 2 eta mean |Q'|
  is the temperature, with Q' taken at the noised action. That is an approximation even where Q' is linear: of data N(m, s^2 I) the exact
  guidance is sqrt(alpha_hat) s^2 / (alpha_hat s^2 + 1 - alpha_hat) grad Q', so the policy is greedier than it claims (docs/bandit.md). Where Q'
  is sharp for it, few steps overshoot its maximum and a_0 is clipped, which the imitation of the data's own score tempers;
- eta: fixed, or (`dual_ascent`) eta + eta_lr clip(imitation loss after the step - bc_threshold, -1, 1), kept in [0.001, 100];
- critic: y = r + discount (mean_K - rho std_K) of V'_k(s'), V'_k critic k's mean (or maximum: `max_q_backup`, their AntMaze) over 10 samples
  of the policy's EMA, which takes a step of 0.005 on every fifth update after the thousandth;
- both gradients are clipped to norm 1, both learning rates fall by a cosine. The actor's step comes after that of critics and targets.
Acting: the best of N = 10 samples of the policy (not its EMA) under the mean of the target critics, in exploration as in evaluation.

Protocol: offline, then the same losses online over one uniform buffer that the data fill first, which is how the released loop fine-tunes
(never reached with its defaults); the cosine's horizon is the released 2,000,000 offline steps and 1,000,000 online ones. Locomotion of the authors:
eta 1, dual ascent with eta_lr 0.001 and threshold 1, rho 0 to 1.5; AntMaze: eta 0.1, maximum backup, rho 1 to 1.1. EXPO's authors run DAC
online and offline to online, settings unsaid: their finals stand in analysis/published/expo.csv (expo-fig4-read, expo-fig5-read).
Not checked against the official code. Deviations from it: time enters the denoiser as 0..T-1 (released: 1..T); Xavier initialisation; the guidance
of windows beyond an episode's end counts 0; the scale of AntMaze's rewards (not among the facts) is EXPO's -1, which the division by mean
|Q'| makes nearly irrelevant to the actor. The "denoised" guidance of the release is `diffusion_ql`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from expo_bench.agents.base import Agent, Metrics, Spec, one_step_agent
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import base_policy, candidates, critics, diffusion, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    guidance: str = static("soft", "weight of the Q gradient by noise level: 'soft', sqrt(1 - alpha_hat), or 'hard', 1")
    dual_ascent: bool = static(False, "learn eta by dual ascent on the imitation loss (the authors' locomotion)")
    denoising_steps: int = static(5, "T: denoising steps")
    base_hidden: int = static(256, "width of the denoiser's three layers (mish)")
    time_features: int = static(16, "sinusoidal features of the denoising time")
    hidden: tuple = static((256, 256, 256), "widths of the critics (mish)")
    critics: int = static(10, "K: critics")
    n_samples: int = static(10, "N: samples of the policy to act")
    backup_samples: int = static(10, "samples of the policy's EMA per next state in the backup")
    max_q_backup: bool = static(False, "back up each critic's maximum over the samples instead of their mean (their AntMaze)")
    decay_steps: int = static(3_000_000, "updates until both cosine schedules reach 0 (released: the run's)")
    ema_every: int = static(5, "updates per step of the policy's EMA")
    ema_start: int = static(1_001, "updates before the EMA's first step", least=0)
    eta: float = traced(1.0, "eta: weight of imitation, the first one under dual ascent (AntMaze: 0.1)")
    eta_lr: float = traced(0.001, "step of dual ascent")
    bc_threshold: float = traced(1.0, "imitation loss that dual ascent seeks (per action dimension; hopper: 0.05)")
    pessimism: float = traced(1.0, "rho: standard deviations over the critics below their mean in the backup")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of the critics (cosine)")
    actor_lr: float = traced(3e-4, "learning rate of the policy (cosine)")
    grad_clip: float = traced(1.0, "largest global norm of a gradient")
    tau: float = traced(0.005, "Polyak step of the target critics")
    ema_tau: float = traced(0.005, "Polyak step of the policy's EMA")


PROTOCOL = Protocol(
    offline_steps=2_000_000, online_steps=1_000_000, updates=1, batch_size=256, sampling="union", eval_every=10_000, eval_episodes=10
)
# The authors did not run Adroit.
SUITES = {"antmaze": {"config": {"eta": 0.1, "max_q_backup": True}, "protocol": {"reward_shift": -1.0}}}


def validate(config: Config, where: str) -> None:
    if config.guidance not in ("soft", "hard"):
        raise UserError(f"{where}: guidance must be 'soft' or 'hard', got {config.guidance!r}")


ETA_MIN, ETA_MAX = 0.001, 100.0  # of dual ascent


class DacState(NamedTuple):
    actor: base_policy.Imitation
    critic: critics.Critic
    eta: jax.Array  #      [] float32
    updates: jax.Array  #  [] int32


class Draws(NamedTuple):
    next_action: base_policy.SampleDraws  #  [B, backup_samples]
    noising: base_policy.LossDraws  #        [B]


def make(config: Config, spec: Spec) -> Agent:
    policy = base_policy.diffusion_mlp(
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        steps=config.denoising_steps,
        widths=(config.base_hidden,) * 3,
        time_features=config.time_features,
        time_widths=(2 * config.time_features,) * 2,
        sampler="posterior_beta",
    )
    schedule = diffusion.vp_schedule(config.denoising_steps)
    mish = {"norm": "none", "activation": jax.nn.mish}
    critic = critics.ensemble(obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, widths=config.hidden, **mish)
    falling = lambda lr: optim.clipped_adam(optax.cosine_decay_schedule(lr, config.decay_steps), config.grad_clip)
    actor_optimiser, critic_optimiser = falling(config.actor_lr), falling(config.critic_lr)

    def init(key: jax.Array) -> DacState:
        actor_key, critic_key = jax.random.split(key)
        return DacState(
            base_policy.start(policy, actor_optimiser, actor_key),
            critics.start(critic, critic_optimiser, critic_key),
            jnp.asarray(config.eta, jnp.float32),
            jnp.zeros((), jnp.int32),
        )

    def critic_step(state: DacState, batch: Batch, draws: base_policy.SampleDraws) -> tuple[critics.Critic, Metrics]:
        action = policy.sample(state.actor.ema, batch.next_obs, draws)
        q = critic.values(state.critic.target, batch.next_obs[:, None], action)  # [K, B, backup_samples]
        value = (jnp.max if config.max_q_backup else jnp.mean)(q, axis=-1)
        bound = jnp.mean(value, axis=0) - config.pessimism * jnp.std(value, axis=0)
        y = critics.td_target(batch.reward, batch.terminated, config.discount, bound)
        return critics.td_step(critic, critic_optimiser, state.critic, batch.obs, batch.action, y, config.tau, batch.td_weight)

    def guide(target: critics.Params, batch: Batch, noised: jax.Array, t: jax.Array) -> jax.Array:
        """w_t grad_a Q'(s, a_t) / mean |Q'(s, a)| -> [B, A]."""
        factor = 1.0 / (jnp.mean(jnp.abs(critic.values(target, batch.obs, batch.action))) + 1e-6)  # once, as in optim.clip_by_global_norm
        gradient = critics.action_gradient(critic, target, batch.obs, noised) * factor
        return gradient * jnp.sqrt(1 - schedule.alpha_hat[t])[:, None] if config.guidance == "soft" else gradient

    def actor_step(state: DacState, batch: Batch, target: critics.Params, draws: base_policy.LossDraws) -> tuple[optim.Trained, Metrics]:
        noised = diffusion.noised(schedule, batch.action, draws.noise, draws.t)
        direction = guide(target, batch, noised, draws.t)

        def loss(params: base_policy.Params) -> tuple[jax.Array, Metrics]:
            epsilon = policy.predict(params, batch.obs, noised, draws.t)
            error = (epsilon - draws.noise) ** 2
            imitation_loss = jnp.mean(error if batch.action_weight is None else batch.action_weight * error)
            guidance_loss = critics.weighted_mean(jnp.mean(direction * epsilon, axis=-1), batch.td_weight)
            return state.eta * imitation_loss + guidance_loss, {"imitation_loss": imitation_loss, "guidance_loss": guidance_loss}

        grads, info = jax.grad(loss, has_aux=True)(state.actor.base.params)
        base = optim.step(actor_optimiser, state.actor.base, grads)
        if config.dual_ascent:
            info["imitation_after"] = loss(base.params)[1]["imitation_loss"]
        return base, info

    def step(state: DacState, batch: Batch, draws: Draws) -> tuple[DacState, Metrics]:
        critic_state, metrics = critic_step(state, batch, draws.next_action)
        base, info = actor_step(state, batch, critic_state.target, draws.noising)
        eta = state.eta
        if config.dual_ascent:
            violation = jnp.clip(info["imitation_after"] - config.bc_threshold, -1, 1)
            eta = jnp.clip(eta + config.eta_lr * violation, ETA_MIN, ETA_MAX)
        ema = optim.polyak(state.actor.ema, base.params, optim.every(state.updates, config.ema_every, config.ema_start, config.ema_tau))
        after = DacState(base_policy.Imitation(base, ema), critic_state, eta, state.updates + 1)
        return after, {**metrics, **info, "eta": state.eta}

    def act(state: DacState, obs: jax.Array, draws: base_policy.SampleDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        samples = policy.sample(state.actor.base.params, obs, draws)
        q = critic.values(state.critic.target, obs, samples)
        return candidates.best(samples, jnp.mean(q, axis=0)), {} if explore else candidates.examine(q)

    return one_step_agent(
        init,
        lambda tape: Draws(policy.draw_samples(tape, (spec.batch_size, config.backup_samples)), policy.draw_loss(tape, spec.batch_size)),
        step,
        spec.updates,
        draw_act=lambda key, explore: bulk(lambda tape: policy.draw_samples(tape, (config.n_samples,)))(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
    )
