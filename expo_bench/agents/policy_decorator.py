"""Policy Decorator (Yuan et al., arXiv 2412.13630): a bounded residual on a frozen base policy, learnt by soft actor-critic, as released.

A base policy learns by imitation offline and is frozen. Its action is decorated: a = base + alpha_r u with a tanh-Gaussian residual u ~
pi(u | s).
- critic, of the sum: y = r + discount (min_K Q'(s', base' + alpha_r u') - alpha log pi(u' | s'));
- actor: alpha log pi(u | s) - min_K Q(s, base + alpha_r u); target entropy -A;
- progressive exploration: in the n-th call of learn the residual is used with probability min(n / H, 1), else the base action alone.
One step of critics, actor and temperature on each of the U batches. Evaluation always uses the residual, at its mode. The replay holds
online data alone; the warm-up is the base policy's. `actor_input` "obs_base" is the release's option of a residual that sees the base
action.

Deviations: the base policy is this suite's diffusion or flow, one action at a time (released: Diffusion Policy's U-Net by 4 DDIM steps,
chunks of 4, or a Behaviour Transformer); the base actions of actor loss and backup are sampled anew (released: stored in the replay, of the
same distribution); the schedule's n starts after the warm-up (released: at the first step, with uniform residuals until learning starts);
one update per environment step (released: 16 per 64); log_std is clipped to [-20, 2] and begins near 0 (released: a tanh onto that range,
which begins at -9); the temperature's loss is alpha (entropy - target), not log alpha (entropy - target), with the entropy of before the
actor's step; the gradient of all critics is clipped together, and their loss is the mean (released: each by itself, the sum).
Not checked against the official code.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.agents import bc
from expo_bench.agents.base import Agent, Metrics, Spec
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import actors, base_policy, critics, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config(bc.Config):
    actor_input: str = static("obs", "what the residual sees: 'obs' (released) or 'obs_base', the base action too")
    hidden: tuple = static((256, 256, 256), "widths of critics (no LayerNorm) and residual")
    critics: int = static(2, "K: critics; the minimum of all is taken")
    max_grad_norm: float = static(50.0, "largest norm of the gradients of critics and actor", least=0)
    residual_scale: float = traced(0.1, "alpha_r: largest residual; tuned per task by the authors (0.03 to 0.3)")
    progressive_steps: float = traced(100_000, "H: calls of learn until the residual is always used; tuned per task (30,000 to 8,000,000)")
    discount: float = traced(0.97, "discount")
    critic_lr: float = traced(1e-4, "learning rate of the critics")
    actor_lr: float = traced(1e-4, "learning rate of the residual")
    alpha_lr: float = traced(1e-4, "learning rate of the temperature")
    init_alpha: float = traced(1.0, "first temperature")
    tau: float = traced(0.01, "Polyak step of the target critics")


# Diffusion Policy on ManiSkill, sparse rewards less 1; the release's checkpoints stand for the offline phase, here as long as EXPO's.
PROTOCOL = Protocol(
    offline_steps=200_000,
    warmup_steps=8_000,
    warmup="policy",
    online_steps=4_000_000,
    updates=1,
    batch_size=1024,
    offline_fraction=0.0,
    reward_shift=-1.0,
    eval_every=50_000,
    eval_episodes=50,
)
SUITES = {"adroit": {"protocol": {"offline_steps": 20_000}}, "antmaze": {"protocol": {"offline_steps": 500_000}}}


def validate(config: Config, where: str) -> None:
    bc.validate(config, where)
    if config.actor_input not in ("obs", "obs_base"):
        raise UserError(f"{where}: actor_input must be 'obs' or 'obs_base', got {config.actor_input!r}")
    if not config.progressive_steps > 0:
        raise UserError(f"{where}: progressive_steps must be above 0, got {config.progressive_steps}")


class DecoratorState(NamedTuple):
    imitation: base_policy.Imitation  #  the base policy; its EMA acts
    residual: actors.SoftActor
    critic: critics.Critic
    step: jax.Array  #                   [] int32, calls of learn so far


class ActDraws(NamedTuple):
    base: base_policy.SampleDraws  #     [1, A]
    residual: actors.GaussianDraws  #    [A]
    use: jax.Array  #                    [] uniform: whether the residual is used


class Draws(NamedTuple):
    base: base_policy.SampleDraws  #     [2, U, B, 1, A] at s and at s'
    residual: actors.GaussianDraws  #    [U, B, A] at s
    next_residual: actors.GaussianDraws  # [U, B, A] at s'


def make(config: Config, spec: Spec) -> Agent:
    base, base_optimiser = bc.base_of(config, spec)
    sees_base = config.actor_input == "obs_base"
    sizes = {"action_size": spec.action_size, "widths": config.hidden}
    actor = actors.tanh_gaussian(input_size=spec.obs_size + sees_base * spec.action_size, **sizes)
    critic = critics.ensemble(obs_size=spec.obs_size, members=config.critics, norm="none", **sizes)
    actor_optimiser = optim.clipped_adam(config.actor_lr, config.max_grad_norm)
    critic_optimiser = optim.clipped_adam(config.critic_lr, config.max_grad_norm)
    alpha_optimiser = optim.adam(config.alpha_lr)

    def init(key: jax.Array) -> DecoratorState:
        base_key, actor_key, critic_key = jax.random.split(key, 3)
        residual = actors.start(actor, actor_optimiser, alpha_optimiser, actor_key, config.init_alpha)
        residual = residual._replace(actor=residual.actor._replace(params=actors.centred(residual.actor.params)))
        imitation = base_policy.start(base, base_optimiser, base_key)
        return DecoratorState(imitation, residual, critics.start(critic, critic_optimiser, critic_key), jnp.zeros((), jnp.int32))

    # -- the decorated policy ----------------------------------------------------------------------------------------------------------

    def seen(obs: jax.Array, base_action: jax.Array) -> jax.Array:
        return jnp.concatenate([obs, base_action], axis=-1) if sees_base else obs

    def decorated(
        params: actors.Params, obs: jax.Array, base_action: jax.Array, draws: actors.GaussianDraws
    ) -> tuple[jax.Array, jax.Array]:
        """base + alpha_r u and log pi(u | s)."""
        u, log_prob = actor.sample(params, seen(obs, base_action), draws)
        return base_action + config.residual_scale * u, log_prob

    def base_of(state: DecoratorState, obs: jax.Array, draws: base_policy.SampleDraws) -> jax.Array:
        return base.sample(state.imitation.ema, obs, draws)[..., 0, :]

    def act(state: DecoratorState, obs: jax.Array, draws: ActDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        base_action, params = base_of(state, obs, draws.base), state.residual.actor.params
        if not explore:
            return base_action + config.residual_scale * actor.mode(params, seen(obs, base_action)), {}
        used = draws.use < jnp.minimum(state.step / config.progressive_steps, 1.0)
        return jnp.where(used, decorated(params, obs, base_action, draws.residual)[0], base_action), {}

    # -- learning ----------------------------------------------------------------------------------------------------------------------

    def q_min(params: critics.Params, obs: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.min(critic.values(params, obs, action), axis=0)

    def update(carry: tuple[actors.SoftActor, critics.Critic], inputs: tuple) -> tuple[tuple, Metrics]:
        """The critics by the residual and the temperature as they are, then both of these against the new critics."""
        residual, critic_state = carry
        batch, (base_action, base_next), draws, next_draws = inputs
        next_action, log_prob = decorated(residual.actor.params, batch.next_obs, base_next, next_draws)
        value = q_min(critic_state.target, batch.next_obs, next_action) - jnp.exp(residual.log_alpha.params) * log_prob
        y = critics.td_target(batch.reward, batch.terminated, config.discount, value)
        critic_state, metrics = critics.td_step(
            critic, critic_optimiser, critic_state, batch.obs, batch.action, y, config.tau, batch.td_weight
        )
        residual, info = actors.soft_step(
            actor_optimiser,
            alpha_optimiser,
            residual,
            lambda params: decorated(params, batch.obs, base_action, draws),
            lambda action: q_min(critic_state.online.params, batch.obs, action)[None],
            -float(spec.action_size),
        )
        return (residual, critic_state), {**metrics, **info}

    def learn(state: DecoratorState, batches: Batch, draws: Draws) -> tuple[DecoratorState, Metrics]:
        """The base policy is frozen, so that its actions at s and s' of all U batches come from one call."""
        base_actions = base_of(state, jnp.stack([batches.obs, batches.next_obs]), draws.base)
        inputs = (batches, (base_actions[0], base_actions[1]), draws.residual, draws.next_residual)
        (residual, critic_state), metrics = jax.lax.scan(update, (state.residual, state.critic), inputs)
        metrics = {name: value[-1] for name, value in metrics.items()}
        return DecoratorState(state.imitation, residual, critic_state, state.step + 1), metrics

    def draw(tape: Tape) -> Draws:
        lead = (spec.updates, spec.batch_size)
        return Draws(base.draw_samples(tape, (2, *lead, 1)), actor.draw(tape, lead), actor.draw(tape, lead))

    return Agent(
        init=init,
        **bc.offline_phase(config, spec, base, base_optimiser),
        draw=bulk(draw),
        learn=learn,
        draw_act=lambda key, explore: bulk(lambda t: ActDraws(base.draw_samples(t, (1,)), actor.draw(t, ()), t.uniform()))(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
        base_act=lambda state, obs, draws: base_of(state, obs, draws.base),
    )
