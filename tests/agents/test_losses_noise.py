"""Agents that choose the base policy's initial noise: the deterministic sampler, DSRL and FASTER, against numbers worked out in numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import first_gradient
from scipy import stats

from expo_bench import networks
from expo_bench.agents import dsrl, faster
from expo_bench.agents.base import Spec
from expo_bench.parts import actors, base_policy, critics, diffusion, edits, flow
from expo_bench.parts.replay import Batch

SPEC = Spec(obs_size=3, action_size=2, batch_size=4, updates=1)
BASE = {"denoising_steps": 2, "base_hidden": 8, "base_blocks": 1, "time_features": 4}
VALID = np.float32([[1], [0], [1], [1]])  # the second row's action does not belong to its episode
DRIFT = np.array([0.3, -0.2])  # what the base policies here do, whatever the state: the flow's velocity, the diffusion's noise


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def away(tree: Any, seed: int = 0) -> Any:
    """Parameters at random places, biases and LayerNorms included."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(np.float32(x + 0.3 * rng.standard_normal(x.shape))), tree)


def drifting(imitation: base_policy.Imitation) -> base_policy.Imitation:
    """A base policy whose network answers DRIFT."""
    params = imitation.base.params
    params = {**params, "out": {"kernel": jnp.zeros_like(params["out"]["kernel"]), "bias": jnp.asarray(DRIFT, jnp.float32)}}
    return base_policy.Imitation(imitation.base._replace(params=params), params)


def moved(trained: Any, seed: int) -> Any:
    return trained._replace(params=away(trained.params, seed))


def batches() -> Batch:
    """[U = 1, B] transitions."""
    rows = np.random.default_rng(0).standard_normal((1, 4, 9)).astype(np.float32)
    ended = np.float32([[0, 0, 1, 0]])
    return Batch(rows[..., :3], np.tanh(rows[..., 3:5]), rows[..., 5], ended, rows[..., 6:], VALID[None])


# -- numpy in float64, from the papers' equations ------------------------------------------------------------------------------------------


