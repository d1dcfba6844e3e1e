"""Random selection, subsets of critics, dropout, and the replay buffer, as mathematics."""

from __future__ import annotations

import dataclasses
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from expo_bench import networks
from expo_bench.agents import expo
from expo_bench.agents.base import Spec
from expo_bench.parts import actors, base_policy, candidates, critics, flow, optim, replay
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import Tape, bulk

KEYS = jax.random.split(jax.random.key(0), 6000)
SPEC = Spec(obs_size=2, action_size=1, batch_size=4, updates=3)
CONFIG = expo.Config(
    n_samples=3,
    n_edits=1,
    denoising_steps=3,
    base_hidden=8,
    base_blocks=1,
    time_features=4,
    hidden=(8,),
    edit_hidden=(8,),
    critics=2,
    critic_subset=1,
    edit_scale=0.4,
)


@pytest.mark.parametrize("n_edits", [1, 3])
def test_random_selection_is_uniform_over_all_candidates(n_edits: int) -> None:
    """One base sample, edited or not, has the distribution of a uniform choice among N samples and n_edits edits, at a part of the cost."""
    config = dataclasses.replace(CONFIG, n_edits=n_edits, select_act="random")
    agent, obs = expo.make(config, SPEC), jnp.array([0.3, -0.8])
    state = agent.init(jax.random.key(1))
    actor = state.edit.actor.params  # an edit policy that always pushes up: an edit is seen in the action's distribution
    actor = {**actor, "mean": {**actor["mean"], "bias": actor["mean"]["bias"] + 1.5}}
    state = state._replace(edit=state.edit._replace(actor=state.edit.actor._replace(params=actor)))
    base = base_policy.make("diffusion", obs_size=2, action_size=1, steps=3, hidden=8, blocks=1, time_features=4)
    edit = actors.tanh_gaussian(input_size=3, action_size=1, widths=(8,))

    @jax.jit
    @jax.vmap
    def saving(key: jax.Array) -> tuple:
        draws = agent.draw_act(key, True)
        own_sample = base.sample(state.imitation.ema, obs, draws.base)[0]
        return agent.act(state, obs, draws, explore=True)[0], own_sample

    @jax.jit
    @jax.vmap
    def by_the_letter(key: jax.Array) -> jax.Array:
        random_numbers = bulk(lambda tape: (base.draw_samples(tape, (3,)), edit.draw(tape, (n_edits,)), tape.uniform()))
        base_draws, edit_draws, pick = random_numbers(jax.random.fold_in(key, 1))
        samples = base.sample(state.imitation.ema, obs, base_draws)
        inputs = jnp.concatenate([jnp.broadcast_to(obs, (n_edits, 2)), samples[:n_edits]], axis=-1)
        edits = samples[:n_edits] + 0.4 * edit.sample(actor, inputs, edit_draws)[0]
        everything = jnp.concatenate([samples, edits])
        return candidates.take(everything, jnp.floor(pick * (3 + n_edits)).astype(jnp.int32))

    action, own_sample = saving(KEYS)
    is_edit = np.any(np.abs(np.asarray(action - own_sample)) > 1e-5, axis=-1)
    share = n_edits / (3 + n_edits)
    assert abs(is_edit.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(KEYS))
    assert np.all((action - own_sample)[is_edit] <= 0.4 + 1e-6) and np.mean((action - own_sample)[is_edit]) > 0.1
    assert stats.ks_2samp(action[:, 0], by_the_letter(KEYS)[:, 0]).pvalue > 1e-3
    assert stats.ks_2samp(action[:, 0], own_sample[:, 0]).pvalue < 1e-3  # the comparison has the power to see the edits


