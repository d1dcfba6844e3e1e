"""Cal-QL, CQL and ReBRAC against their equations written out in numpy, in float64, through the functions that train, jitted and not.

Every gradient is a central difference of the written-out loss, compared with the one that the optimiser got: its first moment is
0.9 m + 0.1 g, which costs a digit (ROUNDING). With action chunks (`valid`) some rows and dimensions must not count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from golden import close
from scipy.special import logsumexp

from expo_bench.agents import cal_ql, cql, rebrac
from expo_bench.agents.base import Spec
from expo_bench.parts import actors
from expo_bench.parts.replay import Batch

O, A, B, N, U = 3, 2, 5, 3, 3
SPEC = Spec(obs_size=O, action_size=A, batch_size=B, updates=U)
SHARED = {"hidden": (5, 4), "discount": 0.9, "tau": 0.3, "critic_lr": 0.01, "actor_lr": 0.02}
REBRAC = rebrac.Config(**SHARED, actor_bc=0.3, critic_bc=0.7, bc_decay_steps=4, noise_clip=0.1)
CAL_QL = cal_ql.Config(**SHARED, n_samples=N, actor_layers=1, lagrange=True, cql_weight=2.0, init_alpha=0.5, alpha_lr=0.03)
ROUNDING = 5e-5
Tree = Any


@cache
def run(module: Any, config: Any) -> tuple[Callable, ...]:
    """An agent's `pretrain` and `learn`."""
    agent = module.make(config, SPEC)
    return tuple(jax.jit(f, compiler_options={"xla_backend_optimization_level": 0}) for f in (agent.pretrain, agent.learn))


