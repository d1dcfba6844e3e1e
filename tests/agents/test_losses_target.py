"""Policies that regress on what the critics' slope or their ranking makes of actions: adjoint matching, the ascent on actions, QAM, PA-RL,
QVPO and DIPO, against float64 numpy that is written from the papers' equations.

Slopes are central differences in numpy. Samplers and denoisers, tested elsewhere, are taken as they are; what goes in and what becomes of
their samples is worked out here. Gradients are read off the first moments of Adam.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import first_gradient
from scipy.special import logsumexp

from expo_bench.agents import dipo, pa_rl, qam_e, qvpo
from expo_bench.agents.base import Spec
from expo_bench.parts import adjoint, ascent, base_policy, candidates, critics
from expo_bench.parts.replay import Batch

O, A, B, N = 3, 2, 5, 4
SPEC = Spec(obs_size=O, action_size=A, batch_size=B, updates=1)
WHOLE = np.float32([1, 0, 1, 1, 0])
VALID = np.stack([np.ones(B, np.float32), WHOLE], axis=1)  # each of the two dimensions is a step; the second of two rows is beyond the end


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def batches() -> Batch:
    """[U = 1, B]"""
    rng = np.random.default_rng(3)
    normal = lambda *shape: np.float32(rng.standard_normal((1, B, *shape)))
    returns = np.where([[True, False, False, True, False]], -np.inf, normal()).astype(np.float32)
    return Batch(normal(O), np.tanh(normal(A)), normal(), np.float32([[0, 0, 1, 0, 0]]), normal(O), VALID[None], returns)


def away(tree: Any, seed: int) -> Any:
    """Parameters at random places, biases and LayerNorms included."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(np.float32(x + 0.3 * rng.standard_normal(x.shape))), tree)


def moved(state: Any) -> Any:
    """A state of policy and critics none of which is where it starts, nor its average or target where it is."""
    online, base = state.critic.online, state.imitation.base
    critic = critics.Critic(online._replace(params=away(online.params, 1)), away(state.critic.target, 2))
    imitation = base_policy.Imitation(base._replace(params=away(base.params, 3)), away(state.imitation.ema, 4))
    return state._replace(critic=critic, imitation=imitation)


# -- numpy ---------------------------------------------------------------------------------------------------------------------------------


def double(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64 if np.asarray(x).dtype == np.float32 else None), tree)


mish = lambda x: x * np.tanh(np.log1p(np.exp(x)))
swish = lambda x: x / (1 + np.exp(-x))
gelu = lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def mlp(p: dict, x: np.ndarray, activation: Callable, norm_after: bool = False) -> np.ndarray:
    """Dense layers with activation and, where there are parameters of it, LayerNorm before or after that; then a linear output, if any."""
    for i in range(sum(name.startswith("dense") for name in p)):
        x = x @ p[f"dense_{i}"]["kernel"] + p[f"dense_{i}"]["bias"]
        x = activation(x) if norm_after else x
        if f"norm_{i}" in p:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x * p[f"norm_{i}"]["scale"] + p[f"norm_{i}"]["bias"]
        x = x if norm_after else activation(x)
    return x @ p["out"]["kernel"] + p["out"]["bias"] if "out" in p else x


def q_values(p: Any, obs: np.ndarray, action: np.ndarray, activation: Callable, norm_after: bool = False) -> np.ndarray:
    """[K, ...]"""
    p, inputs = double(p), np.concatenate([np.broadcast_to(obs, (*action.shape[:-1], O)), action], axis=-1)
    member = lambda k: jax.tree.map(lambda x: x[k], p)
    return np.stack([mlp(member(k), inputs, activation, norm_after)[..., 0] for k in range(len(jax.tree.leaves(p)[0]))])


def slope(value: Callable, x: np.ndarray) -> np.ndarray:
    """The gradient of value(x [..., A]) [...] by central differences."""
    along = lambda way: (value(x + 1e-5 * way) - value(x - 1e-5 * way)) / 2e-5
    return np.stack([along(way) for way in np.eye(A)], axis=-1)


def check_gradient(loss: Callable, params: Any, gradient: Any, tolerance: float = 2e-4) -> None:
    """Along a random direction, in float64."""
    rng = np.random.default_rng(0)
    way = jax.tree.map(lambda x: rng.standard_normal(x.shape), params)
    along = lambda h: loss(jax.tree.map(lambda p, w: p + h * w, params, way))
    want = sum(np.sum(g * w) for g, w in zip(jax.tree.leaves(gradient), jax.tree.leaves(way), strict=True))
    assert (along(1e-5) - along(-1e-5)) / 2e-5 == pytest.approx(want, rel=tolerance, abs=2e-5)
    assert abs(want) > 1e-3


