"""SAC, REDQ, IQL and AWAC: losses, gradients and actions by hand, in numpy's float64 from the papers' equations.

All numbers come out of `pretrain`, `learn` and `act`, with large steps, so that it is seen which parameters a loss meets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from golden import close, first_gradient

from expo_bench.agents import awac, iql, load
from expo_bench.agents.base import Agent, Spec
from expo_bench.parts import actors
from expo_bench.parts.replay import Batch

O, A, B = 3, 2, 8
SPEC = Spec(obs_size=O, action_size=A, batch_size=B, updates=1)
DISCOUNT, LARGE = 0.9, {"hidden": (8, 6), "discount": 0.9, "critic_lr": 0.05, "tau": 0.5}
IQL = iql.Config(**LARGE, expectile=0.8, inverse_temperature=8.0, actor_dropout=0.5)
AWAC = awac.Config(**LARGE, temperature=0.2)
WINDOWS = np.float32([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0], [1, 1], [1, 1], [1, 1]])  # of C = 2 steps; two cross their episode's end
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


BATCH = Batch(normal(B, O), np.tanh(normal(B, A)), normal(B), np.float32([0, 1, 0, 0, 1, 0, 0, 0]), normal(B, O))
NOISE, NEXT_NOISE = normal(B, A), normal(B, A)
MASKS = tuple(2 * RNG.integers(0, 2, (B, width)).astype(np.float32) for width in (8, 6))


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def shaken(agent: Agent, seed: int = 1) -> Any:
    """A fresh state with every parameter moved, target critics apart from the critics."""
    rng = np.random.default_rng(seed)
    move = lambda x: x + rng.normal(0, 0.3, x.shape).astype(np.float32) if np.issubdtype(x.dtype, np.floating) else x
    fresh = jax.tree.map(np.asarray, jit(agent.init)(jax.random.key(0)))
    is_trained = lambda node: hasattr(node, "opt")
    move_params = lambda node: node._replace(params=jax.tree.map(move, node.params)) if is_trained(node) else move(node)
    return jax.tree.map(move_params, fresh, is_leaf=is_trained)


# -- the equations in numpy ----------------------------------------------------------------------------------------------------------------


def layer(params: dict, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def mlp(params: dict, x: np.ndarray, masks: tuple | None = None) -> np.ndarray:
    """Dense and ReLU, without LayerNorm; dropout masks after the ReLU, as released. The last layer is `out`, if there is one."""
    for i in range(sum(name.startswith("dense") for name in params)):
        x = np.maximum(layer(params[f"dense_{i}"], x), 0) * (1 if masks is None else masks[i])
    return layer(params["out"], x) if "out" in params else x


def q(params: dict, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    """[K, B]"""
    members = len(params["out"]["bias"])
    inputs = np.concatenate([obs, action], axis=-1)
    return np.stack([mlp(jax.tree.map(lambda p: p[k], params), inputs)[:, 0] for k in range(members)])  # noqa: B023


def mean_of_rows(x: np.ndarray, batch: Batch) -> float:
    """The mean over [..., B], where windows that cross their episode's end count 0."""
    return np.mean(x if batch.valid is None else x * batch.valid[:, -1])


