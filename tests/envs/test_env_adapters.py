"""Environments of other packages by name: gym:ID against Gymnasium itself, brax and Playground as the step contract asks."""

import functools
import importlib.util
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_agent
from env_programs import equal

import envs
from envs import core, registry
from envs.adapters import gym_worker
from expo_bench.protocol import Protocol
from expo_bench.training import loop

gymnasium = pytest.importorskip("gymnasium")
ROWS = 3


@functools.cache
def pendulum():
    """(environment, reset, step, autoreset) of ROWS rows."""
    env = envs.make("gym:Pendulum-v1")
    step = jax.jit(jax.vmap(env.step))
    return env, jax.jit(jax.vmap(env.reset)), step, jax.jit(jax.vmap(lambda s, a, k: core.autoreset(env, s, a, k)))


def keys(seed):
    return jax.random.split(jax.random.key(seed), ROWS)


def actions(seed, env, scale=1.5):
    return scale * np.random.default_rng(seed).uniform(-1, 1, (ROWS, env.action_size)).astype(np.float32)


def forget(env):
    """As after a restart: no environment is where any row is."""
    env.worker._live.clear()
    env.worker._count = len(env.worker._idle)


def test_gym_steps_are_gymnasiums():
    env, reset, step, _ = pendulum()
    assert (env.engine, env.obs_size, env.action_size, env.horizon, env.score) == ("gymnasium", 3, 1, 200, "return")
    state = reset(keys(0))
    direct = [gymnasium.make("Pendulum-v1") for _ in range(ROWS)]
    for row, other in enumerate(direct):
        np.testing.assert_array_equal(state.obs[row], other.reset(seed=int(state.data.seed[row]))[0])
    for i in range(4):
        action = actions(i, env)  # some beyond the bounds
        state = step(state, action)
        for row, other in enumerate(direct):
            obs, reward, *_ = other.step(2 * np.clip(action[row], -1, 1))  # the box is [-2, 2]
            np.testing.assert_allclose(state.obs[row], obs, atol=1e-6)
            assert float(state.reward[row]) == pytest.approx(reward, rel=1e-5)
    assert state.obs.dtype == state.reward.dtype == jnp.float32 and state.t.dtype == jnp.int32 and np.all(state.t == 4)
    assert not any(leaf.aval.weak_type for leaf in jax.tree.leaves(state))


def test_gym_states_can_be_stepped_twice_and_after_a_restart():
    env, reset, step, _ = pendulum()
    states = [reset(keys(1))]
    for i in range(3):
        states.append(step(states[-1], actions(i, env)))
    before = env.worker.repeated
    assert equal(step(states[1], actions(1, env)), states[2]) and env.worker.repeated == before + ROWS
    forget(env)
    assert equal(step(states[2], actions(2, env)), states[3])
    twins = jax.tree.map(lambda x: x[jnp.array([0, 0, 1])], states[1])  # two rows in one state
    both = step(twins, jnp.tile(actions(1, env)[:1], (ROWS, 1)))
    assert equal(jax.tree.map(lambda x: x[0], both), jax.tree.map(lambda x: x[1], both))


def test_gym_episodes_end_at_the_time_limit_and_begin_again():
    import dataclasses

    env, reset, step, autoreset = pendulum()
    state = reset(keys(2))
    row = state.data
    late = dataclasses.replace(row, count=row.count.at[1].set(env.horizon - 1))  # as if it had acted with zeros until now
    state = dataclasses.replace(state, data=late, t=state.t.at[1].set(env.horizon - 1))
    action = actions(0, env)
    after, transition = autoreset(state, action, keys(3))
    assert transition.truncated.tolist() == [False, True, False] and not transition.terminated.any()
    fresh = reset(keys(3))
    assert equal(jax.tree.map(lambda x: x[1], after), jax.tree.map(lambda x: x[1], fresh))
    assert not np.array_equal(transition.next_obs[1], after.obs[1]) and np.array_equal(transition.next_obs[0], after.obs[0])
    ended = step(state, action)
    assert equal(transition.next_obs, ended.obs) and equal(ended.truncated, transition.truncated)
    still = step(ended, action)  # nothing is beyond an episode's end
    assert np.array_equal(still.obs[1], ended.obs[1]) and still.reward[1] == 0 and still.t.tolist() == [2, 200, 2]


