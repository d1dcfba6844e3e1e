"""Agents that send the value's gradient into a diffusion policy (Diffusion-QL, QSM, DAC), their denoiser, schedules and samplers, against
float64 numpy that is written from the papers' equations, on single steps and on windows of two.

Gradients, read off the first moments of Adam or taken in x64, are held against central differences of the numpy losses in which the TD target
and the direction of guidance are constants.
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
from golden import first_gradient

from expo_bench.agents import dac, diffusion_ql, qsm
from expo_bench.agents.base import Spec
from expo_bench.parts import base_policy, critics, diffusion, optim
from expo_bench.parts.replay import Batch

O, A, B, K, T, FEATURES = 3, 2, 6, 3, 3, 4
SMALL = {"base_hidden": 6, "time_features": FEATURES, "hidden": (6, 5), "critics": K, "denoising_steps": T, "discount": 0.9}
FREE = 1e6  # a norm at which no gradient is clipped


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def away(tree: Any, seed: int, by: float = 0.4) -> Any:
    """Parameters at random places, biases included."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.float32(x + rng.uniform(-by, by, x.shape)), tree)


def double(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64 if np.asarray(x).dtype == np.float32 else np.asarray(x).dtype), tree)


# -- the equations in numpy ----------------------------------------------------------------------------------------------------------------


relu = lambda x: np.maximum(x, 0)
mish = lambda x: x * np.tanh(np.log1p(np.exp(x)))


def mlp(p: dict, x: np.ndarray, activation: Callable) -> np.ndarray:
    for i in range(len(p) - 1):
        x = activation(x @ p[f"dense_{i}"]["kernel"] + p[f"dense_{i}"]["bias"])
    return x @ p["out"]["kernel"] + p["out"]["bias"]