def layers(p: dict, x: np.ndarray, activation: Callable) -> np.ndarray:
    """Dense, LayerNorm where there is one, activation; a last linear layer where there is one."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)
    for i in range(sum(name.startswith("dense") for name in p)):
        x = x @ p[f"dense_{i}"]["kernel"] + p[f"dense_{i}"]["bias"]
        if f"norm_{i}" in p:
            x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
            x = x * p[f"norm_{i}"]["scale"] + p[f"norm_{i}"]["bias"]
        x = activation(x)
    return x @ p["out"]["kernel"] + p["out"]["bias"] if "out" in p else x


def ensemble(p: dict, obs: np.ndarray, action: np.ndarray, activation: Callable) -> np.ndarray:
    """Q_k(s, a) -> [K, ...]."""
    inputs = np.concatenate([np.broadcast_to(obs, (*action.shape[:-1], 3)), action], axis=-1)
    member = lambda k: jax.tree.map(lambda x: x[k], p)
    return np.stack([layers(member(k), inputs, activation)[..., 0] for k in range(len(jax.tree.leaves(p)[0]))])


def tanh_gaussian(p: dict, inputs: np.ndarray, noise: np.ndarray, activation: Callable) -> tuple[np.ndarray, np.ndarray]:
    """u = tanh(x), x ~ N(mean, std), and log pi(u) = log N(x) - sum log(1 - u^2)."""
    x = layers(p["trunk"], inputs, activation)
    mean, log_std = (x @ np.asarray(p[n]["kernel"], np.float64) + np.asarray(p[n]["bias"], np.float64) for n in ("mean", "log_std"))
    std, noise = np.exp(np.clip(log_std, -20, 2)), np.asarray(noise, np.float64)
    u = np.tanh(mean + std * noise)
    return u, np.sum(stats.norm.logpdf(mean + std * noise, mean, std) - np.log(1 - u**2), axis=-1)


relu = lambda x: np.maximum(x, 0)


def check_gradient(loss: Callable, params: Any, gradient: Any) -> None:
    """Along three random directions, what central differences say."""
    leaves, structure = jax.tree.flatten(params)

    def along(way: list[np.ndarray], h: float) -> float:
        return float(loss(jax.tree.unflatten(structure, [p + h * w for p, w in zip(leaves, way, strict=True)])))

    for seed in range(3):
        rng = np.random.default_rng(seed)
        way = [rng.standard_normal(p.shape) for p in leaves]
        slope = sum(np.sum(g * w) for g, w in zip(jax.tree.leaves(gradient), way, strict=True))
        np.testing.assert_allclose((along(way, 1e-6) - along(way, -1e-6)) / 2e-6, slope, rtol=1e-5)
        assert abs(slope) > 1e-3


def alpha_hats(steps: int) -> np.ndarray:
    """alpha_hat_t, t = 1..T, of the variance-preserving schedule in float64."""
    t = np.arange(1, steps + 1)
    return np.cumprod(np.exp(-0.1 / steps - 9.9 * (2 * t - 1) / (2 * steps**2)))


# -- the deterministic sampler -------------------------------------------------------------------------------------------------------------


def test_ddim_by_hand() -> None:
    """Two steps with epsilon(x, t) = x / 2 + t / 10: a row that goes free and one that is clipped after its first step."""
    late, early = alpha_hats(2)[::-1]  # alpha_hat_2 and alpha_hat_1
    x_2 = np.array([[0.3, 0.05], [2.5, 0.1]])
    eps = x_2 / 2 + 0.1
    x_1 = np.sqrt(early) * (x_2 - np.sqrt(1 - late) * eps) / np.sqrt(late) + np.sqrt(1 - early) * eps
    np.testing.assert_array_equal(np.abs(x_1) > 1, [[False, False], [True, False]])
    x_1 = np.clip(x_1, -1, 1)
    want = np.clip((x_1 - np.sqrt(1 - early) * x_1 / 2) / np.sqrt(early), -1, 1)
    epsilon = lambda x, t: x / 2 + t / 10
    got = jit(lambda x: diffusion.sample_ddim(epsilon, diffusion.vp_schedule(2), x))(jnp.asarray(x_2, jnp.float32))
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_ddim_returns_to_the_only_action(steps: int) -> None:
    """With the exact noise of data that is one action, every start ends there."""
    alpha_hat, action = jnp.asarray(alpha_hats(steps), jnp.float32), jnp.array([0.4, -0.7])
    epsilon = lambda x, t: (x - jnp.sqrt(alpha_hat[t]) * action) / jnp.sqrt(1 - alpha_hat[t])
    starts = jax.random.normal(jax.random.key(0), (50, 2)) / 3  # so small that no step is clipped
    got = jit(lambda x: diffusion.sample_ddim(epsilon, diffusion.vp_schedule(steps), x))(starts)
    np.testing.assert_allclose(got, np.broadcast_to(action, got.shape), atol=1e-4)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_decoding_is_a_map_of_state_and_noise(kind: str) -> None:
    """The base policy without noise between its steps is the sampler by itself, row by row, whatever else is in the batch."""
    policy = base_policy.make(kind, obs_size=3, action_size=2, steps=4, hidden=8, blocks=1, time_features=4)
    params = policy.init(jax.random.key(0))
    obs, z = jax.random.normal(jax.random.key(1), (6, 3)), jax.random.normal(jax.random.key(2), (6, 2))
    actions = jit(lambda o, z: base_policy.decode(policy, params, o, z))(obs, z)
    assert actions.shape == (6, 2) and float(jnp.std(actions)) > 0.1
    one_by_one = jit(jax.vmap(lambda o, z: base_policy.decode(policy, params, o, z)))(obs[::-1], z[::-1])[::-1]
    np.testing.assert_allclose(actions, one_by_one, atol=1e-6)
    net = networks.Denoiser(action_size=2, obs_size=3, hidden=8, blocks=1, time_features=4)
    scale = 4 if kind == "flow" else 1
    run = lambda x, t: networks.apply(net, params, obs, x, jnp.float32(t) * scale, method=net.whole)
    by_itself = flow.sample(run, z, 4) if kind == "flow" else diffusion.sample_ddim(run, diffusion.vp_schedule(4), z)
    np.testing.assert_allclose(actions, by_itself, atol=1e-5)


# -- DSRL ----------------------------------------------------------------------------------------------------------------------------------


DSRL = dsrl.Config(**BASE, hidden=(6, 5), critics=3, distill_steps=1, noise_scale=0.7, init_alpha=0.4, discount=0.9)


def dsrl_state(config: dsrl.Config) -> dsrl.DsrlState:
    state = jit(dsrl.make(config, SPEC).init)(jax.random.key(0))
    critic = critics.Critic(moved(state.critic.online, 1), away(state.critic.target, 2))
    actor = state.actor._replace(actor=moved(state.actor.actor, 3))
    return dsrl.DsrlState(drifting(state.imitation), actor, critic, moved(state.noise_critic, 4))


@pytest.mark.parametrize(("aggregate", "entropy"), [("min", True), ("mean", False)])
def test_dsrl_losses_by_hand(aggregate: str, entropy: bool) -> None:
    """All losses of one call: critics and actor before it, then the noise critic towards the critics after it."""
    config = dataclasses.replace(DSRL, q_aggregate=aggregate, backup_entropy=entropy)
    agent, state = dsrl.make(config, SPEC), dsrl_state(config)
    draws, batch = agent.draw(jax.random.key(1)), jax.tree.map(lambda x: x[0], batches())
    after, metrics = jit(agent.learn)(state, batches(), draws)
    over_critics = {"min": np.min, "mean": np.mean}[aggregate]
    flow_of = lambda z: np.clip(z + DRIFT, -1, 1)
    policy = state.actor.actor.params

    next_u, next_log_prob = tanh_gaussian(policy, batch.next_obs, draws.next_noise.noise[0], np.tanh)
    value = over_critics(ensemble(state.critic.target, batch.next_obs, flow_of(0.7 * next_u), np.tanh), axis=0)
    y = batch.reward + 0.9 * (1 - batch.terminated) * (value - 0.4 * next_log_prob * entropy)
    q = ensemble(state.critic.online.params, batch.obs, batch.action, np.tanh)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(VALID[:, 0] * (q - y) ** 2), rtol=1e-4)

    u, log_prob = tanh_gaussian(policy, batch.obs, draws.noise.noise[0], np.tanh)
    q_z = over_critics(ensemble(state.noise_critic.params, batch.obs, 0.7 * u, np.tanh), axis=0)
    np.testing.assert_allclose(metrics["actor_loss"], np.mean(0.4 * log_prob - q_z), rtol=1e-4)
    np.testing.assert_allclose(first_gradient(after.actor.log_alpha.opt), 0.4 * (-np.mean(log_prob) - 0), rtol=1e-4)

    z = np.asarray(draws.z[0])
    decoded = ensemble(after.critic.online.params, batch.obs, flow_of(z), np.tanh)
    distilled = ensemble(state.noise_critic.params, batch.obs, z, np.tanh)
    np.testing.assert_allclose(metrics["distill_loss"], np.mean((distilled - decoded) ** 2), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, after.imitation, state.imitation)  # frozen

    act = jit(lambda s, o, d: agent.act(s, o, d, explore=False)[0])
    noise = jax.tree.map(lambda x: x[0, 0], draws.noise)
    np.testing.assert_allclose(act(state, batch.obs[0], noise), flow_of(0.7 * u[0]), atol=1e-5)
    np.testing.assert_allclose(agent.base_act(state, batch.obs[0], noise), flow_of(np.asarray(noise.noise)), atol=1e-5)


def test_dsrl_gradient_of_the_noise_actor() -> None:
    """Through the noise critic, in float64: along random directions, what finite differences of the actor's loss say."""
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)
        agent, state = dsrl.make(DSRL, SPEC), double(dsrl_state(DSRL))
        draws, inputs = double(agent.draw(jax.random.key(1))), double(jax.tree.map(jnp.asarray, batches()))

        def learn(params: Any) -> tuple:
            soft_actor = state.actor._replace(actor=state.actor.actor._replace(params=params))
            after, metrics = agent.learn(state._replace(actor=soft_actor), inputs, draws)
            return metrics["actor_loss"], after.actor.actor.opt

        learn, params = jit(learn), state.actor.actor.params
        loss, opt = learn(params)
        assert loss.dtype == np.float64
        check_gradient(lambda p: learn(p)[0], params, first_gradient(opt))


