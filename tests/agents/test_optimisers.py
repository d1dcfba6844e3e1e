"""What single recorded steps cannot show of the optimisers: weight decay, the cosine near its end, several steps of Adam."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expo_bench.agents import awac, bc, cal_ql, expo, fql, idql, ifql, iql, load, qc, rebrac, rlpd
from expo_bench.agents.base import Spec
from expo_bench.parts import optim
from expo_bench.parts.replay import Batch

SPEC = Spec(obs_size=3, action_size=2, batch_size=4, updates=1)
BASE = {"base_hidden": 8, "base_blocks": 1, "time_features": 4, "denoising_steps": 2}
CONFIGS = {
    "bc": bc.Config(**BASE),
    "expo": expo.Config(**BASE, n_samples=1, n_edits=1, hidden=(8, 8), edit_hidden=(8, 8), critics=2, critic_subset=1, edit_scale=0.5),
    "idql": idql.Config(**BASE, n_samples=1, hidden=(8, 8), train_base_online=True, base_dropout=0.0),
    "fql": fql.Config(hidden=(8, 8), flow_steps=2),
    "ifql": ifql.Config(hidden=(8, 6), flow_steps=2, n_samples=1),
    "qc": qc.Config(hidden=(8, 8), flow_steps=2, n_samples=1),
    "rlpd": rlpd.Config(hidden=(8, 8), critics=2, critic_subset=1),
    "iql": iql.Config(hidden=(8, 8), actor_decay_steps=1_000_000),
    "awac": awac.Config(hidden=(8, 8)),
    "cal_ql": cal_ql.Config(hidden=(8, 8), n_samples=1, lagrange=True),
    "rebrac": rebrac.Config(hidden=(8, 8), actor_every=1),
}
# The learning rate of every `Trained` in the order of the state's leaves, by its field; and who decays its weights.
RATES = {
    "bc": ("base_lr",),
    "expo": ("base_lr", "edit_lr", "alpha_lr", "critic_lr"),
    "idql": ("base_lr", "critic_lr", "critic_lr"),
    "fql": ("lr",),
    "ifql": ("lr",),
    "qc": ("lr",),
    "rlpd": ("actor_lr", "alpha_lr", "critic_lr"),
    "iql": ("actor_lr", "critic_lr", "critic_lr"),
    "awac": ("actor_lr", "critic_lr"),
    "cal_ql": ("actor_lr", "alpha_lr", "critic_lr", "critic_lr"),  # the last one trains the multiplier
    "rebrac": ("actor_lr", "critic_lr"),
}


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def trained(state: Any) -> list[optim.Trained]:
    is_trained = lambda node: isinstance(node, optim.Trained)
    return [node for node in jax.tree.leaves(state, is_leaf=is_trained) if is_trained(node)]


def with_trained(state: Any, change: Callable[[optim.Trained], optim.Trained]) -> Any:
    is_trained = lambda node: isinstance(node, optim.Trained)
    return jax.tree.map(lambda node: change(node) if is_trained(node) else node, state, is_leaf=is_trained)


@cache
def program(name: str) -> Callable:
    """(traced fields, state, key) -> the state after one learning step on random data; a row of `key` is the data and the draws."""
    module, config = load(name), CONFIGS[name]

    def step(values: dict, state: Any, key: jax.Array) -> Any:
        agent = module.make(dataclasses.replace(config, **values), SPEC)
        data_key, draw_key = jax.random.split(key)
        rows = jax.random.normal(data_key, (1, 4, 9))
        batches = Batch(rows[..., :3], rows[..., 3:5], rows[..., 5], jnp.zeros((1, 4)), rows[..., 6:], mc_return=rows[..., 5])
        if agent.learn is None:
            return agent.pretrain(state, jax.tree.map(lambda x: x[0], batches), agent.draw_pretrain(draw_key))[0]
        return agent.learn(state, batches, agent.draw(draw_key))[0]

    return jit(step)


@cache
def start(name: str) -> Any:
    """An init whose parameters are all well away from 0, biases and LayerNorms included."""
    state = jit(load(name).make(CONFIGS[name], SPEC).init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    away = lambda p: np.float32(rng.choice([-1, 1], p.shape) * (np.abs(p) + rng.uniform(0.2, 0.4, p.shape)))
    return with_trained(state, lambda t: t._replace(params=jax.tree.map(away, t.params)))


def defaults(name: str, **values: float) -> dict[str, float]:
    """All fields that any of these tests moves, so that an agent's tests share one program."""
    moved = {*RATES[name], "weight_decay"} & set(dataclasses.asdict(CONFIGS[name]))
    return {field: np.float32(values.get(field, getattr(CONFIGS[name], field))) for field in sorted(moved)}


