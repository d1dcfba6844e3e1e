"""PEX: policy expansion (Zhang et al., arXiv 2302.00935), as released.

IQL learns offline (Kostrikov et al., arXiv 2110.06169); its policy is then frozen and joined by a new one. Of the two actions {mean of the
offline policy, sample of the new one} one is drawn by softmax of Q / temperature, Q the minimum of the critics. Online V and
the critics go on as IQL's, and the new policy learns by likelihood weighted with min(exp(beta (Q(s, a) - V(s))), 100), where a is drawn
from the expanded policy at the batch's state, not from the batch. The release decides what is not in the equations:
- the online critics select, the target critics after their step weigh, against V after its step; the offline policy's weights come from
  target critics and V of before it;
- evaluation takes the new policy's mean and the better action, but in a share of 0.1 of the cases, each by itself, a sample of either;
- the warm-up is the expanded policy's, whose new member is untrained; half of every batch is offline data.

Deviations: the critics' target takes V after its step, as IQL's release does (PEX's: before it); the policies are IQL's here, a Gaussian
about a tanh with a deviation that does not depend on the state, clipped to [-1, 1] (the release's file of the policy was not read); Xavier
initialisation.
Not checked against the official code.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from expo_bench.agents.base import Agent, Metrics, Spec, per_batch
from expo_bench.config import static, traced
from expo_bench.parts import candidates, critics, gaussian, implicit, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple = static((256, 256), "widths of all networks")
    critics: int = static(2, "K: critics; the minimum of all is taken")
    actor_decay_steps: int = static(1_000_000, "updates until the offline policy's cosine schedule reaches 0; 0: constant", least=0)
    eval_sampling: float = static(
        0.1, "share of evaluation's choices, of the new policy's action and between the two, that are drawn", least=0
    )
    expectile: float = traced(0.9, "expectile of the value function (all commands of the release; its default is 0.7)")
    inverse_temperature: float = traced(10.0, "beta: factor of the advantage in the policies' weights")
    temperature: float = traced(0.1, "of the choice between the policies, in units of Q (released: 1 / 10)")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of critics and value function")
    actor_lr: float = traced(3e-4, "learning rate of both policies")
    tau: float = traced(0.005, "Polyak step of the target critics")


PROTOCOL = Protocol(
    offline_steps=1_000_000,
    warmup_steps=5_000,
    warmup="policy",
    online_steps=1_000_000,
    updates=1,
    batch_size=256,
    eval_every=10_000,
    eval_episodes=10,
)
SUITES = {"antmaze": {"protocol": {"reward_shift": -1.0}}}  # the authors did not run Adroit


class PexState(NamedTuple):
    offline: optim.Trained  #  the offline policy, frozen online
    actor: optim.Trained  #    the new policy
    value: optim.Trained
    critic: critics.Critic


class Draws(NamedTuple):
    """Of one action of the expanded policy at some states [...]."""

    noise: jax.Array  #  [..., A] standard normal, of the new policy
    pick: jax.Array  #   [..., 2] uniform, of the softmax
    greedy: jax.Array  # [..., 2] uniform: whether evaluation takes the new policy's mean, and the better action


def make(config: Config, spec: Spec) -> Agent:
    sizes = {"obs_size": spec.obs_size, "action_size": spec.action_size, "widths": config.hidden}
    policy = gaussian.make(**sizes, bounded_mean=True, log_std_min=-5.0)
    value = implicit.value_function(obs_size=spec.obs_size, widths=config.hidden)
    critic = critics.ensemble(**sizes, members=config.critics, norm="none")
    decay = config.actor_decay_steps
    offline_optimiser = optim.adam(optax.cosine_decay_schedule(config.actor_lr, decay) if decay else config.actor_lr)
    actor_optimiser, critic_optimiser = optim.adam(config.actor_lr), optim.adam(config.critic_lr)

    def init(key: jax.Array) -> PexState:
        offline_key, actor_key, value_key, critic_key = jax.random.split(key, 4)
        return PexState(
            optim.start(offline_optimiser, policy.init(offline_key)),
            optim.start(actor_optimiser, policy.init(actor_key)),
            optim.start(critic_optimiser, value.init(value_key)),
            critics.start(critic, critic_optimiser, critic_key),
        )

    # -- the expanded policy -----------------------------------------------------------------------------------------------------------

    def draw_action(tape: Tape, *shape: int) -> Draws:
        return Draws(tape.normal((*shape, spec.action_size)), tape.uniform((*shape, 2)), tape.uniform((*shape, 2)))

    def expanded(state: PexState, obs: jax.Array, draws: Draws, explore: bool) -> tuple[jax.Array, jax.Array]:
        """The action taken [..., A], and the Q of both actions [K, ..., 2]."""
        new = policy.sample(state.actor.params, obs, draws.noise)
        greedy = draws.greedy >= config.eval_sampling
        if not explore:
            new = jnp.where(greedy[..., :1], policy.sample(state.actor.params, obs, None), new)
        both = jnp.stack([policy.sample(state.offline.params, obs, None), new], axis=-2)
        q = critic.values(state.critic.online.params, obs[..., None, :], both)
        q_min = jnp.min(q, axis=0)
        action = candidates.softmax(both, q_min, config.temperature, draws.pick)
        if not explore:
            action = jnp.where(greedy[..., 1:], candidates.best(both, q_min), action)
        return action, q

    def act(state: PexState, obs: jax.Array, draws: Draws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        action, q = expanded(state, obs, draws, explore)
        return action, {} if explore else candidates.examine(q)

    # -- learning ----------------------------------------------------------------------------------------------------------------------

    def critic_step(state: PexState, batch: Batch) -> tuple[PexState, Metrics]:
        return implicit.step(value, critic, critic_optimiser, state, batch, config.expectile, config.discount, config.tau)

    def imitate(
        optimiser: optax.GradientTransformation, trained: optim.Trained, batch: Batch, by: PexState
    ) -> tuple[optim.Trained, Metrics]:
        """One step of a policy on the actions of a batch, weighted by their advantage under the target critics and V of the state `by`."""
        advantage = implicit.advantage(value, critic, by.value.params, by.critic.target, batch)
        weight = gaussian.advantage_weight(config.inverse_temperature * advantage)
        return gaussian.weighted_step(policy, optimiser, trained, batch, weight)

    def pretrain(state: PexState, batch: Batch, draws: jax.Array) -> tuple[PexState, Metrics]:
        """IQL."""
        offline, info = imitate(offline_optimiser, state.offline, batch, state)
        state, metrics = critic_step(state, batch)
        return state._replace(offline=offline), {**metrics, **info}

    def learn(state: PexState, batch: Batch, draws: Draws) -> tuple[PexState, Metrics]:
        state, metrics = critic_step(state, batch)
        own = batch._replace(action=expanded(state, batch.obs, draws, True)[0], valid=None)
        actor, info = imitate(actor_optimiser, state.actor, own, state)
        return state._replace(actor=actor), {**metrics, **info}

    return Agent(
        init=init,
        draw_pretrain=lambda key: jnp.zeros(()),
        pretrain=pretrain,
        draw=bulk(lambda tape: draw_action(tape, spec.updates, spec.batch_size)),
        learn=per_batch(learn),
        draw_act=lambda key, explore: bulk(draw_action)(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
    )