def td_loss(q: np.ndarray, batch: Batch, next_value: np.ndarray, weight: np.ndarray = WHOLE) -> float:
    y = batch.reward + 0.9 * (1 - batch.terminated) * next_value
    return np.mean(weight * (q - y) ** 2)


# -- adjoint matching ----------------------------------------------------------------------------------------------------------------------


def test_lean_adjoint_is_the_gradient_along_the_slow_flow() -> None:
    """Along the noiseless chain x += h (2 v(x, t + h) - x / (t + h)) itself it is the cost's gradient at each x: finite differences."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        mix, k = rng.normal(size=(A, A)), 5
        velocity = lambda x, t: jnp.tanh(x @ mix + t)
        move = lambda x, i: x + (2 * np.tanh(x @ mix + (i + 1) / k) - x / ((i + 1) / k)) / k
        cost = lambda x: np.sum(np.sin(2 * x), axis=-1)

        def cost_from(i: int, x: np.ndarray) -> np.ndarray:
            for j in range(i, k):
                x = move(x, j)
            return cost(x)

        chain = [rng.normal(size=(B, A))]
        for i in range(k):
            chain.append(move(chain[-1], i))
        last = jnp.asarray(2 * np.cos(2 * chain[-1]))
        got = adjoint.lean_adjoints(velocity, jnp.asarray(np.stack(chain[:-1])), last)
        want = np.stack([slope(lambda x, i=i: cost_from(i, x), chain[i]) for i in range(k)])
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-8)


def test_adjoint_matching_tilts_a_gaussian() -> None:
    """Base N(m, s^2), cost -c x: the tilted density is N(m + c s^2, s^2). The lean adjoint does not depend on x then, and the velocity
    v - sigma^2 a / 2, at which the loss is 0, leads the mean of the noise to the tilted mean."""
    with jax.enable_x64(True):
        m, s, c, k = 0.3, 0.6, 1.5, 2000
        slow = lambda x, t: m + (t * s**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * s**2) * (x - t * m)
        noise = jax.random.normal(jax.random.key(0), (k - 1, 2, 1))
        chain, _ = adjoint.rollout(slow, slow, jnp.zeros((2, 1)), noise)
        a = adjoint.lean_adjoints(slow, chain, jnp.full((2, 1), -c))
        np.testing.assert_allclose(a[:, 0], a[:, 1], rtol=1e-12)

        tilt = lambda x, t, a: slow(x, t) - (adjoint.sigma(t, 1 / k) ** 2) / 2 * a
        euler = lambda x, inputs: (x + tilt(x, *inputs) / k, None)
        mean, _ = jax.lax.scan(euler, jnp.zeros(()), (adjoint.times(k), a[:, 0, 0]))
        assert float(mean) == pytest.approx(m + c * s**2, rel=0.01)
        slow_rows = lambda x, t: slow(x, t[..., None])
        loss = lambda fast: float(adjoint.matching_loss(fast, slow_rows, chain, a))
        assert loss(lambda x, t: tilt(x, t[..., None], a)) < 1e-20 < 1 < loss(slow_rows)


@pytest.mark.parametrize("k", [1, 3])
def test_memoryless_chain_by_hand(k: int) -> None:
    rng = np.random.default_rng(k)
    x0, noise = np.float32(rng.normal(size=(B, A))), np.float32(rng.normal(size=(k - 1, B, A)))
    chain, end = adjoint.rollout(lambda x, t: x / 2 + t, lambda x, t: 1 - x * t, x0, noise)
    x, h = np.float64(x0), 1 / k
    for i in range(k):
        np.testing.assert_allclose(chain[i], x, atol=1e-5)
        t = i / k
        if i == k - 1:
            x = x + h * (1 - x * t)
        else:
            x = x + h * (2 * (x / 2 + t) - x / (t + h)) + np.sqrt(h) * np.sqrt(2 * (1 - t + h) / (t + h)) * noise[i]
    np.testing.assert_allclose(end, x, atol=1e-5)


# -- the ascent ----------------------------------------------------------------------------------------------------------------------------


def test_ascent_keeps_the_best() -> None:
    """On -(a - c)^2 an action is c + (1 - 2 lr)^n (a - c) after n steps: too long steps leave the start the best, good ones the end."""
    centre, start = jnp.array([[0.2, 0.1], [0.0, 0.3]]), jnp.array([[0.3, 0.0], [0.1, 0.2]])
    value = lambda a: -jnp.sum((a - centre) ** 2, axis=-1)
    good = ascent.climb(value, start, optax.sgd(0.1), 3)
    np.testing.assert_allclose(good.last, centre + 0.8**3 * (start - centre), atol=1e-6)
    np.testing.assert_array_equal(good.best, good.last)
    np.testing.assert_allclose(good.value, value(good.last))
    wild = ascent.climb(value, start, optax.sgd(2.5), 9)
    assert np.max(np.abs(wild.last)) == 1  # clipped
    np.testing.assert_array_equal(wild.best, start)
    np.testing.assert_allclose(wild.value, value(start))
    assert np.all(jax.jacobian(lambda a: ascent.climb(value, a, optax.sgd(0.1), 3).last)(start) == 0)


def test_the_top_candidates() -> None:
    proposed, q = jnp.arange(8.0).reshape(1, 4, 2), jnp.array([[3.0, 9.0, -1.0, 4.0]])
    np.testing.assert_array_equal(candidates.top(proposed, q, 2), [[[2, 3], [6, 7]]])
    np.testing.assert_array_equal(candidates.top(proposed, q, 9), [[[2, 3], [6, 7], [0, 1], [4, 5]]])


# -- QAM -----------------------------------------------------------------------------------------------------------------------------------


STEPS, TILT, RHO, BETA, ALPHA = 3, 2.0, 0.7, 0.4, 0.6
QAM = qam_e.Config(
    flow_steps=STEPS,
    hidden=(7, 6),
    critics=3,
    inverse_temperature=TILT,
    pessimism=RHO,
    edit_scale=BETA,
    init_alpha=ALPHA,
    discount=0.9,
    tau=0.25,
)


def velocity(p: Any, obs: np.ndarray, x: np.ndarray, t: float) -> np.ndarray:
    return mlp(p, np.concatenate([obs, x, np.full((*x.shape[:-1], 1), t) if np.ndim(t) == 0 else t], axis=-1), gelu)


def euler(p: Any, obs: np.ndarray, x: np.ndarray) -> np.ndarray:
    for i in range(STEPS):
        x = x + velocity(p, obs, x, i / STEPS) / STEPS
    return np.clip(x, -1, 1)


def edited(p: Any, obs: np.ndarray, action: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """clip(a + beta u) and the log-density of u."""
    x = mlp(p["trunk"], np.concatenate([obs, action], axis=-1), gelu)
    mean, log_std = (x @ p[name]["kernel"] + p[name]["bias"] for name in ("mean", "log_std"))
    u = np.tanh(mean + np.exp(log_std) * noise)
    log_prob = np.sum(-0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - u**2), axis=-1)
    return np.clip(action + BETA * u, -1, 1), log_prob


@pytest.fixture(scope="module")
def qam_step() -> tuple:
    """(state, batch, draws) before a step of QAM-E, and the step as a function of the largest norm of the gradient."""
    agent = qam_e.make(QAM, SPEC)
    state, draws = jit(agent.init)(jax.random.key(0)), agent.draw_pretrain(jax.random.key(1))
    params = away(state.trained.params, 1)._replace(log_alpha=state.trained.params.log_alpha)
    state = state._replace(trained=state.trained._replace(params=params), target=away(state.target, 2))
    batch = jax.tree.map(lambda x: x[0], batches())
    step = jit(lambda clip: qam_e.make(dataclasses.replace(QAM, grad_clip=clip), SPEC).pretrain(state, batch, draws))
    return double(state), double(batch), double(draws), step


def qam_constants(state: Any, batch: Batch, draws: Any) -> tuple:
    """What does not depend on the parameters that a step changes: next value [B], chain and adjoints [K, B, A], actions that are edited."""
    p, target = state.trained.params, state.target
    q = lambda obs, action: q_values(target.critic, obs, action, gelu, True)
    next_action, _ = edited(p.edit, batch.next_obs, euler(p.fast, batch.next_obs, draws.backup.flow.x_init[:, 0]), draws.backup.edit.noise)
    q_next = q(batch.next_obs, next_action)
    chain, x, h = [], draws.x0, 1 / STEPS
    for i in range(STEPS - 1):
        chain.append(x)
        t = i / STEPS
        drift = 2 * velocity(p.fast, batch.obs, x, t) - x / (t + h)
        x = x + h * drift + np.sqrt(h) * np.sqrt(2 * (1 - t + h) / (t + h)) * draws.chain[i]
    chain.append(x)
    x = x + h * velocity(target.slow, batch.obs, x, 1 - h)
    assert np.any(np.abs(x) > 1), "somewhere the cost is flat"
    a, adjoints = -TILT * slope(lambda x: q(batch.obs, np.clip(x, -1, 1)).mean(axis=0), x), []
    for i in reversed(range(STEPS)):
        t = i / STEPS + h
        a = a + h * slope(lambda x, a=a, t=t: np.sum(a * (2 * velocity(target.slow, batch.obs, x, t) - x / t), axis=-1), chain[i])
        adjoints.insert(0, a)
    action = euler(p.fast, batch.obs, draws.edited.flow.x_init[:, 0])
    return q_next.mean(axis=0) - RHO * q_next.std(axis=0), chain, adjoints, action


def qam_losses(state: Any, batch: Batch, draws: Any, constants: tuple) -> dict[str, Callable[[Any], float]]:
    next_value, chain, adjoints, action = constants
    old = state.trained.params

    def imitation(p: Any) -> float:
        x0, t = draws.imitation.noise, draws.imitation.t[:, None]
        error = velocity(p.slow, batch.obs, (1 - t) * x0 + t * batch.action, t) - (batch.action - x0)
        return np.mean(WHOLE[:, None] * error**2)

    def matching(p: Any) -> float:
        total = np.zeros(B)
        for i in range(STEPS):
            sigma = np.sqrt(2 * (1 - i / STEPS + 1 / STEPS) / (i / STEPS + 1 / STEPS))
            v = [velocity(q, batch.obs, chain[i], i / STEPS) for q in (p.fast, state.target.slow)]
            total += np.sum((2 / sigma * (v[0] - v[1]) + sigma * adjoints[i]) ** 2, axis=-1)
        return np.mean(total)

    def actor(p: Any) -> float:
        """Up to the constant by which the density of beta u differs from that of u."""
        final, log_prob = edited(p.edit, batch.obs, action, draws.edited.edit.noise)
        return np.mean(ALPHA * (log_prob - A * np.log(BETA)) - q_values(old.critic, batch.obs, final, gelu, True).mean(axis=0))

    def temperature(p: Any) -> float:
        _, log_prob = edited(old.edit, batch.obs, action, draws.edited.edit.noise)
        return np.exp(p.log_alpha) * (-np.mean(log_prob) + A / 2)

    td = lambda p: td_loss(q_values(p.critic, batch.obs, batch.action, gelu, True), batch, next_value)
    return {"critic_loss": td, "imitation_loss": imitation, "adjoint_loss": matching, "actor_loss": actor, "temperature": temperature}


def test_qam_losses_by_hand(qam_step: tuple) -> None:
    state, batch, draws, step = qam_step
    losses = qam_losses(state, batch, draws, qam_constants(state, batch, draws))
    after, metrics = step(1e9)
    params = state.trained.params
    for name in ("critic_loss", "imitation_loss", "adjoint_loss", "actor_loss"):
        assert metrics[name] == pytest.approx(losses[name](params), rel=1e-4), name
    gradient = first_gradient(after.trained.opt)
    total = lambda p: sum(loss(p) for loss in losses.values())
    for network in params._fields:
        check_gradient(lambda p, n=network: total(params._replace(**{n: p})), getattr(params, network), getattr(gradient, network), 1e-3)
    for name in ("critic", "slow"):
        want = jax.tree.map(lambda t, p: 0.75 * t + 0.25 * p, getattr(state.target, name), getattr(after.trained.params, name))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), getattr(after.target, name), want)


def test_qam_clips_its_joint_gradient(qam_step: tuple) -> None:
    free, clipped = (first_gradient(qam_step[3](clip)[0].trained.opt) for clip in (1e9, 0.5))
    norm = np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in jax.tree.leaves(free)))
    assert norm > 0.5
    jax.tree.map(lambda f, c: np.testing.assert_allclose(c, f * 0.5 / norm, rtol=1e-4, atol=1e-7), free, clipped)


def test_qam_acts_with_an_edited_sample_of_the_fast_flow(qam_step: tuple) -> None:
    state, batch, draws, _ = qam_step
    agent, p = qam_e.make(QAM, SPEC), state.trained.params
    want, _ = edited(p.edit, batch.obs, euler(p.fast, batch.obs, draws.edited.flow.x_init[:, 0]), draws.edited.edit.noise)
    as_float = lambda tree: jax.tree.map(jnp.float32, tree)
    act = jit(jax.vmap(lambda obs, draws: agent.act(as_float(state), obs, draws, explore=True)[0]))
    np.testing.assert_allclose(act(as_float(batch.obs), as_float(draws.edited)), want, atol=1e-5)


# -- PA-RL ---------------------------------------------------------------------------------------------------------------------------------


BASE = {"denoising_steps": 2, "base_hidden": 8, "base_blocks": 1, "time_features": 4}
PA_RL = pa_rl.Config(
    **BASE,
    n_samples=N,
    n_climb=3,
    ascent_steps=3,
    hidden=(7, 6),
    critics=4,
    action_lr=0.05,
    temperature=0.3,
    cql_weight=0.8,
    cql_actions=3,
    base_dropout=0.0,
    discount=0.9,
)


def pa_climbed(p: Any, obs: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best on the way of kept [B, n, A], and their mean Q."""
    q = lambda action: q_values(p, obs[:, None], action, swish).mean(axis=0)
    way = [kept]
    for _ in range(3):
        way.append(np.clip(way[-1] + 0.05 * slope(q, way[-1]), -1, 1))
    values = np.stack([q(action) for action in way])
    return np.take_along_axis(np.stack(way), values.argmax(axis=0)[None, ..., None], axis=0)[0], values.max(axis=0)


