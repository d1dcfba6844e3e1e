"""The run loop on a toy environment: what is stored, sampled, skipped and evaluated, and what makes two runs equal."""

import dataclasses
import functools
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_agent
from toy import SMALL, Walk, dataset

from expo_bench import agents
from expo_bench.agents.base import Agent
from expo_bench.config import fields, traced_values
from expo_bench.parts import replay
from expo_bench.protocol import Protocol
from expo_bench.sweeps.compiled import CPU_OPTIONS
from expo_bench.training import loop, returns, tally
from expo_bench.training.sampling import Offline, Sampler

PROTOCOL = Protocol(offline_steps=10, online_steps=40, updates=2, batch_size=8, eval_every=20, eval_episodes=4)


def packed(data):
    return replay.pack(replay.Batch(data.obs, data.action, data.reward, data.terminated, data.next_obs), data.terminated | data.truncated)


def build(agent="rlpd", protocol=PROTOCOL, env=None, **config):
    module = agents.load(agent)
    settings = {k: v for k, v in {**SMALL, **config}.items() if k in fields(module.Config())}
    return loop.make(env or Walk(), module.make, module.Config(**settings), protocol, 60), module.Config(**settings)


def hyper_of(config, rows=None):
    values = {k: jnp.float32(v) for k, v in traced_values(config).items()}
    return values if rows is None else {k: jnp.full((rows,), v) for k, v in values.items()}


@functools.cache
def as_rows(agent):
    """(run, config, its first state and its online phase over rows, jitted as sweeps do) of an agent, compiled once."""
    run, config = build(agent, dataclasses.replace(PROTOCOL, online_steps=100))
    options = {**CPU_OPTIONS, **({"xla_cpu_use_fusion_emitters": True} if "fusion_emitters" in os.environ["XLA_FLAGS"] else {})}
    online = jax.jit(jax.vmap(run.online, in_axes=(0, None, None, 0, None)), compiler_options=options)
    return run, config, jax.jit(jax.vmap(run.init)), online


def clock(grad_step=0, env_step=0):
    return loop.Clock(jnp.int32(grad_step), jnp.int32(env_step))


@pytest.fixture(scope="module")
def rlpd():
    run, config = build()
    return run, hyper_of(config), jax.jit(run.online), jax.jit(run.init)(jnp.int32(3), hyper_of(config)), packed(dataset())


def test_true_transitions_are_stored_in_order(rlpd):
    run, hyper, online, state, data = rlpd
    state, _ = online(state, clock(), jnp.int32(25), hyper, data)
    rows = replay.unpack(state.buffer[:25], 2, 1)
    assert np.all(np.asarray(state.buffer[25:]) == 0)
    np.testing.assert_allclose(rows.next_obs[:, 0], rows.obs[:, 0] + 0.1 * np.clip(rows.action[:, 0], -1, 1), atol=1e-6)
    np.testing.assert_array_equal(rows.terminated, rows.next_obs[:, 0] >= 1.0)
    same_episode = np.isclose(rows.obs[1:, 0], rows.next_obs[:-1, 0])
    assert same_episode.sum() >= 22, "consecutive rows belong together except at resets"
    assert np.any(~same_episode), "25 steps of a 20-step horizon hold a reset"


def test_a_time_limit_is_stored_without_termination_and_with_its_true_next_observation():
    run, config = build(env=Walk(horizon=3), protocol=dataclasses.replace(PROTOCOL, updates=1))
    hyper = hyper_of(config)
    state, _ = jax.jit(run.online)(run.init(jnp.int32(0), hyper), clock(), jnp.int32(9), hyper, packed(dataset()))
    rows = replay.unpack(state.buffer[:9], 2, 1)
    assert not np.any(rows.terminated)
    np.testing.assert_allclose(rows.next_obs[:, 0], rows.obs[:, 0] + 0.1 * np.clip(rows.action[:, 0], -1, 1), atol=1e-6)
    assert not np.allclose(rows.next_obs[2], rows.obs[3]), "row 3 starts a new episode"


