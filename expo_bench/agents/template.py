"""My agent, so far: the best of N samples of a flow policy, in acting and in the TD backup (EMaQ, Ghasemipour et al. 2021)."""

import dataclasses

import jax
import optax

from expo_bench.agents.base import Agent, last
from expo_bench.config import static, traced
from expo_bench.parts import base_policy, candidates, critics, tape
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:  # static: shapes the program. traced: a number, whose values may differ from row to row of a sweep, so no `if` on it
    n_samples: int = static(8, "N: base samples per state")
    flow_steps: int = static(10, "steps of the flow")
    base_hidden: int = static(256, "width of the base policy")
    hidden: tuple = static((256, 256, 256), "widths of the critics")
    critics: int = static(2, "K: critics, of which the minimum counts")
    discount: float = traced(0.99, "discount")
    lr: float = traced(3e-4, "learning rate of critics and base policy")
    tau: float = traced(0.005, "Polyak step of the target critics and of the base policy's average")


PROTOCOL = Protocol(offline_steps=200_000, online_steps=200_000, updates=20)  # as you would run it; fields: `expo-bench list protocol`


def make(config, spec):  # spec: sizes of the task. Below are pure functions; all that is random is drawn beforehand and comes in as draws
    sizes = {"obs_size": spec.obs_size, "action_size": spec.action_size}
    policy = base_policy.make("flow", **sizes, steps=config.flow_steps, hidden=config.base_hidden, blocks=1, time_features=32)
    critic = critics.ensemble(**sizes, members=config.critics, widths=config.hidden)
    optimiser = optax.adam(config.lr)

    def init(key):  # -> state: any pytree of float32 and int32 arrays that keeps its structure; here (base policy, critics)
        policy_key, critic_key = jax.random.split(key)
        return base_policy.start(policy, optimiser, policy_key), critics.start(critic, optimiser, critic_key)

    def best_of_n(state, obs, draws):  # obs [..., O] -> the sample of highest value [..., A], its value [...]
        samples = policy.sample(state[0].ema, obs, draws)  #                                            [..., N, A]
        q = critic.values(state[1].target, obs[..., None, :], samples).min(axis=0)  #                   [..., N]
        return candidates.best(samples, q), q.max(axis=-1)

    def pretrain(state, batch, draws):  # one gradient step on a batch [B] -> state, scalars to log; weights: see Batch in parts/replay.py
        next_value = best_of_n(state, batch.next_obs, draws[1])[1]
        target = critics.td_target(batch.reward, batch.terminated, config.discount, next_value)
        critic_state, metrics = critics.td_step(critic, optimiser, state[1], batch.obs, batch.action, target, config.tau, batch.td_weight)
        imitation, loss = base_policy.imitate(policy, optimiser, state[0], batch, draws[0], config.tau)
        return (imitation, critic_state), {**metrics, "imitation_loss": loss}

    def learn(state, batches, draws):  # all that one online environment step causes, on [U, B]: here the same step on every batch
        state, metrics = jax.lax.scan(lambda state, inputs: pretrain(state, *inputs), state, (batches, draws))
        return state, last(metrics)

    draw_samples = lambda tape, *shape: policy.draw_samples(tape, (*shape, config.n_samples))
    draw_pretrain = tape.bulk(lambda tape: (policy.draw_loss(tape, spec.batch_size), draw_samples(tape, spec.batch_size)))
    draw = lambda key: jax.vmap(draw_pretrain)(jax.random.split(key, spec.updates))
    act = lambda state, obs, draws, *, explore: (best_of_n(state, obs, draws)[0], {})  # an action [A] in [-1, 1], what evaluations average
    value = lambda state, obs, action: critic.values(state[1].online.params, obs, action).mean()  # for probes and the measured bias
    return Agent(init, draw_pretrain, pretrain, draw, learn, lambda key, explore: tape.bulk(draw_samples)(key), act, value)
