"""A residual on a frozen base policy, learnt off-policy: ResiP's residual policy (Ankile et al., arXiv 2407.16677) under RLPD's learning.

ResiP itself is PPO in 1,024 environments; this file keeps its policy and replaces its learning, so that it can be laid beside the
off-policy methods here. A base policy learns by imitation offline and is frozen; a residual that sees the state and the base action is
added to it, a = base + alpha u, u ~ pi(u | s, base), alpha = 0.1, and begins at a mean of 0. This is EXPO's edit policy without EXPO's
choice among candidates, on a base policy that does not go on learning. Learning is RLPD's (Ball et al., arXiv 2302.02948):
- critic: y = r + discount min_M Q'(s', base' + alpha u'), base' ~ base(s'), K critics with LayerNorm, M of them at random;
- residual: alpha_e log pi(u | s, base) - mean_K Q(s, base + alpha u), base ~ base(s); target entropy of u: -A / 2.
U critic steps, then one of residual and temperature on the last batch; half of every batch is offline data. Evaluation takes the residual's
mode; the warm-up is the base policy's.

From ResiP's release: alpha, the residual's inputs, widths 2 x 256, its start at 0 (a last layer of zeros), the diffusion base. What else
differs from it: u is a tanh-Gaussian whose deviation depends on the state and is learnt with an entropy bonus (released: a Gaussian, not
squashed, log deviation -1 fixed, no bonus); discount 0.99 (released: 0.999 over 700 steps, GAE 0.95); the base acts a step at a time,
unless the protocol asks for chunks, whose residual is then chosen with them (released: the base plans a chunk, the residual corrects each
step of it).
Not checked against the official code.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.agents import bc
from expo_bench.agents.base import Agent, Metrics, Spec, last
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import actors, base_policy, critics, edits, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config(bc.Config):
    hidden: tuple = static((256, 256, 256), "widths of the critics (RLPD's)")
    edit_hidden: tuple = static((256, 256), "widths of the residual policy (ResiP's)")
    critics: int = static(10, "K: critics")
    critic_subset: int = static(2, "M: critics in a minimum (num-min-Q)")
    residual_scale: float = traced(0.1, "alpha: largest residual")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of the critics")
    actor_lr: float = traced(3e-4, "learning rate of the residual policy")
    alpha_lr: float = traced(3e-4, "learning rate of the temperature")
    init_alpha: float = traced(1.0, "first temperature")
    tau: float = traced(0.005, "Polyak step of the target critics")


# RLPD's, with EXPO's offline phase for the base policy and a warm-up by it.
PROTOCOL = Protocol(offline_steps=200_000, warmup_steps=5_000, warmup="policy", online_steps=250_000, updates=20, batch_size=256)
SUITES = {
    "adroit": {"protocol": {"offline_steps": 20_000, "online_steps": 1_000_000}},
    "antmaze": {"config": {"critic_subset": 1}, "protocol": {"offline_steps": 500_000, "online_steps": 300_000, "reward_shift": -1.0}},
}


def validate(config: Config, where: str) -> None:
    bc.validate(config, where)
    if not 1 <= config.critic_subset <= config.critics:
        raise UserError(f"{where}: critic_subset must lie in 1..critics ({config.critics}), got {config.critic_subset}")


class ResidualState(NamedTuple):
    imitation: base_policy.Imitation  #  the base policy; its EMA acts
    residual: actors.SoftActor
    critic: critics.Critic


class Draws(NamedTuple):
    """Of one decision of the policy at some states [...]."""

    base: base_policy.SampleDraws  #     [..., 1, A]
    residual: actors.GaussianDraws  #    [..., A]


class LearnDraws(NamedTuple):
    backup: Draws  #                     [U, B] at s'
    subset: jax.Array  #                 [U, M]
    residual: Draws  #                   [B] at s


def make(config: Config, spec: Spec) -> Agent:
    base, base_optimiser = bc.base_of(config, spec)
    sizes = {"obs_size": spec.obs_size, "action_size": spec.action_size}
    policy = edits.make(**sizes, widths=config.edit_hidden, scale=config.residual_scale)
    critic = critics.ensemble(**sizes, members=config.critics, widths=config.hidden)
    actor_optimiser, alpha_optimiser, critic_optimiser = (optim.adam(lr) for lr in (config.actor_lr, config.alpha_lr, config.critic_lr))
    target_entropy = edits.target_entropy(spec.action_size, config.residual_scale, reachable=True)

    def init(key: jax.Array) -> ResidualState:
        base_key, residual_key, critic_key = jax.random.split(key, 3)
        residual = actors.start(policy, actor_optimiser, alpha_optimiser, residual_key, config.init_alpha)
        residual = residual._replace(actor=residual.actor._replace(params=actors.centred(residual.actor.params)))
        critic_state = critics.start(critic, critic_optimiser, critic_key)
        return ResidualState(base_policy.start(base, base_optimiser, base_key), residual, critic_state)

    def base_action(state: ResidualState, obs: jax.Array, draws: Draws) -> jax.Array:
        return base.sample(state.imitation.ema, obs, draws.base)[..., 0, :]

    def act(state: ResidualState, obs: jax.Array, draws: Draws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        action, params = base_action(state, obs, draws), state.residual.actor.params
        return (policy.edited(params, obs, action, draws.residual)[0] if explore else policy.mode(params, obs, action)), {}

    def draw_decision(tape: Tape, *shape: int) -> Draws:
        return Draws(base.draw_samples(tape, (*shape, 1)), policy.draw(tape, shape))

    def draw(tape: Tape) -> LearnDraws:
        subset = tape.subset(config.critics, config.critic_subset, (spec.updates,))
        return LearnDraws(draw_decision(tape, spec.updates, spec.batch_size), subset, draw_decision(tape, spec.batch_size))

    def critic_steps(state: ResidualState, batches: Batch, draws: LearnDraws) -> tuple[critics.Critic, Metrics]:
        """U TD steps; the policy does not change meanwhile, so that its actions for all U batches come from one call."""
        action = base_action(state, batches.next_obs, draws.backup)
        action, _ = policy.edited(state.residual.actor.params, batches.next_obs, action, draws.backup.residual)

        def td_step(carry: critics.Critic, inputs: tuple) -> tuple[critics.Critic, Metrics]:
            batch, action, subset = inputs
            value = critics.min_of(critic, carry.target, subset, batch.next_obs, action)
            target = critics.td_target(batch.reward, batch.terminated, config.discount, value)
            return critics.td_step(critic, critic_optimiser, carry, batch.obs, batch.action, target, config.tau, batch.td_weight)

        return jax.lax.scan(td_step, state.critic, (batches, action, draws.subset))

    def learn(state: ResidualState, batches: Batch, draws: LearnDraws) -> tuple[ResidualState, Metrics]:
        critic_state, metrics = critic_steps(state, batches, draws)
        obs = last(batches).obs
        action, noise = base_action(state, obs, draws.residual), draws.residual.residual
        value = lambda action: critic.values(critic_state.online.params, obs, action)
        optimisers = (actor_optimiser, alpha_optimiser)
        residual, info = edits.soft_step(policy, optimisers, state.residual, obs, action, noise, value, target_entropy)
        return ResidualState(state.imitation, residual, critic_state), {**{name: x[-1] for name, x in metrics.items()}, **info}

    return Agent(
        init=init,
        **bc.offline_phase(config, spec, base, base_optimiser),
        draw=bulk(draw),
        learn=learn,
        draw_act=lambda key, explore: bulk(draw_decision)(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
        base_act=base_action,
    )