def test_a_run_may_be_cut_into_chunks_anywhere(rlpd):
    run, hyper, online, state, data = rlpd
    whole, _ = online(state, clock(), jnp.int32(20), hyper, data)
    first, _ = online(state, clock(), jnp.int32(7), hyper, data)
    second, _ = online(first, clock(env_step=7), jnp.int32(13), hyper, data)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_reported_of_a_run_does_not_depend_on_its_cuts_either():
    """The linear agent; the sums of a run in one piece, and in pieces of 1, 7 and 12 steps."""
    run = loop.make(Walk(), tiny_agent.make, tiny_agent.Config(), PROTOCOL, 60)
    hyper, data = hyper_of(tiny_agent.Config()), packed(dataset())
    state = run.init(jnp.int32(0), hyper)
    online = jax.jit(run.online)
    zero = run.nothing("online", state, hyper, data)
    whole = online(state, clock(), jnp.int32(20), hyper, data, zero)
    seen, done = zero, 0
    for count in (1, 7, 12):
        state, seen = online(state, clock(env_step=done), jnp.int32(count), hyper, data, seen)
        done += count
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves((state, seen)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(seen.steps) == 20 and int(seen.diverged) == -1


def test_long_sums_lose_nothing_and_the_first_step_that_is_not_finite_is_kept():
    """200,000 times 0.1: a plain float32 sum is off by 3e-3."""
    values = lambda i: {"x": jnp.float32(0.1), "y": jnp.where((i == 17) | (i == 30), jnp.nan, 1.0)}
    add = jax.jit(lambda n: jax.lax.fori_loop(0, n, lambda i, t: tally.add(t, values(i), 100 + i), tally.empty(values(0))))
    total = add(200_000)
    np.testing.assert_allclose(tally.means(jax.tree.map(lambda x: np.asarray(x, np.float64), total))["x"], np.float32(0.1), rtol=1e-9)
    assert int(total.diverged) == 117 and int(add(17).diverged) == -1
    assert np.isnan(tally.means(total)["y"])


def test_seeds_differ_and_repeat(rlpd):
    run, hyper, online, state, data = rlpd
    again, _ = online(jax.jit(run.init)(jnp.int32(3), hyper), clock(), jnp.int32(20), hyper, data)
    once, _ = online(state, clock(), jnp.int32(20), hyper, data)
    other, _ = online(jax.jit(run.init)(jnp.int32(4), hyper), clock(), jnp.int32(20), hyper, data)
    np.testing.assert_array_equal(once.buffer, again.buffer)
    assert not np.allclose(once.buffer, other.buffer)


def test_a_blow_up_is_counted_and_never_learnt_from():
    run, config = build(env=Walk(blows_up=True), protocol=dataclasses.replace(PROTOCOL, warmup_steps=40))
    hyper = hyper_of(config)
    state, _ = jax.jit(run.online)(run.init(jnp.int32(1), hyper), clock(), jnp.int32(40), hyper, packed(dataset()))
    actions = np.asarray(replay.unpack(state.buffer, 2, 1).action)
    assert int(state.blowups) > 0
    assert np.all(actions <= 0.9), "no transition of a blow-up is in the buffer"


def test_warm_up_acts_at_random_and_learns_nothing():
    run, config = build(protocol=dataclasses.replace(PROTOCOL, warmup_steps=30))
    hyper = hyper_of(config)
    start = run.init(jnp.int32(1), hyper)
    online = jax.jit(run.online)
    state, _ = online(start, clock(), jnp.int32(30), hyper, packed(dataset()))
    for a, b in zip(jax.tree.leaves(start.agent), jax.tree.leaves(state.agent), strict=True):
        np.testing.assert_array_equal(a, b)
    actions = np.asarray(replay.unpack(state.buffer[:30], 2, 1).action)
    assert actions.min() < -0.7 and actions.max() > 0.7
    after, _ = online(state, clock(env_step=30), jnp.int32(1), hyper, packed(dataset()))
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(state.agent), jax.tree.leaves(after.agent), strict=True))


@pytest.mark.parametrize("sampling, fraction", [("mixed", 0.5), ("mixed", 0.0), ("mixed", 1.0), ("union", 0.5)])
def test_batches_hold_the_stated_share_of_offline_data(sampling, fraction):
    """An agent that only records its batches: offline rows carry the reward 7, online ones 0."""

    def make(config, spec):
        def learn(state, batches, draws):
            return jnp.sum(batches.reward == 7.0, axis=1).astype(jnp.float32), {"offline": jnp.mean(batches.reward == 7.0)}

        return Agent(
            lambda key: jnp.zeros(PROTOCOL.updates), None, None, lambda key: (), learn, lambda key, explore: (),
            lambda state, obs, draws, explore: (jnp.zeros(1), {}), None,
        )  # fmt: skip

    protocol = dataclasses.replace(PROTOCOL, sampling=sampling, offline_fraction=fraction)
    run = loop.make(Walk(), make, NoConfig(), protocol, 60)
    data = packed(dataclasses.replace(dataset(), reward=np.full(60, 7.0, np.float32)))
    state, seen = jax.jit(run.online)(run.init(jnp.int32(0), {}), clock(), jnp.int32(40), {}, data)
    if sampling == "mixed":
        np.testing.assert_array_equal(state.agent, fraction * PROTOCOL.batch_size)
    else:  # uniform over 60 offline and 1..40 online transitions
        expected = np.mean([60 / (60 + n) for n in range(1, 41)])
        assert abs(float(tally.means(seen)["offline"]) - expected) < 0.08


