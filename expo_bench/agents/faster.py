"""FASTER-EXPO: value-guided sampling for fast RL (Dong et al., arXiv 2604.19730) on EXPO, as released: one base sample is denoised, not N.

A filter critic F(s, x_T) says of an initial noise ("seed") what the action that it will become is worth. Of N seeds one is kept, denoised
deterministically (DDIM, eta 0) and edited once; the better of sample and edit under the target critics is taken.
- F regresses, in each of the U critic steps, to min_M Q'(s', a_0): a_0 is the action, not yet edited, that the backup has just denoised from
  its kept seed at s', the M target critics are the backup's. So F learns at next states alone, on seeds that it kept itself;
- a seed is kept by F's target network, min over a random subset of M: drawn with probability exp(F / temperature), F standardised over the N
  seeds, in the backup and to act in training; the highest in evaluation;
- in the backup half of the M target critics (every other one) selects between sample and edit, the other half values what they selected:
  EXPO's M critics select and another M value. To act, the minimum of all M selects, as in EXPO;
- edited actions are clipped to [-1, 1], in the edit policy's loss too; its density is the unclipped edit's. Everything else is EXPO's: the
  EMA of the base policy acts, its online parameters back up, the edit policy learns on replay actions, U critic steps come before one step of
  base, edits and temperature on the last batch.

Deviations from the released code: F has no time input (released: the constant T through Fourier features, as all seeds have t = T); an offline
phase, which the release does not have by default, trains the base policy alone (released: critics and edits too); every dimension is edited.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from expo_bench.agents import bc, expo
from expo_bench.agents.base import Agent, Metrics, Spec, last
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import actors, base_policy, candidates, critics, edits, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config(bc.Config):
    n_samples: int = static(8, "N: seeds per state, of which one is denoised")
    hidden: tuple = static((256, 256, 256), "widths of critics and filter critic")
    edit_hidden: tuple = static((256, 256, 256), "widths of the edit policy")
    critics: int = static(10, "K: critics, and members of the filter critic")
    critic_subset: int = static(2, "M: critics in a minimum, at least 2: one half selects in the backup, the other values")
    edit_dropout: float = static(0.0, "dropout of the edit policy in training", least=0, below=1)
    reachable_target_entropy: bool = static(False, "add A log(beta) to the target entropy, as in EXPO (released: off)")
    filter_temperature: float = traced(1.0, "of the draw among the seeds in training, in standard deviations of F; 0: the best")
    edit_scale: float = traced(0.15, "beta: largest shift of an action by an edit")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of critics and filter critic (constant)")
    edit_lr: float = traced(3e-4, "learning rate of the edit policy (cosine)")
    alpha_lr: float = traced(3e-4, "learning rate of the temperature")
    init_alpha: float = traced(1.0, "first temperature of the edit policy")
    tau: float = traced(0.005, "Polyak step of the target critics and of the filter critic's")


# As released for robomimic: nothing is pretrained, half of every batch is offline data.
PROTOCOL = Protocol(warmup_steps=5_000, online_steps=1_000_000, updates=20, batch_size=256, eval_every=50_000, eval_episodes=100)
# The authors ran neither suite: edits and phases of EXPO (but M, which EXPO has at 1 on AntMaze: here that would leave no critic to value).
SUITES = {
    "adroit": {
        "config": expo.SUITES["adroit"]["config"],
        "protocol": {**expo.SUITES["adroit"]["protocol"], "warmup_steps": 0, "eval_every": 5_000},
    },
    "antmaze": {"protocol": {**expo.SUITES["antmaze"]["protocol"], "warmup_steps": 0, "eval_every": 5_000}},
}


def validate(config: Config, where: str) -> None:
    bc.validate(config, where)
    if not 2 <= config.critic_subset <= config.critics:
        raise UserError(f"{where}: critic_subset must lie in 2..critics ({config.critics}), got {config.critic_subset}")


class FasterState(NamedTuple):
    imitation: base_policy.Imitation  #  the base policy and its EMA
    edit: actors.SoftActor  #            the edit policy and its temperature
    critic: critics.Critic  #            Q(s, a)
    filter: critics.Critic  #            F(s, x_T)


class Proposal(NamedTuple):
    """The randomness of the two candidates of some states [...]; for U batches the subsets are [U, M]."""

    seeds: jax.Array  #              [..., N, A] standard normal
    pick: jax.Array  #               [..., N] uniform, for the draw among the seeds
    filter_subset: jax.Array  #      [M]: the members of F that score
    edit: actors.GaussianDraws  #    [..., 1, A]
    subset: jax.Array  #             [M]: the critics that select and value


class Draws(NamedTuple):
    backup: Proposal  #                   of [U, B] next states
    imitation: base_policy.LossDraws  #   [B]
    edit: actors.GaussianDraws  #         [B]


class Parts(NamedTuple):
    base: base_policy.BasePolicy
    edit: edits.EditPolicy
    critic: critics.Ensemble  #  of actions, and of seeds
    base_optimiser: optax.GradientTransformation
    edit_optimisers: tuple[optax.GradientTransformation, optax.GradientTransformation]  # of policy and temperature
    critic_optimiser: optax.GradientTransformation


def parts_of(config: Config, spec: Spec) -> Parts:
    base, base_optimiser = bc.base_of(config, spec)
    sizes = {"obs_size": spec.obs_size, "action_size": spec.action_size}
    return Parts(
        base,
        edits.make(**sizes, widths=config.edit_hidden, scale=config.edit_scale, dropout=config.edit_dropout, clip=True),
        critics.ensemble(**sizes, members=config.critics, widths=config.hidden),
        base_optimiser,
        (optim.adam(optax.cosine_decay_schedule(config.edit_lr, config.decay_steps)), optim.adam(config.alpha_lr)),
        optim.adam(config.critic_lr),
    )


def make(config: Config, spec: Spec) -> Agent:
    parts = parts_of(config, spec)
    base, critic = parts.base, parts.critic
    draw_proposal, propose = proposing(config, spec, parts)
    draw, critic_steps, edit_step = learning(config, spec, parts)

    def init(key: jax.Array) -> FasterState:
        base_key, edit_key, critic_key, filter_key = jax.random.split(key, 4)
        return FasterState(
            base_policy.start(base, parts.base_optimiser, base_key),
            actors.start(parts.edit, *parts.edit_optimisers, edit_key, config.init_alpha),
            critics.start(critic, parts.critic_optimiser, critic_key),
            critics.start(critic, parts.critic_optimiser, filter_key),
        )

    def act(state: FasterState, obs: jax.Array, draws: Proposal, *, explore: bool) -> tuple[jax.Array, Metrics]:
        """The better of sample and edit; the seed is drawn to explore, the best in evaluation."""
        _, proposed = propose(state.imitation.ema, state, obs, draws, config.filter_temperature if explore else 0.0)
        action = candidates.best(proposed, critics.min_of(critic, state.critic.target, draws.subset, obs[..., None, :], proposed))
        return action, {} if explore else candidates.examine(critic.values(state.critic.target, obs[..., None, :], proposed))

    def imitate(state: FasterState, batch: Batch, draws: base_policy.LossDraws) -> tuple[FasterState, Metrics]:
        imitation, loss = base_policy.imitate(base, parts.base_optimiser, state.imitation, batch, draws, config.ema_tau)
        return state._replace(imitation=imitation), {"imitation_loss": loss}

    def learn(state: FasterState, batches: Batch, draws: Draws) -> tuple[FasterState, Metrics]:
        """U steps of critics and filter critic, then base policy, edit policy and temperature on the last batch."""
        state, critic_info = critic_steps(state, batches, draws.backup)
        state, imitation_info = imitate(state, last(batches), draws.imitation)
        state, edit_info = edit_step(state, last(batches), draws.edit)
        return state, {**critic_info, **imitation_info, **edit_info}

    return Agent(
        init=init,
        draw_pretrain=bulk(lambda tape: base.draw_loss(tape, spec.batch_size)),
        pretrain=imitate,
        draw=bulk(draw),
        learn=learn,
        draw_act=lambda key, explore: bulk(lambda tape: draw_proposal(tape, (), ()))(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
        base_act=lambda state, obs, draws: base_policy.decode(base, state.imitation.ema, obs, draws.seeds[..., 0, :]),
    )


def proposing(config: Config, spec: Spec, parts: Parts) -> tuple[Callable, Callable]:
    """The draws of a proposal, (tape, states' shape, subsets' shape), and the proposal."""

    def draw(tape: Tape, shape: tuple[int, ...], subset_shape: tuple[int, ...]) -> Proposal:
        subset = lambda: tape.subset(config.critics, config.critic_subset, subset_shape)
        seeds = tape.normal((*shape, config.n_samples, spec.action_size))
        return Proposal(seeds, tape.uniform((*shape, config.n_samples)), subset(), parts.edit.draw(tape, (*shape, 1)), subset())

    def propose(
        base_params: base_policy.Params, state: FasterState, obs: jax.Array, draws: Proposal, temperature: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        """The kept seed of obs [..., O] -> [..., A], and its action with that action's edit -> [..., 2, A]."""
        score = critics.min_of(parts.critic, state.filter.target, draws.filter_subset, obs[..., None, :], draws.seeds)
        seed = candidates.softmax(draws.seeds, candidates.standardised(score), temperature, draws.pick)
        sample = base_policy.decode(parts.base, base_params, obs, seed)[..., None, :]
        edited = edits.of_first(parts.edit, state.edit.actor.params, obs, sample, draws.edit)
        return seed, jnp.concatenate([sample, edited], axis=-2)

    return draw, propose


