"""ReBRAC: revisited behaviour-regularised actor-critic (Tarasov et al., arXiv 2305.09836), as its fine-tuning code was released.

TD3 with a penalty on the distance to the data in both losses (eq. 3 and 4), deep networks and LayerNorm in the critics:
- critic: y = r + discount (min of the target critics at (s', a') - beta_2 |a' - a'_data|^2), a' = target actor(s') + clipped noise, where
  a'_data is what the data do at s';
- actor: beta_1 |pi(s) - a|^2 - min Q(s, pi(s)) / mean |min Q|, on every second batch; both targets move on the same batches.
Online beta_2 is 0 and beta_1 falls linearly to 0; the actor explores with Gaussian noise. The released code decides: the target actor
follows the actor as it was before the step, the target critics the critics after theirs.

Deviations: kernels start Xavier-uniform, biases at 0 (released: the ranges of EDAC, biases of 0.1); the TD loss is the critics' mean
(released: their sum, a constant factor under Adam); where the data's episode ends by its time limit, nothing follows and the critic's penalty
is 0 (released: that transition is left out).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench import networks
from expo_bench.agents.base import Agent, Metrics, Spec
from expo_bench.config import static, traced
from expo_bench.parts import critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple = static((256, 256, 256), "widths of actor and critics (ReLU; LayerNorm after it in the critics)")
    critics: int = static(2, "K: critics; the minimum of all is taken")
    actor_every: int = static(2, "updates of the critics per update of actor and targets")
    bc_decay_steps: int = static(1_000_000, "online updates until actor_bc has fallen to 0 (released: the online phase)")
    actor_bc: float = traced(0.01, "beta_1: weight of the actor's imitation; tuned per task by the authors (0.001 to 0.1)")
    critic_bc: float = traced(0.01, "beta_2: weight of the critic's imitation offline; tuned per task by the authors (0 to 0.5)")
    target_noise: float = traced(0.2, "standard deviation of the noise on the target actor")
    noise_clip: float = traced(0.5, "largest noise on the target actor")
    explore_noise: float = traced(0.03, "standard deviation of the noise on online actions")
    discount: float = traced(0.99, "discount (AntMaze: 0.999)")
    critic_lr: float = traced(3e-4, "learning rate of the critics (AntMaze: 5e-5)")
    actor_lr: float = traced(3e-4, "learning rate of the actor")
    tau: float = traced(0.005, "Polyak step of target actor and target critics")


# configs/finetune of the release: Adroit is door-cloned; AntMaze is large-play, whose reward is multiplied by 100.
PROTOCOL = Protocol(offline_steps=1_000_000, online_steps=1_000_000, updates=1, batch_size=256, eval_every=5_000, eval_episodes=10)
SUITES = {
    "adroit": {"config": {"actor_bc": 0.01, "critic_bc": 0.1}},
    "antmaze": {
        "config": {"actor_bc": 0.002, "critic_bc": 0.001, "discount": 0.999, "critic_lr": 5e-5},
        "protocol": {"reward_scale": 100.0, "eval_every": 50_000, "eval_episodes": 100},
    },
}


class ReBracState(NamedTuple):
    actor: optim.Trained
    target_actor: networks.Params
    critic: critics.Critic
    updates: jax.Array  #  [] int32, of the critics, both phases
    online: jax.Array  #   [] int32, of them online


def make(config: Config, spec: Spec) -> Agent:
    actor_net = networks.MLP(config.hidden, out=spec.action_size)
    critic = critics.ensemble(
        obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, widths=config.hidden, norm="post"
    )
    actor_optimiser, critic_optimiser = optim.adam(config.actor_lr), optim.adam(config.critic_lr)

    def init(key: jax.Array) -> ReBracState:
        actor_key, critic_key = jax.random.split(key)
        params = networks.init(actor_net, actor_key, jnp.zeros(spec.obs_size))
        zero = jnp.zeros((), jnp.int32)
        return ReBracState(optim.start(actor_optimiser, params), params, critics.start(critic, critic_optimiser, critic_key), zero, zero)

    def policy(params: networks.Params, obs: jax.Array) -> jax.Array:
        return jnp.tanh(networks.apply(actor_net, params, obs))

    def q_min(params: critics.Params, obs: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.min(critic.values(params, obs, action), axis=0)

    def td_target(state: ReBracState, batch: Batch, noise: jax.Array, critic_bc: jax.Array | None) -> jax.Array:
        """[B]; critic_bc None: without the penalty, for batches that do not know the next action."""
        noise = jnp.clip(config.target_noise * noise, -config.noise_clip, config.noise_clip)
        action = jnp.clip(policy(state.target_actor, batch.next_obs) + noise, -1.0, 1.0)
        value = q_min(state.critic.target, batch.next_obs, action)
        if critic_bc is not None:
            value = value - critic_bc * jnp.sum(batch.next_action_weight * (action - batch.next_action) ** 2, axis=-1)
        return critics.td_target(batch.reward, batch.terminated, config.discount, value)

    def actor_loss(params: networks.Params, critic_params: critics.Params, batch: Batch, actor_bc: jax.Array) -> tuple[jax.Array, Metrics]:
        action = policy(params, batch.obs)
        error = (action - batch.action) ** 2
        imitation_loss = jnp.mean(jnp.sum(error if batch.action_weight is None else batch.action_weight * error, axis=-1))
        q = q_min(critic_params, batch.obs, action)
        loss = actor_bc * imitation_loss - jnp.mean(q) / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
        return loss, {"actor_loss": loss, "imitation_loss": imitation_loss, "actor_q": jnp.mean(q)}

    def update(
        state: ReBracState, batch: Batch, noise: jax.Array, actor_bc: jax.Array, critic_bc: jax.Array | None
    ) -> tuple[ReBracState, Metrics]:
        """One step of the critics and, on every `actor_every`-th batch, of the actor and both targets."""
        # The counter is one of the row's, so a branch would become a select and be computed anyway.
        turn = state.updates % config.actor_every == 0
        tau = jnp.where(turn, config.tau, 0.0)
        target = td_target(state, batch, noise, critic_bc)
        critic_state, metrics = critics.td_step(
            critic, critic_optimiser, state.critic, batch.obs, batch.action, target, tau, batch.td_weight
        )
        grads, info = jax.grad(actor_loss, has_aux=True)(state.actor.params, critic_state.online.params, batch, actor_bc)
        actor = jax.tree.map(lambda new, old: jnp.where(turn, new, old), optim.step(actor_optimiser, state.actor, grads), state.actor)
        target_actor = optim.polyak(state.target_actor, state.actor.params, tau)
        return ReBracState(actor, target_actor, critic_state, state.updates + 1, state.online), {**metrics, **info}

    def pretrain(state: ReBracState, batch: Batch, noise: jax.Array) -> tuple[ReBracState, Metrics]:
        return update(state, batch, noise, config.actor_bc, config.critic_bc)

    def learn(state: ReBracState, batches: Batch, noise: jax.Array) -> tuple[ReBracState, Metrics]:
        """One update on each of the U batches, with beta_1 on its way to 0 and beta_2 = 0."""

        def step(carry: ReBracState, inputs: tuple[Batch, jax.Array]) -> tuple[ReBracState, Metrics]:
            actor_bc = config.actor_bc * jnp.maximum(1.0 - carry.online / config.bc_decay_steps, 0.0)
            after, metrics = update(carry, *inputs, actor_bc, None)
            return after._replace(online=carry.online + 1), {**metrics, "actor_bc": actor_bc}

        state, metrics = jax.lax.scan(step, state, (batches, noise))
        return state, {name: value[-1] for name, value in metrics.items()}

    def act(state: ReBracState, obs: jax.Array, noise: jax.Array, *, explore: bool) -> tuple[jax.Array, Metrics]:
        action = policy(state.actor.params, obs)
        return (jnp.clip(action + config.explore_noise * noise, -1.0, 1.0) if explore else action), {}

    return Agent(
        init=init,
        draw_pretrain=lambda key: jax.random.normal(key, (spec.batch_size, spec.action_size)),
        pretrain=pretrain,
        draw=lambda key: jax.random.normal(key, (spec.updates, spec.batch_size, spec.action_size)),
        learn=learn,
        draw_act=lambda key, explore: jax.random.normal(key, (spec.action_size,)),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
    )
