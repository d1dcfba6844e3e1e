"""Agents that help a frozen base policy (IBRL, PEX, Policy Decorator, ResiP's residual), against numbers worked out in numpy.

The base policy here is a flow whose velocity is DRIFT at every state: from a noise x it makes the action clip(x + DRIFT, -1, 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import close, first_gradient
from test_losses_noise import DRIFT, SPEC, VALID, away, batches, drifting, ensemble, jit, layers, moved, relu, tanh_gaussian

from expo_bench.agents import ibrl, pex, policy_decorator, residual
from expo_bench.parts import critics
from expo_bench.parts.base_policy import SampleDraws
from expo_bench.parts.replay import Batch

BASE = {"base": "flow", "denoising_steps": 2, "base_hidden": 8, "base_blocks": 1, "time_features": 4}
SIZES = {"hidden": (6, 5), "discount": 0.9, "tau": 0.25, "critic_lr": 0.05}
WHOLE = VALID[:, 0]  # 0 where a row's window crosses its episode's end
BATCHES = batches()
ONE = jax.tree.map(lambda x: np.asarray(x[0], np.float64), BATCHES)


def of_base(draws: SampleDraws) -> np.ndarray:
    """[..., 1, A] noise -> the base policy's action [..., A]."""
    return np.clip(np.float64(draws.x_init)[..., 0, :] + DRIFT, -1, 1)


def critic_of(state: Any) -> critics.Critic:
    """Away from its start, the targets elsewhere."""
    return critics.Critic(moved(state.critic.online, 1), away(state.critic.target, 2))


def check_gradient(loss: Callable, params: Any, gradient: Any) -> None:
    """Central differences of a numpy loss along two random directions through all parameters."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        direction = jax.tree.map(lambda p: rng.normal(size=p.shape), params)  # noqa: B023
        at = lambda step: loss(jax.tree.map(lambda p, d: np.asarray(p, np.float64) + step * d, params, direction))  # noqa: B023
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(g * d), gradient, direction)))
        close(slope, (at(1e-6) - at(-1e-6)) / 2e-6, 2e-5)
        assert abs(slope) > 1e-3


def check_critic(before: critics.Critic, after: critics.Critic, reported: jax.Array, next_value: np.ndarray) -> None:
    """The TD loss against r + discount (1 - terminated) V, its gradient, and the Polyak step of the targets."""
    y = ONE.reward + 0.9 * (1 - ONE.terminated) * next_value
    loss = lambda params: np.mean(WHOLE * (ensemble(params, ONE.obs, ONE.action, relu) - y) ** 2)
    close(reported, loss(before.online.params))
    check_gradient(loss, before.online.params, first_gradient(after.online.opt))
    close(after.target, jax.tree.map(lambda t, o: 0.75 * t + 0.25 * o, before.target, after.online.params))


# -- IBRL ----------------------------------------------------------------------------------------------------------------------------------


IBRL = ibrl.Config(**BASE, **SIZES, critics=4, critic_subset=2, explore_noise=0.5, noise_clip=0.3, temperature=0.5, actor_lr=0.05)


@cache
def ibrl_state() -> ibrl.IbrlState:
    state = jit(ibrl.make(IBRL, SPEC).init)(jax.random.key(0))
    actor = moved(state.actor, 3)
    actor = actor._replace(params=jax.tree.map(lambda x: 3 * x, actor.params))  # so large that its noise meets the bounds
    return ibrl.IbrlState(drifting(state.imitation), actor, away(state.target_actor, 4), critic_of(state))


def actor_mean(params: dict, obs: np.ndarray, masks: tuple | None = None) -> np.ndarray:
    """Dense, dropout, ReLU; a linear layer and a tanh at the end."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for i in range(2):
        obs = relu((obs @ p[f"dense_{i}"]["kernel"] + p[f"dense_{i}"]["bias"]) * (1 if masks is None else np.float64(masks[i])))
    return np.tanh(obs @ p["out"]["kernel"] + p["out"]["bias"])


def chosen(config: ibrl.Config, q: np.ndarray, pick: np.ndarray) -> np.ndarray:
    """0 for the actor's action, 1 for the base policy's, by q [..., 2]: the larger, or drawn with p ~ exp(q / temperature)."""
    return np.argmax(q if config.select == "max" else q / config.temperature - np.log(-np.log(np.float64(pick))), axis=-1)