def test_rewards_are_scaled_and_shifted_in_the_replay_but_not_in_evaluations():
    """A walker that always goes right is paid 1 in its 9th or 10th step: 10 - 5 in the replay, -5 before."""
    protocol = dataclasses.replace(PROTOCOL, reward_scale=10.0, reward_shift=-5.0, updates=1)
    run = loop.make(Walk(), walker, NoConfig(), protocol, 60)
    state, _ = jax.jit(run.online)(run.init(jnp.int32(0), {}), clock(), jnp.int32(20), {}, packed(dataset()))
    reward = np.asarray(replay.unpack(state.buffer[:20], 2, 1).reward)
    assert set(reward) == {-5.0, 5.0} and 2 <= np.sum(reward == 5.0) <= 3
    assert float(jax.jit(run.evaluate)(state, jnp.int32(0), {})["episode_return"]) == 1.0


def test_several_environments_per_row_fill_the_buffer_together():
    run, config = build(protocol=dataclasses.replace(PROTOCOL, num_envs=4, updates=1))
    hyper = hyper_of(config)
    state, _ = jax.jit(run.online)(run.init(jnp.int32(0), hyper), clock(), jnp.int32(5), hyper, packed(dataset()))
    assert np.all(np.any(np.asarray(state.buffer[:20]) != 0, axis=1)) and np.all(np.asarray(state.buffer[20:]) == 0)


def constant(action, state_size):
    """An agent that always acts the same; its state has another shape for every agent."""

    def make(config, spec):
        act = lambda s, obs, d, explore: (jnp.full(1, action), {})
        return Agent(lambda key: jnp.zeros(state_size), None, None, None, None, lambda key, explore: (), act, None)

    return make


@dataclasses.dataclass(frozen=True)
class NoConfig:
    pass


def walker(config, spec):
    """An agent that always goes right and learns nothing, a step at a time."""
    act = lambda state, obs, draws, explore: (jnp.ones(1), {})
    learn = lambda state, batches, draws: (state, {})
    return Agent(lambda key: jnp.zeros(1), None, None, lambda key: (), learn, lambda key, explore: (), act, None)


def test_every_agent_meets_the_same_episodes_at_the_same_evaluation_and_others_at_the_next():
    def returns(state_size, seed, number):
        run = loop.make(Walk(), constant(0.55, state_size), NoConfig(), dataclasses.replace(PROTOCOL, eval_episodes=64), 60)
        return float(run.evaluate(run.init(jnp.int32(seed), {}), jnp.int32(number), {})["episode_length"])

    assert returns(1, 0, 20) == returns(7, 0, 20)
    assert len({returns(1, 0, 20), returns(1, 0, 40), returns(1, 1, 20)}) == 3


def test_evaluation_counts_whole_episodes_and_nothing_after_their_end():
    """A walker that always goes right solves every episode in 10 or 9 steps and is paid once."""
    run = loop.make(Walk(), constant(1.0, 1), NoConfig(), PROTOCOL, 60)
    metrics = jax.jit(run.evaluate)(run.init(jnp.int32(0), {}), jnp.int32(0), {})
    assert float(metrics["success"]) == 1.0 and float(metrics["episode_return"]) == 1.0
    assert 9 <= float(metrics["episode_length"]) <= 10
    assert not bool(metrics["diverged"])


def test_returns_to_go_of_the_data():
    """Two episodes, the first ends by itself, the second by its time limit: the last reward then goes on for ever."""
    reward, terminated, last = (jnp.asarray(x, jnp.float32) for x in ([1, 2, 4, -1, -1], [0, 0, 1, 0, 0], [0, 0, 1, 0, 1]))
    np.testing.assert_allclose(returns.to_go(reward, terminated, last, 0.5), [1 + 1 + 1, 2 + 2, 4, -2, -2], rtol=1e-6)


