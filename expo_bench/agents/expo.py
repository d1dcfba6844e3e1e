"""EXPO: stable reinforcement learning with expressive policies (Dong et al., arXiv 2507.07986), as released.

A base policy (diffusion or flow) learns by imitation only. A small tanh-Gaussian edit policy shifts an action by at most beta towards higher
value (eq. 1, 2). The on-the-fly policy proposes N base samples and their edits and takes the candidate of highest Q (eq. 3), both to act and
in the TD backup. The released code decides what the paper leaves open:
- acting samples the EMA of the base policy, the backup its online parameters;
- both select by the target critics, min over a random subset of M; the value of the backup takes a second, independent subset;
- the edit policy learns on replay actions against the mean of all online critics; its target entropy is -A/2 with the edit's scale
  counted in, which beta < 0.303 cannot reach (`reachable_target_entropy` mends that);
- U critic steps, then one step of base, edit and temperature on the last batch; base + edit is never clipped.

Variants (not in the paper's results): `select_act`, `select_backup` = "random", `n_edits` = 0, `base` = "flow", `reachable_target_entropy`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from expo_bench.agents.base import Agent, Metrics, Spec, last
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import actors, base_policy, candidates, critics
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    base: str = static("diffusion", "base policy: 'diffusion' (released) or 'flow'")
    n_samples: int = static(8, "N: base samples per state")
    n_edits: int = static(8, "how many of the N base samples are edited too (the first ones); 0 switches edits off", least=0)
    denoising_steps: int = static(10, "T: denoising (or flow) steps")
    select_act: str = static("max", "which candidate acts: 'max' of Q (released) or 'random'")
    select_backup: str = static("max", "which candidate the TD backup takes: 'max' of Q (released) or 'random'")
    reachable_target_entropy: bool = static(
        False, "add A log(beta) to the target entropy, which makes it reachable for every beta (released: off)"
    )
    base_hidden: int = static(256, "width of the denoiser")
    base_blocks: int = static(3, "residual blocks of the denoiser")
    time_features: int = static(128, "Fourier features of the denoising time")
    hidden: tuple = static((256, 256, 256), "widths of critics and edit policy")
    critics: int = static(10, "K: critics")
    critic_subset: int = static(2, "M: critics in a minimum (num-min-Q)")
    edit_dropout: float = static(0.0, "dropout of the edit policy in training (Adroit: 0.1)", least=0, below=1)
    decay_steps: int = static(3_000_000, "updates until the cosine schedule of base and edit policy reaches 0")
    sample_rows: int = static(2048, "chains denoised at a time; speed only")
    edit_scale: float = traced(0.05, "beta: largest shift of an action by an edit")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of the critics (constant)")
    base_lr: float = traced(3e-4, "learning rate of the base policy (cosine)")
    edit_lr: float = traced(3e-4, "learning rate of the edit policy (cosine)")
    alpha_lr: float = traced(3e-4, "learning rate of the temperature")
    init_alpha: float = traced(1.0, "first temperature")
    weight_decay: float = traced(1e-4, "AdamW's decay of all parameters of the base policy")
    tau: float = traced(0.005, "Polyak step of the target critics")
    ema_tau: float = traced(0.001, "Polyak step of the base policy's EMA")


# Offline-to-online as released: the base policy is pretrained, no warm-up, half of every batch is offline data.
PROTOCOL = Protocol(offline_steps=200_000, online_steps=200_000, updates=20, batch_size=256, eval_every=5_000, eval_episodes=100)
SUITES = {
    "adroit": {"config": {"edit_scale": 0.7, "edit_dropout": 0.1}, "protocol": {"offline_steps": 20_000, "online_steps": 1_000_000}},
    "antmaze": {"config": {"critic_subset": 1}, "protocol": {"offline_steps": 500_000, "online_steps": 300_000, "reward_shift": -1.0}},
}


def validate(config: Config, where: str) -> None:
    for name in ("select_act", "select_backup"):
        if getattr(config, name) not in candidates.RULES:
            raise UserError(f"{where}: {name} must be one of {', '.join(candidates.RULES)}, got {getattr(config, name)!r}")
    if config.base not in ("diffusion", "flow"):
        raise UserError(f"{where}: base must be 'diffusion' or 'flow', got {config.base!r}")
    if not 0 <= config.n_edits <= config.n_samples:
        raise UserError(f"{where}: n_edits must lie in 0..n_samples ({config.n_samples}), got {config.n_edits}")
    if not 1 <= config.critic_subset <= config.critics:
        raise UserError(f"{where}: critic_subset must lie in 1..critics ({config.critics}), got {config.critic_subset}")


class ExpoState(NamedTuple):
    imitation: base_policy.Imitation  #   the base policy and its EMA
    edit: actors.SoftActor | None  #      the edit policy and its temperature
    critic: critics.Critic


class Proposal(NamedTuple):
    """The randomness of the candidates of some states [...]."""

    base: base_policy.SampleDraws  #          [..., N, A]
    edit: actors.GaussianDraws | None  #      [..., n_edits, A]
    subset: jax.Array  #                      [M], or [U, M] for U batches: the critics that select
    pick: jax.Array | None  #                 [...] uniform, for random selection


class Draws(NamedTuple):
    backup: Proposal  #                       of [U, B] next states
    value_subset: jax.Array  #                [U, M]: the critics that value the selected action
    imitation: base_policy.LossDraws  #       [B]
    edit: actors.GaussianDraws | None  #      [B]


def make(config: Config, spec: Spec) -> Agent:
    base = base_policy.make(
        config.base,
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        steps=config.denoising_steps,
        hidden=config.base_hidden,
        blocks=config.base_blocks,
        time_features=config.time_features,
        rows=config.sample_rows,
    )
    edit_policy = actors.tanh_gaussian(
        input_size=spec.obs_size + spec.action_size, action_size=spec.action_size, widths=config.hidden, dropout=config.edit_dropout
    )
    critic = critics.ensemble(obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, widths=config.hidden)

    base_optimiser = optax.adamw(optax.cosine_decay_schedule(config.base_lr, config.decay_steps), weight_decay=config.weight_decay)
    edit_optimiser = optax.adam(optax.cosine_decay_schedule(config.edit_lr, config.decay_steps))
    critic_optimiser = optax.adam(config.critic_lr)
    alpha_optimiser = optax.adam(config.alpha_lr)

    target_entropy = -spec.action_size / 2
    if config.reachable_target_entropy:
        target_entropy = target_entropy + spec.action_size * jnp.log(config.edit_scale)

    def init(key: jax.Array) -> ExpoState:
        base_key, edit_key, critic_key = jax.random.split(key, 3)
        edit = actors.start(edit_policy, edit_optimiser, alpha_optimiser, edit_key, config.init_alpha) if config.n_edits else None
        return ExpoState(base_policy.start(base, base_optimiser, base_key), edit, critics.start(critic, critic_optimiser, critic_key))

    # -- the on-the-fly policy ---------------------------------------------------------------------------------------------------------

    def counts(rule: str) -> tuple[int, int]:
        """(base samples, edits) that a rule needs: a random candidate of N + n_edits is one base sample, edited or not."""
        return (config.n_samples, config.n_edits) if rule == "max" else (1, min(config.n_edits, 1))

    def draw_proposal(tape: Tape, shape: tuple[int, ...], subset_shape: tuple[int, ...], rule: str) -> Proposal:
        n_samples, n_edits = counts(rule)
        return Proposal(
            base.draw_samples(tape, (*shape, n_samples)),
            edit_policy.draw(tape, (*shape, n_edits)) if n_edits else None,
            tape.subset(config.critics, config.critic_subset, subset_shape),
            tape.uniform(shape) if rule == "random" else None,
        )

    def edited(params: actors.Params, obs: jax.Array, action: jax.Array, draws: actors.GaussianDraws) -> tuple[jax.Array, jax.Array]:
        """Eq. 1: action + beta * edit, and the log-density of the scaled edit."""
        edit, log_prob = edit_policy.sample(params, jnp.concatenate([obs, action], axis=-1), draws)
        return action + config.edit_scale * edit, log_prob - spec.action_size * jnp.log(config.edit_scale)

    def propose(base_params: base_policy.Params, state: ExpoState, obs: jax.Array, draws: Proposal) -> jax.Array:
        """Eq. 3: the base samples of obs [..., O], then their edits -> [..., N + n_edits, A]."""
        samples = base.sample(base_params, obs, draws.base)
        if draws.edit is None:
            return samples
        first = samples[..., : draws.edit.noise.shape[-2], :]
        obs = jnp.broadcast_to(obs[..., None, :], (*first.shape[:-1], spec.obs_size))
        return jnp.concatenate([samples, edited(state.edit.actor.params, obs, first, draws.edit)[0]], axis=-2)

    def select(rule: str, target: critics.Params, subset: jax.Array, obs: jax.Array, proposed: jax.Array, pick: jax.Array) -> jax.Array:
        """The candidate that the on-the-fly policy takes -> [..., A]."""
        if rule == "random":
            is_edit = pick >= config.n_samples / (config.n_samples + config.n_edits)
            return candidates.take(proposed, is_edit.astype(jnp.int32))
        return candidates.best(proposed, critics.min_of(critic, target, subset, obs[..., None, :], proposed))

    def act(state: ExpoState, obs: jax.Array, draws: Proposal, *, explore: bool) -> tuple[jax.Array, Metrics]:
        """The same stochastic policy explores and is evaluated."""
        proposed = propose(state.imitation.ema, state, obs, draws)
        action = select(config.select_act, state.critic.target, draws.subset, obs, proposed, draws.pick)
        return action, {} if explore else candidates.examine(critic.values(state.critic.target, obs[..., None, :], proposed))

    # -- learning ----------------------------------------------------------------------------------------------------------------------

    def pretrain(state: ExpoState, batch: Batch, draws: base_policy.LossDraws) -> tuple[ExpoState, Metrics]:
        """The offline phase trains the base policy alone; critic and edit policy start the online phase untrained."""
        imitation, loss = base_policy.imitate(base, base_optimiser, state.imitation, batch, draws, config.ema_tau)
        return state._replace(imitation=imitation), {"imitation_loss": loss}

    def draw(tape: Tape) -> Draws:
        return Draws(
            draw_proposal(tape, (spec.updates, spec.batch_size), (spec.updates,), config.select_backup),
            tape.subset(config.critics, config.critic_subset, (spec.updates,)),
            base.draw_loss(tape, spec.batch_size),
            edit_policy.draw(tape, (spec.batch_size,), training=True) if config.n_edits else None,
        )

    def critic_steps(state: ExpoState, batches: Batch, draws: Draws) -> tuple[critics.Critic, Metrics]:
        """U TD steps. Base and edit policy do not change meanwhile, so the candidates of all U batches are proposed in one call: exact."""
        proposed = propose(state.imitation.base.params, state, batches.next_obs, draws.backup)

        def td_step(carry: critics.Critic, inputs: tuple) -> tuple[critics.Critic, Metrics]:
            batch, proposed, select_subset, value_subset, pick = inputs
            action = select(config.select_backup, carry.target, select_subset, batch.next_obs, proposed, pick)
            value = critics.min_of(critic, carry.target, value_subset, batch.next_obs, action)
            target = critics.td_target(batch.reward, batch.terminated, config.discount, value)
            return critics.td_step(critic, critic_optimiser, carry, batch.obs, batch.action, target, config.tau, batch.td_weight)

        return jax.lax.scan(td_step, state.critic, (batches, proposed, draws.backup.subset, draws.value_subset, draws.backup.pick))

    def edit_step(state: ExpoState, batch: Batch, draws: Draws) -> tuple[actors.SoftActor, Metrics]:
        """Eq. 2 on replay actions, against the mean of the online critics."""
        return actors.soft_step(
            edit_optimiser,
            alpha_optimiser,
            state.edit,
            lambda params: edited(params, batch.obs, batch.action, draws.edit),
            lambda action: critic.values(state.critic.online.params, batch.obs, action),
            target_entropy,
        )

    def learn(state: ExpoState, batches: Batch, draws: Draws) -> tuple[ExpoState, Metrics]:
        """U critic steps, then base policy, edit policy and temperature on the last batch."""
        critic_state, metrics = critic_steps(state, batches, draws)
        state = state._replace(critic=critic_state)
        metrics = {name: value[-1] for name, value in metrics.items()}
        batch = last(batches)
        imitation, loss = base_policy.imitate(base, base_optimiser, state.imitation, batch, draws.imitation, config.ema_tau)
        metrics["imitation_loss"] = loss
        if config.n_edits:
            edit, info = edit_step(state, batch, draws)
            state, metrics = state._replace(edit=edit), {**metrics, **info}
        return state._replace(imitation=imitation), metrics

    return Agent(
        init=init,
        draw_pretrain=bulk(lambda tape: base.draw_loss(tape, spec.batch_size)),
        pretrain=pretrain,
        draw=bulk(draw),
        learn=learn,
        draw_act=lambda key, explore: bulk(lambda tape: draw_proposal(tape, (), (), config.select_act))(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
        base_act=lambda state, obs, draws: base.sample(state.imitation.ema, obs, draws.base)[..., 0, :],
    )
