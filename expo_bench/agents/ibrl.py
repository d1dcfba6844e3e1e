"""IBRL: imitation bootstrapped reinforcement learning (Hu et al., arXiv 2311.02198), as released for observations of states.

A base policy learns by imitation offline and is frozen. Online a deterministic actor pi learns beside it, and of the two actions {pi(s) +
noise, base(s)} one is taken by its value, to act and in the TD backup alike:
- selection: softmax of Q / temperature (the release's "ibrl_soft", temperature 1 / 10) or the maximum ("ibrl"), Q the minimum of a random
  subset of M of the K target critics;
- critic: y = r + discount min_M Q'(s', a*), a* selected from {pi'(s') + clipped noise, base(s')} with the target actor pi', M drawn anew;
- actor: -min_K Q(s, pi(s) + clipped noise), the gradient passing straight through the clip of the action to [-1, 1].
U critic steps, then one of the actor and of its target on the last batch. The noise is N(0, 0.1^2). Dropout is on in the actor's loss and,
as the release insists, in the target actor of the backup. Evaluation takes pi's mean, and selects as exploration does. Demonstrations and
online data form one buffer; the warm-up is the base policy's.

Deviations: the base policy is this suite's diffusion or flow, of which one sample is drawn (released: a deterministic network); single-step
returns (released: 3 steps); Xavier initialisation; the critics' loss is their mean (released: their sum). The release learns on every
second environment step (5 critic steps and one of the actor), here on every one; its states are stacks of 3.
Not checked against the official code.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench import networks
from expo_bench.agents import bc
from expo_bench.agents.base import Agent, Metrics, Spec, last
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import base_policy, candidates, critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config(bc.Config):
    select: str = static("softmax", "which of the two actions is taken: 'softmax' (released on states) or 'max' (released on images)")
    hidden: tuple = static((1024, 1024, 1024), "widths of critics (LayerNorm) and actor")
    critics: int = static(5, "K: critics")
    critic_subset: int = static(2, "M: critics in a minimum of selection and backup; the actor's is of all")
    actor_dropout: float = static(0.5, "dropout of the actor in training, and of the target actor in the backup", least=0, below=1)
    temperature: float = traced(0.1, "of the softmax rule, in units of Q (released: 1 / beta, beta 10)")
    explore_noise: float = traced(0.1, "standard deviation of the noise on the actor's action")
    noise_clip: float = traced(0.3, "largest noise in backup and actor loss")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(1e-4, "learning rate of the critics")
    actor_lr: float = traced(1e-4, "learning rate of the actor")
    tau: float = traced(0.01, "Polyak step of target critics and target actor")


# square_state of the release: 50 demonstrations in the buffer, 50 episodes of at most 300 steps before learning. Pretraining is EXPO's.
PROTOCOL = Protocol(
    offline_steps=200_000,
    warmup_steps=10_000,
    warmup="policy",
    online_steps=300_000,
    updates=5,
    batch_size=256,
    sampling="union",
    eval_every=10_000,
    eval_episodes=50,
)
SUITES = {  # the authors ran neither suite: phases of EXPO
    "adroit": {"protocol": {"offline_steps": 20_000, "online_steps": 1_000_000}},
    "antmaze": {"protocol": {"offline_steps": 500_000, "reward_shift": -1.0}},
}


def validate(config: Config, where: str) -> None:
    bc.validate(config, where)
    if config.select not in ("softmax", "max"):
        raise UserError(f"{where}: select must be 'softmax' or 'max', got {config.select!r}")
    if not 1 <= config.critic_subset <= config.critics:
        raise UserError(f"{where}: critic_subset must lie in 1..critics ({config.critics}), got {config.critic_subset}")


class IbrlState(NamedTuple):
    imitation: base_policy.Imitation  #  the base policy; its EMA acts
    actor: optim.Trained
    target_actor: networks.Params
    critic: critics.Critic


class ActorDraws(NamedTuple):
    noise: jax.Array  #                      [..., A] standard normal
    masks: tuple[jax.Array, ...] | None  #   [..., width] dropout masks of every layer; None: acting


class Proposal(NamedTuple):
    """The randomness of the two actions at some states [...], and of the choice between them."""

    base: base_policy.SampleDraws  #  [..., 1, A]
    actor: ActorDraws
    subset: jax.Array  #              [M], or [U, M] for U batches: the critics that select
    pick: jax.Array  #                [..., 2] uniform, for the softmax


class Draws(NamedTuple):
    backup: Proposal  #               of [U, B] next states
    value_subset: jax.Array  #        [U, M]: the critics that value the selected action
    actor: ActorDraws  #              [B] of the actor's loss


def make(config: Config, spec: Spec) -> Agent:
    base, base_optimiser = bc.base_of(config, spec)
    actor_net = networks.MLP(config.hidden, out=spec.action_size)
    critic = critics.ensemble(obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, widths=config.hidden)
    actor_optimiser, critic_optimiser = optim.adam(config.actor_lr), optim.adam(config.critic_lr)

    def init(key: jax.Array) -> IbrlState:
        base_key, actor_key, critic_key = jax.random.split(key, 3)
        params = networks.init(actor_net, actor_key, jnp.zeros(spec.obs_size))
        imitation = base_policy.start(base, base_optimiser, base_key)
        return IbrlState(imitation, optim.start(actor_optimiser, params), params, critics.start(critic, critic_optimiser, critic_key))

    # -- the two actions ---------------------------------------------------------------------------------------------------------------

    def policy(params: networks.Params, obs: jax.Array, masks: tuple[jax.Array, ...] | None = None) -> jax.Array:
        return jnp.tanh(networks.apply(actor_net, params, obs, masks))

    def noisy(mean: jax.Array, noise: jax.Array) -> jax.Array:
        """The action within [-1, 1], with the gradient of the unclipped one."""
        action = mean + noise
        return action + jax.lax.stop_gradient(jnp.clip(action, -1.0, 1.0) - action)

    def trained_action(params: networks.Params, obs: jax.Array, draws: ActorDraws) -> jax.Array:
        """pi(s) with dropout and clipped noise, as backup and actor loss see it."""
        noise = jnp.clip(config.explore_noise * draws.noise, -config.noise_clip, config.noise_clip)
        return noisy(policy(params, obs, draws.masks), noise)

    def beside_base(state: IbrlState, obs: jax.Array, action: jax.Array, draws: base_policy.SampleDraws) -> jax.Array:
        """The actor's action [..., A] and the base policy's -> [..., 2, A]."""
        return jnp.concatenate([action[..., None, :], base.sample(state.imitation.ema, obs, draws)], axis=-2)

    def select(proposed: jax.Array, q: jax.Array, pick: jax.Array) -> jax.Array:
        """One of proposed [..., 2, A] by q [..., 2]."""
        return candidates.best(proposed, q) if config.select == "max" else candidates.softmax(proposed, q, config.temperature, pick)

    def act(state: IbrlState, obs: jax.Array, draws: Proposal, *, explore: bool) -> tuple[jax.Array, Metrics]:
        action = policy(state.actor.params, obs)
        action = noisy(action, config.explore_noise * draws.actor.noise) if explore else action
        proposed = beside_base(state, obs, action, draws.base)
        q = critic.values(state.critic.target, obs[..., None, :], proposed)
        chosen = select(proposed, jnp.min(q[draws.subset], axis=0), draws.pick)
        return chosen, {} if explore else candidates.examine(q)

    # -- learning ----------------------------------------------------------------------------------------------------------------------

    def draw_proposal(tape: Tape, shape: tuple[int, ...], subset_shape: tuple[int, ...], actor: ActorDraws) -> Proposal:
        subset = tape.subset(config.critics, config.critic_subset, subset_shape)
        return Proposal(base.draw_samples(tape, (*shape, 1)), actor, subset, tape.uniform((*shape, 2)))

    def draw_actor(tape: Tape, shape: tuple[int, ...]) -> ActorDraws:
        keep = config.actor_dropout
        masks = tuple(tape.keep(keep, (*shape, width)) for width in config.hidden) if keep else None
        return ActorDraws(tape.normal((*shape, spec.action_size)), masks)

    def draw(tape: Tape) -> Draws:
        lead = (spec.updates, spec.batch_size)
        backup = draw_proposal(tape, lead, lead[:1], draw_actor(tape, lead))
        return Draws(backup, tape.subset(config.critics, config.critic_subset, lead[:1]), draw_actor(tape, lead[1:]))

    def critic_steps(state: IbrlState, batches: Batch, draws: Draws) -> tuple[critics.Critic, Metrics]:
        """U TD steps. Base policy and target actor do not change meanwhile: the two actions of all U batches come from one call, exact."""
        action = trained_action(state.target_actor, batches.next_obs, draws.backup.actor)
        proposed = beside_base(state, batches.next_obs, action, draws.backup.base)

        def td_step(carry: critics.Critic, inputs: tuple) -> tuple[critics.Critic, Metrics]:
            batch, proposed, subset, pick, value_subset = inputs
            q = critics.min_of(critic, carry.target, subset, batch.next_obs[:, None], proposed)
            value = critics.min_of(critic, carry.target, value_subset, batch.next_obs, select(proposed, q, pick))
            target = critics.td_target(batch.reward, batch.terminated, config.discount, value)
            return critics.td_step(critic, critic_optimiser, carry, batch.obs, batch.action, target, config.tau, batch.td_weight)

        inputs = (batches, proposed, draws.backup.subset, draws.backup.pick, draws.value_subset)
        return jax.lax.scan(td_step, state.critic, inputs)

    def learn(state: IbrlState, batches: Batch, draws: Draws) -> tuple[IbrlState, Metrics]:
        critic_state, metrics = critic_steps(state, batches, draws)
        obs = last(batches).obs

        def actor_loss(params: networks.Params) -> jax.Array:
            return -jnp.mean(jnp.min(critic.values(critic_state.online.params, obs, trained_action(params, obs, draws.actor)), axis=0))

        loss, grads = jax.value_and_grad(actor_loss)(state.actor.params)
        actor = optim.step(actor_optimiser, state.actor, grads)
        state = IbrlState(state.imitation, actor, optim.polyak(state.target_actor, actor.params, config.tau), critic_state)
        return state, {**{name: value[-1] for name, value in metrics.items()}, "actor_loss": loss}

    def draw_act(tape: Tape) -> Proposal:
        return draw_proposal(tape, (), (), ActorDraws(tape.normal((spec.action_size,)), None))

    return Agent(
        init=init,
        **bc.offline_phase(config, spec, base, base_optimiser),
        draw=bulk(draw),
        learn=learn,
        draw_act=lambda key, explore: bulk(draw_act)(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
        base_act=lambda state, obs, draws: base.sample(state.imitation.ema, obs, draws.base)[..., 0, :],
    )