def test_dsrl_that_imitates_online() -> None:
    """Noise is mapped by the EMA; critics stand still here, so that the last of five noise critic steps on two batches, the first in turn,
    has a loss that is known."""
    config = dataclasses.replace(DSRL, train_base_online=True, ema_tau=0.5, distill_steps=5, critic_lr=0.0)
    agent, state = dsrl.make(config, SPEC._replace(updates=2)), dsrl_state(config)
    ended = np.zeros((2, 4), np.float32)
    two = jax.tree.map(lambda x: np.concatenate([x, -x]), batches())._replace(valid=None, terminated=ended)
    draws = agent.draw(jax.random.key(1))
    after, metrics = jit(agent.learn)(state, two, draws)
    z = np.asarray(draws.z[4])
    decoded = ensemble(state.critic.online.params, two.obs[0], np.clip(z + DRIFT, -1, 1), np.tanh)
    want = np.mean((ensemble(state.noise_critic.params, two.obs[0], z, np.tanh) - decoded) ** 2)
    np.testing.assert_allclose(metrics["distill_loss"], want, rtol=1e-4)

    before, trained, average = state.imitation.ema, after.imitation.base.params, after.imitation.ema
    assert metrics["imitation_loss"] > 0 and not np.array_equal(before["out"]["bias"], trained["out"]["bias"])
    np.testing.assert_allclose(average["out"]["bias"], (before["out"]["bias"] + trained["out"]["bias"]) / 2, atol=1e-7)
    noise = actors.GaussianDraws(jnp.array([0.1, 0.2]), None)
    only_average = after._replace(imitation=after.imitation._replace(base=None))
    action = agent.act(only_average, two.obs[0, 0], noise, explore=True)[0]
    assert not np.allclose(action, agent.act(state, two.obs[0, 0], noise, explore=True)[0], atol=1e-6)


