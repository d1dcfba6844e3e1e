"""QVPO: Q-weighted variational policy optimisation (Ding et al., arXiv 2405.16173), as released (github.com/wadx2019/qvpo).

Online from scratch. A diffusion policy imitates the best of its own samples, weighted by their advantage, and, to stay broad, uniform
actions:
- critics: y = r + discount max_n min_K Q'(s', a_n) over `n_samples` samples of the policy's EMA;
- policy: with a* the best of `train_samples` samples under Q = min_K Q_k, V the mean of Q over them and the weight w = max(Q(s, a*) - V, 0)
  ("qadv"), the mean of w |eps(a*_t, t) - eps|^2 and, for `uniform_samples` uniform actions, of entropy_weight w |eps(u_t, t) - eps|^2 over
  all of these rows;
- entropy_weight falls linearly over `entropy_decay_steps` updates, to `entropy_floor` at the least.
The best of `n_samples` acts, the best of `n_samples_eval` in evaluation. Gradients of critics and policy are clipped by their norms.

Deviations: released, the policy draws a batch of its own; here it learns at the states of the critics' batch. entropy_weight falls with the
updates (released: with environment steps, warm-up included). Xavier-uniform initialisation.
Not checked against the official code.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.agents import dipo
from expo_bench.agents.base import Agent, Metrics, Spec, one_step_agent
from expo_bench.config import static, traced
from expo_bench.parts import base_policy, candidates, critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk


@dataclasses.dataclass(frozen=True)
class Config:
    n_samples: int = static(4, "N: samples of which the best acts, and of which the best is backed up")
    n_samples_eval: int = static(32, "N in evaluation")
    train_samples: int = static(64, "samples of which the policy imitates the best")
    uniform_samples: int = static(10, "uniform actions per state that the policy imitates too")
    denoising_steps: int = static(20, "T: denoising steps (cosine schedule)")
    time_features: int = static(32, "sinusoidal features of the denoising time")
    hidden: tuple = static((256, 256, 256), "widths of denoiser and critics (mish)")
    critics: int = static(2, "K: critics; the minimum of all is taken")
    entropy_decay_steps: int = static(1_000_000, "updates in which entropy_weight would fall to 0 (released: the length of the run)")
    entropy_floor: float = static(0.002, "entropy_weight falls no further", least=0)
    entropy_weight: float = traced(0.02, "first weight of a uniform action, in units of w")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of the critics")
    actor_lr: float = traced(1e-4, "learning rate of the policy")
    grad_clip: float = traced(2.0, "largest norm of the gradients of critics and policy")
    tau: float = traced(0.005, "Polyak step of the target critics and of the policy's EMA")


PROTOCOL = dipo.PROTOCOL
SUITES = dipo.SUITES


class QvpoState(NamedTuple):
    imitation: base_policy.Imitation
    critic: critics.Critic
    updates: jax.Array  #  [] int32


class Draws(NamedTuple):
    backup: base_policy.SampleDraws  #   [B, n_samples, A]
    own: base_policy.SampleDraws  #      [B, train_samples, A]
    uniform: jax.Array  #                [B, uniform_samples, A] in [-1, 1]
    imitation: base_policy.LossDraws  #  [B (1 + uniform_samples)]


def make(config: Config, spec: Spec) -> Agent:
    policy, critic, optimiser, critic_optimiser = dipo.parts_of(config, spec)
    rows = 1 + config.uniform_samples

    def init(key: jax.Array) -> QvpoState:
        policy_key, critic_key = jax.random.split(key)
        imitation = base_policy.start(policy, optimiser, policy_key)
        return QvpoState(imitation, critics.start(critic, critic_optimiser, critic_key), jnp.zeros((), jnp.int32))

    def propose(
        params: base_policy.Params, critic_params: critics.Params, obs: jax.Array, draws: base_policy.SampleDraws
    ) -> tuple[jax.Array, jax.Array]:
        """Samples at obs [..., O] -> [..., N, A], and the critics' estimates of them [K, ..., N]."""
        samples = policy.sample(params, obs, draws)
        return samples, critic.values(critic_params, obs[..., None, :], samples)

    def critic_step(state: QvpoState, batch: Batch, draws: base_policy.SampleDraws) -> tuple[critics.Critic, Metrics]:
        _, q = propose(state.imitation.ema, state.critic.target, batch.next_obs, draws)
        value = jnp.max(jnp.min(q, axis=0), axis=-1)
        y = critics.td_target(batch.reward, batch.terminated, config.discount, value)
        return critics.td_step(critic, critic_optimiser, state.critic, batch.obs, batch.action, y, config.tau, batch.td_weight)

    def imitated(state: QvpoState, obs: jax.Array, draws: Draws) -> tuple[jax.Array, jax.Array]:
        """What the policy imitates at obs [B, O]: actions [B, 1 + uniform_samples, A] and their weights [B, 1 + uniform_samples]."""
        samples, q = propose(state.imitation.base.params, state.critic.online.params, obs, draws.own)
        q = jnp.min(q, axis=0)
        advantage = jnp.maximum(jnp.max(q, axis=-1) - jnp.mean(q, axis=-1), 0.0)
        fallen = config.entropy_weight * (1.0 - state.updates / config.entropy_decay_steps)
        entropy_weight = jnp.minimum(config.entropy_weight, jnp.maximum(fallen, config.entropy_floor))
        share = jnp.concatenate([jnp.ones(1), jnp.full(config.uniform_samples, entropy_weight)])
        return jnp.concatenate([candidates.best(samples, q)[:, None], draws.uniform], axis=1), advantage[:, None] * share

    def policy_step(state: QvpoState, batch: Batch, draws: Draws) -> tuple[base_policy.Imitation, Metrics]:
        action, weight = imitated(state, batch.obs, draws)
        inputs = (jnp.repeat(batch.obs, rows, axis=0), action.reshape(-1, spec.action_size), draws.imitation, weight.reshape(-1, 1))
        loss, grads = jax.value_and_grad(policy.loss)(state.imitation.base.params, *inputs)
        base = optim.step(optimiser, state.imitation.base, grads)
        ema = optim.polyak(state.imitation.ema, base.params, config.tau)
        return base_policy.Imitation(base, ema), {"imitation_loss": loss, "advantage_weight": jnp.mean(weight[:, 0])}

    def step(state: QvpoState, batch: Batch, draws: Draws) -> tuple[QvpoState, Metrics]:
        """Critics, then the policy under the new critics."""
        critic_state, metrics = critic_step(state, batch, draws.backup)
        imitation, info = policy_step(state._replace(critic=critic_state), batch, draws)
        return QvpoState(imitation, critic_state, state.updates + 1), {**metrics, **info}

    def draw(tape: Tape) -> Draws:
        batch = spec.batch_size
        return Draws(
            policy.draw_samples(tape, (batch, config.n_samples)),
            policy.draw_samples(tape, (batch, config.train_samples)),
            2.0 * tape.uniform((batch, config.uniform_samples, spec.action_size)) - 1.0,
            policy.draw_loss(tape, batch * rows),
        )

    def act(state: QvpoState, obs: jax.Array, draws: base_policy.SampleDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        samples, q = propose(state.imitation.base.params, state.critic.online.params, obs, draws)
        return candidates.best(samples, jnp.min(q, axis=0)), {} if explore else candidates.examine(q)

    def draw_act(key: jax.Array, explore: bool) -> base_policy.SampleDraws:
        return bulk(lambda tape: policy.draw_samples(tape, (config.n_samples if explore else config.n_samples_eval,)))(key)

    value = lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action))
    agent = one_step_agent(init, draw, step, spec.updates, draw_act=draw_act, act=act, value=value)
    return agent._replace(draw_pretrain=None, pretrain=None)  # no offline phase
