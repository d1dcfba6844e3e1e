"""My agent, so far: the best of N samples of a flow policy, in acting and in the TD backup (EMaQ, Ghasemipour et al. 2021)."""

import dataclasses

import jax

from expo_bench.agents.base import one_step_agent
from expo_bench.config import static, traced
from expo_bench.parts import base_policy, candidates, critics, optim
from expo_bench.parts.tape import bulk
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


PROTOCOL = Protocol(offline_steps=200_000, online_steps=200_000, updates=20)  # how it is run; fields: `expo-bench list protocol`


def make(config, spec):  # spec: the sizes of the task. All below are pure functions: what is random is drawn first and comes in as draws
    sizes = {"obs_size": spec.obs_size, "action_size": spec.action_size}
    policy = base_policy.make("flow", **sizes, steps=config.flow_steps, hidden=config.base_hidden, blocks=1, time_features=32)
    critic = critics.ensemble(**sizes, members=config.critics, widths=config.hidden)
    optimiser = optim.adam(config.lr)

    def init(key):  # -> the state: any pytree of float32 and int32 arrays that keeps its structure; here (base policy, critics)
        policy_key, critic_key = jax.random.split(key)
        return base_policy.start(policy, optimiser, policy_key), critics.start(critic, optimiser, critic_key)

    def best_of_n(state, obs, draws):  # obs [..., O] -> the base sample of highest value [..., A], and its value [...]
        samples = policy.sample(state[0].ema, obs, draws)  #                                 [..., N, A]
        q = critic.values(state[1].target, obs[..., None, :], samples).min(axis=0)  #        [..., N]
        return candidates.best(samples, q), q.max(axis=-1)

    def step(state, batch, draws):  # one gradient step on a Batch [B] (expo_bench/parts/replay.py) -> the state, scalars to log
        next_value = best_of_n(state, batch.next_obs, draws[1])[1]
        target = critics.td_target(batch.reward, batch.terminated, config.discount, next_value)
        critic_state, metrics = critics.td_step(critic, optimiser, state[1], batch.obs, batch.action, target, config.tau, batch.td_weight)
        imitation, loss = base_policy.imitate(policy, optimiser, state[0], batch, draws[0], config.tau)
        return (imitation, critic_state), {**metrics, "imitation_loss": loss}

    def act(state, obs, draws, *, explore):  # obs [O] -> an action [A] in [-1, 1], and scalars that evaluations average
        return best_of_n(state, obs, draws)[0], {}

    value = lambda state, obs, action: critic.values(state[1].online.params, obs, action).mean()  # what the critics say, to be checked
    draw_samples = lambda tape, *shape: policy.draw_samples(tape, (*shape, config.n_samples))
    draw = lambda tape: (policy.draw_loss(tape, spec.batch_size), draw_samples(tape, spec.batch_size))
    draw_act = lambda key, explore: bulk(draw_samples)(key)
    # The same step offline and online, there once per batch. To learn otherwise online: return an Agent(...) (expo_bench/agents/base.py).
    return one_step_agent(init, draw, step, spec.updates, draw_act=draw_act, act=act, value=value)