def predicted_noise(p: dict, obs: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """epsilon(s, a_t, t): cos and sin of t, a mish layer on them, then mish layers on everything; rows [B]."""
    rates = 2 * np.pi * p["frequencies"][:, 0] if "frequencies" in p else 10_000.0 ** -(np.arange(FEATURES // 2) / (FEATURES // 2 - 1))
    angle = np.float64(t)[:, None] * rates
    cond = mlp(p["cond"], np.concatenate([np.cos(angle), np.sin(angle)], axis=1), mish)
    return mlp(p["trunk"], np.concatenate([x, cond, obs], axis=1), mish)


def q_values(p: dict, obs: np.ndarray, action: np.ndarray, activation: Callable = mish) -> np.ndarray:
    """[K, B]"""
    inputs = np.concatenate([obs, action], axis=1)
    return np.stack([mlp(jax.tree.map(lambda x, k=k: x[k], p), inputs, activation)[:, 0] for k in range(K)])


def action_slope(p: dict, obs: np.ndarray, action: np.ndarray, activation: Callable = mish) -> np.ndarray:
    """The gradient of mean_K Q with respect to the action, by central differences -> [B, A]."""
    mean_q = lambda a: q_values(p, obs, a, activation).mean(axis=0)
    ways = np.eye(action.shape[1]) * 1e-5
    return np.stack([(mean_q(action + way) - mean_q(action - way)) / 2e-5 for way in ways], axis=1)


def alpha_hats(steps: int = T) -> np.ndarray:
    """The variance-preserving schedule: the integral of 0.1 + 9.9 u over [0, t / T] is what has been lost."""
    u = np.arange(1, steps + 1) / steps
    return np.exp(-(0.1 * u + 9.9 * u**2 / 2))


def noised(action: np.ndarray, noise: np.ndarray, t: np.ndarray) -> np.ndarray:
    level = alpha_hats()[t][:, None]
    return np.sqrt(level) * action + np.sqrt(1 - level) * noise


def posterior_sample(
    p: dict, obs: np.ndarray, x: np.ndarray, noises: np.ndarray, beta_noise: bool = False, early: Any = None
) -> np.ndarray:
    """Each step draws a_{t-1} from its Gaussian given a_t and the clipped a_0, as a product of two Gaussians in a_{t-1}.

    `early`: other parameters for every step but the last.
    """
    level = np.concatenate([[1.0], alpha_hats()])
    for t, noise in zip(range(T, 0, -1), noises, strict=True):
        epsilon = predicted_noise(early if early and t > 1 else p, obs, x, np.full(len(x), t - 1))
        start = np.clip((x - np.sqrt(1 - level[t]) * epsilon) / np.sqrt(level[t]), -1, 1)
        if t == 1:
            return start
        alpha = level[t] / level[t - 1]
        precision = 1 / (1 - level[t - 1]) + alpha / (1 - alpha)
        mean = (np.sqrt(level[t - 1]) * start / (1 - level[t - 1]) + np.sqrt(alpha) * x / (1 - alpha)) / precision
        x = mean + np.sqrt(1 - alpha if beta_noise else 1 / precision) * noise


def ancestral_sample(p: dict, obs: np.ndarray, x: np.ndarray, noises: np.ndarray, early: Any = None) -> np.ndarray:
    """DDPM's algorithm 2 with every step clipped."""
    level = np.concatenate([[1.0], alpha_hats()])
    for t, noise in zip(range(T, 0, -1), noises, strict=True):
        alpha = level[t] / level[t - 1]
        epsilon = predicted_noise(early if early and t > 1 else p, obs, x, np.full(len(x), t - 1))
        x = (x - (1 - alpha) / np.sqrt(1 - level[t]) * epsilon) / np.sqrt(alpha) + (t > 1) * np.sqrt(1 - alpha) * noise
        x = np.clip(x, -1, 1)
    return x


def each_sample(sampler: Callable, p: dict, obs: np.ndarray, draws: base_policy.SampleDraws, **kwargs: Any) -> np.ndarray:
    """[B, N, A], sample by sample."""
    draws = double(draws)
    count = draws.x_init.shape[1]
    return np.stack([sampler(p, obs, draws.x_init[:, n], draws.step_noise[:, :, n], **kwargs) for n in range(count)], axis=1)


def slopes(loss: Callable[[Any], float], params: Any, gradient: Any) -> tuple[list[float], list[float]]:
    """Along two random directions: central differences of the loss, and what the gradient says."""
    differences, products = [], []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        way = jax.tree.map(lambda x, rng=rng: rng.normal(size=x.shape), params)
        moved = lambda h, way=way: jax.tree.map(lambda x, w: x + h * w, params, way)
        differences.append((loss(moved(1e-5)) - loss(moved(-1e-5))) / 2e-5)
        products.append(sum(jax.tree.leaves(jax.tree.map(lambda g, w: np.sum(np.float64(g) * w), gradient, way))))
    return differences, products


def check_slope(loss: Callable[[Any], float], params: Any, gradient: Any, rel: float = 1e-3) -> None:
    want, got = slopes(loss, params, gradient)
    assert np.max(np.abs(want)) > 1e-2
    np.testing.assert_allclose(got, want, atol=rel * np.max(np.abs(want)))


# -- schedules, denoiser, samplers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [5, 20])
def test_cosine_schedule(steps: int) -> None:
    """alpha_hat_t = f(t) / f(0), f(t) = cos^2(pi / 2 (t / T + s) / (1 + s)), but the last step keeps a thousandth of the signal's power."""
    f = np.cos(np.pi / 2 * (np.arange(steps + 1) / steps + 0.008) / 1.008) ** 2
    got = diffusion.cosine_schedule(steps)
    np.testing.assert_allclose(got.alpha_hat[:-1], (f / f[0])[1:-1], rtol=1e-5)
    np.testing.assert_allclose(got.beta[-1], 0.999, rtol=1e-6)
    np.testing.assert_allclose(got.alpha_hat[-1], 0.001 * f[-2] / f[0], rtol=1e-4)
    np.testing.assert_allclose(got.alpha, 1 - got.beta, atol=1e-6)
    np.testing.assert_allclose(diffusion.vp_schedule(steps).alpha_hat, alpha_hats(steps), rtol=1e-5)


def policy_of(sampler: str = "posterior", learnt_time: bool = False, **kwargs: Any) -> base_policy.BasePolicy:
    return base_policy.diffusion_mlp(
        obs_size=O,
        action_size=A,
        steps=T,
        widths=(6, 5, 6),
        time_features=FEATURES,
        time_widths=(7, 3),
        sampler=sampler,
        learnt_time=learnt_time,
        **kwargs,
    )


def inputs(sampler: str = "posterior", n: int = 4) -> tuple[np.ndarray, base_policy.SampleDraws]:
    """States and what four samples of each start from; for the ancestral sampler so small that not all of them end clipped."""
    rng, scale = np.random.default_rng(0), 0.3 if sampler == "ancestral" else 1.0
    normal = lambda *shape: np.float32(rng.normal(size=shape))
    return normal(B, O), base_policy.SampleDraws(scale * normal(B, n, A), scale * normal(T, B, n, A))


@pytest.mark.parametrize("learnt_time", [False, True])
def test_denoiser_and_its_loss_by_hand(learnt_time: bool) -> None:
    """One prediction per row, and many actions of a state at a common time; weights of action dimensions."""
    policy, (obs, _) = policy_of(learnt_time=learnt_time), inputs()
    params, rng = away(policy.init(jax.random.key(0)), 1), np.random.default_rng(2)
    x, noise, t = np.tanh(rng.normal(size=(B, A))), rng.normal(size=(B, A)), np.arange(B, dtype=np.int32) % T
    weight = np.float32(rng.uniform(size=(B, A)) > 0.3)

    @jit
    def compute(params: Any, x: jax.Array) -> tuple:
        many = policy.predict(params, obs[:, None], jnp.stack([x, -x], axis=1), jnp.int32(2))
        draws = base_policy.LossDraws(noise, t, None)
        losses = [policy.loss(params, obs, x, draws), policy.loss(params, obs, x, draws, weight)]
        return policy.predict(params, obs, x, t), many, losses

    got, many, losses = compute(params, x)
    params, obs = double(params), np.float64(obs)
    np.testing.assert_allclose(got, predicted_noise(params, obs, x, t), atol=1e-5)
    late = np.full(B, 2)
    np.testing.assert_allclose(many, np.stack([predicted_noise(params, obs, a, late) for a in (x, -x)], axis=1), atol=1e-5)
    error = (predicted_noise(params, obs, noised(x, noise, t), t) - noise) ** 2
    np.testing.assert_allclose(losses, [error.sum(axis=1).mean(), (weight * error).sum(axis=1).mean()], rtol=1e-5)


@pytest.mark.parametrize("sampler", ["posterior", "posterior_beta", "ancestral"])
def test_samplers_by_hand(sampler: str) -> None:
    """Some actions are clipped, some are not; a block of rows at a time gives the same as all at once."""
    policy, blocks, (obs, draws) = policy_of(sampler), policy_of(sampler, rows=8), inputs(sampler)
    params = away(policy.init(jax.random.key(0)), 1, 0.2)
    got, in_blocks = jit(lambda p: (policy.sample(p, obs, draws), blocks.sample(p, obs, draws)))(params)
    by_hand = ancestral_sample if sampler == "ancestral" else posterior_sample
    kwargs = {"beta_noise": True} if sampler == "posterior_beta" else {}
    want = each_sample(by_hand, double(params), np.float64(obs), draws, **kwargs)
    assert 2 <= np.sum(np.abs(want) == 1) <= want.size - 6
    np.testing.assert_allclose(got, want, atol=2e-5)
    np.testing.assert_allclose(in_blocks, got, atol=1e-5)
    if kwargs:
        assert np.abs(want - each_sample(by_hand, double(params), np.float64(obs), draws)).max() > 0.05


@pytest.mark.parametrize("sampler", ["posterior", "ancestral"])
def test_the_values_gradient_runs_through_the_whole_chain(sampler: str) -> None:
    """mean Q(s, a_0(theta)) in x64 against central differences of the numpy chain; the gradient of the last step alone is another."""
    with jax.enable_x64(True):
        policy, (obs, draws) = policy_of(sampler), inputs(sampler)
        critic = critics.ensemble(obs_size=O, action_size=A, members=K, widths=(6, 5), norm="none", activation=jax.nn.mish)
        params, q_params = double(away(policy.init(jax.random.key(0)), 1, 0.2)), double(away(critic.init(jax.random.key(1)), 2))
        obs, draws = np.float64(obs), double(draws)
        value = lambda actions: jnp.mean(critic.values(q_params, obs[:, None], actions))
        got = jit(jax.grad(lambda p: value(policy.sample(p, obs, draws))))(params)
    by_hand = ancestral_sample if sampler == "ancestral" else posterior_sample

    def in_numpy(p: Any, early: Any = None) -> float:
        samples = each_sample(by_hand, p, obs, draws, early=early)
        return np.mean([q_values(q_params, obs, samples[:, n]) for n in range(samples.shape[1])])

    check_slope(in_numpy, params, got, rel=1e-5)
    of_last_step, of_chain = slopes(lambda p: in_numpy(p, early=params), params, got)
    assert np.all(np.abs(np.subtract(of_last_step, of_chain)) > 0.05 * np.abs(of_chain))


def test_a_target_that_moves_now_and_then() -> None:
    moves = [float(optim.every(jnp.int32(n), 5, 12, jnp.float32(0.5))) for n in range(22)]
    assert [n for n, tau in enumerate(moves) if tau] == [15, 20] and set(moves) == {0.0, 0.5}


# -- a batch, and agents away from their init ----------------------------------------------------------------------------------------------


class Case:
    """A state away from init, with an EMA and target critics of their own, a batch and its draws; `doubles` are those in float64."""

    def __init__(self, module: Any, chunk: int, **values: Any) -> None:
        self.size, rng = A * chunk, np.random.default_rng(10 + chunk)
        config, spec = module.Config(**{**SMALL, **values}), Spec(O, self.size, B, 1)
        self.agent = agent = module.make(config, spec)
        state = jit(agent.init)(jax.random.key(0))
        trained, seed = lambda x, s: x._replace(params=away(x.params, s)), 20
        critic = critics.Critic(trained(state.critic.online, seed), away(state.critic.target, seed + 1))
        if module is qsm:
            actor = trained(state.actor, seed + 2)
        else:
            actor = base_policy.Imitation(trained(state.actor.base, seed + 2), away(state.actor.ema, seed + 3))
        self.state = state._replace(actor=actor, critic=critic)
        normal = lambda *shape: np.float32(rng.normal(size=shape))
        valid = None if chunk == 1 else np.float32([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0], [1, 1]])
        self.batch = Batch(normal(B, O), np.tanh(normal(B, self.size)), normal(B), np.float32([0, 0, 1, 0, 1, 0]), normal(B, O), valid)
        self.online, self.target, self.doubles = double(critic.online.params), double(critic.target), double(self.batch)
        self.row = np.ones(B) if valid is None else np.float64(valid[:, 1])
        self.dims = np.ones((B, self.size)) if valid is None else np.repeat(np.float64(valid), A, axis=1)

        def step(changed: dict[str, Any], *inputs: Any) -> tuple:
            made = module.make(dataclasses.replace(config, **changed), spec)
            return (made.pretrain or made.learn)(*inputs)

        self.step = jit(step)  #  with other values of traced fields

    def td_error(self, next_value: np.ndarray, activation: Callable = mish, params: Any = None) -> float:
        y = self.doubles.reward + 0.9 * (1 - self.doubles.terminated) * next_value
        q = q_values(self.online if params is None else params, self.doubles.obs, self.doubles.action, activation)
        return np.mean(self.row * (q - y) ** 2)

    def per_sample(self, p: dict, samples: np.ndarray, obs: np.ndarray, activation: Callable = mish) -> np.ndarray:
        """Q of actions [B, N, A] -> [K, B, N]."""
        return np.stack([q_values(p, obs, samples[:, n], activation) for n in range(samples.shape[1])], axis=-1)

    def imitation_loss(self, params: Any, draws: base_policy.LossDraws) -> float:
        draws = double(draws)
        x_t = noised(self.doubles.action, draws.noise, draws.t)
        return np.mean(self.dims * (predicted_noise(params, self.doubles.obs, x_t, draws.t) - draws.noise) ** 2)


DQL = {"eta": 0.7, "temperature": 0.5, "n_samples": 5, "backup_samples": 4, "ema_start": 0}
QSM = {"inverse_temperature": 1.5, "action_noise": 0.3}
DAC = {"eta": 0.4, "eta_lr": 0.1, "pessimism": 1.3, "n_samples": 5, "backup_samples": 4, "ema_start": 0}
VARIANTS = {  # of single steps, and of windows
    diffusion_ql: (DQL, {**DQL, "max_q_backup": True}),
    qsm: (QSM, {**QSM, "bc_weight": 0.6}),
    dac: (DAC, {**DAC, "guidance": "hard", "dual_ascent": True, "max_q_backup": True}),
}


@cache
def case(module: Any, chunk: int) -> Case:
    return Case(module, chunk, **VARIANTS[module][chunk - 1])


both = pytest.mark.parametrize("chunk", [1, 2], ids=["single steps", "windows of 2"])


# -- Diffusion-QL --------------------------------------------------------------------------------------------------------------------------


@both
def test_diffusion_ql(chunk: int) -> None:
    """One sample of the EMA is backed up, or each critic's best of four; the actor maximises critic i of after the step over mean |Q_j|."""
    this = case(diffusion_ql, chunk)
    draws = jit(this.agent.draw_pretrain)(jax.random.key(3))
    after, metrics = this.step({"grad_clip": FREE}, this.state, this.batch, draws)
    ema, actor = double(this.state.actor.ema), double(this.state.actor.base.params)
    obs, next_obs = this.doubles.obs, this.doubles.next_obs

    q = this.per_sample(this.target, each_sample(posterior_sample, ema, next_obs, draws.next_action), next_obs)
    value = q.max(axis=-1).min(axis=0)
    assert q.shape[-1] == (4 if chunk == 2 else 1) and (chunk == 1 or np.any(value != q.min(axis=0).max(axis=-1)))
    assert metrics["critic_loss"] == pytest.approx(this.td_error(value), rel=1e-4)
    check_slope(lambda p: this.td_error(value, params=p), this.online, first_gradient(after.critic.online.opt))

    new_critics, (i, j) = double(after.critic.online.params), np.asarray(draws.pair)
    assert i != j

    def losses(p: Any, scale: float | None = None) -> tuple[float, float, float]:
        q = q_values(new_critics, obs, each_sample(posterior_sample, p, obs, draws.action)[:, 0])
        scale = np.mean(np.abs(q[j])) if scale is None else scale
        return this.imitation_loss(p, draws.imitation), -np.mean(q[i]) / scale, scale

    imitation, q_loss, scale = losses(actor)
    assert metrics["imitation_loss"] == pytest.approx(imitation, rel=1e-4) and metrics["q_loss"] == pytest.approx(q_loss, rel=1e-3)
    gradient = first_gradient(after.actor.base.opt)
    check_slope(lambda p: np.dot(losses(p, scale)[:2], [1, 0.7]), actor, gradient)

    want = jax.tree.map(lambda e, p: 0.995 * e + 0.005 * p, ema, double(after.actor.base.params))
    chex.assert_trees_all_close(double(after.actor.ema), want, atol=1e-6)
    if chunk == 1:  # clipped: the actor's gradient at 0.2, that of the sum of K critics' losses too
        clipped, _ = this.step({"grad_clip": 0.2}, this.state, this.batch, draws)
        norm = lambda tree: np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(tree)))
        assert norm(gradient) > 0.2 and K * norm(first_gradient(after.critic.online.opt)) > 0.2
        assert norm(first_gradient(clipped.actor.base.opt)) == pytest.approx(0.2, rel=1e-4)
        assert K * norm(first_gradient(clipped.critic.online.opt)) == pytest.approx(0.2, rel=1e-4)


