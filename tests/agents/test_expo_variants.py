"""EXPO's variants: each does what its field says, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from expo_bench.agents import expo
from expo_bench.agents.base import Spec
from expo_bench.errors import UserError
from expo_bench.parts import actors, candidates, critics
from expo_bench.parts.replay import Batch

SPEC = Spec(obs_size=2, action_size=1, batch_size=4, updates=2)
CONFIG = expo.Config(
    n_samples=4,
    n_edits=3,
    denoising_steps=2,
    base_hidden=8,
    base_blocks=1,
    time_features=4,
    hidden=(8,),
    edit_hidden=(8,),
    critics=4,
    critic_subset=2,
    edit_scale=0.4,
)
OBS = jnp.array([0.3, -0.8])
KEYS = jax.random.split(jax.random.key(5), 64)


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def variant(**values: Any) -> Any:
    return expo.make(dataclasses.replace(CONFIG, **values), SPEC)


@pytest.fixture(scope="module")
def state() -> expo.ExpoState:
    """Trained by nobody, but with a target network that is not the online one, and critics with an opinion."""
    start = jit(variant().init)(jax.random.key(1))
    louder = jax.tree.map(lambda x: 3.0 * x, start.critic.online.params)
    other = jax.tree.map(lambda x: x[::-1] * -1.0, louder)
    return start._replace(critic=critics.Critic(start.critic.online._replace(params=louder), other))


def acts(state: expo.ExpoState, explore: bool = True, **values: Any) -> tuple[np.ndarray, dict, Any]:
    """The actions under KEYS [64], what the evaluation sees, and the draws."""
    agent = variant(**values)

    def one(key: jax.Array) -> tuple:
        draws = agent.draw_act(key, explore)
        return *agent.act(state, OBS, draws, explore=explore), draws

    action, info, draws = jit(jax.vmap(one))(KEYS)
    return np.asarray(action[:, 0]), info, draws


def proposals(state: expo.ExpoState, draws: Any, **values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Base samples [64, 4] and edits [64, 3] of the max rule's draws, put together from the parts."""
    agent_base = variant(**values, n_edits=3, select_act="base")
    base = jit(jax.vmap(lambda d: agent_base.base_act(state, OBS, d)))
    single = lambda n: jax.tree.map(lambda x: x, draws._replace(base=jax.tree.map(lambda x: x[..., n : n + 1, :], draws.base)))
    samples = np.stack([np.asarray(base(single(n)))[:, 0] for n in range(4)], axis=1)

    policy = actors.tanh_gaussian(input_size=3, action_size=1, widths=(8,))
    first = jnp.asarray(samples[:, :3, None])
    inputs = jnp.concatenate([jnp.broadcast_to(OBS, (64, 3, 2)), first], axis=-1)
    edit = policy.sample(state.edit.actor.params, inputs, draws.edit)[0]
    return samples, np.asarray((first + 0.4 * edit)[..., 0])


def q_min(params: Any, subset: np.ndarray, actions: np.ndarray) -> np.ndarray:
    critic = critics.ensemble(obs_size=2, action_size=1, members=4, widths=(8,))
    q = np.asarray(critic.values(params, jnp.broadcast_to(OBS, (*actions.shape, 2)), jnp.asarray(actions)[..., None]))
    return np.min(np.take_along_axis(q, np.asarray(subset).T[..., None], axis=0), axis=0)


@pytest.mark.parametrize(
    "values, online, active",
    [({}, False, [1] * 7), ({"select_act": "online"}, True, [1] * 7), ({"active_samples": 2.0}, False, [1, 1, 0, 0, 1, 1, 0])],
    ids=["released", "online", "two active samples"],
)
def test_the_maximum_is_taken_under_the_stated_critics_among_the_active_candidates(
    state: Any, values: dict, online: bool, active: list
) -> None:
    action, _, draws = acts(state, **values)
    everything = np.concatenate(proposals(state, draws), axis=1)
    q = q_min(state.critic.online.params if online else state.critic.target, draws.subset, everything)
    best = np.argmax(np.where(active, q, -np.inf), axis=1)
    np.testing.assert_allclose(action, everything[np.arange(64), best], atol=1e-5)
    assert len(set(best)) > 1


def test_edits_alone_never_take_a_base_sample(state: Any) -> None:
    action, _, draws = acts(state, base_candidates=False)
    samples, edits = proposals(state, draws)
    best = np.argmax(q_min(state.critic.target, draws.subset, edits), axis=1)
    np.testing.assert_allclose(action, edits[np.arange(64), best], atol=1e-5)


def test_the_base_rule_takes_one_plain_base_sample(state: Any) -> None:
    action, info, draws = acts(state, explore=False, select_act="base")
    assert draws.base.x_init.shape == (64, 1, 1) and draws.edit is None and info == {}
    alone = variant(select_act="base").base_act
    np.testing.assert_array_equal(action, np.asarray(jit(jax.vmap(lambda d: alone(state, OBS, d)))(draws))[:, 0])