@pytest.mark.parametrize("name", ["bc", "expo"])
def test_weight_decay_shrinks_every_parameter_of_the_base_policy_alone(name: str) -> None:
    """A step with decay w differs from one without by exactly -lr w p, in all leaves of the base policy and in no other."""
    state, key = start(name), jax.random.key(1)
    after = {w: program(name)(defaults(name, base_lr=0.01, weight_decay=w), state, key) for w in (0.0, 0.5)}
    (before, *_), (without, *others), (with_decay, *same) = trained(state), trained(after[0.0]), trained(after[0.5])

    def check(p: jax.Array, without: jax.Array, with_decay: jax.Array) -> None:
        np.testing.assert_allclose(np.asarray(with_decay) - np.asarray(without), -0.01 * 0.5 * np.asarray(p), atol=1e-6)

    assert all(np.all(np.abs(p) > 0.1) for p in jax.tree.leaves(before.params))  # so that a leaf without decay is seen
    jax.tree.map(check, before.params, without.params, with_decay.params)
    jax.tree.map(np.testing.assert_array_equal, others, same)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_nothing_but_the_base_policy_decays(name: str) -> None:
    """With second moments so large that Adam stands still, what is left of a step is the decay: by default 1e-4, of the base policy."""
    stand_still = lambda t: t._replace(
        opt=jax.tree.map(lambda s: s._replace(nu=_like(s.nu, 1e30)) if _is_adam(s) else s, t.opt, is_leaf=_is_adam)
    )
    before = start(name)
    after = program(name)(defaults(name, **dict.fromkeys(RATES[name], 1.0)), with_trained(before, stand_still), jax.random.key(1))
    for field, old, new in zip(RATES[name], trained(before), trained(after), strict=True):
        decay = 1e-4 if field == "base_lr" and name in ("bc", "expo") else 0.0
        for p, q in zip(jax.tree.leaves(old.params), jax.tree.leaves(new.params), strict=True):
            np.testing.assert_allclose(np.asarray(q) - np.asarray(p), -decay * np.asarray(p), atol=1e-6 if decay else 0)


@pytest.mark.parametrize("name", ["bc", "expo", "idql_online"])
def test_released_weight_decay_and_schedule(name: str) -> None:
    config = load(name).Config()
    assert (config.weight_decay, config.decay_steps, config.base_lr) == (1e-4, 3_000_000, 3e-4)


def first_step(count: int) -> float:
    """How far Adam goes per learning rate and sign of the gradient, from zero moments at a given count (its bias correction)."""
    return 0.1 / (1 - 0.9 ** (count + 1)) / np.sqrt(0.001 / (1 - 0.999 ** (count + 1)))


@pytest.mark.parametrize("name", ["bc", "expo", "idql", "iql"])
def test_cosine(name: str) -> None:
    """Base and edit policy go along a cosine that ends at 3e6 updates (IDQL's base policy 2e6, IQL's policy as configured), nothing else."""
    horizon = {"bc": 3_000_000, "expo": 3_000_000, "idql": 2_000_000, "iql": 1_000_000}[name]
    assert name == "iql" or load(name).Config().decay_steps == horizon
    counts = np.array([0, horizon // 2, horizon - horizon // 6, horizon, horizon + 1, 2 * horizon], np.int32)
    rates = {field: 0.01 * (i + 1) for i, field in enumerate(dict.fromkeys(RATES[name]))}
    values = defaults(name, **rates, weight_decay=0.0)

    def at(count: jax.Array) -> Any:
        is_count = lambda leaf: leaf.dtype == np.int32
        set_count = lambda t: t._replace(opt=jax.tree.map(lambda leaf: count if is_count(leaf) else leaf, t.opt))
        return program(name)(values, with_trained(start(name), set_count), jax.random.key(1))

    after = jax.vmap(at)(counts)
    for field, old, new in zip(RATES[name], trained(start(name)), trained(after), strict=True):
        largest = lambda o, n: np.abs(np.asarray(n) - np.asarray(o)).reshape(len(counts), -1).max(axis=1)
        moved = jax.tree.leaves(jax.tree.map(largest, old.params, new.params))
        decays = field in ("base_lr", "edit_lr") or (name == "iql" and field == "actor_lr")
        factor = np.array([1, 0.5, (1 + np.cos(5 / 6 * np.pi)) / 2, 0, 0, 0]) if decays else np.ones(len(counts))
        want = rates[field] * factor * np.array([first_step(int(c)) for c in counts])
        np.testing.assert_allclose(np.max(moved, axis=0), want, rtol=1e-4, atol=1e-7, err_msg=field)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_several_steps_against_numpy_adam(name: str) -> None:
    """Five updates on changing data: every parameter follows Adam (b1 0.9, b2 0.999, eps 1e-8, bias-corrected) at its own learning rate.

    The gradients are read off the first moments, of which the recursion g = (m - 0.9 m_before) / 0.1 holds.
    """
    rates = {field: 1e-3 * (i + 1) for i, field in enumerate(dict.fromkeys(RATES[name]))}
    decay = 0.3
    state = start(name)
    states = [state]
    for i in range(5):
        states.append(program(name)(defaults(name, **rates, weight_decay=decay), states[-1], jax.random.key(i)))
    for field, *steps in zip(RATES[name], *(trained(s) for s in states), strict=True):
        weight_decay = decay if field == "base_lr" and hasattr(CONFIGS[name], "weight_decay") else 0.0
        for path in range(len(jax.tree.leaves(steps[0].params))):
            params = [np.asarray(jax.tree.leaves(s.params)[path], np.float64) for s in steps]
            first_moments = [np.asarray(jax.tree.leaves(_adam(s).mu)[path], np.float64) for s in steps]
            p, m, v = params[0], 0.0, 0.0
            for n in range(1, 6):
                g = (first_moments[n] - 0.9 * first_moments[n - 1]) / 0.1
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                p = p - rates[field] * (m / (1 - 0.9**n) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8) + weight_decay * p)
                np.testing.assert_allclose(params[n], p, atol=1e-5, err_msg=f"{field}, step {n}")
            assert np.any(np.abs(p - params[0]) > rates[field]) or not np.any(first_moments[-1])


def _is_adam(node: Any) -> bool:
    return hasattr(node, "mu")


def _adam(node: optim.Trained) -> Any:
    (state,) = [n for n in jax.tree.leaves(node.opt, is_leaf=_is_adam) if _is_adam(n)]
    return state


def _like(tree: Any, value: float) -> Any:
    return jax.tree.map(lambda x: np.full(np.shape(x), value, np.float32), tree)
