"""DIPO: policy representation via diffusion probability models (Yang et al., arXiv 2305.13122), as released
(github.com/BellmanTimeHut/DIPO).

Online from scratch. A diffusion policy imitates actions that climb Q:
- critics: y = r + discount min_K Q'(s', a'), a' one sample of the policy's EMA;
- action gradient: `ascent_steps` steps of Adam, with learning rate `action_lr`, from the batch's actions up min_K Q(s, a), clipped to
  [-1, 1] after each; the gradient of all the batch's actions together is clipped to the norm `action_clip` A (algorithm 2);
- policy: the denoising loss on those actions.
One sample acts; evaluation denoises without noise between the steps. Gradients of critics and policy are clipped by their norms.

Deviations: released, every improved action replaces the one it came from in a second buffer of (s, a), so that an action that is drawn n
times has climbed n `ascent_steps`; here the replay buffer belongs to the loop and keeps what was executed, so that each draw climbs from
the executed action anew, by about `ascent_steps` action_lr (0.6) in a dimension, and the policy imitates what the present critics make of
it.
Released, policy and critics draw batches of their own; here both learn from the same. Xavier-uniform initialisation.
Not checked against the official code.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from expo_bench.agents.base import Agent, Metrics, Spec, one_step_agent
from expo_bench.config import static, traced
from expo_bench.parts import ascent, base_policy, critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    denoising_steps: int = static(100, "T: denoising steps (cosine schedule)")
    time_features: int = static(32, "sinusoidal features of the denoising time")
    hidden: tuple = static((256, 256, 256), "widths of denoiser and critics (mish)")
    critics: int = static(2, "K: critics; the minimum of all is taken")
    ascent_steps: int = static(20, "gradient steps on an action")
    action_lr: float = traced(0.03, "Adam's learning rate on actions")
    action_clip: float = traced(0.1, "largest norm of the gradient of a batch's actions, in units of A")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of the critics")
    actor_lr: float = traced(3e-4, "learning rate of the policy")
    grad_clip: float = traced(2.0, "largest norm of the gradients of critics and policy")
    tau: float = traced(0.005, "Polyak step of the target critics and of the policy's EMA")


PROTOCOL = Protocol(
    warmup_steps=10_000, online_steps=1_000_000, updates=1, batch_size=256, offline_fraction=0.0, eval_every=10_000, eval_episodes=10
)
SUITES = {"antmaze": {"protocol": {"reward_shift": -1.0}}}  # the authors ran neither suite


class DipoState(NamedTuple):
    imitation: base_policy.Imitation
    critic: critics.Critic


class Draws(NamedTuple):
    backup: base_policy.SampleDraws  #   [B, 1, A]
    imitation: base_policy.LossDraws  #  [B]


class Parts(NamedTuple):
    policy: base_policy.BasePolicy
    critic: critics.Ensemble
    optimiser: optax.GradientTransformation  #         of the policy
    critic_optimiser: optax.GradientTransformation


def parts_of(config: Any, spec: Spec) -> Parts:
    """What DIPO has in common with QVPO, which was written upon its code."""
    policy = base_policy.diffusion_mlp(
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        steps=config.denoising_steps,
        widths=config.hidden,
        time_features=config.time_features,
        time_widths=(config.hidden[0], config.time_features),
        schedule="cosine",
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

    def clipped(scale: float, lr: jax.Array | float) -> optax.GradientTransformation:
        return optax.chain(optax.scale(scale), optim.clipped_adam(lr, config.grad_clip, eps=1e-5))

    # The clip sees the released losses: the policy's is a mean over dimensions (here a sum), the critics' a sum over critics (here a mean).
    return Parts(policy, critic, clipped(1 / spec.action_size, config.actor_lr), clipped(config.critics, config.critic_lr))


def make(config: Config, spec: Spec) -> Agent:
    policy, critic, optimiser, critic_optimiser = parts_of(config, spec)
    on_actions = optim.clipped_adam(config.action_lr, config.action_clip * spec.action_size, eps=1e-5)

    def init(key: jax.Array) -> DipoState:
        policy_key, critic_key = jax.random.split(key)
        return DipoState(base_policy.start(policy, optimiser, policy_key), critics.start(critic, critic_optimiser, critic_key))

    def q_min(params: critics.Params, obs: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.min(critic.values(params, obs, action), axis=0)

    def step(state: DipoState, batch: Batch, draws: Draws) -> tuple[DipoState, Metrics]:
        """Critics, then the policy on what the batch's actions become under the new critics."""
        next_action = policy.sample(state.imitation.ema, batch.next_obs, draws.backup)[..., 0, :]
        value = q_min(state.critic.target, batch.next_obs, next_action)
        y = critics.td_target(batch.reward, batch.terminated, config.discount, value)
        critic_state, metrics = critics.td_step(
            critic, critic_optimiser, state.critic, batch.obs, batch.action, y, config.tau, batch.td_weight
        )
        climbed = ascent.climb(
            lambda action: q_min(critic_state.online.params, batch.obs, action), batch.action, on_actions, config.ascent_steps
        )
        shift = jnp.mean(jnp.abs(climbed.last - batch.action))
        improved = batch._replace(action=climbed.last)
        imitation, loss = base_policy.imitate(policy, optimiser, state.imitation, improved, draws.imitation, config.tau)
        return DipoState(imitation, critic_state), {**metrics, "imitation_loss": loss, "action_shift": shift}

    def draw(tape: Tape) -> Draws:
        return Draws(policy.draw_samples(tape, (spec.batch_size, 1)), policy.draw_loss(tape, spec.batch_size))

    def act(state: DipoState, obs: jax.Array, draws: base_policy.SampleDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        if not explore:
            draws = draws._replace(step_noise=jnp.zeros_like(draws.step_noise))
        return policy.sample(state.imitation.base.params, obs, draws)[..., 0, :], {}

    agent = one_step_agent(
        init,
        draw,
        step,
        spec.updates,
        draw_act=lambda key, explore: bulk(lambda tape: policy.draw_samples(tape, (1,)))(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
    )
    return agent._replace(draw_pretrain=None, pretrain=None)  # no offline phase