def test_ibrl_by_hand() -> None:
    """Backup and actor loss with dropout and clipped noise; the target actor in the backup, the new critics in the actor's loss."""
    agent, state, rows = ibrl.make(IBRL, SPEC), ibrl_state(), np.arange(4)
    draws = agent.draw(jax.random.key(5))
    after, metrics = jit(agent.learn)(state, BATCHES, draws)
    noise_of = lambda draws: np.clip(0.5 * np.float64(draws.noise), -0.3, 0.3)
    backup = jax.tree.map(lambda x: np.asarray(x[0]), draws.backup)
    unclipped = actor_mean(state.target_actor, ONE.next_obs, backup.actor.masks) + noise_of(backup.actor)
    both = np.stack([np.clip(unclipped, -1, 1), of_base(backup.base)], axis=1)
    q = ensemble(state.critic.target, ONE.next_obs[:, None], both, relu)
    first, second = backup.subset, np.asarray(draws.value_subset[0])
    choice = chosen(IBRL, q[first].min(axis=0), backup.pick)
    assert set(choice) == {0, 1} and set(first) != set(second)
    check_critic(state.critic, after.critic, metrics["critic_loss"], q[second].min(axis=0)[rows, choice])

    action_of = lambda params: actor_mean(params, ONE.obs, draws.actor.masks) + noise_of(draws.actor)
    start = action_of(state.actor.params)
    shift = np.clip(start, -1, 1) - start  # of the clip, which the gradient does not see
    assert np.any(shift != 0)
    actor_loss = lambda params: -np.mean(ensemble(after.critic.online.params, ONE.obs, action_of(params) + shift, relu).min(axis=0))
    close(metrics["actor_loss"], actor_loss(state.actor.params))
    check_gradient(actor_loss, state.actor.params, first_gradient(after.actor.opt))
    close(after.target_actor, jax.tree.map(lambda t, o: 0.75 * t + 0.25 * o, state.target_actor, after.actor.params))
    jax.tree.map(np.testing.assert_array_equal, after.imitation, state.imitation)  # frozen


@pytest.mark.parametrize(("explore", "select"), [(True, "softmax"), (False, "softmax"), (False, "max")])
def test_ibrl_acts_by_hand(explore: bool, select: str) -> None:
    """No dropout; noise that is not clipped to explore, none in evaluation; the target critics select."""
    config = dataclasses.replace(IBRL, select=select)
    agent, state, obs = ibrl.make(config, SPEC), ibrl_state(), ONE.next_obs
    draws = jax.vmap(lambda key: agent.draw_act(key, explore))(jax.random.split(jax.random.key(2), 4))
    actions, seen = jit(jax.vmap(lambda o, d: agent.act(state, o, d, explore=explore)))(np.float32(obs), draws)
    noise = 0.5 * np.float64(draws.actor.noise) * explore
    both = np.stack([np.clip(actor_mean(state.actor.params, obs) + noise, -1, 1), of_base(draws.base)], axis=1)
    q = ensemble(state.critic.target, obs[:, None], both, relu)
    of_subset = np.stack([q[subset, i].min(axis=0) for i, subset in enumerate(np.asarray(draws.subset))])
    choice = chosen(config, of_subset, draws.pick)
    assert set(choice) == {0, 1} and (np.abs(noise).max() > 0.3) == explore
    close(actions, both[np.arange(4), choice])
    assert explore or np.all(seen["max_gain"] >= 0)
    close(agent.base_act(state, np.float32(obs[0]), jax.tree.map(lambda x: x[0], draws)), both[0, 1])


# -- PEX -----------------------------------------------------------------------------------------------------------------------------------


PEX = pex.Config(**SIZES, actor_lr=0.05, expectile=0.8, inverse_temperature=6.0, temperature=0.4, eval_sampling=0.5)


@cache
def pex_state() -> pex.PexState:
    state = jit(pex.make(PEX, SPEC).init)(jax.random.key(0))
    return pex.PexState(moved(state.offline, 3), moved(state.actor, 4), moved(state.value, 5), critic_of(state))


def mean_of(policy: Any, obs: np.ndarray) -> np.ndarray:
    return np.tanh(layers(policy.mean, obs, relu))


def weighted_likelihood(policy: Any, action: np.ndarray, weight: np.ndarray) -> float:
    """-mean of weight log N(a; mean, deviation)."""
    log_std = np.asarray(policy.log_std, np.float64)
    distance = (action - mean_of(policy, ONE.obs)) / np.exp(log_std)
    return -np.mean(weight * np.sum(-0.5 * distance**2 - log_std - 0.5 * np.log(2 * np.pi), axis=-1))