def test_gym_actions_that_are_not_finite_touch_nobody_else():
    env, reset, step, _ = pendulum()
    state = step(reset(keys(4)), actions(0, env))
    action = actions(1, env)
    good = step(state, action)
    bad = step(state, np.where(np.arange(ROWS)[:, None] == 1, np.nan, action).astype(np.float32))
    assert bad.blown_up.tolist() == [False, True, False] == bad.truncated.tolist() and np.array_equal(bad.obs[1], state.obs[1])
    assert all(equal(jax.tree.map(lambda x, i=i: x[i], good), jax.tree.map(lambda x, i=i: x[i], bad)) for i in (0, 2))


def test_gym_lives_are_bounded(monkeypatch):
    monkeypatch.setattr(gym_worker, "LEAST", 0)
    env, reset, _, _ = pendulum()
    forget(env)
    for seed in range(10):
        reset(keys(seed))  # thirty states that nobody steps
    assert env.worker._count <= gym_worker.SPARE * ROWS


def test_a_run_on_gym_goes_on_bit_for_bit_after_a_restart():
    env = envs.make("gym:Pendulum-v1")
    protocol = Protocol(offline_steps=0, online_steps=12, updates=1, batch_size=4, eval_every=6, eval_episodes=2, sampling="union")
    run = loop.make(env, tiny_agent.make, tiny_agent.Config(), protocol, 0)
    hyper, data = {"rate": jnp.float32(0.01), "discount": jnp.float32(0.9)}, jnp.zeros((0, 0))
    data = loop.replay.empty(0, env.obs_size, env.action_size)
    online = jax.jit(run.online)
    clock = lambda n: loop.Clock(jnp.int32(0), jnp.int32(n))
    start = jax.jit(run.init)(jnp.int32(3), hyper)
    whole, _ = online(start, clock(0), jnp.int32(12), hyper, data)
    half, _ = online(start, clock(0), jnp.int32(5), hyper, data)
    forget(env)
    rest, _ = online(half, clock(5), jnp.int32(7), hyper, data)
    assert equal(rest, whole) and "repeated from their seeds" in env.resumes


def test_gym_door_is_the_door(monkeypatch):
    """The original environment beside this package's port of it: the same observations from the same start under the same actions."""
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics (extra 'adroit') is not installed")
    theirs, ours = envs.make("gym:AdroitHandDoorSparse-v1"), envs.make("door", "mujoco")
    assert (theirs.score, theirs.info.suite, theirs.horizon, theirs.relabels) == ("solved", "adroit", 200, True)
    assert theirs.observation_names == ours.observation_names
    state = theirs.reset(jax.random.key(0))
    rest, still = ours.task.rest, np.zeros(30)
    other = ours.restore(state.obs, state.obs, {"qpos": jnp.asarray(rest.qpos, jnp.float32), "qvel": jnp.asarray(still, jnp.float32)})
    rng = np.random.default_rng(0)
    for _ in range(5):
        action = rng.uniform(-1, 1, 28).astype(np.float32)
        state, other = theirs.step(state, action), ours.step(other, action)
        np.testing.assert_allclose(state.obs, other.obs, atol=1e-5)
        assert state.reward == other.reward == -1 and not state.success


class Unusual(gymnasium.Env):
    """Observations in parts, an end, a success; not repeatable where its class says so."""

    observation_space = gymnasium.spaces.Dict({"b": gymnasium.spaces.Box(-9, 9, (1, 2)), "a": gymnasium.spaces.Box(-9, 9, (1,))})
    action_space = gymnasium.spaces.Box(np.array([0.0, -3.0], np.float32), np.array([4.0, -1.0], np.float32))
    resets = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Unusual.resets += 1
        self.x = self.np_random.uniform() + (Unusual.resets if self.spec.id.startswith("Moody") else 0)
        return self._seen(np.zeros(2)), {}

    def step(self, action):
        self.x += action[0]
        done = self.x > 6
        return self._seen(action), float(action[1]), bool(done), False, {"is_success": done}

    def _seen(self, action):
        return {"b": np.asarray(action, np.float32)[None], "a": np.array([self.x], np.float32)}


@pytest.fixture(scope="module", autouse=True)
def registered():
    for name in ("Unusual-v0", "Moody-v0"):
        gymnasium.register(name, Unusual, max_episode_steps=8)
    gymnasium.register("Endless-v0", Unusual)