def test_softmax_takes_candidates_in_proportion_to_their_exponentials() -> None:
    q, temperature = np.array([0.0, 0.5, 1.0]), 0.7
    uniform = jax.random.uniform(jax.random.key(0), (20_000, 3))
    taken = jax.vmap(lambda u: candidates.softmax(jnp.arange(3.0)[:, None], jnp.asarray(q), temperature, u))(uniform)
    expected = np.exp(q / temperature) / np.sum(np.exp(q / temperature))
    assert stats.chisquare(np.bincount(np.asarray(taken[:, 0], int)), 20_000 * expected).pvalue > 1e-3
    cold = jax.vmap(lambda u: candidates.softmax(jnp.arange(3.0)[:, None], jnp.asarray(q), 0.0, u))(uniform)
    assert np.all(cold == 2)


def test_a_falling_temperature_ends_at_the_maximum(state: Any) -> None:
    rule = {"select_act": "softmax", "temperature": 1e3, "temperature_decay": 10.0}
    cold, _, draws = acts(state._replace(step=jnp.int32(1000)), **rule)
    everything = np.concatenate(proposals(state, draws), axis=1)
    best = everything[np.arange(64), np.argmax(q_min(state.critic.target, draws.subset, everything), axis=1)]
    np.testing.assert_allclose(cold, best, atol=1e-5)
    hot, *_ = acts(state, **rule)
    assert np.mean(np.abs(hot - best) > 1e-4) > 0.5


def test_double_values_with_critics_that_did_not_select() -> None:
    draws = jax.vmap(variant(select_backup="double").draw)(KEYS)
    both = np.concatenate([draws.backup.subset, draws.value_subset], axis=-1).reshape(-1, 4)
    assert np.all(np.sort(both, axis=-1) == np.arange(4)) and len({tuple(row) for row in both}) > 10
    released = jax.vmap(variant().draw)(KEYS)
    overlap = (np.asarray(released.backup.subset)[..., None] == np.asarray(released.value_subset)[..., None, :]).any(axis=(-1, -2))
    assert 0.5 < overlap.mean() < 1.0  # 5 in 6 pairs of two of four share a member


def learnt(state: Any, batches: Batch, steps: int = 1, **values: Any) -> list[Any]:
    agent = variant(**values)
    learn, out = jit(agent.learn), []
    for i in range(steps):
        state, _ = learn(state, batches, agent.draw(jax.random.key(i)))
        out.append(state)
    return out


@pytest.fixture(scope="module")
def batches() -> Batch:
    rows = jax.random.normal(jax.random.key(2), (2, 4, 7))
    return Batch(rows[..., :2], jnp.tanh(rows[..., 2:3]), rows[..., 3], jnp.zeros((2, 4)), rows[..., 5:])


def test_edit_every_k_steps(state: Any, batches: Batch) -> None:
    states = [state, *learnt(state, batches, steps=5, edit_every=2)]
    same = lambda a, b: all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a.edit), jax.tree.leaves(b.edit), strict=True))
    assert [same(a, b) for a, b in zip(states[:-1], states[1:], strict=True)] == [False, True, False, True, False]
    assert int(states[-1].step) == 5


@pytest.mark.parametrize("edit_on", ["replay", "base"])
def test_what_the_edit_policy_learns_on(state: Any, batches: Batch, edit_on: str) -> None:
    """With frozen critics the batch's actions reach the edit policy through its own loss alone."""
    values = {"edit_on": edit_on, "critic_lr": 0.0}
    moved = batches._replace(action=-batches.action)
    one, two = learnt(state, batches, **values)[0], learnt(state, moved, **values)[0]
    leaves = zip(jax.tree.leaves(one.edit.actor.params), jax.tree.leaves(two.edit.actor.params), strict=True)
    assert all(np.array_equal(a, b) for a, b in leaves) == (edit_on == "base")


def test_what_the_maximum_adds_to_the_estimates() -> None:
    """Two critics, three candidates: the mean is (1, 2, 0); favourites are candidates 1 and 0; each against the other's opinion."""
    q = jnp.array([[0.0, 4.0, 1.0], [2.0, 0.0, -1.0]])
    seen = candidates.examine(q)
    np.testing.assert_allclose(seen["max_gain"], 2.0 - 1.0)
    np.testing.assert_allclose(seen["max_bias"], ((4.0 - 0.0) + (2.0 - 0.0)) / 2)
    among = candidates.examine(q, jnp.array([True, False, True]))
    np.testing.assert_allclose(among["max_gain"], 1.0 - 0.5)
    np.testing.assert_allclose(among["max_bias"], ((1.0 - -1.0) + (2.0 - 0.0)) / 2)
    assert float(candidates.examine(q[:1])["max_bias"]) == 0.0


@pytest.mark.parametrize(
    "values, message",
    [
        ({"select_act": "double"}, "select_act must be one of max, random, base, online, softmax, got 'double'"),
        ({"select_backup": "best"}, "select_backup must be one of"),
        ({"edit_on": "policy"}, "edit_on must be one of replay, base"),
        ({"n_edits": 0, "base_candidates": False}, "without base_candidates there must be edits"),
        ({"select_backup": "double", "critic_subset": 3}, "'double' needs 2 \\* critic_subset <= critics"),
        ({"active_samples": 9.0}, "active_samples must be a whole number up to n_samples"),
        ({"active_samples": 1.5}, "active_samples must be a whole number up to n_samples"),
    ],
)
def test_wrong_values_are_named(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        expo.validate(dataclasses.replace(CONFIG, **values), "agent 'expo'")