def weight_by(state: pex.PexState, action: np.ndarray) -> np.ndarray:
    """min(exp(beta (min Q' - V)), 100)."""
    advantage = ensemble(state.critic.target, ONE.obs, action, relu).min(axis=0) - layers(state.value.params, ONE.obs, relu)[:, 0]
    return np.minimum(np.exp(6.0 * advantage), 100)


def check_implicit(before: pex.PexState, after: pex.PexState, metrics: dict) -> None:
    """V towards an expectile of the target critics' minimum; the critics towards the new V."""
    q_min = ensemble(before.critic.target, ONE.obs, ONE.action, relu).min(axis=0)

    def value_loss(params: dict) -> float:
        u = q_min - layers(params, ONE.obs, relu)[:, 0]
        return np.mean(WHOLE * np.abs(0.8 - (u < 0)) * u**2)

    close(metrics["value_loss"], value_loss(before.value.params))
    check_gradient(value_loss, before.value.params, first_gradient(after.value.opt))
    check_critic(before.critic, after.critic, metrics["critic_loss"], layers(after.value.params, ONE.next_obs, relu)[:, 0])


def expanded(state: pex.PexState, obs: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the offline policy beside a clipped sample of the new one [B, 2, A], and the online critics' minimum of both [B, 2]."""
    sample = mean_of(state.actor.params, obs) + np.exp(np.float64(state.actor.params.log_std)) * noise
    both = np.stack([mean_of(state.offline.params, obs), np.clip(sample, -1, 1)], axis=1)
    return both, ensemble(state.critic.online.params, obs[:, None], both, relu).min(axis=0)


def drawn(q: np.ndarray, pick: jax.Array) -> np.ndarray:
    return np.argmax(q / 0.4 - np.log(-np.log(np.float64(pick))), axis=-1)


def test_pex_offline_is_iql() -> None:
    """The offline policy is weighed by V and target critics of before their step; the new policy is not touched."""
    agent, before = pex.make(PEX, SPEC), pex_state()
    batch = jax.tree.map(lambda x: x[0], BATCHES)
    after, metrics = jit(agent.pretrain)(before, batch, agent.draw_pretrain(jax.random.key(0)))
    check_implicit(before, after, metrics)
    weight = weight_by(before, ONE.action)
    assert weight.max() < 100
    loss = lambda policy: weighted_likelihood(policy, ONE.action, WHOLE * weight)
    close(metrics["actor_loss"], loss(before.offline.params))
    check_gradient(loss, before.offline.params, first_gradient(after.offline.opt))
    jax.tree.map(np.testing.assert_array_equal, after.actor, before.actor)


def test_pex_online_by_hand() -> None:
    """The new policy follows actions of the expanded one, all rows: new critics choose, new targets and the new V weigh."""
    agent, before = pex.make(PEX, SPEC), pex_state()
    draws = agent.draw(jax.random.key(1))
    after, metrics = jit(agent.learn)(before, BATCHES, draws)
    check_implicit(before, after, metrics)
    both, q = expanded(after._replace(actor=before.actor), ONE.obs, np.float64(draws.noise[0]))
    choice = drawn(q, draws.pick[0])
    assert set(choice) == {0, 1} and np.any(np.abs(both[:, 1]) == 1)
    own = both[np.arange(4), choice]
    loss = lambda policy: weighted_likelihood(policy, own, weight_by(after, own))
    close(metrics["actor_loss"], loss(before.actor.params))
    check_gradient(loss, before.actor.params, first_gradient(after.actor.opt))
    jax.tree.map(np.testing.assert_array_equal, after.offline, before.offline)  # frozen


@pytest.mark.parametrize("explore", [True, False])
def test_pex_acts_by_hand(explore: bool) -> None:
    """Exploration draws; evaluation takes the mean and the better action, each but for its own share."""
    agent, state = pex.make(PEX, SPEC), pex_state()
    obs = np.tile(ONE.obs, (4, 1))
    draws = jax.vmap(lambda key: agent.draw_act(key, explore))(jax.random.split(jax.random.key(3), 16))
    actions, _ = jit(jax.vmap(lambda o, d: agent.act(state, o, d, explore=explore)))(np.float32(obs), draws)
    greedy = np.asarray(draws.greedy) >= 0.5
    assert {tuple(row) for row in greedy} == {(False, False), (False, True), (True, False), (True, True)}
    noise = np.float64(draws.noise) * (1 if explore else ~greedy[:, :1])
    both, q = expanded(state, obs, noise)
    choice, better = drawn(q, draws.pick), np.argmax(q, axis=-1)
    assert np.any(choice != better)
    close(actions, both[np.arange(16), choice if explore else np.where(greedy[:, 1], better, choice)])


# -- Policy Decorator ----------------------------------------------------------------------------------------------------------------------


DECORATOR = policy_decorator.Config(
    **BASE, **SIZES, residual_scale=0.4, init_alpha=0.3, actor_lr=0.05, progressive_steps=10.0, max_grad_norm=1e6
)


@cache
def decorator_state() -> policy_decorator.DecoratorState:
    state = jit(policy_decorator.make(DECORATOR, SPEC).init)(jax.random.key(0))
    actor = state.residual._replace(actor=moved(state.residual.actor, 3))
    return policy_decorator.DecoratorState(drifting(state.imitation), actor, critic_of(state), state.step)


def test_policy_decorator_by_hand() -> None:
    """Critics of the summed action, entropy in the backup, the minimum of the new critics for the actor, target entropy -A."""
    agent, state = policy_decorator.make(DECORATOR, SPEC), decorator_state()
    draws = agent.draw(jax.random.key(1))
    after, metrics = jit(agent.learn)(state, BATCHES, draws)
    here, there = of_base(draws.base)[:, 0]

    def decorated(params: dict, obs: np.ndarray, base: np.ndarray, draws: Any) -> tuple[np.ndarray, np.ndarray]:
        u, log_prob = tanh_gaussian(params, obs, np.float64(draws.noise[0]), relu)
        return base + 0.4 * u, log_prob

    policy = state.residual.actor.params
    action, log_prob = decorated(policy, ONE.next_obs, there, draws.next_residual)
    assert np.any(np.abs(action) > 1)  # sums are not clipped
    q = ensemble(state.critic.target, ONE.next_obs, action, relu)
    check_critic(state.critic, after.critic, metrics["critic_loss"], q.min(axis=0) - 0.3 * log_prob)

    def actor_loss(params: dict) -> float:
        action, log_prob = decorated(params, ONE.obs, here, draws.residual)
        return np.mean(0.3 * log_prob - ensemble(after.critic.online.params, ONE.obs, action, relu).min(axis=0))

    close(metrics["actor_loss"], actor_loss(policy))
    check_gradient(actor_loss, policy, first_gradient(after.residual.actor.opt))
    entropy = -np.mean(decorated(policy, ONE.obs, here, draws.residual)[1])
    close(first_gradient(after.residual.log_alpha.opt), 0.3 * (entropy + 2))
    jax.tree.map(np.testing.assert_array_equal, after.imitation, state.imitation)  # frozen
    assert after.step == 1


def test_policy_decorator_explores_progressively() -> None:
    """The residual is used with probability min(n / H, 1), H = 10; evaluation always uses it, at its mode."""
    agent, state = policy_decorator.make(DECORATOR, SPEC), decorator_state()
    draws = jax.vmap(lambda key: agent.draw_act(key, True))(jax.random.split(jax.random.key(4), 100))
    draws = draws._replace(use=(jnp.arange(100) + 0.5) / 100)
    obs, base = BATCHES.obs[0, 0], of_base(draws.base)
    act = jit(lambda step: jax.vmap(lambda d: agent.act(state._replace(step=step), obs, d, explore=True)[0])(draws))
    u, _ = tanh_gaussian(state.residual.actor.params, np.tile(np.float64(obs), (100, 1)), np.float64(draws.residual.noise), relu)
    for step, used in ((0, 0), (3, 30), (10, 100), (25, 100)):
        close(act(jnp.int32(step)), np.where(np.arange(100)[:, None] < used, base + 0.4 * u, base))
    first = jax.tree.map(lambda x: x[0], draws)
    mode, _ = tanh_gaussian(state.residual.actor.params, np.float64(obs)[None], np.zeros((1, 2)), relu)
    close(agent.act(state, obs, first, explore=False)[0], base[0] + 0.4 * mode[0])
    close(agent.base_act(state, obs, first), base[0])


def test_policy_decorator_clips_its_gradients() -> None:
    """To the largest norm, critics and actor each by themselves."""
    agent = policy_decorator.make(dataclasses.replace(DECORATOR, max_grad_norm=1e-3), SPEC)
    after, _ = jit(agent.learn)(decorator_state(), BATCHES, agent.draw(jax.random.key(1)))
    for opt in (after.critic.online.opt, after.residual.actor.opt):
        norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(first_gradient(opt))))
        np.testing.assert_allclose(norm, 1e-3, rtol=1e-4)