def batches(chunked: bool) -> Batch:
    """[U, B]; chunked: each of the two action dimensions is a step of its own."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: np.float32(rng.normal(size=(U, B, *shape)))
    terminated = np.float32(rng.random((U, B)) < 0.3)
    valid = np.float32([[1, 1], [1, 0], [1, 1], [1, 0], [1, 1]] * U).reshape(U, B, 2) if chunked else None
    next_valid = np.float32(rng.random((U, B, 2 if chunked else 1)) < 0.6)
    mc_return = np.where(rng.random((U, B)) < 0.3, -np.inf, normal()).astype(np.float32)
    return Batch(
        normal(O), np.tanh(normal(A)), normal(), terminated, normal(O), valid, mc_return, np.tanh(normal(A)), next_valid
    )  # fmt: skip


def started(module: Any, config: Any) -> Any:
    """A state whose targets are not its online parameters and none of whose parameters is 0."""
    state, rng = module.make(config, SPEC).init(jax.random.key(0)), np.random.default_rng(1)
    change = lambda x: x if x.ndim == 0 else np.float32(x + 0.3 * rng.normal(size=x.shape))
    online = lambda trained: trained._replace(params=jax.tree.map(change, trained.params))
    state = state._replace(critic=state.critic._replace(online=online(state.critic.online)))
    if module is rebrac:
        return state._replace(actor=online(state.actor))
    return state._replace(actor=state.actor._replace(actor=online(state.actor.actor)))


# -- numpy ---------------------------------------------------------------------------------------------------------------------------------


def float64(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: np.array(x, np.float64), tree)


def mlp(p: Tree, x: np.ndarray) -> np.ndarray:
    """Dense, ReLU and, where there are parameters of it, LayerNorm; then the linear output, if there is one."""
    for i in range(sum(name.startswith("dense") for name in p)):
        x = np.maximum(x @ p[f"dense_{i}"]["kernel"] + p[f"dense_{i}"]["bias"], 0)
        if f"norm_{i}" in p:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x * p[f"norm_{i}"]["scale"] + p[f"norm_{i}"]["bias"]
    return x @ p["out"]["kernel"] + p["out"]["bias"] if "out" in p else x


def critics(p: Tree, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    """[2, ...] of obs [..., O] and action [..., A]."""
    obs = np.broadcast_to(obs, (*action.shape[:-1], O))
    return np.stack([mlp(jax.tree.map(lambda x, k=k: x[k], p), np.concatenate([obs, action], -1))[..., 0] for k in range(2)])


def difference_quotient(loss: Callable[[Tree], float], params: Tree, step: float = 1e-5) -> Tree:
    leaves, structure = jax.tree.flatten(params)
    grads = [np.zeros_like(leaf) for leaf in leaves]
    for leaf, grad in zip(leaves, grads, strict=True):
        for i in np.ndindex(leaf.shape):
            middle, sides = leaf[i], []
            for side in (step, -step):
                leaf[i] = middle + side
                sides.append(loss(params))
            leaf[i] = middle
            grad[i] = (sides[0] - sides[1]) / (2 * step)
    return jax.tree.unflatten(structure, grads)


def gradient(before: Any, after: Any) -> Tree:
    """What the Adam of a `Trained` got in between."""
    return jax.tree.map(lambda new, old: (np.asarray(new, np.float64) - 0.9 * np.asarray(old)) / 0.1, after.opt[0].mu, before.opt[0].mu)


def polyak(target: Tree, online: Tree, tau: float) -> Tree:
    return jax.tree.map(lambda t, o: tau * np.asarray(o) + (1 - tau) * np.asarray(t), target, online)


# -- ReBRAC --------------------------------------------------------------------------------------------------------------------------------


def check_rebrac(before: Any, after: Any, metrics: dict, batch: Batch, noise: np.ndarray, beta_1: float, beta_2: float, turn: bool) -> None:
    """One update from `before` to `after`: eq. 3 and 4 of the paper, with the released code's targets."""
    b, policy = float64(batch), lambda p, obs: np.tanh(mlp(p, obs))
    weight = np.ones(B) if batch.valid is None else b.valid[:, -1]
    of_action = np.ones((B, A)) if batch.valid is None else b.valid
    next_action = policy(float64(before.target_actor), b.next_obs) + np.clip(0.2 * noise, -0.1, 0.1)
    next_action = np.clip(next_action, -1, 1)
    penalty = np.sum(b.next_valid * (next_action - b.next_action) ** 2, axis=-1)
    value = critics(float64(before.critic.target), b.next_obs, next_action).min(0) - beta_2 * penalty
    y = b.reward + 0.9 * (1 - b.terminated) * value
    of_critics = lambda p: np.mean(weight * (critics(p, b.obs, b.action) - y) ** 2)
    close(metrics["critic_loss"], of_critics(float64(before.critic.online.params)))
    close(
        gradient(before.critic.online, after.critic.online), difference_quotient(of_critics, float64(before.critic.online.params)), ROUNDING
    )

    online, start = float64(after.critic.online.params), float64(before.actor.params)
    q = lambda p: critics(online, b.obs, policy(p, b.obs)).min(0)
    scale = np.mean(np.abs(q(start)))  # a constant for the gradient
    of_actor = lambda p: np.mean(beta_1 * np.sum(of_action * (policy(p, b.obs) - b.action) ** 2, axis=-1) - q(p) / scale)
    close(metrics["actor_loss"], of_actor(start))
    if turn:
        close(gradient(before.actor, after.actor), difference_quotient(of_actor, start), ROUNDING)
        close(after.target_actor, polyak(before.target_actor, before.actor.params, 0.3))
        close(after.critic.target, polyak(before.critic.target, after.critic.online.params, 0.3))
    else:
        unmoved = lambda state: jax.tree.leaves((state.actor, state.target_actor, state.critic.target))
        assert all(np.array_equal(old, new) for old, new in zip(unmoved(before), unmoved(after), strict=True))