def log_density(mean: np.ndarray, log_std: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.sum(-((action - mean) ** 2) / (2 * np.exp(2 * log_std)) - log_std - 0.5 * np.log(2 * np.pi), axis=-1)


def td_loss(params: dict, next_value: np.ndarray, batch: Batch) -> float:
    y = batch.reward + DISCOUNT * (1 - batch.terminated) * next_value
    return mean_of_rows((q(params, batch.obs, batch.action) - y) ** 2, batch)


def check_gradient(loss: Callable, params: Any, gradient: Any) -> None:
    """Central differences of a numpy loss along one direction through all parameters."""
    direction = jax.tree.map(lambda p: np.random.default_rng(2).normal(size=p.shape), params)
    at = lambda step: loss(jax.tree.map(lambda p, d: np.asarray(p, np.float64) + step * d, params, direction))
    slopes = jax.tree.map(lambda g, d: np.sum(g * d), gradient, direction)
    close(sum(jax.tree.leaves(slopes)), (at(1e-6) - at(-1e-6)) / 2e-6, 2e-5)


# -- IQL and AWAC --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("valid", [None, WINDOWS], ids=["steps", "windows"])
def test_iql(valid: np.ndarray | None) -> None:
    """Eq. 5 to 7: V by the target critics; policy by the new V and the target critics before their step; critics by the new V."""
    agent, batch = iql.make(IQL, SPEC), BATCH._replace(valid=valid)
    before = shaken(agent, seed=5)  # some weights are clipped at 100, some not
    after, metrics = jit(agent.pretrain)(before, batch, MASKS)
    q_min = q(before.critic.target, batch.obs, batch.action).min(axis=0)
    v = lambda params, obs: mlp(params, obs)[:, 0]

    def value_loss(params: dict) -> float:
        u = q_min - v(params, batch.obs)
        return mean_of_rows(np.abs(0.8 - (u < 0)) * u**2, batch)

    weight = np.minimum(np.exp(8.0 * (q_min - v(after.value.params, batch.obs))), 100)
    assert (weight == 100).any() and ((weight > 0.1) & (weight < 100)).any()

    def actor_loss(params: Any) -> float:
        mean = np.tanh(mlp(params.mean, batch.obs, MASKS))
        return -mean_of_rows(weight * log_density(mean, params.log_std, batch.action), batch)

    critic_loss = lambda params: td_loss(params, v(after.value.params, batch.next_obs), batch)
    for trained, new, loss, name in (
        (before.value, after.value, value_loss, "value_loss"),
        (before.actor, after.actor, actor_loss, "actor_loss"),
        (before.critic.online, after.critic.online, critic_loss, "critic_loss"),
    ):
        close(metrics[name], loss(trained.params))
        check_gradient(loss, trained.params, first_gradient(new.opt))
    close(metrics["advantage_weight"], weight.mean())


@pytest.mark.parametrize("valid", [None, WINDOWS], ids=["steps", "windows"])
def test_awac(valid: np.ndarray | None) -> None:
    """The critics by the policy's next action under the target critics; then the policy by its advantage under the new critics."""
    agent, batch = awac.make(AWAC, SPEC), BATCH._replace(valid=valid)
    before = shaken(agent)
    after, metrics = jit(agent.pretrain)(before, batch, awac.Draws(NEXT_NOISE, NOISE))
    policy = before.actor.params
    unclipped = lambda obs, noise: mlp(policy.mean, obs) + np.exp(policy.log_std) * noise
    act = lambda obs, noise: np.clip(unclipped(obs, noise), -1, 1)
    assert (np.abs(unclipped(batch.obs, NOISE)) > 1).any() and (np.abs(unclipped(batch.next_obs, NEXT_NOISE)) > 1).any()
    next_value = q(before.critic.target, batch.next_obs, act(batch.next_obs, NEXT_NOISE)).min(axis=0)
    critic_loss = lambda params: td_loss(params, next_value, batch)
    value_of = lambda action: q(after.critic.online.params, batch.obs, action).min(axis=0)
    weight = np.minimum(np.exp((value_of(batch.action) - value_of(act(batch.obs, NOISE))) / 0.2), 100)
    assert (weight == 100).any() and ((weight > 0.1) & (weight < 100)).any()
    actor_loss = lambda params: -mean_of_rows(weight * log_density(mlp(params.mean, batch.obs), params.log_std, batch.action), batch)
    close(metrics["critic_loss"], critic_loss(before.critic.online.params))
    close(metrics["actor_loss"], actor_loss(policy))
    check_gradient(critic_loss, before.critic.online.params, first_gradient(after.critic.online.opt))
    check_gradient(actor_loss, policy, first_gradient(after.actor.opt))


@pytest.mark.parametrize(("module", "config", "least"), [(iql, IQL, -5.0), (awac, AWAC, -20.0)], ids=["iql", "awac"])
def test_acting(module: Any, config: Any, least: float) -> None:
    """A clipped sample explores, the mean (of IQL within a tanh) is evaluated; no dropout; log_std stays within [least, 2]."""
    agent = module.make(config, SPEC)
    state = shaken(agent)
    for log_std, clipped in ((np.float32([-0.5, 0.2]), [-0.5, 0.2]), (np.float32([-30, 30]), [least, 2.0])):
        state = state._replace(actor=state.actor._replace(params=state.actor.params._replace(log_std=log_std)))
        mean = mlp(state.actor.params.mean, BATCH.obs)
        mean = np.tanh(mean) if module is iql else mean
        act = lambda explore: jax.vmap(lambda obs, noise: agent.act(state, obs, noise, explore=explore)[0])  # noqa: B023
        close(jit(act(True))(BATCH.obs, NOISE), np.clip(mean + np.exp(clipped) * NOISE, -1, 1))
        close(jit(act(False))(BATCH.obs, NOISE), np.clip(mean, -1, 1))


# -- SAC and REDQ --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "subset"), [("sac", [1, 0]), ("redq", [7, 2])])
def test_soft_critics(name: str, subset: list[int]) -> None:
    """Without LayerNorm; y = r + discount (1 - d) (min over the subset of Q'(s', a') - alpha log pi(a'|s'))."""
    module = load(name)
    agent = module.make(module.Config(**LARGE), SPEC)
    before, noise = shaken(agent), actors.GaussianDraws(NOISE, None)
    draws = jax.tree.map(lambda x: x[None], (actors.GaussianDraws(NEXT_NOISE, None), np.int32(subset)))
    after, metrics = jit(agent.learn)(before, jax.tree.map(lambda x: x[None], BATCH), load("rlpd").Draws(*draws, noise))
    policy, alpha = before.actor.actor.params, np.exp(before.actor.log_alpha.params)

    def sample(params: dict, obs: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        trunk = mlp(params["trunk"], obs)
        mean, log_std = layer(params["mean"], trunk), layer(params["log_std"], trunk)
        u = mean + np.exp(log_std) * noise
        return np.tanh(u), log_density(mean, log_std, u) - np.sum(np.log(1 - np.tanh(u) ** 2), axis=-1)

    next_action, log_prob = sample(policy, BATCH.next_obs, NEXT_NOISE)
    next_value = q(before.critic.target, BATCH.next_obs, next_action)[subset].min(axis=0) - alpha * log_prob
    critic_loss = lambda params: td_loss(params, next_value, BATCH)

    def actor_loss(params: dict) -> float:
        action, log_prob = sample(params, BATCH.obs, NOISE)
        return np.mean(alpha * log_prob - q(after.critic.online.params, BATCH.obs, action).mean(axis=0))

    close(metrics["critic_loss"], critic_loss(before.critic.online.params))
    close(metrics["actor_loss"], actor_loss(policy))
    check_gradient(critic_loss, before.critic.online.params, first_gradient(after.critic.online.opt))
    check_gradient(actor_loss, policy, first_gradient(after.actor.actor.opt))
    entropy = -np.mean(sample(policy, BATCH.obs, NOISE)[1])
    close(first_gradient(after.actor.log_alpha.opt), alpha * (entropy + A / 2))


def test_soft_agents_use_no_offline_data() -> None:
    """And have RLPD's lengths: SAC two critics and one update per step, REDQ ten and 20; both the minimum of two."""
    for name, members, updates in (("sac", 2, 1), ("redq", 10, 20)):
        module, config = load(name), load(name).Config()
        assert (config.critics, config.critic_subset, module.PROTOCOL.updates) == (members, 2, updates)
        assert module.PROTOCOL.offline_rows == 0 and module.PROTOCOL.offline_steps == 0 and module.make(config, SPEC).pretrain is None
        assert module.PROTOCOL.online_steps == load("rlpd").PROTOCOL.online_steps
        assert all("offline_fraction" not in preset["protocol"] for preset in module.SUITES.values())
