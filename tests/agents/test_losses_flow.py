"""The losses of IFQL and Q-chunking against float64 numpy that is written from the papers' equations, jitted and not, on single steps and on
windows of two; their flow against the recorded numbers of FQL's release, from whose networks both are built.

The gradients of a whole step, read off the first moments of Adam, are held against central differences of the numpy losses in which the TD
target is a constant: so nothing leaks through targets, selection or sampler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import FQL, Golden, close, first_gradient

from expo_bench.agents import fql, ifql, qc, qc_fql
from expo_bench.agents.base import Spec
from expo_bench.parts import base_policy
from expo_bench.parts.replay import Batch

O, A, B, N, STEPS = 3, 2, 6, 5, 3
DISCOUNT, EXPECTILE = 0.9, 0.8
SMALL = {"hidden": (8, 7), "n_samples": N, "flow_steps": STEPS, "discount": DISCOUNT, "critics": 3}
CONFIGS = {ifql: ifql.Config(**SMALL, expectile=EXPECTILE), qc: qc.Config(**SMALL)}


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


both_chunks = pytest.mark.parametrize("chunk", [1, 2], ids=["single steps", "windows of 2"])


class Case:
    """An agent away from its init, target critics away from the critics, and a batch; `params`, `target`, `batch` in float64 for numpy."""

    def __init__(self, module: Any, chunk: int) -> None:
        self.size = A * chunk
        self.agent = module.make(CONFIGS[module], Spec(O, self.size, B, 1))
        rng = np.random.default_rng(900 + chunk)
        away = lambda p: np.float32(p + rng.uniform(-0.3, 0.3, p.shape))
        state = jit(self.agent.init)(jax.random.key(0))
        trained = state.trained._replace(params=jax.tree.map(away, state.trained.params))
        self.state = state._replace(trained=trained, target=jax.tree.map(away, state.target))
        normal = lambda *shape: np.float32(rng.normal(size=shape))
        valid = None if chunk == 1 else np.float32([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0], [1, 1]])
        self.batch = Batch(normal(B, O), np.tanh(normal(B, self.size)), normal(B), np.float32([0, 0, 1, 0, 1, 0]), normal(B, O), valid)
        self.imitation = base_policy.LossDraws(normal(B, self.size), np.float32(rng.uniform(size=B)), None)
        self.backup = base_policy.SampleDraws(normal(B, N, self.size), None)
        double = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
        self.params, self.target, self.doubles = double(trained.params), double(self.state.target), double(self.batch)
        self.td_weight = np.ones(B) if valid is None else valid[:, 1]
        self.action_weight = np.ones((B, self.size)) if valid is None else np.repeat(valid, A, axis=1)


case = cache(Case)


# -- the equations in numpy ----------------------------------------------------------------------------------------------------------------


def mlp(params: dict, x: np.ndarray, norm: bool) -> np.ndarray:
    """Dense, GELU (tanh form) and, in critics and value functions, LayerNorm; a linear layer at the end."""
    for i in range(2):
        x = x @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"]
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        if norm:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x * params[f"norm_{i}"]["scale"] + params[f"norm_{i}"]["bias"]
    return x @ params["out"]["kernel"] + params["out"]["bias"]


def q_values(params: dict, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    """[K, B]"""
    members = [jax.tree.map(lambda x, i=i: x[i], params) for i in range(3)]
    return np.stack([mlp(p, np.concatenate([obs, action], axis=-1), True)[..., 0] for p in members])


def velocity(params: dict, obs: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    return mlp(params, np.concatenate([obs, x, t[:, None]], axis=-1), False)


def flow_samples(params: dict, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Euler's method from noise [B, N, A], sample by sample."""
    samples = []
    for n in range(noise.shape[1]):
        x = np.float64(noise[:, n])
        for i in range(STEPS):
            x = x + velocity(params, obs, x, np.full(len(obs), i / STEPS)) / STEPS
        samples.append(np.clip(x, -1, 1))
    return np.stack(samples, axis=1)


def imitation_loss(case: Case, params: Any) -> float:
    """The flow matching loss: (v(s, (1 - t) x0 + t a, t) - (a - x0))^2, steps beyond an episode's end counted as 0."""
    x0, t, action = np.float64(case.imitation.noise), np.float64(case.imitation.t), case.doubles.action
    x_t = (1 - t[:, None]) * x0 + t[:, None] * action
    return np.mean(case.action_weight * (velocity(params.flow, case.doubles.obs, x_t, t) - (action - x0)) ** 2)


def td_error(case: Case, params: Any, next_value: np.ndarray) -> float:
    """(Q_i(s, a) - (r + discount (1 - terminated) V(s')))^2, windows beyond an episode's end counted as 0."""
    batch = case.doubles
    y = batch.reward + DISCOUNT * (1 - batch.terminated) * next_value
    return np.mean(case.td_weight * (q_values(params.critic, batch.obs, batch.action) - y) ** 2)