def test_draws_of_random_selection_hold_what_they_need_alone() -> None:
    """One sample and one edit where the choice is random, N and n_edits where it is the best; no dropout where nothing is trained."""
    config = dataclasses.replace(CONFIG, n_edits=2, select_backup="random", edit_dropout=0.5)
    agent = expo.make(config, SPEC)
    act, learn = agent.draw_act(jax.random.key(0), True), agent.draw(jax.random.key(1))
    assert act.base.x_init.shape == (3, 1) and act.edit.noise.shape == (2, 1) and act.pick is None
    assert learn.backup.base.x_init.shape == (3, 4, 1, 1) and learn.backup.edit.noise.shape == (3, 4, 1, 1)
    assert learn.backup.pick.shape == (3, 4) and learn.backup.subset.shape == (3, 1) and learn.value_subset.shape == (3, 1)
    assert act.edit.masks is None and learn.backup.edit.masks is None and learn.edit.masks[0].shape == (4, 8)


def test_dropout_masks_keep_the_mean() -> None:
    """Kept activations are scaled up; each layer has masks of its own."""
    actor = actors.tanh_gaussian(input_size=3, action_size=1, widths=(64, 32), dropout=0.25)
    masks = bulk(lambda tape: actor.draw(tape, (100,), training=True))(jax.random.key(0)).masks
    assert [m.shape for m in masks] == [(100, 64), (100, 32)]
    for mask in masks:
        np.testing.assert_allclose(np.unique(mask), [0.0, 4 / 3], rtol=1e-6)
        assert abs(float(mask.mean()) - 1) < 0.05
    assert not np.array_equal(masks[0][:, :32], masks[1])


def test_dropout_masks_reach_the_edit_policy() -> None:
    """With every unit of the last layer dropped, mean and log_std are their biases; masks of ones change nothing."""
    actor = actors.tanh_gaussian(input_size=3, action_size=2, widths=(8, 6), dropout=0.5)
    params = jax.tree.map(lambda x: x + 0.1, actor.init(jax.random.key(0)))
    inputs, noise = jax.random.normal(jax.random.key(1), (5, 3)), jax.random.normal(jax.random.key(2), (5, 2))
    plain = actor.sample(params, inputs, actors.GaussianDraws(noise, None))
    kept = actor.sample(params, inputs, actors.GaussianDraws(noise, (jnp.ones((5, 8)), jnp.ones((5, 6)))))
    np.testing.assert_array_equal(plain[0], kept[0])
    dropped = actor.sample(params, inputs, actors.GaussianDraws(noise, (jnp.ones((5, 8)), jnp.zeros((5, 6)))))
    np.testing.assert_allclose(dropped[0], np.tanh(0.1 + np.exp(0.1) * noise), atol=1e-6)
    first = actor.sample(params, inputs, actors.GaussianDraws(noise, (jnp.zeros((5, 8)), jnp.ones((5, 6)))))
    assert not np.allclose(first[0], plain[0]) and not np.allclose(first[0], dropped[0])


def test_dropout_masks_reach_the_base_policy() -> None:
    """Fresh biases are 0: a block whose input is dropped passes its input on."""
    make = lambda blocks: base_policy.make("diffusion", obs_size=3, action_size=2, steps=4, hidden=8, blocks=blocks, time_features=4)
    params = make(2).init(jax.random.key(0))
    without_blocks = {name: leaf for name, leaf in params.items() if not name.startswith("block")}
    rows = jax.random.normal(jax.random.key(1), (5, 7))
    inputs = lambda masks: (rows[:, :3], rows[:, 3:5], base_policy.LossDraws(rows[:, 5:], jnp.arange(5) % 4, masks))
    np.testing.assert_allclose(make(2).loss(params, *inputs(jnp.zeros((2, 5, 8)))), make(0).loss(without_blocks, *inputs(None)), rtol=1e-6)
    np.testing.assert_allclose(make(2).loss(params, *inputs(jnp.ones((2, 5, 8)))), make(2).loss(params, *inputs(None)), rtol=1e-6)
    assert not np.isclose(make(2).loss(params, *inputs(None)), make(0).loss(without_blocks, *inputs(None)))