def test_diffusion_ql_acts_by_a_softmax_of_the_smallest_target_q() -> None:
    this = case(diffusion_ql, 1)
    draws = jit(jax.vmap(lambda key: this.agent.draw_act(key, False)))(jax.random.split(jax.random.key(4), B))
    act = jit(jax.vmap(lambda obs, draws: this.agent.act(this.state, obs, draws, explore=False)[0]))
    got = act(this.batch.obs, draws)
    draws, obs = double(draws), this.doubles.obs
    by_row = base_policy.SampleDraws(draws.samples.x_init, np.moveaxis(draws.samples.step_noise, 1, 0))
    samples = each_sample(posterior_sample, double(this.state.actor.base.params), obs, by_row)
    q = this.per_sample(this.target, samples, obs).min(axis=0)
    chosen = np.argmax(q / 0.5 - np.log(-np.log(draws.pick)), axis=1)  # the Gumbel trick
    assert np.any(chosen != np.argmax(q, axis=1))
    np.testing.assert_allclose(got, samples[np.arange(B), chosen], atol=2e-5)


# -- QSM -----------------------------------------------------------------------------------------------------------------------------------


@both
def test_qsm(chunk: int) -> None:
    """Matching of -M grad Q by critics of after their step, alone or with imitation; noise on the action that is backed up."""
    this, weight = case(qsm, chunk), {1: 0.0, 2: 0.6}[chunk]
    draws = jit(this.agent.draw)(jax.random.key(5))
    batches = jax.tree.map(lambda x: x[None], this.batch)
    after, metrics = this.step({}, this.state, batches, draws)
    draws, actor = double(jax.tree.map(lambda x: x[0], draws)), double(this.state.actor.params)
    obs, next_obs = this.doubles.obs, this.doubles.next_obs

    action = each_sample(ancestral_sample, actor, next_obs, draws.next_action.sample)[:, 0]
    action = np.clip(action + 0.3 * draws.next_action.noise, -1, 1)
    value = q_values(this.target, next_obs, action, relu).min(axis=0)
    assert metrics["critic_loss"] == pytest.approx(this.td_error(value, relu), rel=1e-4)

    x_t = noised(this.doubles.action, draws.matching.noise, draws.matching.t)
    score = 1.5 * action_slope(double(after.critic.online.params), obs, x_t, relu)
    matching = lambda p: np.mean(this.row[:, None] * (predicted_noise(p, obs, x_t, draws.matching.t) + score) ** 2)
    total = lambda p: matching(p) + weight * this.imitation_loss(p, draws.matching)
    assert metrics["score_loss"] == pytest.approx(matching(actor), rel=1e-3)
    assert metrics["imitation_loss"] == pytest.approx(this.imitation_loss(actor, draws.matching), rel=1e-4)
    check_slope(total, actor, first_gradient(after.actor.opt))


