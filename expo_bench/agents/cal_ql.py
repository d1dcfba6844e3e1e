"""Cal-QL: calibrated Q-learning (Nakamoto et al., arXiv 2303.05479), as released; `cql` is the same without the calibration.

Soft actor-critic whose critics pay, beside the TD error, for the gap between a soft maximum of Q over sampled actions and Q at the data's
action (CQL, eq. 4 of Kumar et al., arXiv 2006.04779: log sum exp over uniform actions and the policy's at s and at s', each divided by its
density). Cal-QL puts max(Q, return to go) for Q at the policy's actions (eq. 5.1): what is already below the value of the policy that
made the data is pushed down no further, so that online fine-tuning does not begin with unlearning. The released code decides:
- y = r + discount max over N policy samples of the minimum of the target critics, without entropy; the actor climbs the critics' minimum;
- the policy's actions at s' are valued at s (they are other candidates there, not next actions);
- one simultaneous step of critics, actor, temperature and multiplier, each from the others' old parameters; the same offline and online;
- with `lagrange` the penalty's weight is multiplied by a learnt exp(l), l = 1 at first, which seeks a gap of `target_gap` (CQL, eq. 30).

Deviations: all kernels start Xavier-uniform (released: orthogonal, the last layer scaled by 0.01); the log standard deviation's offset of -1
is fixed and its factor 1 (released: both start so and learn); the temperature's loss is alpha times the entropy gap (released: log alpha
times); learning follows every environment step, so that the return to go of an episode that still runs is not known and its Q is not
raised (released: whole episodes first, then as many steps); the returns of episodes that end by their time limit are those of
`training/returns`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.agents.base import Agent, Metrics, Spec
from expo_bench.config import static, traced
from expo_bench.parts import actors, critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    n_samples: int = static(10, "N: actions sampled per state, in the backup and for each of the penalty's three groups")
    calibrate: bool = static(True, "raise Q at the policy's actions to the return to go within the penalty (Cal-QL); off: CQL")
    lagrange: bool = static(False, "learn a multiplier of cql_weight that seeks target_gap (AntMaze)")
    hidden: tuple = static((256, 256), "widths of the critics (AntMaze: four of 256, Adroit: three of 512)")
    actor_layers: int = static(2, "hidden layers of the actor: the first ones of `hidden`")
    critics: int = static(2, "K: critics; the minimum of all is taken")
    cql_weight: float = traced(5.0, "alpha: weight of the conservative penalty (Adroit: 1)")
    target_gap: float = traced(0.8, "tau: gap that the multiplier seeks, with lagrange")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of critics and multiplier")
    actor_lr: float = traced(1e-4, "learning rate of the actor")
    alpha_lr: float = traced(1e-4, "learning rate of the temperature")
    init_alpha: float = traced(1.0, "first temperature")
    tau: float = traced(0.005, "Polyak step of the target critics")


# The released scripts: half of every online batch is offline data, one update per step, evaluated every 2,000 steps on 20 episodes.
PROTOCOL = Protocol(offline_steps=1_000_000, online_steps=1_000_000, updates=1, batch_size=256, eval_every=2_000, eval_episodes=20)
SUITES = {
    "adroit": {
        "config": {"cql_weight": 1.0, "hidden": (512, 512, 512)},
        "protocol": {"offline_steps": 20_000, "reward_scale": 10.0, "reward_shift": 5.0},
    },
    "antmaze": {
        "config": {"lagrange": True, "hidden": (256, 256, 256, 256)},
        "protocol": {"reward_scale": 10.0, "reward_shift": -5.0},
    },
}


class CalQlState(NamedTuple):
    actor: actors.SoftActor
    critic: critics.Critic
    log_multiplier: optim.Trained | None  # l; None without lagrange


class Draws(NamedTuple):
    """The randomness of one update; for U batches every field has a leading U."""

    backup: actors.GaussianDraws  #       [B, N] policy samples at s', which the backup maximises over
    uniform: jax.Array  #                 [B, N, A] in [-1, 1]
    following: actors.GaussianDraws  #    [B, N] policy samples at s' for the penalty
    current: actors.GaussianDraws  #      [B, N] policy samples at s for the penalty
    action: actors.GaussianDraws  #       [B] of the actor's step


def soft_maximum(q_uniform: jax.Array, q_policy: jax.Array, log_prob: jax.Array, action_size: int, floor: jax.Array | None) -> jax.Array:
    """log of the sum over all sampled actions of exp(Q) / density -> [K, B].

    q_uniform [K, B, N] at uniform actions in [-1, 1], q_policy [K, B, M] at the policy's, log_prob [B, M] of those; floor [B]: q_policy is
    raised to it (Cal-QL), None: not.
    """
    if floor is not None:
        q_policy = jnp.maximum(q_policy, floor[:, None])
    log_uniform = action_size * jnp.log(0.5)
    return jax.nn.logsumexp(jnp.concatenate([q_uniform - log_uniform, q_policy - log_prob], axis=-1), axis=-1)


def make(config: Config, spec: Spec) -> Agent:
    actor = actors.tanh_gaussian(
        input_size=spec.obs_size, action_size=spec.action_size, widths=config.hidden[: config.actor_layers], log_std_offset=-1.0
    )
    critic = critics.ensemble(
        obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, widths=config.hidden, norm="none"
    )
    actor_optimiser, alpha_optimiser, critic_optimiser = (optim.adam(lr) for lr in (config.actor_lr, config.alpha_lr, config.critic_lr))

    def init(key: jax.Array) -> CalQlState:
        actor_key, critic_key = jax.random.split(key)
        return CalQlState(
            actors.start(actor, actor_optimiser, alpha_optimiser, actor_key, config.init_alpha),
            critics.start(critic, critic_optimiser, critic_key),
            optim.start(critic_optimiser, jnp.ones((), jnp.float32)) if config.lagrange else None,
        )

    def q_min(params: critics.Params, obs: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.min(critic.values(params, obs, action), axis=0)

    def draw_one(tape: Tape, *lead: int) -> Draws:
        many = (*lead, spec.batch_size, config.n_samples)
        uniform = 2.0 * tape.uniform((*many, spec.action_size)) - 1.0
        return Draws(actor.draw(tape, many), uniform, actor.draw(tape, many), actor.draw(tape, many), actor.draw(tape, many[:-1]))

    def td_target(state: CalQlState, batch: Batch, draws: Draws) -> jax.Array:
        """[B]: bootstrapped from the best of N policy samples at s'."""
        action, _ = actor.sample(state.actor.actor.params, batch.next_obs[:, None], draws.backup)
        value = jnp.max(q_min(state.critic.target, batch.next_obs[:, None], action), axis=-1)
        return critics.td_target(batch.reward, batch.terminated, config.discount, value)

    def off_data(state: CalQlState, batch: Batch, draws: Draws) -> tuple[jax.Array, jax.Array]:
        """The penalty's actions at s [B, 3 N, A], the N uniform ones first, and the log-densities of the policy's [B, 2 N]."""
        params = state.actor.actor.params
        following, log_following = actor.sample(params, batch.next_obs[:, None], draws.following)
        current, log_current = actor.sample(params, batch.obs[:, None], draws.current)
        return jnp.concatenate([draws.uniform, following, current], axis=1), jnp.concatenate([log_following, log_current], axis=1)

    def critic_loss(
        params: critics.Params, multiplier: jax.Array, batch: Batch, y: jax.Array, actions: jax.Array, log_prob: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Sum over the critics of TD error + weight * conservative penalty, each a mean over the batch."""
        mean = jax.vmap(lambda values: critics.weighted_mean(values, batch.td_weight))  # [K, B] -> [K]
        q, q_sampled = critic.values(params, batch.obs, batch.action), critic.values(params, batch.obs[:, None], actions)
        q_uniform, q_policy = jnp.split(q_sampled, [config.n_samples], axis=-1)
        gap = soft_maximum(q_uniform, q_policy, log_prob, spec.action_size, batch.mc_return if config.calibrate else None) - q
        bellman, excess = mean((q - y) ** 2), mean(gap - config.target_gap if config.lagrange else gap)
        penalty = multiplier * config.cql_weight * excess
        metrics = {"critic_loss": jnp.mean(bellman), "q_mean": jnp.mean(q), "cql_gap": jnp.mean(mean(gap)), "cql_loss": jnp.mean(penalty)}
        if config.calibrate:
            metrics["calibrated"] = jnp.mean(q_policy < batch.mc_return[:, None])
        return jnp.sum(bellman + penalty), metrics

    def pretrain(state: CalQlState, batch: Batch, draws: Draws) -> tuple[CalQlState, Metrics]:
        """One simultaneous step of everything."""
        multiplier = jnp.minimum(jnp.exp(state.log_multiplier.params), 1e6) if config.lagrange else jnp.float32(1)
        inputs = (multiplier, batch, td_target(state, batch, draws), *off_data(state, batch, draws))
        grads, metrics = jax.grad(critic_loss, has_aux=True)(state.critic.online.params, *inputs)
        online = optim.step(critic_optimiser, state.critic.online, grads)
        soft_actor, info = actors.soft_step(
            actor_optimiser,
            alpha_optimiser,
            state.actor,
            lambda params: actor.sample(params, batch.obs, draws.action),
            lambda action: q_min(state.critic.online.params, batch.obs, action)[None],
            -spec.action_size,
        )
        log_multiplier = state.log_multiplier
        if config.lagrange:  # gradient of -exp(l) weight excess, averaged over the critics
            log_multiplier = optim.step(critic_optimiser, log_multiplier, -metrics["cql_loss"])
            metrics["multiplier"] = multiplier
        critic_state = critics.Critic(online, optim.polyak(state.critic.target, online.params, config.tau))
        return CalQlState(soft_actor, critic_state, log_multiplier), {**metrics, **info}

    def learn(state: CalQlState, batches: Batch, draws: Draws) -> tuple[CalQlState, Metrics]:
        state, metrics = jax.lax.scan(lambda carry, inputs: pretrain(carry, *inputs), state, (batches, draws))
        return state, {name: value[-1] for name, value in metrics.items()}

    def act(state: CalQlState, obs: jax.Array, draws: actors.GaussianDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        params = state.actor.actor.params
        return (actor.sample(params, obs, draws)[0] if explore else actor.mode(params, obs)), {}

    return Agent(
        init=init,
        draw_pretrain=bulk(draw_one),
        pretrain=pretrain,
        draw=bulk(lambda tape: draw_one(tape, spec.updates)),
        learn=learn,
        draw_act=lambda key, explore: bulk(lambda tape: actor.draw(tape, ()))(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
        mc_return=config.calibrate,
    )