def pa_top(p: Any, obs: np.ndarray, samples: np.ndarray, n: int) -> np.ndarray:
    order = np.argsort(-q_values(p, obs[:, None], samples, swish).mean(axis=0), axis=1)[:, :n]
    return np.take_along_axis(samples, order[..., None], axis=1)


def pa_policy(p: Any, obs: np.ndarray, samples: np.ndarray) -> np.ndarray:
    actions, values = pa_climbed(p, obs, pa_top(p, obs, samples, 3))
    return actions[np.arange(B), values.argmax(axis=1)]


def test_pa_rl_by_hand() -> None:
    """All of one call: backup, conservative gap and gradient of the critics, then what the policy imitates under the new critics."""
    agent = pa_rl.make(PA_RL, SPEC)
    state, draws, batch = moved(jit(agent.init)(jax.random.key(0))), agent.draw(jax.random.key(1)), jax.tree.map(lambda x: x[0], batches())
    base = base_policy.make("diffusion", obs_size=O, action_size=A, steps=2, hidden=8, blocks=1, time_features=4, schedule="cosine")
    sample = jit(lambda obs, draws: base.sample(state.imitation.ema, obs, draws))
    after, metrics = jit(agent.learn)(state, batches(), draws)

    params, numbers, c = double(state.critic.online.params), double(batch), double(draws.critic)
    x_init, step_noise = draws.critic.base
    samples = double(sample(jnp.stack([batch.next_obs, batch.obs]), base_policy.SampleDraws(x_init[0], step_noise[:, 0])))
    following, current = pa_policy(params, numbers.next_obs, samples[0]), pa_policy(params, numbers.obs, samples[1])
    next_value = q_values(state.critic.target, numbers.next_obs, following, swish)[c.subset[0]].min(axis=0)

    def gap(p: Any) -> float:
        q = q_values(p, numbers.obs, numbers.action, swish)[c.penalised[0]]
        of = lambda actions: q_values(p, numbers.obs[:, None], actions, swish)[c.penalised[0]]
        floor = numbers.mc_return[:, None]
        policy = np.maximum(of(np.stack([following] * 3 + [current] * 3, axis=1)), floor)  # as often as there are uniform actions
        everything = np.concatenate([of(c.uniform[0]), policy, q[..., None]], axis=-1)
        return np.mean(WHOLE * (logsumexp(everything, axis=-1) - np.log(10) - q))

    td = lambda p: td_loss(q_values(p, numbers.obs, numbers.action, swish), numbers, next_value)
    assert metrics["critic_loss"] == pytest.approx(td(params), rel=1e-4)
    assert metrics["cql_gap"] == pytest.approx(gap(params), rel=1e-4)
    check_gradient(lambda p: td(p) + 0.8 * gap(p), params, first_gradient(after.critic.online.opt))

    new, d = double(after.critic.online.params), double(draws.policy)
    own = double(sample(batch.obs, draws.policy.base))
    kept = np.concatenate([pa_top(new, numbers.obs, own, 2), numbers.action[:, None]], axis=1)
    climbed, values = pa_climbed(new, numbers.obs, kept)
    chosen = np.argmax(values / 0.3 - np.log(-np.log(d.pick)), axis=1)
    assert np.any(chosen != values.argmax(axis=1)), "a draw is not always the best"
    imitated = np.float32(climbed[np.arange(B), chosen])
    loss = lambda p: base.loss(p, batch.obs, imitated, draws.imitation, VALID)
    want, gradient = jit(jax.value_and_grad(loss))(state.imitation.base.params)
    assert metrics["imitation_loss"] == pytest.approx(float(want), rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), first_gradient(after.imitation.base.opt), gradient)

    act = jit(jax.vmap(lambda obs, draws: agent.act(state, obs, draws, explore=True)[0], in_axes=(0, base_policy.SampleDraws(0, 1))))
    np.testing.assert_allclose(act(batch.obs, draws.policy.base), pa_policy(params, numbers.obs, own), atol=1e-5)