# -- ResiP's residual, off-policy ----------------------------------------------------------------------------------------------------------


def test_residual_by_hand() -> None:
    """The residual sees the base action; no entropy in the backup; the mean of the new critics; target entropy of u -A / 2."""
    config = residual.Config(**BASE, **SIZES, edit_hidden=(6,), critics=4, residual_scale=0.4, init_alpha=0.3, actor_lr=0.05)
    agent = residual.make(config, SPEC)
    state = jit(agent.init)(jax.random.key(0))
    actor = state.residual._replace(actor=moved(state.residual.actor, 3))
    state = residual.ResidualState(drifting(state.imitation), actor, critic_of(state))
    draws = agent.draw(jax.random.key(1))
    after, metrics = jit(agent.learn)(state, BATCHES, draws)

    def edited(params: dict, obs: np.ndarray, draws: residual.Draws) -> tuple[np.ndarray, np.ndarray]:
        base = of_base(draws.base)
        u, log_prob = tanh_gaussian(params, np.concatenate([obs, base], axis=1), np.float64(draws.residual.noise), relu)
        return base + 0.4 * u, log_prob

    policy = state.residual.actor.params
    backup = jax.tree.map(lambda x: x[0], draws.backup)
    q = ensemble(state.critic.target, ONE.next_obs, edited(policy, ONE.next_obs, backup)[0], relu)
    check_critic(state.critic, after.critic, metrics["critic_loss"], q[np.asarray(draws.subset[0])].min(axis=0))

    def actor_loss(params: dict) -> float:
        """Of the density of 0.4 u, which differs from that of u by a constant."""
        action, log_prob = edited(params, ONE.obs, draws.residual)
        value = ensemble(after.critic.online.params, ONE.obs, action, relu).mean(axis=0)
        return np.mean(0.3 * (log_prob - 2 * np.log(0.4)) - value)

    close(metrics["actor_loss"], actor_loss(policy))
    check_gradient(actor_loss, policy, first_gradient(after.residual.actor.opt))
    entropy = -np.mean(edited(policy, ONE.obs, draws.residual)[1])
    close(first_gradient(after.residual.log_alpha.opt), 0.3 * (entropy + 2 / 2))
    jax.tree.map(np.testing.assert_array_equal, after.imitation, state.imitation)  # frozen

    mine = jax.tree.map(lambda x: x[0], draws.residual)
    close(agent.act(state, BATCHES.obs[0, 0], mine, explore=True)[0], edited(policy, ONE.obs, draws.residual)[0][0])
    base = of_base(mine.base)
    mode, _ = tanh_gaussian(policy, np.concatenate([ONE.obs[0], base])[None], np.zeros((1, 2)), relu)
    close(agent.act(state, BATCHES.obs[0, 0], mine, explore=False)[0], base + 0.4 * mode[0])
    close(agent.base_act(state, BATCHES.obs[0, 0], mine), base)