def chosen(case: Case, params: dict) -> np.ndarray:
    """Which of the N samples of the flow at s' has the highest mean Q under critics with these parameters."""
    samples = flow_samples(case.params.flow, case.doubles.next_obs, case.backup.x_init)
    q = [q_values(params, case.doubles.next_obs, samples[:, n]).mean(axis=0) for n in range(N)]
    return np.argmax(q, axis=0)


def best_of_n_value(case: Case) -> np.ndarray:
    """What the mean of the target critics says of the sample that the mean of the online critics likes best."""
    samples = flow_samples(case.params.flow, case.doubles.next_obs, case.backup.x_init)
    best = samples[np.arange(B), chosen(case, case.params.critic)]
    return q_values(case.target, case.doubles.next_obs, best).mean(axis=0)


def value_function(params: dict, obs: np.ndarray) -> np.ndarray:
    return mlp(params, obs, True)[:, 0]


def expectile_loss(case: Case, params: Any) -> float:
    """|expectile - 1[u < 0]| u^2 for u = min of the target critics - V."""
    u = q_values(case.target, case.doubles.obs, case.doubles.action).min(axis=0) - value_function(params.value, case.doubles.obs)
    assert np.any(u < 0) and np.any(u > 0)
    return np.mean(case.td_weight * np.where(u < 0, 1 - EXPECTILE, EXPECTILE) * u**2)


def slope(total: Callable[[Any], float], params: Any, network: str, direction: Any) -> float:
    """The derivative of `total(params)` along a direction in one network, by a central difference."""
    moved = lambda by: params._replace(**{network: jax.tree.map(lambda x, d: x + by * d, getattr(params, network), direction)})
    return (total(moved(1e-5)) - total(moved(-1e-5))) / 2e-5


def check_losses(case: Case, after: Any, metrics: dict, losses: dict[str, Callable[[Any], float]]) -> None:
    """Each loss, and the gradient of their sum in one random direction per network."""
    for name, loss in losses.items():
        assert metrics[name] == pytest.approx(loss(case.params), rel=2e-5), name
    gradient, rng = first_gradient(after.trained.opt), np.random.default_rng(0)
    total = lambda params: sum(loss(params) for loss in losses.values())
    for network in case.params._fields:
        direction = jax.tree.map(lambda x: rng.normal(size=x.shape), getattr(case.params, network))
        products = jax.tree.map(lambda g, d: np.sum(g * d), getattr(gradient, network), direction)
        want = slope(total, case.params, network, direction)
        assert sum(jax.tree.leaves(products)) == pytest.approx(want, rel=1e-4, abs=1e-5), network


# -- the agents against them ---------------------------------------------------------------------------------------------------------------


@both_chunks
def test_ifql(chunk: int) -> None:
    """The critics' target is V before its own step."""
    this = case(ifql, chunk)
    after, metrics = jit(this.agent.pretrain)(this.state, this.batch, this.imitation)
    next_value = value_function(this.params.value, this.doubles.next_obs)
    losses = {
        "value_loss": lambda params: expectile_loss(this, params),
        "critic_loss": lambda params: td_error(this, params, next_value),
        "imitation_loss": lambda params: imitation_loss(this, params),
    }
    check_losses(this, after, metrics, losses)


def test_ifql_acts_with_the_best_of_n_under_the_minimum_of_its_critics() -> None:
    this = case(ifql, 1)
    act = jax.vmap(lambda obs, noise: this.agent.act(this.state, obs, base_policy.SampleDraws(noise, None), explore=False))
    actions, seen = jit(act)(this.batch.next_obs, this.backup.x_init)
    samples = flow_samples(this.params.flow, this.doubles.next_obs, this.backup.x_init)
    q = np.stack([q_values(this.params.critic, this.doubles.next_obs, samples[:, n]) for n in range(N)], axis=-1)  # [K, B, N]
    best = q.min(axis=0).argmax(axis=-1)
    assert np.any(best != q.mean(axis=0).argmax(axis=-1)), "minimum and mean choose differently somewhere"
    np.testing.assert_allclose(actions, samples[np.arange(B), best], atol=1e-5)
    np.testing.assert_allclose(seen["max_gain"], q.mean(axis=0).max(axis=-1) - q.mean(axis=(0, 2)), atol=1e-5)


@both_chunks
def test_qc(chunk: int) -> None:
    """On single steps this is the one-step backup of the best of N; on windows the reward is the discounted sum that the loop made."""
    this = case(qc, chunk)
    assert np.any(chosen(this, this.params.critic) != chosen(this, this.target)), "online and target critics choose differently somewhere"
    after, metrics = jit(this.agent.pretrain)(this.state, this.batch, qc.Draws(this.backup, this.imitation))
    next_value = best_of_n_value(this)
    losses = {
        "critic_loss": lambda params: td_error(this, params, next_value),
        "imitation_loss": lambda params: imitation_loss(this, params),
    }
    check_losses(this, after, metrics, losses)


@both_chunks
def test_qc_acts_with_what_its_backup_takes(chunk: int) -> None:
    this = case(qc, chunk)
    act = jax.vmap(lambda obs, noise: this.agent.act(this.state, obs, base_policy.SampleDraws(noise, None), explore=True)[0])
    samples = flow_samples(this.params.flow, this.doubles.next_obs, this.backup.x_init)
    want = samples[np.arange(B), chosen(this, this.params.critic)]
    np.testing.assert_allclose(jit(act)(this.batch.next_obs, this.backup.x_init), want, atol=1e-5)