def test_qsm_explores_with_noise_and_is_evaluated_without() -> None:
    this = case(qsm, 1)
    draws = jit(jax.vmap(lambda key: this.agent.draw_act(key, True)))(jax.random.split(jax.random.key(6), B))
    act = lambda explore: jit(jax.vmap(lambda obs, draws: this.agent.act(this.state, obs, draws, explore=explore)[0]))(
        this.batch.obs, draws
    )
    by_row = base_policy.SampleDraws(draws.sample.x_init, np.moveaxis(np.asarray(draws.sample.step_noise), 1, 0))
    action = each_sample(ancestral_sample, double(this.state.actor.params), this.doubles.obs, by_row)[:, 0]
    np.testing.assert_allclose(act(False), action, atol=2e-5)
    np.testing.assert_allclose(act(True), np.clip(action + 0.3 * np.float64(draws.noise), -1, 1), atol=2e-5)


# -- DAC -----------------------------------------------------------------------------------------------------------------------------------


@both
def test_dac(chunk: int) -> None:
    """Soft, fixed eta, mean backup on single steps; hard, dual ascent, maximum backup on windows; the lower confidence bound in both."""
    this = case(dac, chunk)
    draws = jit(this.agent.draw_pretrain)(jax.random.key(7))
    after, metrics = this.step({"grad_clip": FREE, "bc_threshold": 0.7}, this.state, this.batch, draws)
    ema, actor = double(this.state.actor.ema), double(this.state.actor.base.params)
    obs, next_obs = this.doubles.obs, this.doubles.next_obs

    q = this.per_sample(this.target, each_sample(posterior_sample, ema, next_obs, draws.next_action, beta_noise=True), next_obs)
    each = q.mean(axis=-1) if chunk == 1 else q.max(axis=-1)
    value = each.mean(axis=0) - 1.3 * np.sqrt(np.mean((each - each.mean(axis=0)) ** 2, axis=0))
    assert metrics["critic_loss"] == pytest.approx(this.td_error(value), rel=1e-4)
    check_slope(lambda p: this.td_error(value, params=p), this.online, first_gradient(after.critic.online.opt))

    target, noise = double(after.critic.target), double(draws.noising)
    x_t = noised(this.doubles.action, noise.noise, noise.t)
    way = action_slope(target, obs, x_t) / np.mean(np.abs(q_values(target, obs, this.doubles.action)))
    way = way * np.sqrt(1 - alpha_hats()[noise.t])[:, None] if chunk == 1 else way
    guidance = lambda p: np.mean(this.row[:, None] * way * predicted_noise(p, obs, x_t, noise.t))
    assert metrics["guidance_loss"] == pytest.approx(guidance(actor), rel=2e-3)
    assert metrics["imitation_loss"] == pytest.approx(this.imitation_loss(actor, draws.noising), rel=1e-4)
    check_slope(lambda p: 0.4 * this.imitation_loss(p, draws.noising) + guidance(p), actor, first_gradient(after.actor.base.opt))

    later = this.imitation_loss(double(after.actor.base.params), draws.noising)
    assert 0.05 < abs(later - 0.7) < 1
    assert after.eta == pytest.approx(0.4 if chunk == 1 else 0.4 + 0.1 * (later - 0.7), rel=1e-4)


