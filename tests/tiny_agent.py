"""A linear agent, cheap to compile: Q(s, a) = w . (s, a, 1), learnt by TD (Sutton 1988) with V(s') = Q(s', 0)."""

import dataclasses

import jax
import jax.numpy as jnp

from expo_bench.agents.base import one_step_agent
from expo_bench.config import static, traced
from expo_bench.parts.critics import td_target
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    scale: int = static(1, "scale of the first weights")
    rate: float = traced(0.05, "step size")
    discount: float = traced(0.99, "discount")


PROTOCOL = Protocol(offline_steps=10, online_steps=10)


def make(config, spec):
    def init(key):
        return {"w": config.scale * jax.random.normal(key, (spec.obs_size + spec.action_size + 1,))}

    def q(w, obs, action):
        return jnp.concatenate([obs, action, jnp.ones((*obs.shape[:-1], 1))], axis=-1) @ w

    def step(state, batch, draws):
        next_value = q(state["w"], batch.next_obs, jnp.zeros_like(batch.action))
        target = td_target(batch.reward, batch.terminated, config.discount, next_value)
        loss, slope = jax.value_and_grad(lambda w: jnp.mean((q(w, batch.obs, batch.action) - target) ** 2))(state["w"])
        return {"w": state["w"] - config.rate * slope}, {"loss": loss}

    def act(state, obs, draws, *, explore):
        return jnp.tanh(state["w"][-1 - spec.action_size : -1] + 0.1 * draws + 0 * obs.sum()), {}

    def value(state, obs, action):
        return q(state["w"], obs, action)

    draw_act = lambda key, explore: jax.random.normal(key, (spec.action_size,))
    return one_step_agent(init, lambda tape: tape.uniform(), step, spec.updates, draw_act=draw_act, act=act, value=value)