@pytest.mark.parametrize("module", [policy_decorator, residual])
def test_a_residual_starts_at_the_base_policy(module: Any) -> None:
    """In evaluation an untrained agent acts as its base policy does, whatever the state; to explore it does not."""
    agent = module.make(module.Config(**BASE, **SIZES), SPEC)
    state = jit(agent.init)(jax.random.key(0))
    draws = agent.draw_act(jax.random.key(1), False)
    for obs in (BATCHES.obs[0, 0], 5 * BATCHES.obs[0, 1]):
        base = agent.base_act(state, obs, draws)
        np.testing.assert_array_equal(agent.act(state, obs, draws, explore=False)[0], base)
    late = state._replace(step=jnp.int32(10**6)) if module is policy_decorator else state
    assert np.all(agent.act(late, obs, draws, explore=True)[0] != base)


def test_the_offline_phase_trains_the_base_policy_alone() -> None:
    agent = residual.make(residual.Config(**BASE, **SIZES), SPEC)
    state = jit(agent.init)(jax.random.key(0))
    batch: Batch = jax.tree.map(lambda x: x[0], BATCHES)
    after, metrics = jit(agent.pretrain)(state, batch, agent.draw_pretrain(jax.random.key(1)))
    assert metrics["imitation_loss"] > 0
    assert not np.array_equal(state.imitation.ema["out"]["bias"], after.imitation.ema["out"]["bias"])
    jax.tree.map(np.testing.assert_array_equal, after._replace(imitation=None), state._replace(imitation=None))