# -- QVPO and DIPO -------------------------------------------------------------------------------------------------------------------------


MLP = {"denoising_steps": 3, "time_features": 4, "hidden": (7, 6), "discount": 0.9}
QVPO = qvpo.Config(**MLP, n_samples=2, train_samples=N, uniform_samples=3, entropy_weight=0.3, entropy_decay_steps=10, entropy_floor=0.1)
DIPO = dipo.Config(**MLP, ascent_steps=4, action_lr=0.1, action_clip=0.15)


def policy_of() -> base_policy.BasePolicy:
    sizes = {"obs_size": O, "action_size": A, "steps": 3, "widths": (7, 6), "time_features": 4, "time_widths": (7, 4)}
    return base_policy.diffusion_mlp(**sizes, schedule="cosine", sampler="posterior")


def denoising_errors(policy: base_policy.BasePolicy, params: Any, obs: np.ndarray, action: np.ndarray, draws: Any) -> np.ndarray:
    """|eps(sqrt(alpha_hat) a + sqrt(1 - alpha_hat) eps, t) - eps|^2 with the cosine schedule of three steps -> [rows]."""
    level = np.cos(np.pi / 2 * (np.arange(4) / 3 + 0.008) / 1.008) ** 2
    alpha_hat = np.cumprod(1 - np.minimum(1 - level[1:] / level[:-1], 0.999))[draws.t][:, None]
    noised = np.float32(np.sqrt(alpha_hat) * action + np.sqrt(1 - alpha_hat) * draws.noise)
    return np.sum((np.float64(jit(policy.predict)(params, obs, noised, draws.t)) - draws.noise) ** 2, axis=-1)


