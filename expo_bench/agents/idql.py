"""IDQL: implicit Q-learning with a diffusion policy (Hansen-Estruch et al., arXiv 2304.10573), as released.

An expectile value function (IQL, eq. 5 and 6 of Kostrikov et al., arXiv 2110.06169) is learnt without querying the policy; the base policy
imitates; acting takes the best of N base samples under the minimum of the target critics. The same losses run offline and online, one step of
each per batch. Online the released launcher freezes the policy (`train_base_online` off).
Deviation: the released launcher trains the policy on batches of 512 and the critics on 256; here all share one batch.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from expo_bench.agents.base import Agent, Metrics, Spec, per_batch
from expo_bench.config import static, traced
from expo_bench.parts import base_policy, candidates, critics, implicit, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    n_samples: int = static(64, "N: base samples per state to act in training")
    n_samples_eval: int = static(128, "N in evaluation")
    denoising_steps: int = static(5, "T: denoising steps")
    base_hidden: int = static(256, "width of the denoiser")
    base_blocks: int = static(3, "residual blocks of the denoiser")
    time_features: int = static(128, "Fourier features of the denoising time")
    base_dropout: float = static(0.1, "dropout of the denoiser in training", least=0, below=1)
    hidden: tuple = static((256, 256), "widths of critics and value function")
    critics: int = static(2, "K: critics; the minimum of all is taken")
    train_base_online: bool = static(False, "go on imitating online (released launcher: off)")
    decay_steps: int = static(2_000_000, "updates until the cosine schedule of the base policy reaches 0")
    expectile: float = traced(0.7, "expectile of the value function (AntMaze: 0.9)")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of critics and value function")
    base_lr: float = traced(3e-4, "learning rate of the base policy (cosine)")
    tau: float = traced(0.005, "Polyak step of the target critics")
    ema_tau: float = traced(0.001, "Polyak step of the base policy's EMA")


PROTOCOL = Protocol(offline_steps=1_500_000, warmup_steps=5_000, online_steps=1_000_000, updates=1, batch_size=256)
SUITES = {"antmaze": {"config": {"expectile": 0.9}, "protocol": {"reward_shift": -1.0}}}


class IdqlState(NamedTuple):
    imitation: base_policy.Imitation
    value: optim.Trained
    critic: critics.Critic


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
    )
    value = implicit.value_function(obs_size=spec.obs_size, widths=config.hidden, norm_input=True)
    critic = critics.ensemble(
        obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, widths=config.hidden, norm="none"
    )
    base_optimiser = optim.adam(optax.cosine_decay_schedule(config.base_lr, config.decay_steps))
    critic_optimiser = optim.adam(config.critic_lr)

    def init(key: jax.Array) -> IdqlState:
        base_key, value_key, critic_key = jax.random.split(key, 3)
        return IdqlState(
            base_policy.start(base, base_optimiser, base_key),
            optim.start(critic_optimiser, value.init(value_key)),
            critics.start(critic, critic_optimiser, critic_key),
        )

    def critic_update(state: IdqlState, batch: Batch) -> tuple[IdqlState, Metrics]:
        return implicit.step(value, critic, critic_optimiser, state, batch, config.expectile, config.discount, config.tau)

    def pretrain(state: IdqlState, batch: Batch, draws: base_policy.LossDraws) -> tuple[IdqlState, Metrics]:
        """All three losses on one batch."""
        state, metrics = critic_update(state, batch)
        imitation, loss = base_policy.imitate(base, base_optimiser, state.imitation, batch, draws, config.ema_tau)
        return state._replace(imitation=imitation), {**metrics, "imitation_loss": loss}

    def draw_one(tape: Tape) -> base_policy.LossDraws:
        return base.draw_loss(tape, spec.batch_size)

    def draw(tape: Tape) -> base_policy.LossDraws:
        return jax.tree.map(lambda *x: jnp.stack(x), *[draw_one(tape) for _ in range(spec.updates)])

    def act(state: IdqlState, obs: jax.Array, draws: base_policy.SampleDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        """The best of N base samples under the minimum of the target critics."""
        samples = base.sample(state.imitation.ema, obs, draws)
        q = critic.values(state.critic.target, obs[..., None, :], samples)
        return candidates.best(samples, jnp.min(q, axis=0)), {} if explore else candidates.examine(q)

    return Agent(
        init=init,
        draw_pretrain=bulk(draw_one),
        pretrain=pretrain,
        draw=bulk(draw),
        learn=per_batch(pretrain if config.train_base_online else lambda state, batch, _: critic_update(state, batch)),
        draw_act=lambda key, explore: bulk(lambda tape: base.draw_samples(tape, (config.n_samples if explore else config.n_samples_eval,)))(
            key
        ),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
        base_act=lambda state, obs, draws: base.sample(state.imitation.ema, obs, draws)[..., 0, :],
    )