def test_gym_dict_observations_bounds_ends_and_success():
    env = envs.make("gym:Unusual-v0")
    assert env.observation_names == ("a_0", "b_0", "b_1") and env.score == "success" and env.horizon == 8 and env.repeatable
    state = env.reset(jax.random.key(0))
    state = env.step(state, np.array([1.0, -1.0], np.float32))
    np.testing.assert_array_equal(state.obs[1:], [4.0, -3.0])
    assert state.reward == -3 and not state.terminated and not state.success
    state = env.step(state, np.array([5.0, 0.0], np.float32))
    assert state.terminated and state.success and not state.truncated and state.reward == -2


def test_an_environment_that_seeds_do_not_decide_is_said_to_be_one():
    env = envs.make("gym:Moody-v0")
    assert not env.repeatable and "start anew" in env.resumes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gym:Pendulm-v1", "unknown task 'gym:Pendulm-v1'; did you mean 'gym:Pendulum-v1'"),
        ("gym:Pendulum-v99", "unknown task 'gym:Pendulum-v99'; did you mean 'gym:Pendulum-v1'"),
        ("gym:CartPole-v1", "'gym:CartPole-v1': its actions space is Discrete, expected Box"),
        ("gym:FrozenLake-v1", "observation 'obs' space is Discrete, expected Box"),
        ("gym:Endless-v0", "has no max_episode_steps"),
        ("gym:no_such_module:Thing-v0", "'gym:no_such_module:Thing-v0': cannot be made: No module named 'no_such_module'"),
        ("gim:Pendulum-v1", "unknown task 'gim:Pendulum-v1'; known: "),
    ],
)
def test_wrong_names_are_one_line(name, message):
    with pytest.raises(core.TaskError, match=message.replace("(", r"\(")) as error:
        registry.info(name)
    assert "\n" not in str(error.value)


def test_missing_packages_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    with pytest.raises(core.TaskError, match=r"pip install 'expo-bench\[playground\]'"):
        registry.info("playground:FingerTurnHard")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gymnasium" else find(name, *rest))
    with pytest.raises(core.TaskError, match="needs gymnasium: pip install"):
        registry.info("gym:Pendulum-v1")


def contract(name):
    """Shapes and types of a state before and after a step with reset, traced only: one program serves both."""
    env = envs.make(name)
    known = registry.info(name)
    first = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct((known.action_size,), jnp.float32)
    after, step = jax.eval_shape(lambda s, a: core.autoreset(env, s, a, jax.random.key(1)), first, action)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), first) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert step.next_obs.shape == (known.obs_size,) == (env.obs_size,) and step.terminated.dtype == bool and env.score == "return"
    return env


def test_brax_by_name(capfd):
    env = contract("brax:inverted_pendulum")
    assert env.engine == "brax" and env.obs_size == 4 and env.action_size == 1 and env.horizon == 1000 and not env.relabels
    with pytest.raises(core.TaskError, match="unknown task 'brax:ants'; did you mean 'brax:ant'"):
        registry.info("brax:ants")
    with pytest.raises(core.TaskError, match="cannot say the reward of a recorded transition"):
        env.outcome(jnp.zeros(4), jnp.zeros(1), jnp.zeros(4))
    assert capfd.readouterr().out == ""


@pytest.mark.soak
@pytest.mark.parametrize("name", ["brax:inverted_pendulum", "playground:FingerTurnHard"])
def test_foreign_physics_run(name):
    if name.startswith("playground"):
        pytest.importorskip("mujoco_playground", reason="MuJoCo Playground (extra 'playground') is not installed")
    env = envs.make(name)
    step = jax.jit(jax.vmap(lambda s, a, k: core.autoreset(env, s, a, k)))
    state = jax.jit(jax.vmap(env.reset))(keys(0))
    first = state.obs
    for i in range(3):
        state, transition = step(state, actions(i, env), keys(i))
    assert np.isfinite(state.obs).all() and not np.array_equal(state.obs, first) and np.all(state.t == 3)
    _, transition = step(state, np.full((ROWS, env.action_size), np.nan, np.float32), keys(9))
    assert transition.blown_up.all() and transition.truncated.all() and np.array_equal(transition.next_obs, state.obs)


def test_playground_by_name(capfd):
    pytest.importorskip("mujoco_playground", reason="MuJoCo Playground (extra 'playground') is not installed")
    env = contract("playground:FingerTurnHard")
    assert env.obs_size == 12 and env.action_size == 2 and capfd.readouterr().out == ""
    with pytest.raises(core.TaskError, match="unknown task 'playground:FingerTurnHart'; did you mean 'playground:FingerTurnHard'"):
        registry.info("playground:FingerTurnHart")