q_min = lambda p, obs, action: q_values(p, obs, action, mish).min(axis=0)


def test_qvpo_by_hand() -> None:
    """Twice: while the weight of uniform actions falls, and when it has come to its floor."""
    agent, policy = qvpo.make(QVPO, SPEC), policy_of()
    state, draws, batch = moved(jit(agent.init)(jax.random.key(0))), agent.draw(jax.random.key(2)), jax.tree.map(lambda x: x[0], batches())
    learn = jit(lambda updates: agent.learn(state._replace(updates=updates), batches(), draws))
    falling, fallen = learn(jnp.int32(4)), learn(jnp.int32(9))
    draws, numbers = jax.tree.map(lambda x: np.asarray(x[0]), draws), double(batch)
    sample = jit(policy.sample)
    following = double(sample(state.imitation.ema, batch.next_obs, draws.backup))
    next_value = q_min(state.critic.target, numbers.next_obs[:, None], following).max(axis=1)
    params = double(state.critic.online.params)
    td = td_loss(q_values(params, numbers.obs, numbers.action, mish), numbers, next_value)
    assert falling[1]["critic_loss"] == pytest.approx(td, rel=1e-4)

    own = double(sample(state.imitation.base.params, batch.obs, draws.own))
    q = q_min(falling[0].critic.online.params, numbers.obs[:, None], own)
    best, w = own[np.arange(B), q.argmax(axis=1)], q.max(axis=1) - q.mean(axis=1)
    actions = np.concatenate([best[:, None], draws.uniform], axis=1).reshape(-1, A)
    errors = denoising_errors(policy, state.imitation.base.params, np.repeat(batch.obs, 4, axis=0), actions, draws.imitation)
    for (after, metrics), updates, share in ((falling, 4, 0.3 * (1 - 4 / 10)), (fallen, 9, 0.1)):
        weight = (w[:, None] * np.array([1, share, share, share])).reshape(-1)
        assert metrics["imitation_loss"] == pytest.approx(np.mean(weight * errors), rel=1e-4)
        assert after.updates == updates + 1

    act = jit(jax.vmap(lambda obs, draws: agent.act(state, obs, draws, explore=False)[0], in_axes=(0, base_policy.SampleDraws(0, 1))))
    q = q_min(params, numbers.obs[:, None], own)
    np.testing.assert_allclose(act(batch.obs, draws.own), own[np.arange(B), q.argmax(axis=1)], atol=1e-5)