def test_online_returns_are_filled_in_when_an_episode_ends():
    """Two environments of horizon 3 whose episodes end at different steps; places are interleaved."""
    held = returns.empty(capacity=8, horizon=3, num_envs=2)
    steps = [
        ([1, 5], [0, 0], [0, 0], [1, 1]),
        ([2, 6], [1, 0], [1, 0], [2, 2]),
        ([3, 7], [0, 1], [0, 1], [1, 3]),
        ([4, 8], [0, 0], [0, 1], [2, 1]),
    ]
    for i, (reward, terminated, last, length) in enumerate(steps):
        arrays = (jnp.asarray(x, jnp.float32) for x in (reward, terminated, last))
        held = returns.insert(held, jnp.int32(2 * i), 3, *arrays, jnp.asarray(length), 0.5)
    value = returns.stored_value(held, 3, 2, jnp.arange(8))
    np.testing.assert_allclose(value, [1 + 1, 5 + 3 + 7 / 4, 2, 6 + 7 / 2, -np.inf, 7, -np.inf, 8 / (1 - 0.5)])


class Moves(NamedTuple):
    """What `repeater` remembers."""

    batches: replay.Batch


def repeater(config, spec):
    """An agent that acts with the chunk (0.1, 0.2, ...) and keeps the batches that it was given."""
    shape = (spec.updates, spec.batch_size)
    chunk = spec.action_size
    zeros = replay.Batch(
        jnp.zeros((*shape, 2)), jnp.zeros((*shape, chunk)), jnp.zeros(shape), jnp.zeros(shape), jnp.zeros((*shape, 2)),
        jnp.zeros((*shape, chunk)), jnp.zeros(shape),
    )  # fmt: skip
    act = lambda state, obs, draws, explore: (0.1 * jnp.arange(1.0, chunk + 1), {})
    learn = lambda state, batches, draws: (Moves(batches), {})
    return Agent(lambda key: Moves(zeros), None, None, lambda key: (), learn, lambda key, explore: (), act, None, mc_return=True)


@dataclasses.dataclass(frozen=True)
class Discounted:
    discount: float = 0.5


