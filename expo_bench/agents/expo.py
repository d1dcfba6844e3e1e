"""EXPO: stable reinforcement learning with expressive policies (Dong et al., arXiv 2507.07986), as released.

A base policy (diffusion or flow) learns by imitation only. A small tanh-Gaussian edit policy shifts an action by at most beta towards higher
value (eq. 1, 2). The on-the-fly policy proposes N base samples and their edits and takes the candidate of highest Q (eq. 3), both to act and
in the TD backup. The released code decides what the paper leaves open:
- acting samples the EMA of the base policy, the backup its online parameters;
- both select by the target critics, min over a random subset of M; the value of the backup takes a second, independent subset;
- the edit policy learns on replay actions against the mean of all online critics; its target entropy is -A/2 with the edit's scale
  counted in, which beta < 0.303 cannot reach (`reachable_target_entropy` mends that);
- U critic steps, then one step of base, edit and temperature on the last batch; base + edit is never clipped.

Variants, all off by default (experiments/ablations runs them):
- `select_act`, `select_backup`: "max" (released); "random"; "base", one plain base sample; "online", max under the online critics; "softmax",
  with probability exp(Q / temperature), where the temperature may fall (`temperature_decay`), so that selection sets in gradually;
  "double" (backup alone), the selected action is valued by critics that did not select it;
- `n_edits` 0 (no edits), `base_candidates` off (edits alone), `active_samples` (N as a traced number);
- `edit_on` "base" (edits learn on fresh base samples), `edit_every`, `edit_hidden`, `reachable_target_entropy`; `base` "flow";
- `refresh_every`, `proposals_from_acting`: base samples of the backup are kept and used again, for less arithmetic (parts/proposals.py).
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
from expo_bench.parts import actors, base_policy, candidates, critics, edits, optim, proposals
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    base: str = static("diffusion", "base policy: 'diffusion' (released) or 'flow'")
    n_samples: int = static(8, "N: base samples per state")
    n_edits: int = static(8, "how many of the N base samples are edited too (the first ones); 0 switches edits off", least=0)
    denoising_steps: int = static(10, "T: denoising (or flow) steps")
    base_candidates: bool = static(True, "base samples are candidates beside their edits (released); off: the edits alone")
    select_act: str = static(
        "max", "which candidate acts: 'max' of the target critics' Q (released), 'random', 'base', 'online' or 'softmax'"
    )
    select_backup: str = static("max", "which candidate the TD backup takes: as select_act, or 'double'")
    edit_on: str = static(
        "replay", "the edit policy learns on the batch's actions ('replay', released) or on fresh samples of the base policy ('base')"
    )
    edit_every: int = static(1, "one step of the edit policy every so many calls of learn")
    reachable_target_entropy: bool = static(
        False, "add A log(beta) to the target entropy, which makes it reachable for every beta (released: off)"
    )
    base_hidden: int = static(256, "width of the denoiser")
    base_blocks: int = static(3, "residual blocks of the denoiser")
    time_features: int = static(128, "Fourier features of the denoising time")
    hidden: tuple = static((256, 256, 256), "widths of the critics")
    edit_hidden: tuple = static((256, 256, 256), "widths of the edit policy")
    critics: int = static(10, "K: critics")
    critic_subset: int = static(2, "M: critics in a minimum (num-min-Q)")
    edit_dropout: float = static(0.0, "dropout of the edit policy in training (Adroit: 0.1)", least=0, below=1)
    decay_steps: int = static(3_000_000, "updates until the cosine schedule of base and edit policy reaches 0")
    sample_rows: int = static(2048, "chains denoised at a time; speed only")
    refresh_every: int = static(1, "k: base samples of the backup are kept and drawn anew every k-th time; 1: every time (released)")
    proposals_from_acting: bool = static(
        False, "the samples drawn to act in a state are the first that are kept of it; needs refresh_every"
    )
    active_samples: float = traced(0.0, "use only so many of the N base samples and of their edits; 0: all")
    temperature: float = traced(0.1, "of the softmax rule, in units of Q")
    temperature_decay: float = traced(0.0, "calls of learn in which the softmax's temperature falls by a factor of e; 0: it stays")
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


RULES = ("max", "random", "base", "online", "softmax")
ONE_SAMPLE = ("random", "base")  # rules that need one base sample


def validate(config: Config, where: str) -> None:
    def need(condition: bool, message: str) -> None:
        if not condition:
            raise UserError(f"{where}: {message}")

    def one_of(name: str, known: tuple[str, ...]) -> None:
        need(getattr(config, name) in known, f"{name} must be one of {', '.join(known)}, got {getattr(config, name)!r}")

    one_of("select_act", RULES)
    one_of("select_backup", (*RULES, "double"))
    one_of("edit_on", ("replay", "base"))
    one_of("base", ("diffusion", "flow"))
    need(0 <= config.n_edits <= config.n_samples, f"n_edits must lie in 0..n_samples ({config.n_samples}), got {config.n_edits}")
    need(config.base_candidates or config.n_edits > 0, "without base_candidates there must be edits (n_edits), got none")
    need(
        1 <= config.critic_subset <= config.critics, f"critic_subset must lie in 1..critics ({config.critics}), got {config.critic_subset}"
    )
    need(
        config.select_backup != "double" or 2 * config.critic_subset <= config.critics,
        f"'double' needs 2 * critic_subset <= critics ({config.critics}), got critic_subset {config.critic_subset}",
    )
    need(
        not config.proposals_from_acting or config.select_act not in ONE_SAMPLE or config.select_backup in ONE_SAMPLE,
        f"proposals_from_acting needs as many samples to act as the backup has, but select_act {config.select_act!r} draws one",
    )
    proposals.validate(config, where)
    need(
        config.active_samples <= config.n_samples and config.active_samples % 1 == 0,
        f"active_samples must be a whole number up to n_samples ({config.n_samples}), got {config.active_samples}",
    )


validate_batch = proposals.validate_batch


class ExpoState(NamedTuple):
    imitation: base_policy.Imitation  #   the base policy and its EMA
    edit: actors.SoftActor | None  #      the edit policy and its temperature
    critic: critics.Critic
    step: jax.Array  #                    [] int32, calls of learn so far
    table: jax.Array | None = None  #     with amortised proposals: [stored, N, A]


class Proposal(NamedTuple):
    """The randomness of the candidates of some states [...]."""

    base: base_policy.SampleDraws  #          [..., N, A]; amortised, of the U batches: [U, B / k, N, A]
    edit: actors.GaussianDraws | None  #      [..., n_edits, A]
    subset: jax.Array  #                      [M], or [U, M] for U batches: the critics that select
    pick: jax.Array | None  #                 [...] uniform for the random rule, [..., candidates] for the softmax


class Draws(NamedTuple):
    backup: Proposal  #                       of [U, B] next states
    value_subset: jax.Array  #                [U, M]: the critics that value the selected action
    imitation: base_policy.LossDraws  #       [B]
    edit: actors.GaussianDraws | None  #      [B]
    edited: base_policy.SampleDraws | None  #  [B, 1, A] base samples that the edit policy learns on
    due: jax.Array | None = None  #           [U] uniform, amortised: which rows of each batch are refreshed


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
    edit_policy = edits.make(
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        widths=config.edit_hidden,
        scale=config.edit_scale,
        dropout=config.edit_dropout,
    )
    critic = critics.ensemble(obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, widths=config.hidden)

    base_optimiser = optim.adamw(optax.cosine_decay_schedule(config.base_lr, config.decay_steps), weight_decay=config.weight_decay)
    edit_optimiser = optim.adam(optax.cosine_decay_schedule(config.edit_lr, config.decay_steps))
    critic_optimiser = optim.adam(config.critic_lr)
    alpha_optimiser = optim.adam(config.alpha_lr)

    amortised = config.refresh_every > 1

    target_entropy = edits.target_entropy(spec.action_size, config.edit_scale, config.reachable_target_entropy)

    def draw_kept(tape: Tape, shape: tuple[int, ...]) -> base_policy.SampleDraws:
        return base.draw_samples(tape, (*shape, counts(config.select_backup)[0]))

    def init(key: jax.Array) -> ExpoState:
        base_key, edit_key, critic_key = jax.random.split(key, 3)
        edit = actors.start(edit_policy, edit_optimiser, alpha_optimiser, edit_key, config.init_alpha) if config.n_edits else None
        critic_state = critics.start(critic, critic_optimiser, critic_key)
        table = proposals.empty(spec.stored, counts(config.select_backup)[0], spec.action_size) if amortised else None
        return ExpoState(base_policy.start(base, base_optimiser, base_key), edit, critic_state, jnp.zeros((), jnp.int32), table)

    # -- the on-the-fly policy ---------------------------------------------------------------------------------------------------------

    def counts(rule: str) -> tuple[int, int]:
        """(base samples, edits) that a rule needs: a random candidate of N + n_edits is one base sample, edited or not."""
        of_one = dict(zip(ONE_SAMPLE, ((1, min(config.n_edits, 1)), (1, 0)), strict=True))
        return of_one.get(rule, (config.n_samples, config.n_edits))

    def draw_proposal(
        tape: Tape, shape: tuple[int, ...], subset_shape: tuple[int, ...], rule: str, sampled: tuple[int, ...] | None = None
    ) -> Proposal:
        """`sampled`: the shape of the states at which the base policy is sampled, where it is another."""
        n_samples, n_edits = counts(rule)
        pick_shape = {"random": shape, "softmax": (*shape, n_samples * config.base_candidates + n_edits)}.get(rule)
        return Proposal(
            base.draw_samples(tape, (*(sampled or shape), n_samples)),
            edit_policy.draw(tape, (*shape, n_edits)) if n_edits else None,
            tape.subset(config.critics, config.critic_subset, subset_shape),
            None if pick_shape is None else tape.uniform(pick_shape),
        )

    def propose(state: ExpoState, obs: jax.Array, samples: jax.Array, draws: Proposal) -> jax.Array:
        """Eq. 3: the base samples [..., N, A] of obs [..., O], then their edits -> [..., N + n_edits, A]."""
        if draws.edit is None:
            return samples
        edited = edits.of_first(edit_policy, state.edit.actor.params, obs, samples, draws.edit)
        return jnp.concatenate([samples, edited], axis=-2) if config.base_candidates else edited

    active = jnp.where(config.active_samples > 0, config.active_samples, config.n_samples)
    active_edits = jnp.minimum(active, config.n_edits)
    is_active = jnp.arange(config.n_edits) < active_edits
    if config.base_candidates:
        is_active = jnp.concatenate([jnp.arange(config.n_samples) < active, is_active])

    def select(rule: str, state: critics.Critic, step: jax.Array, obs: jax.Array, proposed: jax.Array, draws: Proposal) -> jax.Array:
        """The candidate that the on-the-fly policy takes -> [..., A]."""
        if rule == "base" or proposed.shape[-2] == 1:
            return proposed[..., 0, :]
        if rule == "random":
            return candidates.take(proposed, (draws.pick >= active / (active + active_edits)).astype(jnp.int32))
        params = state.online.params if rule == "online" else state.target
        q = jnp.where(is_active, critics.min_of(critic, params, draws.subset, obs[..., None, :], proposed), -jnp.inf)
        if rule != "softmax":
            return candidates.best(proposed, q)
        fall = jnp.where(config.temperature_decay > 0, step / jnp.maximum(config.temperature_decay, 1e-6), 0.0)
        return candidates.softmax(proposed, q, config.temperature * jnp.exp(-fall), draws.pick)

    def act(state: ExpoState, obs: jax.Array, draws: Proposal, *, explore: bool) -> tuple[jax.Array, Metrics]:
        """The same stochastic policy explores and is evaluated."""
        samples = base.sample(state.imitation.ema, obs, draws.base)
        proposed = propose(state, obs, samples, draws)
        action = select(config.select_act, state.critic, state.step, obs, proposed, draws)
        if explore and config.proposals_from_acting:
            return action, {proposals.DRAWN: samples[..., : counts(config.select_backup)[0], :]}
        if explore or proposed.shape[-2] != len(is_active):  # a rule of one candidate has no maximum to examine
            return action, {}
        return action, candidates.examine(critic.values(state.critic.target, obs[..., None, :], proposed), is_active)

    # -- learning ----------------------------------------------------------------------------------------------------------------------

    def pretrain(state: ExpoState, batch: Batch, draws: base_policy.LossDraws) -> tuple[ExpoState, Metrics]:
        """The offline phase trains the base policy alone; critic and edit policy start the online phase untrained."""
        imitation, loss = base_policy.imitate(base, base_optimiser, state.imitation, batch, draws, config.ema_tau)
        return state._replace(imitation=imitation), {"imitation_loss": loss}

    def draw(tape: Tape) -> Draws:
        sampled = (spec.updates, spec.batch_size // config.refresh_every)
        backup = draw_proposal(tape, (spec.updates, spec.batch_size), (spec.updates,), config.select_backup, sampled)
        if config.select_backup == "double":
            both = tape.subset(config.critics, 2 * config.critic_subset, (spec.updates,))
            backup, value_subset = backup._replace(subset=both[:, : config.critic_subset]), both[:, config.critic_subset :]
        else:
            value_subset = tape.subset(config.critics, config.critic_subset, (spec.updates,))
        return Draws(
            backup,
            value_subset,
            base.draw_loss(tape, spec.batch_size),
            edit_policy.draw(tape, (spec.batch_size,), training=True) if config.n_edits else None,
            base.draw_samples(tape, (spec.batch_size, 1)) if config.n_edits and config.edit_on == "base" else None,
            tape.uniform((spec.updates,)) if amortised else None,
        )

    def sample_backup(state: ExpoState, obs: jax.Array, draws: base_policy.SampleDraws) -> jax.Array:
        return base.sample(state.imitation.base.params, obs, draws)

    def backup_samples(state: ExpoState, batches: Batch, draws: Draws) -> tuple[jax.Array | None, jax.Array]:
        """The table, and the base samples at the next states of all U batches [U, B, N, A]."""
        sample = lambda obs: sample_backup(state, obs, draws.backup.base)
        if not amortised:
            return None, sample(batches.next_obs)
        return proposals.refreshed(state.table, batches, config.refresh_every, draws.due, sample)

    def critic_steps(state: ExpoState, batches: Batch, samples: jax.Array, draws: Draws) -> tuple[critics.Critic, Metrics]:
        """U TD steps. Base and edit policy do not change meanwhile, so the candidates of all U batches are proposed in one call: exact."""
        proposed = propose(state, batches.next_obs, samples, draws.backup)

        def td_step(carry: critics.Critic, inputs: tuple) -> tuple[critics.Critic, Metrics]:
            batch, proposed, draws, value_subset = inputs
            action = select(config.select_backup, carry, state.step, batch.next_obs, proposed, draws)
            value = critics.min_of(critic, carry.target, value_subset, batch.next_obs, action)
            target = critics.td_target(batch.reward, batch.terminated, config.discount, value)
            return critics.td_step(critic, critic_optimiser, carry, batch.obs, batch.action, target, config.tau, batch.td_weight)

        selecting = Proposal(None, None, draws.backup.subset, draws.backup.pick)
        return jax.lax.scan(td_step, state.critic, (batches, proposed, selecting, draws.value_subset))

    def edit_step(state: ExpoState, batch: Batch, draws: Draws) -> tuple[actors.SoftActor, Metrics]:
        """Eq. 2 on replay actions, against the mean of the online critics."""
        action = batch.action if draws.edited is None else base.sample(state.imitation.base.params, batch.obs, draws.edited)[..., 0, :]
        value = lambda action: critic.values(state.critic.online.params, batch.obs, action)
        weight = batch.td_weight if draws.edited is None else None
        optimisers = (edit_optimiser, alpha_optimiser)
        edit, info = edits.soft_step(edit_policy, optimisers, state.edit, batch.obs, action, draws.edit, value, target_entropy, weight)
        if config.edit_every > 1:
            edit = jax.tree.map(lambda new, old: jnp.where(state.step % config.edit_every == 0, new, old), edit, state.edit)
        return edit, info

    def learn(state: ExpoState, batches: Batch, draws: Draws) -> tuple[ExpoState, Metrics]:
        """U critic steps, then base policy, edit policy and temperature on the last batch."""
        table, samples = backup_samples(state, batches, draws)
        critic_state, metrics = critic_steps(state, batches, samples, draws)
        state = state._replace(critic=critic_state, table=table)
        metrics = {name: value[-1] for name, value in metrics.items()}
        batch = last(batches)
        imitation, loss = base_policy.imitate(base, base_optimiser, state.imitation, batch, draws.imitation, config.ema_tau)
        metrics["imitation_loss"] = loss
        if config.n_edits:
            edit, info = edit_step(state, batch, draws)
            state, metrics = state._replace(edit=edit), {**metrics, **info}
        return state._replace(imitation=imitation, step=state.step + 1), metrics

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
        keep=proposals.Keeping(draw_kept, sample_backup, config.proposals_from_acting) if amortised else None,
    )