def test_time_of_a_flow_policy() -> None:
    """It runs in [0, 1] and enters the network as t T, the range of the diffusion's step index."""
    policy = base_policy.make("flow", obs_size=3, action_size=2, steps=4, hidden=8, blocks=1, time_features=4)
    net, params = networks.Denoiser(action_size=2, obs_size=3, hidden=8, blocks=1, time_features=4), policy.init(jax.random.key(0))
    rows, t = jax.random.normal(jax.random.key(1), (5, 7)), jnp.linspace(0.1, 1, 5)
    velocity = lambda x, t: networks.apply(net, params, rows[:, :3], x, t * 4, method=net.whole)
    loss = policy.loss(params, rows[:, :3], rows[:, 3:5], base_policy.LossDraws(rows[:, 5:], t, None))
    np.testing.assert_allclose(loss, flow.imitation_loss(velocity, rows[:, 3:5], rows[:, 5:], t), rtol=1e-5)
    sample = policy.sample(params, rows[:, :3], base_policy.SampleDraws(rows[:, None, 5:], None))
    np.testing.assert_allclose(sample[:, 0], flow.sample(velocity, rows[:, 5:], 4), atol=1e-5)


@pytest.mark.parametrize(("members", "subset"), [(10, 2), (4, 3), (2, 2), (10, 1)])
def test_subsets_are_distinct_and_uniform(members: int, subset: int) -> None:
    """Every subset of M of K is drawn equally often, and no member twice."""
    drawn = np.asarray(bulk(lambda tape: tape.subset(members, subset, (20_000,)))(jax.random.key(members)))
    drawn = np.sort(drawn, axis=1)
    assert drawn.dtype == np.int32 and drawn.min() == 0 and drawn.max() == members - 1
    assert np.all(np.diff(drawn, axis=1) > 0)
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == comb(members, subset)
    assert len(counts) == 1 or stats.chisquare(counts).pvalue > 1e-4


def test_each_call_of_learn_draws_its_subsets_anew() -> None:
    """The subset that selects and the one that values are independent, and differ between the U updates."""
    config = dataclasses.replace(CONFIG, critics=10, critic_subset=2)
    agent = expo.make(config, SPEC)
    draws = jax.jit(jax.vmap(agent.draw))(KEYS[:2000])
    select, value = (np.sort(np.asarray(x), axis=-1) for x in (draws.backup.subset, draws.value_subset))
    same = lambda a, b: np.mean(np.all(a == b, axis=-1))
    assert abs(same(select, value) - 1 / comb(10, 2)) < 0.01
    assert abs(same(select[:, 0], select[:, 1]) - 1 / comb(10, 2)) < 0.02


def test_a_tape_gives_each_number_once() -> None:
    """Uniform and standard normal, and what is asked for first is independent of what is asked for next."""
    draw = bulk(lambda tape: (tape.uniform((20_000,)), tape.normal((10_000, 2)), tape.normal((20_000,)), tape.uniform()))
    uniform, normal, other, last = (np.asarray(x) for x in draw(jax.random.key(0)))
    assert last.shape == () and uniform.dtype == normal.dtype == np.float32
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    for x in (normal[:, 0], normal[:, 1], other):
        assert stats.kstest(x, "norm").pvalue > 1e-3
    columns = np.stack([uniform, normal.ravel(), other])
    assert np.all(np.abs(np.corrcoef(columns) - np.eye(3)) < 4 / np.sqrt(20_000))
    ranks = np.abs(columns - np.median(columns, axis=1, keepdims=True))  # dependence that correlation does not see
    assert np.all(np.abs(np.corrcoef(ranks) - np.eye(3)) < 4 / np.sqrt(20_000))
    again, another = draw(jax.random.key(0)), draw(jax.random.key(1))
    np.testing.assert_array_equal(again[0], uniform)
    assert abs(np.corrcoef(another[0], uniform)[0, 1]) < 4 / np.sqrt(20_000)


@pytest.mark.parametrize("edge", [0.0, 1 - 2.0**-23])
def test_normals_are_finite_at_the_edges_of_the_uniform(edge: float) -> None:
    assert 4 < abs(float(Tape(jnp.full(1, edge, jnp.float32)).normal())) < 6