def test_chunks_are_executed_open_loop_and_learnt_from_as_windows():
    protocol = dataclasses.replace(PROTOCOL, chunk=3, offline_fraction=0.0, batch_size=256, updates=1, online_steps=30)
    run = loop.make(Walk(horizon=7), repeater, Discounted(), protocol, 60)
    state, _ = jax.jit(run.online)(run.init(jnp.int32(0), {}), clock(), jnp.int32(30), {}, packed(dataset()))
    rows = replay.unpack(state.buffer, 2, 1)
    np.testing.assert_allclose(rows.action[:, 0], ([0.1, 0.2, 0.3] * 2 + [0.1]) * 4 + [0.1, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(replay.last(state.buffer, 2, 1), ([0.0] * 6 + [1.0]) * 4 + [0.0] * 2)
    batch = jax.tree.map(lambda x: np.asarray(x[0]), state.agent.batches)
    moved = batch.next_obs[:, 0] - batch.obs[:, 0]
    whole = batch.td_weight > 0
    np.testing.assert_allclose(moved[whole], 0.1 * batch.action[whole].sum(axis=-1), atol=1e-5)
    assert 0.1 < np.mean(~whole) < 0.5, "two windows of seven cross an end"
    assert np.all((batch.valid[:, 1:] <= batch.valid[:, :-1]) & (batch.valid[:, :1] == 1))
    assert np.all((batch.mc_return == 0) | (batch.mc_return == -np.inf)) and np.any(batch.mc_return == 0)
    assert float(jax.jit(run.evaluate)(state, jnp.int32(0), {})["episode_length"]) == 7


@pytest.mark.parametrize("chunk", [1, 2])
def test_what_follows_a_transition_of_the_data(chunk):
    """Episodes of 3, 1 and 4 steps; action i is i / 10. Nothing follows an episode's last step."""
    i, last = np.arange(8.0, dtype=np.float32), np.isin(np.arange(8), (2, 3, 7)).astype(np.float32)
    obs = np.stack([i, i], axis=1)
    rows = replay.pack(replay.Batch(obs, i[:, None] / 10, i, 0 * i, obs), last)
    sampler = Sampler(2, 1, dataclasses.replace(PROTOCOL, batch_size=64, chunk=chunk), 8)
    batch = sampler.offline(jax.random.key(0), Offline(rows, None), jnp.float32(0.9))
    assert batch.next_action.shape == batch.next_action_weight.shape == (64, chunk)
    firsts = np.asarray(batch.obs[:, 0], int)
    for first, after, weight in zip(firsts, batch.next_action, batch.next_action_weight, strict=True):
        places = first + chunk + np.arange(chunk)
        same_episode = [p < 8 and not last[first:p].any() for p in places]
        np.testing.assert_array_equal(weight, same_episode)
        np.testing.assert_allclose(np.asarray(after)[same_episode], places[same_episode] / 10, rtol=1e-6)
    assert set(firsts) == set(range(9 - chunk))


def test_bias_is_the_estimate_less_the_return_that_followed():
    """Right steps reach x >= 1 in 9 or 10 steps for a reward of 1; an agent that estimates 0.25 everywhere."""

    def make(config, spec):
        act = lambda s, obs, d, explore: (jnp.ones(1), {"two": jnp.float32(2)})
        return Agent(lambda key: jnp.zeros(1), None, None, None, None, lambda key, explore: (), act, lambda s, o, a: jnp.float32(0.25))

    run = loop.make(Walk(), make, Discounted(), dataclasses.replace(PROTOCOL, eval_episodes=1), 60)
    metrics = jax.jit(run.evaluate)(run.init(jnp.int32(0), {}), jnp.int32(0), {})
    steps = int(metrics["episode_length"])
    followed = np.mean(0.5 ** np.arange(steps))
    np.testing.assert_allclose(metrics["q_bias"], 0.25 - followed, rtol=1e-5)
    scaled = loop.make(Walk(), make, Discounted(), dataclasses.replace(PROTOCOL, eval_episodes=1, reward_scale=10.0, reward_shift=-5.0), 60)
    to_go = [np.sum(0.5 ** np.arange(n) * np.where(np.arange(n) == n - 1, 5.0, -5.0)) for n in range(1, steps + 1)]
    metrics_scaled = jax.jit(scaled.evaluate)(run.init(jnp.int32(0), {}), jnp.int32(0), {})
    np.testing.assert_allclose(metrics_scaled["q_bias"], 0.25 - np.mean(to_go), rtol=1e-5)
    assert float(metrics["q_value"]) == 0.25 and float(metrics["two"]) == 2.0


def test_a_warm_up_by_the_pretrained_policy():
    """What the agent names as its pretrained policy acts first, then the agent itself."""

    def make(config, spec):
        return walker(config, spec)._replace(base_act=lambda state, obs, draws: jnp.full(1, 0.25))

    protocol = dataclasses.replace(PROTOCOL, warmup_steps=20, warmup="policy")
    run = loop.make(Walk(), make, NoConfig(), protocol, 60)
    state, _ = jax.jit(run.online)(run.init(jnp.int32(1), {}), clock(), jnp.int32(25), {}, packed(dataset()))
    np.testing.assert_array_equal(replay.unpack(state.buffer[:25], 2, 1).action[:, 0], [0.25] * 20 + [1.0] * 5)


def test_a_diverged_row_is_flagged_and_its_neighbours_untouched():
    run, config, init, online = as_rows("rlpd")
    hyper = hyper_of(config, rows=3)
    state = init(jnp.arange(3, dtype=jnp.int32), hyper)
    broken = state._replace(agent=jax.tree.map(lambda x: x.at[0].set(jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x, state.agent))
    after, _ = online(state, clock(), jnp.int32(10), hyper, packed(dataset()))
    after_broken, _ = online(broken, clock(), jnp.int32(10), hyper, packed(dataset()))
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(after_broken), strict=True):
        np.testing.assert_array_equal(a[1:], b[1:])
    evaluate = jax.jit(jax.vmap(run.evaluate, in_axes=(0, None, 0)))
    assert evaluate(after_broken, jnp.int32(10), hyper)["diverged"].tolist() == [True, False, False]


@pytest.mark.parametrize("agent", ["expo", "rlpd"])
def test_a_row_is_bitwise_the_same_beside_other_neighbours_and_close_to_itself_alone(agent):
    _, config, init, online = as_rows(agent)
    data = packed(dataset())

    def train(seeds, lrs):
        hyper = {**hyper_of(config, rows=len(seeds)), "critic_lr": jnp.asarray(lrs, jnp.float32)}
        return online(init(jnp.asarray(seeds, jnp.int32), hyper), clock(), jnp.int32(100), hyper, data)[0]  # 200 updates

    one = train([5, 6, 7], [3e-4, 3e-4, 3e-4])
    two = train([5, 0, 1], [3e-4, 1e-2, 1e-3])
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    if agent == "rlpd":  # to compile EXPO for another number of rows takes long
        alone = train([5], [3e-4])
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(np.asarray(a[0], np.float64), np.asarray(b[0], np.float64), atol=2e-4, rtol=2e-3)


def test_the_second_call_does_not_retrace(rlpd):
    run, hyper, online, state, data = rlpd
    online(state, clock(), jnp.int32(3), hyper, data)
    before = online._cache_size()
    state, _ = online(state, clock(), jnp.int32(4), hyper, data)
    online(state, clock(env_step=4), jnp.int32(5), hyper, data)
    assert online._cache_size() == before
