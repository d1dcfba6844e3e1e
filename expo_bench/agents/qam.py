"""QAM: Q-learning with adjoint matching (Qiyang Li and Levine, arXiv 2601.14234), as released (github.com/ColinQiyangLi/qam).

A slow flow v_s imitates. A fast flow v_f, the policy, is to sample pi(a|s) proportional to pi_s(a|s) exp(Q(s, a) / temperature): the
critic's gradient at the end of a noisy chain of v_f is carried backwards along it by v_s alone, and v_f regresses on it at every step, so
that no gradient runs through a chain of v_f (`parts/adjoint`):
- critic: y = r + discount (mean_K Q' - pessimism std_K Q')(s', a'), a' an Euler sample of v_f;
- slow flow: flow matching of the data;
- fast flow: adjoint matching against the EMA of the slow flow, cost -Q'(s, clip a) / temperature, Q' the mean of the target critics.
`inverse_temperature` is 1 / temperature. One sample of v_f acts. One joint Adam, its gradient clipped by its norm; the same losses offline
and online; data of both phases form one buffer. A strong tilt needs the ten steps: on chains of 4 the method falls apart where it does not
on chains of 10.

With `edit` (agent `qam_e`) an edit policy shifts samples of v_f, a = clip(Flow_f(s, z) + beta u), both to act and in the backup; it learns
on such samples against the mean of the online critics, its temperature seeks an entropy of u of -A/2 (EXPO's edits, as one candidate).

Deviations: target critics and EMA follow the parameters of after the step, not of before it; the release's one-step head (QAM-F) is not
offered.
Not checked against the official code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from expo_bench.agents import fql
from expo_bench.agents.base import Agent, Metrics, Spec, one_step_agent
from expo_bench.config import static, traced
from expo_bench.parts import actors, adjoint, base_policy, critics, edits, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk


@dataclasses.dataclass(frozen=True)
class Config:
    flow_steps: int = static(10, "K: Euler steps of the flows, and steps of the chains that adjoints run along")
    edit: bool = static(False, "an edit policy shifts the flow's actions (qam_e)")
    hidden: tuple = static((512, 512, 512, 512), "widths of all networks (GELU; LayerNorm after it in the critics)")
    critics: int = static(10, "K: critics")
    inverse_temperature: float = traced(0.3, "1 / temperature of the tilt; tuned per task by the authors (1 to 30; AntMaze: 10)")
    pessimism: float = traced(0.5, "rho: standard deviations of the critics that the backup subtracts from their mean (humanoid maze: 0)")
    edit_scale: float = traced(0.1, "beta: largest shift of an action by an edit, with edit")
    init_alpha: float = traced(1.0, "first temperature of the edit policy, with edit")
    discount: float = traced(0.99, "discount (giant mazes, humanoid: 0.995)")
    lr: float = traced(3e-4, "learning rate of everything")
    grad_clip: float = traced(1.0, "largest norm of the joint gradient")
    tau: float = traced(0.005, "Polyak step of target critics and of the slow flow's EMA")


# Released: chunks of 5 in manipulation, single steps in mazes; the reward of AntMaze is OGBench's, -1 per step. Adroit: no authors' values.
PROTOCOL = dataclasses.replace(fql.PROTOCOL, online_steps=500_000, warmup_steps=5_000, warmup="policy")
SUITES = {"antmaze": {"config": {"inverse_temperature": 10.0}, "protocol": {"reward_shift": -1.0}}}  # as on antmaze-large-navigate


class Params(NamedTuple):
    critic: critics.Params
    slow: base_policy.Params
    fast: base_policy.Params
    edit: actors.Params | None
    log_alpha: jax.Array | None


class Targets(NamedTuple):
    critic: critics.Params
    slow: base_policy.Params


class QamState(NamedTuple):
    trained: optim.Trained  #  of Params
    target: Targets


class Proposal(NamedTuple):
    """The randomness of the policy at some states [...]."""

    flow: base_policy.SampleDraws  #      [..., 1, A]
    edit: actors.GaussianDraws | None  #  [..., A]


class Draws(NamedTuple):
    """The randomness of one step."""

    backup: Proposal  #                   of [B] next states
    imitation: base_policy.LossDraws  #   [B]
    x0: jax.Array  #                      [B, A] where the chain starts
    chain: jax.Array  #                   [K - 1, B, A] its noise
    edited: Proposal | None  #            of [B] states: what the edit policy learns on


def make(config: Config, spec: Spec) -> Agent:
    flow = base_policy.flow_mlp(obs_size=spec.obs_size, action_size=spec.action_size, steps=config.flow_steps, widths=config.hidden)
    sizes = {"obs_size": spec.obs_size, "action_size": spec.action_size, "widths": config.hidden, "activation": nn.gelu}
    critic = critics.ensemble(members=config.critics, norm="post", **sizes)
    edit_policy = edits.make(scale=config.edit_scale, clip=True, **sizes)
    optimiser = optim.clipped_adam(config.lr, config.grad_clip)
    target_entropy = edits.target_entropy(spec.action_size, config.edit_scale, reachable=True)  # -A/2 for u

    def init(key: jax.Array) -> QamState:
        critic_key, slow_key, fast_key, edit_key = jax.random.split(key, 4)
        head = (edit_policy.init(edit_key), optim.log_scalar(config.init_alpha)) if config.edit else (None, None)
        params = Params(critic.init(critic_key), flow.init(slow_key), flow.init(fast_key), *head)
        return QamState(optim.start(optimiser, params), Targets(params.critic, params.slow))

    # -- the policy --------------------------------------------------------------------------------------------------------------------

    def draw_proposal(tape: Tape, shape: tuple[int, ...]) -> Proposal:
        return Proposal(flow.draw_samples(tape, (*shape, 1)), edit_policy.draw(tape, shape) if config.edit else None)

    def propose(params: Params, obs: jax.Array, draws: Proposal) -> jax.Array:
        """obs [..., O] -> [..., A]: a sample of the fast flow, edited."""
        action = flow.sample(params.fast, obs, draws.flow)[..., 0, :]
        return edit_policy.edited(params.edit, obs, action, draws.edit)[0] if config.edit else action

    # -- learning ----------------------------------------------------------------------------------------------------------------------

    def draw(tape: Tape) -> Draws:
        shape = (spec.batch_size, spec.action_size)
        return Draws(
            draw_proposal(tape, shape[:1]),
            flow.draw_loss(tape, spec.batch_size),
            tape.normal(shape),
            tape.normal((config.flow_steps - 1, *shape)),
            draw_proposal(tape, shape[:1]) if config.edit else None,
        )

    def td_target(state: QamState, batch: Batch, draws: Proposal) -> jax.Array:
        q = critic.values(state.target.critic, batch.next_obs, propose(state.trained.params, batch.next_obs, draws))
        value = jnp.mean(q, axis=0) - config.pessimism * jnp.std(q, axis=0)
        return critics.td_target(batch.reward, batch.terminated, config.discount, value)

    def velocity(params: base_policy.Params, obs: jax.Array) -> Callable:
        return lambda x, t: flow.predict(params, obs, x, t)

    def adjoints(state: QamState, obs: jax.Array, draws: Draws) -> tuple[jax.Array, jax.Array]:
        """A chain of the fast flow at obs [B, O] and the adjoints along it, each [K, B, A]."""
        slow = velocity(state.target.slow, obs)
        chain, end = adjoint.rollout(velocity(state.trained.params.fast, obs), slow, draws.x0, draws.chain)
        q = lambda action: jnp.sum(jnp.mean(critic.values(state.target.critic, obs, jnp.clip(action, -1, 1)), axis=0))
        return chain, adjoint.lean_adjoints(slow, chain, -config.inverse_temperature * jax.grad(q)(end))

    def edit_loss(params: Params, old: Params, obs: jax.Array, draws: Proposal) -> tuple[jax.Array, Metrics]:
        """Soft actor-critic on edits of the fast flow's samples, and the temperature's loss."""
        action = flow.sample(old.fast, obs, draws.flow)[..., 0, :]
        sample = lambda p: edit_policy.edited(p, obs, action, draws.edit)
        value = lambda edited: critic.values(old.critic, obs, edited)
        loss, info = actors.actor_loss(sample, value, params.edit, jnp.exp(old.log_alpha))
        alpha_loss = actors.alpha_loss(params.log_alpha, jax.lax.stop_gradient(info["entropy"]), target_entropy)
        return loss + alpha_loss, {"actor_loss": loss, "alpha": jnp.exp(old.log_alpha), **info}

    def step(state: QamState, batch: Batch, draws: Draws) -> tuple[QamState, Metrics]:
        old = state.trained.params
        y = td_target(state, batch, draws.backup)
        chain, adjoint_states = adjoints(state, batch.obs, draws)
        whole = None if batch.td_weight is None else batch.td_weight[:, None]  # released: a window counts for the flow whole or not at all

        def total_loss(params: Params) -> tuple[jax.Array, Metrics]:
            td_loss, q = critics.td_loss(critic, params.critic, batch.obs, batch.action, y, batch.td_weight)
            slow_loss = flow.loss(params.slow, batch.obs, batch.action, draws.imitation, whole)
            fast, slow = velocity(params.fast, batch.obs), velocity(state.target.slow, batch.obs)
            fast_loss = adjoint.matching_loss(fast, slow, chain, adjoint_states)
            metrics = {"critic_loss": td_loss, "q_mean": q, "imitation_loss": slow_loss, "adjoint_loss": fast_loss}
            loss = td_loss + slow_loss + fast_loss
            if not config.edit:
                return loss, metrics
            of_edit, info = edit_loss(params, old, batch.obs, draws.edited)
            return loss + of_edit, {**metrics, **info}

        grads, metrics = jax.grad(total_loss, has_aux=True)(old)
        trained = optim.step(optimiser, state.trained, grads)
        after = Targets(trained.params.critic, trained.params.slow)
        return QamState(trained, optim.polyak(state.target, after, config.tau)), metrics

    return one_step_agent(
        init,
        draw,
        step,
        spec.updates,
        draw_act=lambda key, explore: bulk(lambda tape: draw_proposal(tape, ()))(key),
        act=lambda state, obs, draws, *, explore: (propose(state.trained.params, obs, draws), {}),
        value=lambda state, obs, action: jnp.mean(critic.values(state.trained.params.critic, obs, action)),
    )
