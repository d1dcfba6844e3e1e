"""DSRL: diffusion steering by reinforcement learning (Wagenmaker et al., arXiv 2506.15799), its noise-aliased variant DSRL-NA as released.

A base policy learns by imitation offline and is then frozen. Sampled deterministically (a flow's Euler steps, or DDIM), it maps a noise z to
an action, Flow(s, z), and soft actor-critic chooses that noise: z = b u with a tanh-Gaussian u ~ pi(u | s).
- critic: TD on executed actions, y = r + discount (min_K Q'(s', Flow(s', b u')) - alpha log pi(u' | s')), so that any action can be learnt from;
- noise critic: Q_z(s, z) <- Q(s, Flow(s, z)), z ~ N(0, I), each member from its own;
- actor: alpha log pi(u | s) - min_K Q_z(s, b u): no gradient runs through the base policy; target entropy 0.
The U steps of critic, actor and temperature of a call come first, then those of the noise critic. Evaluation samples the actor as exploration
does; a warm-up acts with z ~ N(0, I), the base policy itself.

Variant: `train_base_online`, the base policy goes on imitating, one step per call on the last batch, and its EMA maps the noise (QAM's DSRL,
Li et al.: there with 10 critics, LCB backups without entropy, target entropy -A/2 and one joint Adam, which are not offered here).

Deviations from the released code: the base policy is this suite's (released: DPPO's checkpoints, chunks of 4, 5 to 8 DDIM steps of 20 or
100); the noise critic's steps reuse the first of the U batches instead of fresh ones, and it sees z, not z / b; the temperature's loss is
alpha (entropy - target), not log alpha (entropy - target); Xavier initialisation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from expo_bench.agents import bc
from expo_bench.agents.base import Agent, Metrics, Spec, last
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import actors, base_policy, critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config(bc.Config):
    base: str = static("flow", "the base policy whose noise is chosen: 'flow' or 'diffusion' (sampled by DDIM)")
    train_base_online: bool = static(False, "go on imitating online (released: frozen)")
    hidden: tuple = static((2048, 2048, 2048), "widths of critics, noise critic and actor (LayerNorm, tanh)")
    critics: int = static(2, "K: critics, and members of the noise critic")
    q_aggregate: str = static("min", "value over the critics, in the backup and for the actor: 'min' (released default) or 'mean'")
    backup_entropy: bool = static(True, "subtract alpha log pi(u'|s') in the backup (released: on)")
    distill_steps: int = static(10, "steps of the noise critic per call of learn")
    noise_scale: float = traced(1.5, "b: the actor's noise lies in [-b, b]")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of critics and noise critic")
    actor_lr: float = traced(3e-4, "learning rate of the noise actor")
    alpha_lr: float = traced(3e-4, "learning rate of the temperature")
    init_alpha: float = traced(1.0, "first temperature")
    tau: float = traced(0.005, "Polyak step of the target critics")


# The authors' tasks have pretrained checkpoints and no demonstrations in the replay buffer; 6,000 transitions of the base policy come first
# (1,501 decisions of 4 environments). Released: 20 updates per decision of 4 environments, a decision being a chunk of 4 actions; here per
# step. Lengths of the phases are EXPO's.
PROTOCOL = Protocol(
    offline_steps=200_000, warmup_steps=6_000, warmup="policy", online_steps=200_000, updates=20, batch_size=256, offline_fraction=0.0
)
# The authors ran neither suite: phases of EXPO; on AntMaze b of QAM's antmaze-large-navigate.
SUITES = {
    "adroit": {"protocol": {"offline_steps": 20_000, "online_steps": 1_000_000}},
    "antmaze": {"config": {"noise_scale": 0.8}, "protocol": {"offline_steps": 500_000, "online_steps": 300_000, "reward_shift": -1.0}},
}


def validate(config: Config, where: str) -> None:
    bc.validate(config, where)
    if config.q_aggregate not in ("min", "mean"):
        raise UserError(f"{where}: q_aggregate must be 'min' or 'mean', got {config.q_aggregate!r}")


TARGET_ENTROPY = 0.0  # of u, whatever the size of the action


class DsrlState(NamedTuple):
    imitation: base_policy.Imitation  #  the base policy; its EMA maps noise to actions
    actor: actors.SoftActor  #           the noise actor and its temperature
    critic: critics.Critic  #            Q(s, a)
    noise_critic: optim.Trained  #       Q_z(s, z)


class Draws(NamedTuple):
    next_noise: actors.GaussianDraws  #             [U, B, A] of the actor at s'
    noise: actors.GaussianDraws  #                  [U, B, A] of the actor at s
    z: jax.Array  #                                 [distill_steps, B, A] standard normal
    imitation: base_policy.LossDraws | None  #      [B]; None: the base policy is frozen


class Parts(NamedTuple):
    base: base_policy.BasePolicy
    actor: actors.Actor
    critic: critics.Ensemble  #  of actions, and of noises
    base_optimiser: optax.GradientTransformation
    actor_optimiser: optax.GradientTransformation
    alpha_optimiser: optax.GradientTransformation
    critic_optimiser: optax.GradientTransformation


def parts_of(config: Config, spec: Spec) -> Parts:
    base, base_optimiser = bc.base_of(config, spec)
    layers = {"widths": config.hidden, "norm": "pre", "activation": nn.tanh}
    return Parts(
        base,
        actors.tanh_gaussian(input_size=spec.obs_size, action_size=spec.action_size, **layers),
        critics.ensemble(obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, **layers),
        base_optimiser,
        *(optim.adam(lr) for lr in (config.actor_lr, config.alpha_lr, config.critic_lr)),
    )


def make(config: Config, spec: Spec) -> Agent:
    parts = parts_of(config, spec)
    base, actor, critic = parts.base, parts.actor, parts.critic

    def init(key: jax.Array) -> DsrlState:
        base_key, actor_key, critic_key, noise_key = jax.random.split(key, 4)
        return DsrlState(
            base_policy.start(base, parts.base_optimiser, base_key),
            actors.start(actor, parts.actor_optimiser, parts.alpha_optimiser, actor_key, config.init_alpha),
            critics.start(critic, parts.critic_optimiser, critic_key),
            optim.start(parts.critic_optimiser, critic.init(noise_key)),
        )

    def pretrain(state: DsrlState, batch: Batch, draws: base_policy.LossDraws) -> tuple[DsrlState, Metrics]:
        """The offline phase trains the base policy alone."""
        imitation, loss = base_policy.imitate(base, parts.base_optimiser, state.imitation, batch, draws, config.ema_tau)
        return state._replace(imitation=imitation), {"imitation_loss": loss}

    def act(state: DsrlState, obs: jax.Array, draws: actors.GaussianDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        """The same stochastic policy explores and is evaluated."""
        u, _ = actor.sample(state.actor.actor.params, obs, draws)
        return base_policy.decode(base, state.imitation.ema, obs, config.noise_scale * u), {}

    draw, steer = learning(config, spec, parts)

    def learn(state: DsrlState, batches: Batch, draws: Draws) -> tuple[DsrlState, Metrics]:
        state, metrics = steer(state, batches, draws)
        if config.train_base_online:
            state, info = pretrain(state, last(batches), draws.imitation)
            metrics |= info
        return state, metrics

    return Agent(
        init=init,
        draw_pretrain=bulk(lambda tape: base.draw_loss(tape, spec.batch_size)),
        pretrain=pretrain,
        draw=bulk(draw),
        learn=learn,
        draw_act=lambda key, explore: bulk(lambda tape: actor.draw(tape, ()))(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
        base_act=lambda state, obs, draws: base_policy.decode(base, state.imitation.ema, obs, draws.noise),
    )


def learning(config: Config, spec: Spec, parts: Parts) -> tuple[Callable[[Tape], Draws], Callable]:
    """What `learn` does to critics and actor: the draws that it takes, and (state, batches, draws) -> (state, metrics)."""
    base, actor, critic = parts.base, parts.actor, parts.critic
    aggregate = jnp.min if config.q_aggregate == "min" else jnp.mean

    def draw(tape: Tape) -> Draws:
        per_batch = (spec.updates, spec.batch_size)
        z = tape.normal((config.distill_steps, spec.batch_size, spec.action_size))
        imitation = base.draw_loss(tape, spec.batch_size) if config.train_base_online else None
        return Draws(actor.draw(tape, per_batch), actor.draw(tape, per_batch), z, imitation)

    def noise_of(params: actors.Params, obs: jax.Array, draws: actors.GaussianDraws) -> tuple[jax.Array, jax.Array]:
        """z = b u and log pi(u | s)."""
        u, log_prob = actor.sample(params, obs, draws)
        return config.noise_scale * u, log_prob

    def critic_step(state: DsrlState, batch: Batch, draws: actors.GaussianDraws) -> tuple[critics.Critic, Metrics]:
        z, log_prob = noise_of(state.actor.actor.params, batch.next_obs, draws)
        next_action = base_policy.decode(base, state.imitation.ema, batch.next_obs, z)
        value = aggregate(critic.values(state.critic.target, batch.next_obs, next_action), axis=0)
        if config.backup_entropy:
            value = value - jnp.exp(state.actor.log_alpha.params) * log_prob
        y = critics.td_target(batch.reward, batch.terminated, config.discount, value)
        return critics.td_step(critic, parts.critic_optimiser, state.critic, batch.obs, batch.action, y, config.tau, batch.td_weight)

    def actor_step(state: DsrlState, batch: Batch, draws: actors.GaussianDraws) -> tuple[actors.SoftActor, Metrics]:
        value = lambda z: aggregate(critic.values(state.noise_critic.params, batch.obs, z), axis=0, keepdims=True)
        sample = lambda params: noise_of(params, batch.obs, draws)
        return actors.soft_step(parts.actor_optimiser, parts.alpha_optimiser, state.actor, sample, value, TARGET_ENTROPY)

    def update(state: DsrlState, inputs: tuple) -> tuple[DsrlState, Metrics]:
        """Critic and actor on one batch, both with the actor and the temperature as they were before it."""
        batch, next_noise, noise = inputs
        critic_state, info = critic_step(state, batch, next_noise)
        soft_actor, actor_info = actor_step(state, batch, noise)
        return state._replace(critic=critic_state, actor=soft_actor), {**info, **actor_info}

    def distill(state: DsrlState, obs: jax.Array, z: jax.Array) -> tuple[optim.Trained, Metrics]:
        """Steps of Q_z(s, z) <- Q(s, Flow(s, z)) on obs [distill_steps, B, O]; critics and base policy do not change meanwhile."""
        q = critic.values(state.critic.online.params, obs, base_policy.decode(base, state.imitation.ema, obs, z))
        step = lambda noise_critic, inputs: critics.regress(critic, parts.critic_optimiser, noise_critic, *inputs)
        return jax.lax.scan(step, state.noise_critic, (obs, z, jnp.moveaxis(q, 0, 1)))

    def steer(state: DsrlState, batches: Batch, draws: Draws) -> tuple[DsrlState, Metrics]:
        state, metrics = jax.lax.scan(update, state, (batches, draws.next_noise, draws.noise))
        obs = batches.obs[jnp.arange(config.distill_steps) % spec.updates]
        noise_critic, info = distill(state, obs, draws.z)
        metrics["distill_loss"] = info["critic_loss"]
        return state._replace(noise_critic=noise_critic), {name: value[-1] for name, value in metrics.items()}

    return draw, steer
