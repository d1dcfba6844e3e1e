"""Demonstrators: reproducible, of the stated quality, and in more than one way of doing the task."""

import functools

import jax
import numpy as np
import pytest
from env_programs import equal, keys_of, make

import envs
from envs.core import TaskError

EPISODES = 128
QUALITY = {  # task: (lowest, highest success rate, most steps of a successful one on average)
    "point-umaze": (0.3, 0.7, 95),
    "point-medium": (0.6, 0.92, 170),
    "push-disc": (0.85, 1.0, 90),
}


@functools.cache
def rollout(name: str):
    """keys -> (route [n], obs [n, T, O], action [n, T, A], success [n, T]), compiled once. In C MuJoCo, which compiles in a second."""
    env = make(name, "mujoco")
    demo = envs.demonstrator(env)

    def episode(key):
        start, choice, steps = jax.random.split(key, 3)
        state = env.reset(start)

        def body(both, key):
            state, carry = both
            action, carry = demo.act(carry, state, key)
            return (env.step(state, action), carry), (state.obs, action, env.outcome(state.obs, action, state.obs).success)

        (state, carry), out = jax.lax.scan(body, (state, demo.init(choice, state)), jax.random.split(steps, env.horizon))
        return demo.route(carry), *out

    return jax.jit(jax.vmap(episode))


@pytest.mark.parametrize("name", QUALITY)
def test_success_and_routes(name):
    route, obs, action, success = jax.tree.map(np.asarray, rollout(name)(keys_of(0, EPISODES)))
    env = make(name, "mujoco")
    low, high, steps = QUALITY[name]
    succeeded = success.any(axis=1)
    assert low <= succeeded.mean() <= high
    assert success.argmax(axis=1)[succeeded].mean() <= steps
    assert np.all(np.abs(action) <= 1) and np.all(obs >= env.obs_low) and np.all(obs <= env.obs_high)
    assert 0.2 < route.mean() < 0.8
    assert _apart(name, route, obs) > 0.85  # the two lanes of the U overlap a little


def _apart(name, route, obs) -> float:
    """The share of episodes that can be seen to take the route they chose, from where they went alone."""
    x, y = obs[..., 0], obs[..., 1]
    if name == "point-umaze":  # the far corridor, half way down: its inner or its outer side
        seen = np.take_along_axis(x, np.argmin(np.abs(y), axis=1)[:, None], axis=1)[:, 0] > 1.0
    elif name == "point-medium":  # only the longer way visits the lower left
        seen = np.any((x < -1.5) & (y > 1.0), axis=1)
    else:  # the disc passes the post above or below
        disc_x, disc_y = obs[..., 2], obs[..., 3]
        seen = np.take_along_axis(disc_y, np.argmin(np.abs(disc_x), axis=1)[:, None], axis=1)[:, 0] > 0
    return float(np.mean(seen == route.astype(bool)))


def test_demonstrations_are_a_function_of_the_key():
    run = rollout("push-disc")
    first, again, other = run(keys_of(1, EPISODES)), run(keys_of(1, EPISODES)), run(keys_of(2, EPISODES))
    assert equal(first, again) and not equal(first[2], other[2])


def test_quality_is_checked():
    env = make("point-umaze", "mujoco")
    with pytest.raises(TaskError, match="'point-umaze': .*'speed'"):
        envs.demonstrator(env, speed=3)
    with pytest.raises(TaskError, match="'door': .*'path'"):
        envs.demonstrator(make("door", "mujoco"))
    with pytest.raises(TaskError, match="no demonstrator"):
        envs.demonstrator(type("Unknown", (), {"name": "ant"})())


def test_a_faster_demonstrator_is_faster():
    """There is room above the demonstrations: the same route at full pace without noise takes less than two thirds of their time."""
    env = make("point-umaze", "mujoco")
    demo = envs.demonstrator(env, pace=1.0, pace_spread=0.0, noise=0.0)

    def body(both, _):
        state, carry = both
        action, carry = demo.act(carry, state, jax.random.key(0))
        state = env.step(state, action)
        return (state, carry), state.success

    def episode(key):
        state = env.reset(key)
        return jax.lax.scan(body, (state, demo.init(key, state)), None, length=env.horizon)[1]

    success = np.asarray(jax.jit(jax.vmap(episode))(keys_of(3, 8)))
    assert np.all(success.any(axis=1)) and np.mean(success.argmax(axis=1)) < 50