def test_first_values_of_the_networks() -> None:
    """Xavier-uniform kernels, flax's LeCun normal in residual blocks, N(0, 0.2) frequencies, zero biases, unit scales, all independent."""
    net = networks.Denoiser(action_size=8, obs_size=24, hidden=96, blocks=2, time_features=64)
    state = jnp.zeros(24), jnp.zeros(8), jnp.zeros(())
    jit = lambda f: jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})(jax.random.key(0))
    params = jit(lambda key: networks.init(net, key, *state, method=net.whole))
    reference = jit(lambda key: net.init(key, *state, method=net.whole))["params"]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(lambda x: (x.shape, x.dtype), reference)
    for kernel in (params["in_kernel"], params["cond_0"]["kernel"], params["cond_1"]["kernel"], params["out"]["kernel"]):
        bound = np.sqrt(6 / sum(kernel.shape))
        assert np.abs(kernel).max() <= bound and stats.kstest(np.ravel(kernel), "uniform", (-bound, 2 * bound)).pvalue > 1e-3
    for i in range(2):
        for layer in ("wide", "narrow"):
            kernel, flax_kernel = (np.ravel(p[f"block_{i}"][layer]["kernel"]) for p in (params, reference))
            assert stats.ks_2samp(kernel, flax_kernel).pvalue > 1e-3
            assert np.abs(kernel).max() <= np.abs(flax_kernel).max() * 1.01
        assert np.all(params[f"block_{i}"]["norm"]["scale"] == 1) and np.all(params[f"block_{i}"]["norm"]["bias"] == 0)
    assert stats.kstest(np.ravel(params["frequencies"]), "norm", (0, 0.2)).pvalue > 1e-3
    assert np.all(params["in_bias"] == 0) and np.all(params["block_0"]["wide"]["bias"] == 0)
    assert abs(np.corrcoef(np.ravel(params["block_0"]["wide"]["kernel"]), np.ravel(params["block_1"]["wide"]["kernel"]))[0, 1]) < 0.03


def test_members_of_an_ensemble_start_apart() -> None:
    kernels = (
        critics.ensemble(obs_size=3, action_size=2, members=4, widths=(16,)).init(jax.random.key(0))["dense_0"]["kernel"].reshape(4, -1)
    )
    assert np.all(np.abs(np.corrcoef(kernels) - np.eye(4)) < 0.5)


@pytest.mark.parametrize(("bias", "clipped"), [(-30.0, -20.0), (30.0, 2.0)])
def test_log_std_is_clipped(bias: float, clipped: float) -> None:
    net = networks.TanhGaussian(action_size=2, widths=(4,))
    params = networks.init(net, jax.random.key(0), jnp.zeros(3))
    params = {**params, "log_std": {**params["log_std"], "bias": jnp.full(2, bias)}}
    np.testing.assert_array_equal(networks.apply(net, params, jnp.ones(3))[1], [clipped, clipped])


def test_candidates() -> None:
    """By hand: the best and the taken candidate, over leading axes."""
    proposed = jnp.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(candidates.best(proposed, jnp.array([[0.0, 5.0, 1.0], [2.0, -1.0, 1.0]])), [[2, 3], [6, 7]])
    np.testing.assert_array_equal(candidates.take(proposed, jnp.array([2, 1])), [[4, 5], [8, 9]])


def test_polyak_by_hand() -> None:
    np.testing.assert_allclose(optim.polyak({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 6.0])}, 0.25)["w"], [1.5, 3.0])


# -- replay --------------------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(st.integers(1, 2**31 - 1), st.floats(0, 1, exclude_max=True, width=32))
def test_an_index_never_reaches_the_size(size: int, uniform: float) -> None:
    assert 0 <= int(replay.index(jnp.float32(uniform), size)) < size


@pytest.mark.parametrize("size", [1, 3, 1_000_000, 2**24 + 3, 2**31 - 1])
@pytest.mark.parametrize("uniform", [np.nextafter(np.float32(1), np.float32(0)), np.float32(1)])
def test_the_largest_uniform_stays_below_the_size(uniform: float, size: int) -> None:
    """Also where the size is beyond what float32 can count, and for a number that was rounded up to 1."""
    assert 0 <= int(replay.index(uniform, size)) < size
    assert 0 <= int(jax.jit(replay.index)(uniform, jnp.int32(size))) < size


