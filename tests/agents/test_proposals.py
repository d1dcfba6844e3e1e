"""Amortised proposals: what is kept, when it is drawn anew, and that the backup is made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import SMALL, Walk, dataset

from expo_bench import Experiment
from expo_bench.agents import expo, qc
from expo_bench.agents.base import Agent, Spec
from expo_bench.config import fields, traced_values
from expo_bench.errors import UserError
from expo_bench.parts import candidates, critics, edits, proposals, replay
from expo_bench.parts.replay import Batch
from expo_bench.protocol import Protocol
from expo_bench.sweeps import grid
from expo_bench.training import loop

SPEC = Spec(obs_size=2, action_size=1, batch_size=8, updates=2, stored=20)
CONFIG = expo.Config(
    n_samples=3,
    n_edits=2,
    denoising_steps=2,
    base_hidden=8,
    base_blocks=1,
    time_features=4,
    hidden=(8,),
    edit_hidden=(8,),
    critics=2,
    critic_subset=2,
)


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


# -- the table -----------------------------------------------------------------------------------------------------------------------------


def numbered(index: np.ndarray) -> Batch:
    """Batches whose next state says which stored transition led to it: [..., 1] = index."""
    obs = jnp.asarray(index, jnp.float32)[..., None]
    return Batch(obs, obs, obs[..., 0], obs[..., 0], obs, next_index=jnp.asarray(index))


@pytest.mark.parametrize("every", [2, 4, 8])
def test_every_kth_row_is_drawn_anew_and_the_others_are_read(every: int) -> None:
    index = np.random.default_rng(every).permutation(30)[:24].reshape(3, 8)
    table = 100.0 + jnp.arange(30.0)[:, None, None] + jnp.zeros((30, 2, 1))
    uniform = jnp.array([0.0, 0.5, 0.999])
    sample = lambda obs: jnp.broadcast_to(-obs[..., None, :], (*obs.shape[:-1], 2, 1))
    after, samples = jit(lambda t: proposals.refreshed(t, numbered(index), every, uniform, sample))(table)
    first = [0, every // 2, every - 1]
    due = np.array([[row % every == first[u] for row in range(8)] for u in range(3)])
    np.testing.assert_array_equal(samples[..., 0, 0], np.where(due, -index, 100 + index))
    expected = 100.0 + np.arange(30)
    expected[index[due]] = -index[due]
    np.testing.assert_array_equal(after[:, 1, 0], expected)


def test_an_entry_that_is_drawn_twice_is_one_states_samples_whole() -> None:
    drawn = jnp.arange(12.0).reshape(4, 3, 1)
    table = proposals.write(jnp.full((5, 3, 1), -1.0), jnp.array([3, 1, 3, 7]), drawn)
    np.testing.assert_array_equal(table[3], drawn[0])
    np.testing.assert_array_equal(table[1], drawn[1])
    assert np.all(np.asarray(table)[[0, 2, 4]] == -1.0)


def test_every_row_of_a_batch_is_drawn_anew_once_in_k_times() -> None:
    batch = numbered(np.tile(np.arange(8), (4000, 1)))
    keep = lambda obs: jnp.ones((*obs.shape[:-1], 1, 1))
    refreshed = jax.vmap(lambda b, u: proposals.refreshed(jnp.zeros((8, 1, 1)), b, 4, u, keep)[0][:, 0, 0])
    share = refreshed(batch, jax.random.uniform(jax.random.key(0), (4000,))).mean(axis=0)
    np.testing.assert_allclose(share, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 4000))


# -- EXPO and Q-chunking -------------------------------------------------------------------------------------------------------------------


def batches(*lead: int, spec: Spec = SPEC) -> Batch:
    o, a = spec.obs_size, spec.action_size
    rows = jax.random.normal(jax.random.key(2), (*lead, 2 * o + a + 1))
    index = jax.random.permutation(jax.random.key(3), spec.stored)[: int(np.prod(lead))].reshape(lead)
    return Batch(rows[..., :o], jnp.tanh(rows[..., o : o + a]), rows[..., -1], jnp.zeros(lead), rows[..., o + a : -1], next_index=index)


def test_k_1_is_the_released_algorithm() -> None:
    """No table, no other draws, and batches that say nothing of an index; test_golden.py has the numbers."""
    key = jax.random.key(0)
    for module, config in ((expo, CONFIG), (qc, qc.Config(n_samples=2, flow_steps=2, hidden=(8,)))):
        agent = module.make(config, SPEC)
        state = jax.eval_shape(agent.init, key)
        draws = jax.eval_shape(agent.draw, key)
        assert agent.keep is None and state.table is None and draws.due is None
        after, _ = jax.eval_shape(agent.learn, state, batches(2, 8)._replace(next_index=None), draws)
        assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.fixture(scope="module")
def kept() -> tuple[Any, Any, Any, Any]:
    """An amortised EXPO, its state with a table of numbers, its batches and draws."""
    agent = expo.make(dataclasses.replace(CONFIG, refresh_every=4), SPEC)
    state = jit(agent.init)(jax.random.key(1))
    table = jax.random.uniform(jax.random.key(4), state.table.shape, minval=-1.0)
    return agent, state._replace(table=table), batches(2, 8), agent.draw(jax.random.key(5))


def test_entries_of_refreshed_rows_alone_change_and_to_what_the_base_policy_drew(kept: tuple) -> None:
    agent, state, batch, draws = kept
    after = jit(agent.learn)(state, batch, draws)[0].table
    rows = np.asarray(replay.index(draws.due, 4))[:, None] + np.array([0, 4])
    index = np.take_along_axis(np.asarray(batch.next_index), rows, axis=1)
    changed = np.flatnonzero(np.any(np.asarray(after != state.table), axis=(1, 2)))
    np.testing.assert_array_equal(changed, np.sort(index.ravel()))
    next_obs = np.take_along_axis(np.asarray(batch.next_obs), rows[..., None], axis=1)
    drawn = agent.keep.sample(state, jnp.asarray(next_obs), draws.backup.base)
    np.testing.assert_allclose(np.asarray(after)[index], drawn, atol=1e-5)


def test_the_backup_is_of_the_kept_samples(kept: tuple) -> None:
    """With critics that stand still, the loss of the last batch by hand: the kept samples, edits of the first two, the best of five, its value."""
    _, state, batches, draws = kept
    frozen = expo.make(dataclasses.replace(CONFIG, refresh_every=4, critic_lr=0.0, tau=0.0), SPEC)
    after, metrics = jit(frozen.learn)(state, batches, draws)

    batch, draws = jax.tree.map(lambda x: x[1], (batches, draws.backup.edit))
    samples = after.table[batch.next_index]
    edit = edits.make(obs_size=2, action_size=1, widths=(8,), scale=CONFIG.edit_scale)
    edited = edits.of_first(edit, state.edit.actor.params, batch.next_obs, samples, draws)
    proposed = jnp.concatenate([samples, edited], axis=-2)
    critic = critics.ensemble(obs_size=2, action_size=1, members=2, widths=(8,))
    q = jnp.min(critic.values(state.critic.target, batch.next_obs[:, None], proposed), axis=0)
    y = batch.reward + CONFIG.discount * jnp.max(q, axis=-1)
    loss = jnp.mean((critic.values(state.critic.online.params, batch.obs, batch.action) - y) ** 2)
    np.testing.assert_allclose(metrics["critic_loss"], loss, rtol=1e-5)


def test_q_chunking_backs_up_the_kept_samples_too() -> None:
    """Critics and flow stand still: the loss of the only batch by hand, every other row beyond its episode's end. Offline nothing is kept."""
    spec = SPEC._replace(updates=1)
    config = qc.Config(n_samples=3, flow_steps=2, hidden=(8,), refresh_every=4, lr=0.0, tau=0.0)
    agent = qc.make(config, spec)
    start = jit(agent.init)(jax.random.key(1))
    state = start._replace(table=jax.random.uniform(jax.random.key(4), start.table.shape, minval=-1.0))
    batch = batches(1, 8, spec=spec)._replace(valid=jnp.tile(jnp.array([1.0, 0.0]), 4).reshape(1, 8, 1))
    after, metrics = jit(agent.learn)(state, batch, jit(agent.draw)(jax.random.key(5)))
    batch = jax.tree.map(lambda x: x[0], batch)
    critic = critics.ensemble(obs_size=2, action_size=1, members=2, widths=(8,), norm="post", activation=jax.nn.gelu)
    values = lambda obs, action: critic.values(state.target, obs, action)
    samples = after.table[batch.next_index]
    action = candidates.best(samples, values(batch.next_obs[:, None], samples).mean(axis=0))
    y = batch.reward + config.discount * values(batch.next_obs, action).mean(axis=0)
    error = batch.valid[:, 0] * (values(batch.obs, batch.action) - y) ** 2
    np.testing.assert_allclose(metrics["critic_loss"], jnp.mean(error), rtol=1e-5)
    assert np.any(after.table != state.table, axis=(1, 2)).sum() == 2

    offline = jit(agent.pretrain)(state, batch._replace(next_index=None), jit(agent.draw_pretrain)(jax.random.key(6)))[0]
    np.testing.assert_array_equal(offline.table, state.table)


