"""QSM: Q-score matching (Psenka et al., arXiv 2312.11752), as released.

The denoiser of a diffusion policy is regressed on the action gradient of the critics, so that no gradient runs through the chain:
- actor: |epsilon(s, a_t, t) + M_q grad_a mean_K Q(s, a_t)|^2 at noised replay actions a_t, with the critics as they are after their step
  (Alg. 1, whose alpha is M_q here; the released sign: a step of denoising moves the action up the gradient);
- critic: y = r + discount min_K Q'(s', a'), a' = a sample of the policy plus N(0, 0.1^2), clipped.
Exploration adds the same noise, evaluation does not. Sampling is ancestral with every step clipped, from the policy in training (no EMA).
M_q is an inverse temperature: the score of exp(M_q Q) is M_q grad Q, whose noise prediction at level t would be
-sqrt(1 - alpha_hat_t) M_q grad Q. The release leaves that factor out, so the chain follows it at the noisiest level alone, where it is about
1, and the policy is sharper than exp(M_q Q); DAC's soft guidance has the factor. Where actions were never seen nothing holds the gradient.
Nor does grad Q at a_t know of the noise in a_t: the last step adds sqrt(beta_1) M_q grad Q (beta_1 is 0.2 at T = 5), which overshoots the
maximum of a sharp Q and is clipped, so that with a large M_q and few steps the actions end in the corners of the box.

Variant: `bc_weight` adds alpha |epsilon(s, a_t, t) - noise|^2 on the same prediction, as Q. Li's code of QAM (arXiv 2601.14234) runs QSM offline to online
(there with 10 critics under a lower confidence bound, of M_q 1 to 10 and alpha 1 to 30, 10 and 10 on antmaze-large); released: none, 0 here.

Protocol: online alone, no offline data in the batches, 10,000 random actions first. EXPO's authors run it as a baseline without saying with
which settings; their finals, 0 on nearly every task, stand in analysis/published/expo.csv (method QSM, source expo-fig4-read).
Not checked against the official code. Deviation from it: both critics share one Adam (the same step), and biases are those of this suite.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from expo_bench.agents.base import Agent, Metrics, Spec, per_batch
from expo_bench.config import static, traced
from expo_bench.parts import base_policy, critics, diffusion, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    denoising_steps: int = static(5, "T: denoising steps")
    base_hidden: int = static(256, "width of the denoiser's three layers (mish)")
    time_features: int = static(64, "learnable Fourier features of the denoising time")
    hidden: tuple = static((256, 256), "widths of the critics (ReLU)")
    critics: int = static(2, "K: critics; the minimum of all is backed up")
    decay_steps: int = static(2_000_000, "updates until the cosine schedule of the policy reaches 0")
    inverse_temperature: float = traced(1.0, "M_q: factor of the critics' gradient (the authors' example: 50, hard tasks: 120)")
    bc_weight: float = traced(0.0, "alpha: weight of imitation (released: none; QAM's: 1 to 30)")
    action_noise: float = traced(0.1, "standard deviation of the noise on actions, in exploration and in the backup")
    discount: float = traced(0.99, "discount")
    critic_lr: float = traced(3e-4, "learning rate of the critics")
    actor_lr: float = traced(3e-4, "learning rate of the policy (cosine)")
    tau: float = traced(0.005, "Polyak step of the target critics")


PROTOCOL = Protocol(
    warmup_steps=10_000, online_steps=1_000_000, updates=1, batch_size=256, offline_fraction=0.0, eval_every=10_000, eval_episodes=10
)
# The authors ran DeepMind's control suite alone; on AntMaze the length and the reward are EXPO's.
SUITES = {"antmaze": {"protocol": {"online_steps": 300_000, "reward_shift": -1.0}}}


class QsmState(NamedTuple):
    actor: optim.Trained
    critic: critics.Critic


class Noisy(NamedTuple):
    """An action of the policy and the noise that is put on it."""

    sample: base_policy.SampleDraws  #  [..., 1]
    noise: jax.Array  #                 [..., A] standard normal


class Draws(NamedTuple):
    next_action: Noisy  #                 [U, B]
    matching: base_policy.LossDraws  #    [U, B] how replay actions are noised


def make(config: Config, spec: Spec) -> Agent:
    policy = base_policy.diffusion_mlp(
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        steps=config.denoising_steps,
        widths=(config.base_hidden,) * 3,
        time_features=config.time_features,
        time_widths=(2 * config.time_features,) * 2,
        learnt_time=True,
    )
    schedule = diffusion.vp_schedule(config.denoising_steps)
    critic = critics.ensemble(
        obs_size=spec.obs_size, action_size=spec.action_size, members=config.critics, widths=config.hidden, norm="none"
    )
    actor_optimiser = optim.adam(optax.cosine_decay_schedule(config.actor_lr, config.decay_steps))
    critic_optimiser = optim.adam(config.critic_lr)

    def init(key: jax.Array) -> QsmState:
        actor_key, critic_key = jax.random.split(key)
        return QsmState(optim.start(actor_optimiser, policy.init(actor_key)), critics.start(critic, critic_optimiser, critic_key))

    def draw_noisy(tape: Tape, shape: tuple[int, ...]) -> Noisy:
        return Noisy(policy.draw_samples(tape, (*shape, 1)), tape.normal((*shape, spec.action_size)))

    def draw(tape: Tape) -> Draws:
        one = lambda: Draws(draw_noisy(tape, (spec.batch_size,)), policy.draw_loss(tape, spec.batch_size))
        return jax.tree.map(lambda *x: jnp.stack(x), *[one() for _ in range(spec.updates)])

    def noisy(action: jax.Array, noise: jax.Array) -> jax.Array:
        return jnp.clip(action + config.action_noise * noise, -1, 1)

    def critic_step(state: QsmState, batch: Batch, draws: Noisy) -> tuple[critics.Critic, Metrics]:
        next_action = noisy(policy.sample(state.actor.params, batch.next_obs, draws.sample)[:, 0], draws.noise)
        value = jnp.min(critic.values(state.critic.target, batch.next_obs, next_action), axis=0)
        y = critics.td_target(batch.reward, batch.terminated, config.discount, value)
        return critics.td_step(critic, critic_optimiser, state.critic, batch.obs, batch.action, y, config.tau, batch.td_weight)

    def actor_loss(params: base_policy.Params, online: critics.Params, batch: Batch, draws: base_policy.LossDraws) -> tuple:
        """Score matching, and imitation with the same noise prediction [B, A]."""
        noised = diffusion.noised(schedule, batch.action, draws.noise, draws.t)
        score = config.inverse_temperature * critics.action_gradient(critic, online, batch.obs, noised)
        epsilon = policy.predict(params, batch.obs, noised, draws.t)
        score_loss = critics.weighted_mean(jnp.mean((epsilon + score) ** 2, axis=-1), batch.td_weight)
        error = (epsilon - draws.noise) ** 2
        imitation_loss = jnp.mean(error if batch.action_weight is None else batch.action_weight * error)
        info = {"score_loss": score_loss, "imitation_loss": imitation_loss, "score": jnp.mean(jnp.abs(score))}
        return score_loss + config.bc_weight * imitation_loss, info

    def step(state: QsmState, batch: Batch, draws: Draws) -> tuple[QsmState, Metrics]:
        critic_state, metrics = critic_step(state, batch, draws.next_action)
        grads, info = jax.grad(actor_loss, has_aux=True)(state.actor.params, critic_state.online.params, batch, draws.matching)
        return QsmState(optim.step(actor_optimiser, state.actor, grads), critic_state), {**metrics, **info}

    def act(state: QsmState, obs: jax.Array, draws: Noisy, *, explore: bool) -> tuple[jax.Array, Metrics]:
        action = policy.sample(state.actor.params, obs, draws.sample)[0]
        return (noisy(action, draws.noise) if explore else action), {}

    return Agent(
        init=init,
        draw_pretrain=None,
        pretrain=None,
        draw=bulk(draw),
        learn=per_batch(step),
        draw_act=lambda key, explore: bulk(lambda tape: draw_noisy(tape, ()))(key),
        act=act,
        value=lambda state, obs, action: jnp.mean(critic.values(state.critic.online.params, obs, action)),
    )