def learning(config: Config, spec: Spec, parts: Parts) -> tuple[Callable[[Tape], Draws], Callable, Callable]:
    """The draws of `learn`, the U steps of critics and filter critic, and the edit policy's step."""
    critic, optimiser = parts.critic, parts.critic_optimiser
    draw_proposal, propose = proposing(config, spec, parts)
    entropy = edits.target_entropy(spec.action_size, config.edit_scale, config.reachable_target_entropy)

    def draw(tape: Tape) -> Draws:
        backup = draw_proposal(tape, (spec.updates, spec.batch_size), (spec.updates,))
        return Draws(backup, parts.base.draw_loss(tape, spec.batch_size), parts.edit.draw(tape, (spec.batch_size,), training=True))

    def critic_step(state: FasterState, inputs: tuple[Batch, Proposal]) -> tuple[FasterState, Metrics]:
        """A TD step of the critics and a step of F, both towards the target critics as they were before."""
        batch, draws = inputs
        seed, proposed = propose(state.imitation.base.params, state, batch.next_obs, draws, config.filter_temperature)
        q = critic.values(critics.members(state.critic.target, draws.subset), batch.next_obs[..., None, :], proposed)  # [M, B, 2]
        chosen = jnp.argmax(jnp.min(q[0::2], axis=0), axis=-1, keepdims=True)
        value = jnp.take_along_axis(jnp.min(q[1::2], axis=0), chosen, axis=-1)[..., 0]
        y = critics.td_target(batch.reward, batch.terminated, config.discount, value)
        critic_state, info = critics.td_step(critic, optimiser, state.critic, batch.obs, batch.action, y, config.tau, batch.td_weight)
        worth = jnp.min(q, axis=0)[..., 0]  # of the sample before its edit
        filter_state, filter_info = critics.td_step(critic, optimiser, state.filter, batch.next_obs, seed, worth, config.tau)
        return state._replace(critic=critic_state, filter=filter_state), {**info, "filter_loss": filter_info["critic_loss"]}

    def critic_steps(state: FasterState, batches: Batch, draws: Proposal) -> tuple[FasterState, Metrics]:
        """U steps; each keeps seeds by the filter critic that the last one left, so no two share their denoising."""
        state, metrics = jax.lax.scan(critic_step, state, (batches, draws))
        return state, {name: value[-1] for name, value in metrics.items()}

    def edit_step(state: FasterState, batch: Batch, draws: actors.GaussianDraws) -> tuple[FasterState, Metrics]:
        value = lambda action: critic.values(state.critic.online.params, batch.obs, action)
        edit, info = edits.soft_step(
            parts.edit, parts.edit_optimisers, state.edit, batch.obs, batch.action, draws, value, entropy, batch.td_weight
        )
        return state._replace(edit=edit), info

    return draw, critic_steps, edit_step