# -- in the loop ---------------------------------------------------------------------------------------------------------------------------


class Recorder(NamedTuple):
    """The state of an agent whose samples at a state are that state, and that never draws any anew."""

    table: jax.Array  #  [stored, 1, O]
    wrong: jax.Array  #  [] rows learnt from so far whose samples were not those of their next state


@dataclasses.dataclass(frozen=True)
class Settings:
    from_acting: bool = False


def recorder(config: Settings, spec: Spec) -> Agent:
    def learn(state: Recorder, batches: Batch, draws: None) -> tuple[Recorder, dict]:
        samples = state.table[batches.next_index, 0]
        wrong = jnp.any(samples != batches.next_obs, axis=-1) & (batches.td_weight != 0 if batches.valid is not None else True)
        return state._replace(wrong=state.wrong + jnp.sum(wrong)), {"rows": jnp.float32(wrong.size)}

    return Agent(
        init=lambda key: Recorder(jnp.full((spec.stored, 1, 2), -1.0), jnp.zeros((), jnp.int32)),
        draw_pretrain=None,
        pretrain=None,
        draw=lambda key: None,
        learn=learn,
        draw_act=lambda key, explore: jax.random.uniform(key, (spec.action_size,), minval=-0.9, maxval=0.95),
        act=lambda state, obs, draws, *, explore: (draws, {proposals.DRAWN: obs[None]} if explore else {}),
        value=None,
        keep=proposals.Keeping(lambda tape, shape: None, lambda state, obs, draws: obs[..., None, :], config.from_acting),
    )