@pytest.mark.parametrize("chunked", [False, True])
def test_rebrac(chunked: bool) -> None:
    """Two updates offline, five online: beta_1 falls in quarters from the first online update, beta_2 is 0; every second moves the actor."""
    pretrain, learn = run(rebrac, REBRAC)
    data, state, normal = batches(chunked), started(rebrac, REBRAC), np.random.default_rng(2).normal(size=(7, B, A))
    row = lambda i: jax.tree.map(lambda x: x[i % U], data)
    for i, noise in enumerate(np.float32(normal)):
        if i < 2:
            after, metrics = pretrain(state, row(i), noise)
            betas = (0.3, 0.7)
        else:
            online = row(i)._replace(next_action=None, next_valid=None)
            after, metrics = learn(state, jax.tree.map(lambda x: x[None], online), noise[None])
            betas = (0.3 * max(0, 1 - (i - 2) / 4), 0.0)
            close(metrics["actor_bc"], betas[0])
        check_rebrac(state, after, metrics, row(i), noise, *betas, turn=i % 2 == 0)
        state = after
    assert int(state.updates) == 7 and int(state.online) == 5


def test_rebrac_learns_from_its_batches_one_after_another() -> None:
    _, learn = run(rebrac, REBRAC)
    data = batches(False)._replace(next_action=None, next_valid=None)
    noise = np.float32(np.random.default_rng(2).normal(size=(U, B, A)))
    together, _ = learn(started(rebrac, REBRAC), data, noise)
    state = started(rebrac, REBRAC)
    for i in range(U):
        state, _ = learn(state, jax.tree.map(lambda x, i=i: x[i : i + 1], data), noise[i : i + 1])
    close(together, state)


def test_rebrac_explores_with_noise_and_is_evaluated_without() -> None:
    agent, state = rebrac.make(REBRAC, SPEC), started(rebrac, REBRAC)
    obs, noise = np.float32([0.3, -0.2, 1.0]), np.float32([1.0, -90.0])
    want = np.tanh(mlp(float64(state.actor.params), obs))
    close(agent.act(state, obs, noise, explore=False)[0], want)
    close(agent.act(state, obs, noise, explore=True)[0], np.array([want[0] + 0.03, -1.0]))


# -- Cal-QL and CQL ------------------------------------------------------------------------------------------------------------------------


