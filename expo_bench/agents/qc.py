"""QC: Q-chunking (Q. Li et al., arXiv 2507.07969), as released: the best of N chunks of a flow policy.

Policy and critics see a chunk of C actions, executed open loop, as one action. A flow imitates the chunks of the data; the policy is the one of
highest Q among N of its samples, to act and in the C-step backup alike: the mean of the online critics selects, the mean of the target critics
values what was selected. There is no other policy loss.

    y = sum over k < C of discount^k r_k + discount^C Q'(s_C, a*)

One joint Adam over critics and flow; the same losses run offline and online; data of both phases form one buffer.
Variants, off by default: `refresh_every`, `proposals_from_acting`: online, samples of the backup are kept and used again (parts/proposals.py).
C is the protocol's `chunk`. With chunk 1 this is the best of N single actions, which the paper calls BFN (there with N = 4).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.agents import fql
from expo_bench.agents.base import Agent, Metrics, Spec, one_step_agent
from expo_bench.config import static, traced
from expo_bench.parts import base_policy, best_of_n, critics, joint, optim, proposals
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape


@dataclasses.dataclass(frozen=True)
class Config:
    n_samples: int = static(32, "N: chunks sampled per state, to act and in the backup")
    flow_steps: int = static(10, "Euler steps of the flow")
    hidden: tuple = static((512, 512, 512, 512), "widths of critics and flow (GELU; LayerNorm after it in the critics)")
    critics: int = static(2, "K: critics")
    refresh_every: int = static(1, "k: the backup's samples are kept online and drawn anew every k-th time; 1: every time (released)")
    proposals_from_acting: bool = static(
        False, "the samples drawn to act in a state are the first that are kept of it; needs refresh_every"
    )
    discount: float = traced(0.99, "discount of a single step")
    lr: float = traced(3e-4, "learning rate of everything")
    tau: float = traced(0.005, "Polyak step of the target critics")


# FQL's, with chunks, and with 5,000 steps of acting (by the pretrained policy) before online learning starts. Adroit: no authors' values.
PROTOCOL = dataclasses.replace(fql.PROTOCOL, chunk=5, warmup_steps=5_000, warmup="policy")
SUITES = {"antmaze": {"protocol": {"reward_shift": -1.0}}}


validate, validate_batch = proposals.validate, proposals.validate_batch


class Params(NamedTuple):
    critic: critics.Params
    flow: base_policy.Params


class Draws(NamedTuple):
    backup: base_policy.SampleDraws  #   [B, N, C A] of the flow at s_C; amortised, online: [B / k, N, C A]
    imitation: base_policy.LossDraws  #  [B]
    due: jax.Array | None = None  #      [] uniform, amortised, online: which rows are refreshed


def make(config: Config, spec: Spec) -> Agent:
    policy = best_of_n.make(
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        widths=config.hidden,
        steps=config.flow_steps,
        members=config.critics,
        n_samples=config.n_samples,
        aggregate=jnp.mean,
        hand_out=config.proposals_from_acting,
    )
    optimiser = optim.adam(config.lr)
    amortised = config.refresh_every > 1

    def init(key: jax.Array) -> joint.Joint:
        critic_key, flow_key = jax.random.split(key)
        start = joint.start(optimiser, Params(policy.critic.init(critic_key), policy.flow.init(flow_key)))
        return start._replace(table=proposals.empty(spec.stored, config.n_samples, spec.action_size)) if amortised else start

    def sample(state: joint.Joint, obs: jax.Array, draws: base_policy.SampleDraws) -> jax.Array:
        return policy.flow.sample(state.trained.params.flow, obs, draws)

    def critic_loss(
        params: Params, target: critics.Params, batch: Batch, draws: base_policy.SampleDraws, samples: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """`samples` [B, N, C A] at s_C; None: drawn anew."""
        fixed = jax.lax.stop_gradient(params)
        choose = partial(policy.choose, draws=draws) if samples is None else partial(policy.among, samples=samples)
        action, _ = choose(fixed, batch.next_obs)
        value = jnp.mean(policy.critic.values(target, batch.next_obs, action), axis=0)
        y = critics.td_target(batch.reward, batch.terminated, config.discount, value)
        return critics.td_loss(policy.critic, params.critic, batch.obs, batch.action, y, batch.td_weight)

    def step(state: joint.Joint, batch: Batch, draws: Draws) -> tuple[joint.Joint, Metrics]:
        samples = None
        if draws.due is not None:
            again = lambda obs: sample(state, obs, draws.backup)
            table, samples = proposals.refreshed(state.table, batch, config.refresh_every, draws.due, again)
            state = state._replace(table=table)

        def total_loss(params: Params) -> tuple[jax.Array, Metrics]:
            td_loss, q = critic_loss(params, state.target, batch, draws.backup, samples)
            imitation_loss = policy.flow.loss(params.flow, batch.obs, batch.action, draws.imitation, batch.action_weight)
            return td_loss + imitation_loss, {"critic_loss": td_loss, "imitation_loss": imitation_loss, "q_mean": q}

        return joint.step(optimiser, total_loss, state, config.tau)

    def draw(tape: Tape) -> Draws:
        return Draws(policy.draw(tape, (spec.batch_size,)), policy.flow.draw_loss(tape, spec.batch_size))

    def draw_amortised(tape: Tape) -> Draws:
        refreshed = policy.draw(tape, (spec.batch_size // config.refresh_every,))
        return Draws(refreshed, policy.flow.draw_loss(tape, spec.batch_size), tape.uniform())

    if not amortised:
        return one_step_agent(init, draw, step, spec.updates, **policy.acting)
    keep = proposals.Keeping(policy.draw, sample, config.proposals_from_acting)
    return one_step_agent(init, draw, step, spec.updates, draw_amortised, **policy.acting, keep=keep)