def test_dac_acts_with_the_best_of_n_under_the_mean_of_its_target_critics() -> None:
    this = case(dac, 1)
    draws = jit(jax.vmap(lambda key: this.agent.draw_act(key, True)))(jax.random.split(jax.random.key(8), B))
    got = jit(jax.vmap(lambda obs, draws: this.agent.act(this.state, obs, draws, explore=True)[0]))(this.batch.obs, draws)
    by_row = base_policy.SampleDraws(draws.x_init, np.moveaxis(np.asarray(draws.step_noise), 1, 0))
    samples = each_sample(posterior_sample, double(this.state.actor.base.params), this.doubles.obs, by_row, beta_noise=True)
    q = this.per_sample(this.target, samples, this.doubles.obs)
    best = q.mean(axis=0).argmax(axis=1)
    assert np.any(best != q.min(axis=0).argmax(axis=1))
    np.testing.assert_allclose(got, samples[np.arange(B), best], atol=2e-5)


@pytest.mark.parametrize("module", [qsm, dac])
def test_cosine(module: Any) -> None:
    """The policy's learning rate ends at 0 (QSM: 2e6 updates; DAC: 3e6, its critics' too): half of it half-way."""
    this, horizon = case(module, 1), {qsm: 2_000_000, dac: 3_000_000}[module]
    values, key = ({}, "draw") if module is qsm else ({"grad_clip": FREE, "bc_threshold": 0.7}, "draw_pretrain")
    batch = jax.tree.map(lambda x: x[None], this.batch) if module is qsm else this.batch
    draws = jit(getattr(this.agent, key))(jax.random.key(5))

    def moves(count: int) -> list[float]:
        """The largest change of a parameter of policy and critics at that count of updates."""
        state = jax.tree.map(lambda x: np.full_like(x, count) if x.dtype == np.int32 else x, this.state)
        after, _ = this.step(values, state, batch, draws)
        policies = [s.actor if module is qsm else s.actor.base for s in (state, after)]
        pairs = [[t.params for t in policies], [s.critic.online.params for s in (state, after)]]
        return [max(float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, pair), strict=True)) for pair in pairs]

    adam = 3e-4 * 0.1 / np.sqrt(0.001)  # of a first gradient when both bias corrections are over
    critic = [1, 1] if module is qsm else [0.5, 0]
    np.testing.assert_allclose(moves(horizon // 2), [adam * 0.5, adam * critic[0]], rtol=1e-3)
    np.testing.assert_allclose(moves(horizon), [0, adam * critic[1]], rtol=1e-3, atol=1e-9)


def test_dual_ascent_stays_within_its_bounds() -> None:
    """One violation moves eta by at most eta_lr, and never below 0.001."""
    this = case(dac, 2)
    draws = jit(this.agent.draw_pretrain)(jax.random.key(9))
    for threshold, eta, want in ((1e3, 0.4, 0.3), (1e3, 0.05, 0.001), (0.0, 100.0, 100.0)):
        values = {"grad_clip": FREE, "bc_threshold": threshold}
        after, _ = this.step(values, this.state._replace(eta=jnp.float32(eta)), this.batch, draws)
        assert after.eta == pytest.approx(want, rel=1e-5)