PROTOCOL = Protocol(online_steps=60, updates=2, batch_size=8, eval_every=30, eval_episodes=2, num_envs=2)
DATA = dataset()
ROWS = replay.pack(replay.Batch(DATA.obs, DATA.action, DATA.reward, DATA.terminated, DATA.next_obs), DATA.terminated | DATA.truncated)
CLOCK = lambda env_step: loop.Clock(jnp.int32(0), jnp.int32(env_step))


def recorded(protocol: Protocol, from_acting: bool = False) -> tuple[Any, Batch]:
    """The run's state after 30 iterations, and what it stored [60]."""
    env = Walk(horizon=5, blows_up=not from_acting)
    run = loop.make(env, recorder, Settings(from_acting), protocol, len(ROWS))
    state = jit(run.online)(run.init(jnp.int32(0), {}), CLOCK(0), jnp.int32(30), {}, ROWS)[0]
    return state, replay.unpack(state.buffer, 2, 1)


@pytest.mark.parametrize("layout", [{}, {"chunk": 3}, {"chunk": 3, "sampling": "union"}, {"warmup_steps": 10}], ids=str)
def test_everything_that_is_learnt_from_has_samples_of_its_own_next_state(layout: dict) -> None:
    """Offline rows, new rows, windows, also in place of a blow-up, in two environments at once."""
    state, stored = recorded(dataclasses.replace(PROTOCOL, **layout))
    assert int(state.agent.wrong) == 0 and int(state.blowups) > 0
    np.testing.assert_array_equal(state.agent.table[:60, 0], DATA.next_obs)
    np.testing.assert_array_equal(state.agent.table[60:, 0], stored.next_obs)


def test_what_was_drawn_to_act_in_a_state_is_kept_of_it() -> None:
    """Where nobody acted in it, at an episode's end and at the newest step, what was drawn in the state before stands in."""
    state, stored = recorded(PROTOCOL, from_acting=True)
    follows = np.zeros(60, bool)
    follows[:-2] = np.all(np.asarray(stored.next_obs[:-2] == stored.obs[2:]), axis=-1)
    assert 0.5 < follows.mean() < 0.9
    np.testing.assert_array_equal(state.agent.table[60:, 0], np.where(follows[:, None], stored.next_obs, stored.obs))


@pytest.mark.parametrize("from_acting", [False, True])
def test_a_run_with_a_table_may_be_cut_anywhere(from_acting: bool) -> None:
    """EXPO itself: what is kept is part of the run's state, and the offline rows are filled in once."""
    values = {**SMALL, "refresh_every": 4, "proposals_from_acting": from_acting}
    config = expo.Config(**{name: x for name, x in values.items() if name in fields(expo.Config)})
    hyper = {k: jnp.float32(v) for k, v in traced_values(config).items()}
    run = loop.make(Walk(horizon=5), expo.make, config, PROTOCOL, len(ROWS))
    online = jit(run.online)
    start = jit(run.init)(jnp.int32(1), hyper)
    whole, _ = online(start, CLOCK(0), jnp.int32(7), hyper, ROWS)
    part, _ = online(start, CLOCK(0), jnp.int32(3), hyper, ROWS)
    part, _ = online(part, CLOCK(6), jnp.int32(4), hyper, ROWS)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.agent.table.shape == (120, 2, 1)
    assert np.all(np.any(np.asarray(whole.agent.table) != 0, axis=(1, 2)) == (np.arange(120) < 60 + 14))


# -- what is refused -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["expo", "idql_online", "qc"])
def test_wrong_values_are_named(agent: str) -> None:
    def programs(**config: Any) -> Any:
        experiment = Experiment(name="x", tasks=["point-umaze"], methods=[agent], config=config, protocol={"batch_size": 64})
        return grid.programs(experiment, {"point-umaze": None})

    with pytest.raises(UserError, match=rf"^point-umaze, agent '{agent}': refresh_every must divide batch_size \(64\).*; got 3$"):
        programs(refresh_every=3)
    with pytest.raises(UserError, match="refresh_every must be at least 1, got 0"):
        programs(refresh_every=0)
    with pytest.raises(UserError, match="proposals_from_acting needs refresh_every of at least 2"):
        programs(proposals_from_acting=True)
    assert programs(refresh_every=64, proposals_from_acting=True)
    if agent == "expo":
        with pytest.raises(UserError, match="but select_act 'base' draws one"):
            programs(refresh_every=2, proposals_from_acting=True, select_act="base")
