"""What every environment promises (envs.core), checked on every task: on its CPU engine, and the mazes and pushing on both."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_programs import HANDS, ROWS, actions_of, equal, keys_of, make, program, select

import envs
from envs import core, push

ALL = [
    ("point-umaze", "mjx"),
    ("point-umaze", "mujoco"),
    ("point-medium", "mjx"),
    ("push-disc", "mjx"),
    ("push-disc", "mujoco"),
    *((name, "mujoco") for name in HANDS),
    ("antmaze-umaze", "mujoco"),
]
every = pytest.mark.parametrize("name, engine", ALL)


@every
def test_shapes_and_dtypes(name, engine):
    p = program(name, engine)
    info = envs.TASKS[name]
    state = p.step(p.reset(keys_of(0)), actions_of(p.env, 0, ROWS))
    assert state.obs.shape == (ROWS, info.obs_size) == (ROWS, p.env.obs_size)
    assert p.env.action_size == info.action_size and p.env.horizon == info.horizon and p.env.score == info.score
    assert len(p.env.observation_names) == info.obs_size == len(set(p.env.observation_names))
    assert p.env.obs_low.shape == p.env.obs_high.shape == (info.obs_size,)
    expected = {"obs": "float32", "reward": "float32", "t": "int32"} | dict.fromkeys(
        ("terminated", "truncated", "success", "blown_up"), "bool"
    )
    for field, dtype in expected.items():
        value = getattr(state, field)
        assert value.dtype == dtype and not value.aval.weak_type, field
    assert not any(leaf.aval.weak_type for leaf in jax.tree.leaves(state))


@every
def test_one_program_serves_reset_and_stepped_states(name, engine):
    p = program(name, engine)
    state = p.reset(keys_of(1))
    for i in range(3):
        state = p.step(state, jnp.asarray(actions_of(p.env, i, ROWS)))
    assert len(p.traces) == 1


@every
def test_reset_is_random_by_key_alone(name, engine):
    p = program(name, engine)
    first, again, other = p.reset(keys_of(2)), p.reset(keys_of(2)), p.reset(keys_of(3))
    assert equal(first, again)
    obs = np.concatenate([first.obs, other.obs])
    assert len(np.unique(obs, axis=0)) == 2 * ROWS
    assert np.all(obs >= p.env.obs_low) and np.all(obs <= p.env.obs_high)
    assert not np.any(first.terminated | first.truncated | first.blown_up) and not np.any(first.t)


@every
def test_outcome_is_what_step_reports(name, engine):
    p = program(name, engine)
    state = p.reset(keys_of(4))
    for i in range(4):
        action = actions_of(p.env, i, ROWS)
        after = p.step(state, action)
        reward, success, terminated = jax.vmap(p.env.outcome)(state.obs, action, after.obs)
        assert equal((reward, success, terminated), (after.reward, after.success, after.terminated))
        assert reward.dtype == jnp.float32
        state = after


@every
def test_actions_are_clipped(name, engine):
    p = program(name, engine)
    state = p.reset(keys_of(5))
    wild = 5 * actions_of(p.env, 5, ROWS)
    assert equal(p.step(state, wild), p.step(state, np.clip(wild, -1, 1)))


@every
def test_truncation_exactly_at_the_horizon(name, engine):
    p = program(name, engine)
    state = p.reset(keys_of(6))
    idle = np.zeros((ROWS, p.env.action_size), np.float32)
    # Standing still solves nothing, so the clock may be set forward instead of stepping a whole episode.
    state = p.step(dataclasses.replace(state, t=state.t + p.env.horizon - 2), idle)
    assert np.all(state.t == p.env.horizon - 1) and not np.any(state.truncated)
    state = p.step(state, idle)
    assert np.all(state.t == p.env.horizon) and np.all(state.truncated) and not np.any(state.terminated | state.blown_up)


@every
def test_a_blown_up_row_is_reported_and_touches_nobody(name, engine):
    p = program(name, engine)
    state = p.step(p.reset(keys_of(7)), actions_of(p.env, 7, ROWS))
    broken = state.data.at[1].set(_nan_bits(state.data[1])) if engine == "mujoco" else _with_nan(state.data)
    action = actions_of(p.env, 8, ROWS)
    good, bad = p.step(state, action), p.step(dataclasses.replace(state, data=broken), action)
    assert np.array_equal(bad.blown_up, np.arange(ROWS) == 1) and np.array_equal(bad.truncated, bad.blown_up)
    assert np.all(np.isfinite(bad.obs)) and np.all(np.isfinite(bad.reward)) and not np.any(bad.terminated)
    assert np.array_equal(bad.obs[1], state.obs[1])
    for row in (0, 2, 3):
        assert equal(select(good, row), select(bad, row))


@every
def test_an_action_that_is_not_finite_is_a_blow_up(name, engine):
    p = program(name, engine)
    state = p.reset(keys_of(9))
    action = actions_of(p.env, 9, ROWS)
    good = p.step(state, action)
    poisoned = action.copy()
    poisoned[2, 0] = np.nan
    bad = p.step(state, poisoned)
    assert np.array_equal(bad.blown_up, np.arange(ROWS) == 2)
    assert np.array_equal(bad.obs[2], state.obs[2]) and np.all(np.isfinite(bad.reward))
    assert all(equal(select(good, row), select(bad, row)) for row in (0, 1, 3))
    # The row stays where it was, so that it can go on.
    assert not np.any(p.step(bad, action).blown_up)


def _with_nan(data):
    return jax.tree.map(lambda x: x.at[1, 0].set(jnp.nan), data)


def _nan_bits(bits):
    state = np.asarray(bits).copy().view(np.float64)
    state[3] = np.nan
    return state.view(np.uint32)


@pytest.mark.parametrize("name, engine", [("point-umaze", "mjx"), ("push-disc", "mujoco"), ("door", "mujoco")])
def test_autoreset_hands_out_the_true_transition(name, engine):
    p = program(name, engine)
    env = p.env
    state = p.reset(keys_of(10))
    state = dataclasses.replace(state, t=state.t.at[0].set(env.horizon - 1))
    action = actions_of(env, 10, ROWS)
    keys = keys_of(11)
    expected = p.step(state, action)
    after, step = jax.jit(jax.vmap(lambda s, a, k: core.autoreset(env, s, a, k)))(state, action, keys)
    assert np.array_equal(step.truncated, np.arange(ROWS) == 0)
    assert equal(step.next_obs, expected.obs) and equal(step.obs, state.obs) and equal(step.action, action)
    assert equal(select(after, 0), select(p.reset(keys), 0))
    assert equal(select(after, 2), select(expected, 2))
    assert not np.array_equal(after.obs[0], step.next_obs[0])


@pytest.mark.parametrize("name", ["point-umaze", "push-disc"])
def test_reaching_the_goal_terminates_without_truncation(name):
    p = program(name, "mjx")
    goal = p.env.task.goal if name == "point-umaze" else np.array([0.0, 2.0, *push.GOAL])
    state = p.reset(keys_of(12))
    there = dataclasses.replace(state.data, qpos=jnp.tile(jnp.asarray(goal, jnp.float32), (ROWS, 1)))
    after = p.step(dataclasses.replace(state, data=there, t=state.t + p.env.horizon - 1), np.zeros((ROWS, 2), np.float32))
    assert np.all(after.terminated) and np.all(after.success) and not np.any(after.truncated) and np.all(after.reward == 1)


def test_the_door_is_open_at_the_published_angle():
    env = make("door", "mujoco")
    obs = jnp.zeros((3, 39)).at[:, 28].set(jnp.array([1.34, 1.36, 1.57]))
    reward, success, terminated = jax.vmap(env.outcome)(obs, jnp.zeros((3, 28)), obs)
    assert reward.tolist() == [-1.0, 0.0, 0.0] and success.tolist() == [False, True, True] and not terminated.any()
    assert env.observation_names[28] == "door_hinge" and env.observation_names[27] == "latch"


def test_names_come_without_jax_or_mujoco():
    code = "import sys, envs, json; print(json.dumps([sorted(envs.TASKS), 'jax' in sys.modules, 'mujoco' in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names, *heavy = json.loads(out)
    assert {"door", "hammer", "pen", "point-medium", "point-umaze", "push-disc", "relocate", "antmaze-large-play"} <= set(names)
    assert heavy == [False, False]


def test_importing_mjx_prints_nothing():
    code = "import envs; envs.make('push-disc', 'mjx')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_unknown_names_are_one_clear_line():
    with pytest.raises(core.TaskError, match="unknown task 'point-maze'; did you mean 'point-umaze'"):
        envs.make("point-maze")
    with pytest.raises(core.TaskError, match="known: point-umaze, point-medium, push-disc, pen, door, relocate, hammer"):
        envs.make("zzz")
    with pytest.raises(core.TaskError, match="no engine 'bullet'; expected one of auto, mjx, mujoco"):
        envs.make("push-disc", "bullet")


def test_auto_is_the_engine_for_a_cpu():
    for name, engine in (("push-disc", "mjx"), ("door", "mujoco")):
        assert make(name).engine == engine == envs.TASKS[name].default_engine_cpu


def test_door_without_gymnasium_robotics_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(core.TaskError, match=r"pip install 'expo-bench\[adroit\]'"):
        envs.make("door", "mujoco")