@pytest.mark.parametrize("module", [ifql, qc])
def test_windows_of_one_step_are_single_steps(module: Any) -> None:
    """The same step whether a batch says nothing of windows or that each of its windows of one step is whole."""
    this = case(module, 1)
    draws = this.imitation if module is ifql else qc.Draws(this.backup, this.imitation)
    step = jit(this.agent.pretrain)
    single, windows = step(this.state, this.batch, draws), step(this.state, this.batch._replace(valid=np.ones((B, 1), np.float32)), draws)
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(windows), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("module", [ifql, qc])
def test_target_critics_follow_the_new_critics(module: Any) -> None:
    this = case(module, 1)
    draws = this.imitation if module is ifql else qc.Draws(this.backup, this.imitation)
    agent = module.make(dataclasses.replace(CONFIGS[module], tau=0.25, lr=0.1), Spec(O, A, B, 1))
    after, _ = jit(agent.pretrain)(this.state, this.batch, draws)
    want = jax.tree.map(lambda t, p: 0.75 * t + 0.25 * p, this.state.target, after.trained.params.critic)
    chex.assert_trees_all_close(after.target, want, atol=1e-6)
    assert max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (want, this.state.target)), strict=True)) > 0.01


@pytest.mark.parametrize("module", [ifql, qc])
def test_networks_of_fql_s_release(module: Any) -> None:
    """Its recorded imitation loss and gradient, Euler sampler and critics, through these agents: with one sample nothing is chosen."""
    file, hidden = Golden("11_fql"), (32,) * 4
    agent = module.make(module.Config(hidden=hidden, n_samples=1), Spec(11, 3, 16, 1))
    fresh = jit(agent.init)(jax.random.key(0))
    like = fresh.trained.params
    flow = file.tree("params/modules_actor_bc_flow", FQL, like.flow)
    params = like._replace(flow=flow, critic=file.tree("params/modules_critic", FQL, like.critic))
    state = fresh._replace(trained=fresh.trained._replace(params=params))
    batch = Batch(file["observations"], file["actions"], file["rewards"], 1.0 - file["masks"], file["next_observations"])
    imitation = base_policy.LossDraws(file["flow_x0"], file["flow_t"][:, 0], None)
    draws = imitation if module is ifql else qc.Draws(base_policy.SampleDraws(file["next_noise"][:, None], None), imitation)
    after, metrics = jit(agent.pretrain)(state, batch, draws)
    close(metrics["imitation_loss"], file["bc_flow_loss"])
    close(first_gradient(after.trained.opt).flow, file.tree("grad/modules_actor_bc_flow", FQL, like.flow))
    close(metrics["q_mean"], file["qs"].mean())
    noise = base_policy.SampleDraws(jnp.asarray(file["distill_noise"])[:, None], None)
    act = jax.vmap(lambda obs, noise: agent.act(state, obs, noise, explore=True)[0])
    close(jit(act)(batch.obs, noise), file["flow_actions"])
    value = jit(jax.vmap(lambda obs, action: agent.value(state, obs, action)))(batch.obs, batch.action)
    np.testing.assert_allclose(value, file["qs"].mean(axis=0), atol=1e-5)


def test_qc_fql_is_fql_on_chunks() -> None:
    """The same algorithm; a protocol of chunks, and an alpha of its own."""
    assert dataclasses.asdict(qc_fql.Config()) == dataclasses.asdict(fql.Config(distill=100.0))
    assert qc_fql.PROTOCOL == qc.PROTOCOL == dataclasses.replace(fql.PROTOCOL, chunk=5, warmup_steps=5_000, warmup="policy")


def test_qc_fql_does_not_learn_from_beyond_an_episodes_end() -> None:
    """Actions and rewards beyond it change nothing, those before it do (at flow time 0, where the flow sees noise instead of actions)."""
    agent, this = qc_fql.make(qc_fql.Config(hidden=(8,), flow_steps=2), Spec(O, 2 * A, B, 1)), case(qc, 2)
    draws = jit(agent.draw_pretrain)(jax.random.key(1))
    state, step = jit(agent.init)(jax.random.key(0)), jit(lambda *inputs: agent.pretrain(*inputs)[0].trained.params)
    beyond, action, reward = this.action_weight == 0, this.batch.action, this.batch.reward
    batches = {
        "as it is": this.batch,
        "beyond": this.batch._replace(action=np.where(beyond, 0.9, action), reward=np.where(beyond[:, -1], 9.0, reward)),
        "before": this.batch._replace(action=np.where(beyond, action, 0.9)),
    }
    after = {name: jax.tree.leaves(step(state, batch, draws._replace(t=jnp.zeros(B)))) for name, batch in batches.items()}
    far = lambda name: max(np.abs(a - b).max() for a, b in zip(after["as it is"], after[name], strict=True))
    assert far("beyond") == 0 and far("before") > 1e-4