def test_indices_are_uniform() -> None:
    drawn = np.asarray(replay.index(jax.random.uniform(jax.random.key(0), (70_000,)), 7))
    assert drawn.dtype == np.int32
    assert stats.chisquare(np.bincount(drawn, minlength=7)).pvalue > 1e-4


def batch_of(numbers: np.ndarray, obs_size: int = 3, action_size: int = 2) -> Batch:
    """Transitions that tell who they are: every entry is its number plus its place."""
    obs = numbers[:, None] + np.arange(obs_size) / 10
    return Batch(obs, -numbers[:, None] + np.arange(action_size) / 10, numbers * 2.0, (numbers % 2).astype(float), obs + 100)


def test_packing_and_unpacking() -> None:
    batch = batch_of(np.arange(4))
    rows = replay.pack(batch, np.array([0, 1, 0, 1]))
    assert rows.shape == (4, 2 * 3 + 2 + 3) and rows.dtype == jnp.float32
    for field, back in zip(batch[:5], replay.unpack(rows, 3, 2)[:5], strict=True):
        np.testing.assert_array_equal(np.float32(field), back)
    np.testing.assert_array_equal(replay.last(rows, 3, 2), [0, 1, 0, 1])
    assert replay.empty(5, 3, 2).shape == (5, rows.shape[1])
    one = jax.tree.map(lambda x: x[0], batch)
    assert replay.pack(one, 0).shape == (11,) and replay.unpack(replay.pack(one, 0), 3, 2).reward.shape == ()


def test_windows_of_steps() -> None:
    """Two episodes of 3 and 2 steps, windows of 3: the first fits, the second crosses the end after 2 steps, the third after 1; the
    fourth is a whole episode of 2 that terminates, then nothing is stored."""
    batch = batch_of(np.arange(5))._replace(terminated=np.array([0, 0, 0, 0, 1.0]))
    rows = replay.pack(batch, np.array([0, 0, 1, 0, 1]))
    places = np.arange(4)[:, None] + np.arange(3)
    got = replay.windows(rows[np.minimum(places, 4)], places < 5, 3, 2, jnp.float32(0.5))
    np.testing.assert_array_equal(got.valid, [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0]])
    np.testing.assert_allclose(got.reward, [0 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4, 6 + 0.5 * 8])
    np.testing.assert_array_equal(got.terminated, [0, 0, 0, 1])
    np.testing.assert_array_equal(got.obs, np.float32(batch.obs[:4]))
    np.testing.assert_array_equal(got.next_obs[0], np.float32(batch.next_obs[2]))
    np.testing.assert_array_equal(got.action[1], np.float32([*batch.action[1], *batch.action[2], 0, 0]))
    np.testing.assert_array_equal(got.td_weight, [1, 0, 0, 0])
    np.testing.assert_array_equal(got.action_weight[1], [1, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_full_buffer_is_overwritten_from_its_start(n: int) -> None:
    """After any number of inserts of n rows the buffer of 6 holds the last 6 transitions, each once."""
    buffer, insert = replay.empty(6, 3, 2), jax.jit(replay.insert)
    for stored in range(0, 15 * n, n):
        buffer = insert(buffer, replay.pack(batch_of(np.arange(stored, stored + n)), np.zeros(n)), jnp.int32(stored))
        held = np.asarray(replay.unpack(buffer, 3, 2).reward) / 2
        everything = np.arange(stored + n)
        if stored + n < 6:
            np.testing.assert_array_equal(held[: stored + n], everything)
            assert np.all(held[stored + n :] == 0)
        else:
            np.testing.assert_array_equal(np.sort(held), everything[-6:])
    back = replay.unpack(buffer, 3, 2)
    np.testing.assert_allclose(back.next_obs - back.obs, 100, atol=1e-4)
