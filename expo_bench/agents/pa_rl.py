"""PA-RL: policy-agnostic reinforcement learning (Mark et al., arXiv 2412.06685) with Cal-QL critics and a diffusion policy, as released
(github.com/MaxSobolMark/PolicyAgnosticRL).

Actions are optimised, the policy imitates them. Of N samples of the base policy's EMA the n_climb of highest Q climb: `ascent_steps` steps
a += action_lr grad Q, clipped to [-1, 1], the best on the way kept (eq. 3.2 and 3.3, Q the mean of the online critics here and below).
- acting and backup: the climbed candidate of highest Q; y = r + discount (min of a random subset of the target critics at it);
- critics: TD error + cql_weight * Cal-QL's gap: log-mean-exp of Q over uniform actions, the policy's actions at s' and at s and the data's
  action, less Q at the data's action; Q at the policy's actions is raised to the return to go; without densities, since that policy
  has none: its one action counts as often as there are uniform ones. The gap is taken of a random subset of the critics;
- policy, online: a step of the denoising loss on climbed candidates, drawn with probability exp(Q / temperature) from those of the batch's
  states, the data's action being one of them in place of the worst sample. Offline: plain imitation.

Variant: `conservative` off, plain TD.

Deviations: critics are regressions on scalars (released: a cross-entropy over 128 bins in [-100, 0], against which the weight 0.005 is
set), Xavier-uniform (released: orthogonal), a subset draws its members without repeats (released: with); base policy and critics learn
offline at the same time (released: 3,000 epochs of imitation first, then 1,000 of the critics); the policy's step follows the U critic
steps of each environment step, on the last batch (released: after whole episodes, as many steps of the policy, on batches of its own, then
of the critics); no warm-up of the base policy's learning rate and no cosine, no restart of the critics' optimiser online.
Not checked against the official code.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from expo_bench.agents.base import Agent, Metrics, Spec, last
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import ascent, base_policy, candidates, critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    n_samples: int = static(32, "N: base samples per state")
    n_climb: int = static(10, "how many of them climb Q, those of highest Q (all, where N is smaller)")
    ascent_steps: int = static(10, "gradient steps on an action")
    denoising_steps: int = static(5, "T: denoising steps (cosine schedule)")
    base_hidden: int = static(256, "width of the denoiser")
    base_blocks: int = static(3, "residual blocks of the denoiser")
    time_features: int = static(128, "Fourier features of the denoising time")
    base_dropout: float = static(0.1, "dropout of the denoiser in training", least=0, below=1)
    hidden: tuple = static((256, 256), "widths of the critics (LayerNorm, swish; AntMaze: four of 256)")
    critics: int = static(10, "K: critics")
    critic_subset: int = static(2, "M: critics in a minimum, and in the conservative gap")
    conservative: bool = static(True, "Cal-QL's penalty; off: plain TD")
    cql_actions: int = static(10, "uniform actions in the conservative gap")
    action_lr: float = traced(3e-4, "step size of the ascent on actions")
    temperature: float = traced(1.0, "of the candidates that the policy imitates online, in units of Q")
    cql_weight: float = traced(0.005, "weight of the conservative gap")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of the critics")
    base_lr: float = traced(3e-4, "learning rate of the base policy offline")
    actor_lr: float = traced(5e-5, "learning rate of the base policy online")
    tau: float = traced(0.005, "Polyak step of the target critics")
    ema_tau: float = traced(0.002, "Polyak step of the base policy's EMA")


# Half of every online batch is offline data; one warm-up episode of the policy, then one episode (of up to 1,000 steps) an epoch, evaluated
# every 50 epochs. The authors ran AntMaze, kitchen and Calvin.
PROTOCOL = Protocol(
    offline_steps=1_000_000,
    warmup_steps=1_000,
    warmup="policy",
    online_steps=1_000_000,
    updates=1,
    batch_size=256,
    eval_every=50_000,
    eval_episodes=50,
)
SUITES = {"antmaze": {"config": {"hidden": (256, 256, 256, 256)}, "protocol": {"reward_shift": -1.0}}}


def validate(config: Config, where: str) -> None:
    if not 1 <= config.critic_subset <= config.critics:
        raise UserError(f"{where}: critic_subset must lie in 1..critics ({config.critics}), got {config.critic_subset}")


class PaRlState(NamedTuple):
    imitation: base_policy.Imitation
    critic: critics.Critic


class CriticDraws(NamedTuple):
    base: base_policy.SampleDraws  #  [U, G, B, N, A] at s' and, for the gap, at s: G = 2, or 1 without it
    subset: jax.Array  #              [U, M] of the backup
    penalised: jax.Array | None  #    [U, M] of the gap
    uniform: jax.Array | None  #      [U, B, cql_actions, A] in [-1, 1]


class PolicyDraws(NamedTuple):
    base: base_policy.SampleDraws  #  [B, N, A]
    pick: jax.Array  #                [B, n_climb] uniform


class Draws(NamedTuple):
    critic: CriticDraws
    policy: PolicyDraws | None  #         None: offline
    imitation: base_policy.LossDraws  #   [B]


def soft_maximum(q_uniform: jax.Array, q_policy: jax.Array, q_data: jax.Array, floor: jax.Array) -> jax.Array:
    """log-mean-exp of Q over n uniform actions [M, B, n], n times each of the policy's [M, B, 2], raised to floor [B], the data's [M, B].

    A `floor` of -inf, a return that is not known yet, raises nothing.
    """
    n = q_uniform.shape[-1]
    weight = jnp.array([*[1.0] * n, n, n, 1.0])
    q = jnp.concatenate([q_uniform, jnp.maximum(q_policy, floor[:, None]), q_data[..., None]], axis=-1)
    return jax.nn.logsumexp(q, axis=-1, b=weight) - jnp.log(3 * n + 1)


def make(config: Config, spec: Spec) -> Agent:
    base = base_policy.make(
        "diffusion",
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        steps=config.denoising_steps,
        hidden=config.base_hidden,
        blocks=config.base_blocks,
        time_features=config.time_features,
        dropout=config.base_dropout,
        schedule="cosine",
    )
    critic = critics.ensemble(
        obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, widths=config.hidden, activation=nn.swish
    )
    critic_optimiser, base_optimiser, actor_optimiser = (optim.adam(lr) for lr in (config.critic_lr, config.base_lr, config.actor_lr))
    groups, n_climb = 1 + config.conservative, min(config.n_climb, config.n_samples)

    def init(key: jax.Array) -> PaRlState:
        base_key, critic_key = jax.random.split(key)
        return PaRlState(base_policy.start(base, base_optimiser, base_key), critics.start(critic, critic_optimiser, critic_key))

    # -- optimised actions -------------------------------------------------------------------------------------------------------------

    def best_samples(params: critics.Params, obs: jax.Array, samples: jax.Array) -> jax.Array:
        """samples [..., N, A] at obs [..., O] -> [..., n_climb, A], the best first."""
        return candidates.top(samples, jnp.mean(critic.values(params, obs[..., None, :], samples), axis=0), n_climb)

    def climb(params: critics.Params, obs: jax.Array, actions: jax.Array) -> ascent.Climbed:
        value = lambda action: jnp.mean(critic.values(params, obs[..., None, :], action), axis=0)
        return ascent.climb(value, actions, optax.sgd(config.action_lr), config.ascent_steps)

    def optimised(params: critics.Params, obs: jax.Array, samples: jax.Array) -> jax.Array:
        """The policy: the climbed candidate of highest Q [..., A]."""
        climbed = climb(params, obs, best_samples(params, obs, samples))
        return candidates.best(climbed.best, climbed.value)

    def act(state: PaRlState, obs: jax.Array, draws: base_policy.SampleDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        """The same policy explores and is evaluated."""
        params, samples = state.critic.online.params, base.sample(state.imitation.ema, obs, draws)
        if explore:
            return optimised(params, obs, samples), {}
        climbed = climb(params, obs, best_samples(params, obs, samples))
        return candidates.best(climbed.best, climbed.value), candidates.examine(critic.values(params, obs[None], climbed.best))

    # -- learning ----------------------------------------------------------------------------------------------------------------------

    def draw(tape: Tape, updates: int, online: bool) -> Draws:
        batch = (spec.batch_size,)
        of_critic = CriticDraws(
            base.draw_samples(tape, (updates, groups, *batch, config.n_samples)),
            tape.subset(config.critics, config.critic_subset, (updates,)),
            tape.subset(config.critics, config.critic_subset, (updates,)) if config.conservative else None,
            2.0 * tape.uniform((updates, *batch, config.cql_actions, spec.action_size)) - 1.0 if config.conservative else None,
        )
        policy = PolicyDraws(base.draw_samples(tape, (*batch, config.n_samples)), tape.uniform((*batch, n_climb))) if online else None
        return Draws(of_critic, policy, base.draw_loss(tape, spec.batch_size))

    def gap(params: critics.Params, batch: Batch, q: jax.Array, policy_actions: jax.Array, draws: CriticDraws) -> jax.Array:
        """Cal-QL's, for the members in `draws.penalised` [M, B]; q [K, B] at the data's actions, policy_actions [B, 2, A]."""
        actions = jnp.concatenate([draws.uniform, policy_actions], axis=1)
        q_data, q_sampled = q[draws.penalised], critic.values(critics.members(params, draws.penalised), batch.obs[:, None], actions)
        q_uniform, q_policy = jnp.split(q_sampled, [config.cql_actions], axis=-1)
        return soft_maximum(q_uniform, q_policy, q_data, batch.mc_return) - q_data

    def critic_step(state: critics.Critic, inputs: tuple) -> tuple[critics.Critic, Metrics]:
        batch, samples, draws = inputs
        states = jnp.stack([batch.next_obs, batch.obs][:groups])
        actions = optimised(state.online.params, states, samples)  # [G, B, A]
        value = critics.min_of(critic, state.target, draws.subset, batch.next_obs, actions[0])
        y = critics.td_target(batch.reward, batch.terminated, config.discount, value)

        def loss(params: critics.Params) -> tuple[jax.Array, Metrics]:
            q = critic.values(params, batch.obs, batch.action)
            td_loss = critics.weighted_mean((q - y) ** 2, batch.td_weight)
            metrics = {"critic_loss": td_loss, "q_mean": jnp.mean(q)}
            if not config.conservative:
                return td_loss, metrics
            excess = critics.weighted_mean(gap(params, batch, q, jnp.moveaxis(actions, 0, 1), draws), batch.td_weight)
            return td_loss + config.cql_weight * excess, {**metrics, "cql_gap": excess}

        grads, metrics = jax.grad(loss, has_aux=True)(state.online.params)
        online = optim.step(critic_optimiser, state.online, grads)
        return critics.Critic(online, optim.polyak(state.target, online.params, config.tau)), metrics

    def critic_steps(state: PaRlState, batches: Batch, draws: CriticDraws) -> tuple[PaRlState, Metrics]:
        """U steps; the base policy does not change meanwhile, so all batches are sampled in one call."""
        states = jnp.stack([batches.next_obs, batches.obs][:groups], axis=1)  # [U, G, B, O]
        samples = base.sample(state.imitation.ema, states, draws.base)
        critic_state, metrics = jax.lax.scan(critic_step, state.critic, (batches, samples, draws._replace(base=None)))
        return state._replace(critic=critic_state), {name: value[-1] for name, value in metrics.items()}

    def targets(state: PaRlState, batch: Batch, draws: PolicyDraws) -> jax.Array:
        """The actions that the policy imitates online [B, A]."""
        params, samples = state.critic.online.params, base.sample(state.imitation.ema, batch.obs, draws.base)
        kept = best_samples(params, batch.obs, samples)[:, :-1]
        climbed = climb(params, batch.obs, jnp.concatenate([kept, batch.action[:, None]], axis=1))
        return candidates.softmax(climbed.best, climbed.value, config.temperature, draws.pick)

    def pretrain(state: PaRlState, batch: Batch, draws: Draws) -> tuple[PaRlState, Metrics]:
        state, metrics = critic_steps(state, jax.tree.map(lambda x: x[None], batch), draws.critic)
        imitation, loss = base_policy.imitate(base, base_optimiser, state.imitation, batch, draws.imitation, config.ema_tau)
        return state._replace(imitation=imitation), {**metrics, "imitation_loss": loss}

    def learn(state: PaRlState, batches: Batch, draws: Draws) -> tuple[PaRlState, Metrics]:
        state, metrics = critic_steps(state, batches, draws.critic)
        batch = last(batches)
        batch = batch._replace(action=targets(state, batch, draws.policy))
        imitation, loss = base_policy.imitate(base, actor_optimiser, state.imitation, batch, draws.imitation, config.ema_tau)
        return state._replace(imitation=imitation), {**metrics, "imitation_loss": loss}

    return Agent(
        init=init,
        draw_pretrain=bulk(lambda tape: draw(tape, 1, online=False)),
        pretrain=pretrain,
        draw=bulk(lambda tape: draw(tape, spec.updates, online=True)),
        learn=learn,
        draw_act=lambda key, explore: bulk(lambda tape: base.draw_samples(tape, (config.n_samples,)))(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
        mc_return=config.conservative,
    )