def gaussian(p: Tree, obs: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A tanh-Gaussian's sample and its log-density, the change of variables written out."""
    x = mlp(p["trunk"], obs)
    mean, log_std = (x @ p[head]["kernel"] + p[head]["bias"] for head in ("mean", "log_std"))
    log_std = np.clip(log_std - 1, -20, 2)
    action = np.tanh(mean + np.exp(log_std) * noise)
    density = np.exp(-0.5 * noise**2) / np.sqrt(2 * np.pi) / np.exp(log_std) / (1 - action**2)
    return action, np.sum(np.log(density), axis=-1)


def draws_of(seed: int) -> cal_ql.Draws:
    rng = np.random.default_rng(seed)
    noise = lambda *shape: actors.GaussianDraws(np.float32(rng.normal(size=(U, B, *shape, A))), None)
    return cal_ql.Draws(noise(N), np.float32(rng.uniform(-1, 1, (U, B, N, A))), noise(N), noise(N), noise())


def check_cal_ql(before: Any, after: Any, metrics: dict, batch: Batch, draws: cal_ql.Draws, config: cal_ql.Config) -> None:
    b, d = float64(batch), float64(draws)
    weight = np.ones(B) if batch.valid is None else b.valid[:, -1]
    actor, online = float64(before.actor.actor.params), float64(before.critic.online.params)
    next_action, _ = gaussian(actor, b.next_obs[:, None], d.backup.noise)
    value = critics(float64(before.critic.target), b.next_obs[:, None], next_action).min(0).max(-1)
    y = b.reward + 0.9 * (1 - b.terminated) * value

    multiplier = np.exp(float(before.log_multiplier.params)) if config.lagrange else 1.0
    following, log_following = gaussian(actor, b.next_obs[:, None], d.following.noise)
    current, log_current = gaussian(actor, b.obs[:, None], d.current.noise)

    def losses(p: Tree) -> tuple[np.ndarray, np.ndarray]:
        """TD error and what the penalty weighs, per critic."""
        q, floor = critics(p, b.obs, b.action), b.mc_return[:, None] if config.calibrate else -np.inf
        sampled = lambda actions: critics(p, b.obs[:, None], actions)
        groups = [
            sampled(d.uniform) - A * np.log(0.5),
            np.maximum(sampled(following), floor) - log_following,
            np.maximum(sampled(current), floor) - log_current,
        ]
        gap = logsumexp(np.concatenate(groups, axis=-1), axis=-1) - q
        return np.mean(weight * (q - y) ** 2, axis=-1), np.mean(weight * (gap - config.target_gap * config.lagrange), axis=-1)

    of_critics = lambda p: np.sum(losses(p)[0] + multiplier * config.cql_weight * losses(p)[1])
    bellman, excess = losses(online)
    close(metrics["critic_loss"], np.mean(bellman))
    close(metrics["cql_loss"], multiplier * config.cql_weight * np.mean(excess))
    close(gradient(before.critic.online, after.critic.online), difference_quotient(of_critics, online), ROUNDING)
    close(after.critic.target, polyak(before.critic.target, after.critic.online.params, 0.3))
    if config.lagrange:
        of_multiplier = lambda l: -np.mean(np.exp(l) * config.cql_weight * excess)
        close(
            gradient(before.log_multiplier, after.log_multiplier),
            difference_quotient(of_multiplier, float64(before.log_multiplier.params)),
            ROUNDING,
        )

    alpha = np.exp(float(before.actor.log_alpha.params))

    def of_actor(p: Tree) -> float:
        action, log_prob = gaussian(p, b.obs, d.action.noise)
        return np.mean(alpha * log_prob - critics(online, b.obs, action).min(0))  # the critics before their step

    close(metrics["actor_loss"], of_actor(actor))
    close(gradient(before.actor.actor, after.actor.actor), difference_quotient(of_actor, actor), ROUNDING)
    entropy = -np.mean(gaussian(actor, b.obs, d.action.noise)[1])
    close(gradient(before.actor.log_alpha, after.actor.log_alpha), alpha * (entropy + A), ROUNDING)


CQL = cql.Config(**SHARED, n_samples=N, actor_layers=1, cql_weight=2.0, init_alpha=0.5, alpha_lr=0.03)


@pytest.mark.parametrize("module, config, chunked", [(cal_ql, CAL_QL, False), (cal_ql, CAL_QL, True), (cql, CQL, False)])
def test_cal_ql(module: Any, config: cal_ql.Config, chunked: bool) -> None:
    """Two updates, so that targets, moments, temperature and multiplier are not those of the start."""
    pretrain, _ = run(module, config)
    data, draws, state = batches(chunked), draws_of(3), started(module, config)
    for i in range(2):
        batch, noise = jax.tree.map(lambda x, i=i: x[i], (data, draws))
        after, metrics = pretrain(state, batch, noise)
        check_cal_ql(state, after, metrics, batch, noise, config)
        state = after
    assert module.make(config, SPEC).mc_return == config.calibrate


def test_cal_ql_learns_from_its_batches_as_offline() -> None:
    pretrain, learn = run(cal_ql, CAL_QL)
    data, draws = batches(False), draws_of(3)
    state = started(cal_ql, CAL_QL)
    together, _ = learn(state, data, draws)
    for i in range(U):
        state, _ = pretrain(state, *jax.tree.map(lambda x, i=i: x[i], (data, draws)))
    close(together, state)


def test_draws_of_cal_ql() -> None:
    """Uniform actions fill [-1, 1]; every group of samples has noise of its own."""
    draws = cal_ql.make(CAL_QL, SPEC._replace(batch_size=2000)).draw(jax.random.key(0))
    uniform = np.asarray(draws.uniform)
    assert uniform.shape == (U, 2000, N, A) and -1 <= uniform.min() < -0.999 and 0.999 < uniform.max() <= 1
    assert abs(uniform.mean()) < 0.01 and abs(uniform.var() - 1 / 3) < 0.01
    noises = [np.ravel(group.noise) for group in (draws.backup, draws.following, draws.current)]
    assert np.all(np.abs(np.corrcoef([*noises, uniform.ravel()]) - np.eye(4)) < 0.03)
    assert draws.action.noise.shape == (U, 2000, A)