# -- FASTER --------------------------------------------------------------------------------------------------------------------------------


FASTER = faster.Config(
    **BASE, n_samples=3, hidden=(6, 5), edit_hidden=(6,), critics=5, critic_subset=4, filter_temperature=0.8, edit_scale=0.5, discount=0.9
)


def faster_state(config: faster.Config) -> faster.FasterState:
    state = jit(faster.make(config, SPEC).init)(jax.random.key(0))
    critic = critics.Critic(moved(state.critic.online, 1), away(state.critic.target, 2))
    filter_critic = critics.Critic(moved(state.filter.online, 3), away(state.filter.target, 4))
    edit = state.edit._replace(actor=moved(state.edit.actor, 5))
    return faster.FasterState(drifting(state.imitation), edit, critic, filter_critic)


def denoised(x: np.ndarray) -> np.ndarray:
    """DDIM in two steps with the noise DRIFT."""
    early, late = alpha_hats(2)
    x = np.clip(np.sqrt(early) * (x - np.sqrt(1 - late) * DRIFT) / np.sqrt(late) + np.sqrt(1 - early) * DRIFT, -1, 1)
    return np.clip((x - np.sqrt(1 - early) * DRIFT) / np.sqrt(early), -1, 1)


def proposed(state: Any, obs: np.ndarray, draws: faster.Proposal, temperature: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kept seed [B, A], the two candidates [B, 2, A] and what the M target critics say of them [M, B, 2]."""
    draws = jax.tree.map(lambda x: np.asarray(x, np.float64 if x.dtype == np.float32 else x.dtype), draws)
    score = ensemble(state.filter.target, obs[:, None], draws.seeds, relu)[draws.filter_subset].min(axis=0)
    score = (score - score.mean(axis=1, keepdims=True)) / score.std(axis=1, keepdims=True)
    kept = np.argmax(score / temperature - np.log(-np.log(draws.pick)) if temperature else score, axis=1)
    seed = draws.seeds[np.arange(4), kept]
    sample = denoised(seed)
    edit, _ = tanh_gaussian(state.edit.actor.params, np.concatenate([obs, sample], axis=1), draws.edit.noise[:, 0], relu)
    both = np.stack([sample, np.clip(sample + 0.5 * edit, -1, 1)], axis=1)
    return seed, both, ensemble(state.critic.target, obs[:, None], both, relu)[draws.subset]


def test_faster_losses_by_hand() -> None:
    """Backup, filter critic and edit policy of one call."""
    agent, state = faster.make(FASTER, SPEC), faster_state(FASTER)
    draws, batch = agent.draw(jax.random.key(4)), jax.tree.map(lambda x: x[0], batches())
    after, metrics = jit(agent.learn)(state, batches(), draws)
    seed, both, q = proposed(state, batch.next_obs, jax.tree.map(lambda x: x[0], draws.backup), 0.8)

    chosen = np.argmax(np.minimum(q[0], q[2]), axis=1)
    value = np.minimum(q[1], q[3])[np.arange(4), chosen]
    assert set(chosen) == {0, 1} and np.any(np.abs(both[:, 1]) == 1)
    y = batch.reward + 0.9 * (1 - batch.terminated) * value
    q_now = ensemble(state.critic.online.params, batch.obs, batch.action, relu)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(VALID[:, 0] * (q_now - y) ** 2), rtol=1e-4)

    worth = q.min(axis=0)[:, 0]
    said = ensemble(state.filter.online.params, batch.next_obs, seed, relu)
    np.testing.assert_allclose(metrics["filter_loss"], np.mean((said - worth) ** 2), rtol=1e-4)

    inputs = np.concatenate([batch.obs, batch.action], axis=1)
    edit, log_prob = tanh_gaussian(state.edit.actor.params, inputs, draws.edit.noise, relu)
    edited = np.clip(batch.action + 0.5 * edit, -1, 1)
    q_edited = ensemble(after.critic.online.params, batch.obs, edited, relu).mean(axis=0)
    log_prob = log_prob - 2 * np.log(0.5)
    assert np.any(np.abs(edited) == 1)
    whole = VALID[:, 0] == 1  # an action that does not belong to its episode is not edited
    np.testing.assert_allclose(metrics["actor_loss"], np.mean((log_prob - q_edited)[whole]), rtol=1e-4)
    np.testing.assert_allclose(first_gradient(after.edit.log_alpha.opt), -np.mean(log_prob[whole]) - (-2 / 2), rtol=1e-4)


@pytest.mark.parametrize("explore", [True, False])
def test_faster_acts_by_hand(explore: bool) -> None:
    """A drawn seed to explore, the best in evaluation, for 4 states at once and together with their draws; the minimum of all M selects."""
    agent, state, obs = faster.make(FASTER, SPEC), faster_state(FASTER), batches().obs[0]
    draws = jax.tree.map(lambda x: x[0], agent.draw(jax.random.key(5)).backup)
    _, both, q = proposed(state, obs, draws, 0.8 if explore else 0.0)
    axes = faster.Proposal(0, 0, None, 0, None)
    act = jit(jax.vmap(lambda o, d: agent.act(state, o, d, explore=explore)[0], in_axes=(0, axes)))
    np.testing.assert_allclose(act(obs, draws), both[np.arange(4), np.argmax(q.min(axis=0), axis=1)], atol=1e-5)
    others = proposed(state, obs, draws, 0.0 if explore else 0.8)[0]
    assert not np.array_equal(others, proposed(state, obs, draws, 0.8 if explore else 0.0)[0])  # drawing differs from taking the best


def test_edits_differentiate_through_their_clip() -> None:
    """The gradient of the edit loss of FASTER, some edited actions clipped, against finite differences in float64."""
    with jax.enable_x64(True):
        policy = edits.make(obs_size=3, action_size=2, widths=(5,), scale=0.5, clip=True)
        params = jax.tree.map(lambda p: p.astype(jnp.float64), away(policy.init(jax.random.key(0))))
        rng = np.random.default_rng(0)
        obs, action, noise = rng.standard_normal((6, 3)), rng.uniform(-1, 1, (6, 2)), rng.standard_normal((6, 2))
        edit = lambda p: policy.edited(p, obs, action, actors.GaussianDraws(noise, None))
        loss = jax.jit(lambda p: actors.actor_loss(edit, lambda a: jnp.sum(jnp.sin(3 * a), axis=-1)[None], p, jnp.float64(0.3))[0])
        clipped = np.abs(edit(params)[0]) == 1
        assert 2 <= clipped.sum() <= 10
        check_gradient(loss, params, jax.grad(loss)(params))


def test_a_filter_critic_learns_to_rank_seeds() -> None:
    """Q = -(a - 1/2)^2 in one dimension, given by the data: after a few hundred steps F orders unseen seeds as the critics order the actions
    that they become, at every state, although it has only ever seen the seeds that it kept."""
    spec = Spec(obs_size=3, action_size=1, batch_size=64, updates=4)
    rates = {"critic_lr": 3e-3, "base_lr": 1e-2, "edit_lr": 3e-3}
    base = {"denoising_steps": 5, "base_hidden": 16, "base_blocks": 1, "time_features": 4}
    config = dataclasses.replace(
        FASTER, **rates, **base, n_samples=8, hidden=(32, 32), critics=3, critic_subset=2, tau=0.05, filter_temperature=1.0
    )
    agent = faster.make(config, spec)
    policy = base_policy.make("diffusion", obs_size=3, action_size=1, steps=5, hidden=16, blocks=1, time_features=4)
    critic = critics.ensemble(obs_size=3, action_size=1, members=3, widths=(32, 32))

    def batch(key: jax.Array, *shape: int) -> Batch:
        obs, action = (
            jax.random.uniform(key, (*shape, 3), minval=-1),
            jax.random.uniform(jax.random.fold_in(key, 1), (*shape, 1), minval=-1),
        )
        return Batch(obs, action, -((action[..., 0] - 0.5) ** 2), jnp.ones(shape), obs)

    def pretrain(state: faster.FasterState, key: jax.Array) -> tuple:
        return agent.pretrain(state, batch(key, 64), agent.draw_pretrain(key))[0], None

    def learn(state: faster.FasterState, key: jax.Array) -> tuple:
        return agent.learn(state, batch(key, 4, 64), agent.draw(key))[0], None

    @jit
    def trained(key: jax.Array) -> tuple:
        state, _ = jax.lax.scan(pretrain, agent.init(key), jax.random.split(key, 600))
        state, _ = jax.lax.scan(learn, state, jax.random.split(jax.random.fold_in(key, 1), 100))
        obs, seeds = batch(jax.random.fold_in(key, 2), 20).obs[:, None], jax.random.normal(jax.random.fold_in(key, 3), (20, 50, 1))
        actions = base_policy.decode(policy, state.imitation.base.params, jnp.broadcast_to(obs, (20, 50, 3)), seeds)
        score = lambda params, x: jnp.min(critic.values(params, obs, x), axis=0)
        return score(state.filter.target, seeds), score(state.critic.target, actions), actions

    said, worth, actions = trained(jax.random.key(0))
    assert np.std(actions) > 0.2  # seeds do become different actions
    order = [stats.spearmanr(f, q).statistic for f, q in zip(np.asarray(said), np.asarray(worth), strict=True)]
    assert np.min(order) > 0.8, order
    kept = np.take_along_axis(np.asarray(worth), np.argmax(said, axis=1)[:, None], axis=1)[:, 0]
    assert np.all(np.mean(worth, axis=1) < kept) and np.mean(np.max(worth, axis=1) - kept) < 0.1 * np.mean(
        np.max(worth, axis=1) - np.mean(worth, axis=1)
    )