def test_dipo_by_hand() -> None:
    agent, policy = dipo.make(DIPO, SPEC), policy_of()
    state, draws, batch = moved(jit(agent.init)(jax.random.key(0))), agent.draw(jax.random.key(2)), jax.tree.map(lambda x: x[0], batches())
    after, metrics = jit(agent.learn)(state, batches(), draws)
    draws, numbers, sample = jax.tree.map(lambda x: np.asarray(x[0]), draws), double(batch), jit(policy.sample)
    following = double(sample(state.imitation.ema, batch.next_obs, draws.backup))[:, 0]
    next_value = q_min(state.critic.target, numbers.next_obs, following)
    q = q_values(state.critic.online.params, numbers.obs, numbers.action, mish)
    assert metrics["critic_loss"] == pytest.approx(td_loss(q, numbers, next_value), rel=1e-4)

    action, first, second = numbers.action, 0.0, 0.0
    for n in range(1, 5):  # Adam on all actions together, the norm of their gradient clipped to 0.15 A
        gradient = -slope(lambda a: q_min(after.critic.online.params, numbers.obs, a), action)
        norm = np.sqrt(np.sum(gradient**2))
        assert norm > 0.15 * A
        gradient = gradient * 0.15 * A / norm
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        action = np.clip(action - 0.1 * (first / (1 - 0.9**n)) / (np.sqrt(second / (1 - 0.999**n)) + 1e-5), -1, 1)
    assert np.any(np.abs(action) == 1)
    assert metrics["action_shift"] == pytest.approx(np.mean(np.abs(action - numbers.action)), rel=1e-4)

    params, imitation = state.imitation.base.params, draws.imitation
    loss = jit(lambda p: policy.loss(p, batch.obs, jnp.float32(action), imitation, VALID))(params)
    assert metrics["imitation_loss"] == pytest.approx(float(loss), rel=1e-4)

    quiet = draws.backup._replace(step_noise=np.zeros_like(draws.backup.step_noise))
    act = lambda explore: jit(
        jax.vmap(lambda obs, d: agent.act(state, obs, d, explore=explore)[0], in_axes=(0, base_policy.SampleDraws(0, 1)))
    )(batch.obs, draws.backup)
    np.testing.assert_allclose(act(False), sample(params, batch.obs, quiet)[:, 0], atol=1e-5)
    np.testing.assert_allclose(act(True), sample(params, batch.obs, draws.backup)[:, 0], atol=1e-5)


def test_optimisers_of_dipo_and_qvpo() -> None:
    """Adam's first step is -lr g / (|g| + eps) with the gradient of the released losses, its norm clipped: the policy's loss is a mean over
    dimensions (here a sum), the critics' a sum over critics (here a mean)."""
    parts = dipo.parts_of(dataclasses.replace(DIPO, actor_lr=0.1, critic_lr=0.2, grad_clip=2.0), SPEC)
    gradient = np.array([1e-5, 6.0, -8.0])
    for optimiser, scale, lr in ((parts.optimiser, 1 / A, 0.1), (parts.critic_optimiser, 2, 0.2)):
        g = gradient * scale
        g = g * min(1, 2 / np.linalg.norm(g))
        updates, _ = optimiser.update(jnp.asarray(gradient), optimiser.init(jnp.zeros(3)))
        np.testing.assert_allclose(updates, -lr * g / (np.abs(g) + 1e-5), rtol=1e-4)
