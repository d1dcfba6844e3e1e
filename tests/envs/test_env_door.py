"""The door against the environment that it is a port of, and with a policy that was trained on it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from env_programs import actions_of, equal, keys_of, make, policy_path

import envs
from envs.core import TaskError
from envs.demonstrators import mlp_policy


@pytest.fixture(scope="module")
def reference():
    robotics = pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics (extra 'adroit') is not installed")
    import gymnasium

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gymnasium.register_envs(robotics)
        env = gymnasium.make("AdroitHandDoor-v1", reward_type="sparse")
    yield env
    env.close()


def test_same_start_and_actions_as_the_reference(reference):
    env = make("door", "mujoco")
    state = env.reset(jax.random.key(0))
    reference.reset(seed=0)
    model = reference.unwrapped
    start = {"qpos": model.init_qpos, "qvel": model.init_qvel, "door_body_pos": np.asarray(state.params, np.float64)}
    obs, _ = reference.reset(seed=0, options={"initial_state_dict": start})
    assert np.max(np.abs(obs - state.obs)) < 1e-6
    actions = actions_of(env, 0, 50)

    def body(state, action):
        state = env.step(state, action)
        return state, state

    _, states = jax.jit(lambda s, a: jax.lax.scan(body, s, a))(state, actions)
    exact = np.asarray(states.data).view(np.float64)[:, env.physics._slices["qpos"]]
    for t, action in enumerate(actions):
        obs, reward, terminated, truncated, info = reference.step(action.astype(np.float64))
        assert np.max(np.abs(model.data.qpos - exact[t])) < 1e-9
        assert np.max(np.abs(obs - states.obs[t])) < 1e-6  # float32 against float64
        assert bool(states.success[t]) == bool(info["success"]) and not terminated
        assert float(states.reward[t]) == {-0.1: -1.0, 10.0: 0.0}[float(reward)]


def test_the_trained_policy_opens_the_door(reference):
    env = make("door", "mujoco")
    demo = envs.demonstrator(env, path=policy_path("door"))

    def episode(key):
        def body(state, key):
            action, _ = demo.act((), state, key)
            state = env.step(state, action)
            return state, (state.success, state.obs)

        start, steps = jax.random.split(key)
        return jax.lax.scan(body, env.reset(start), jax.random.split(steps, env.horizon))[1]

    success, obs = jax.jit(jax.vmap(episode))(keys_of(5, 10))
    assert np.sum(np.any(success, axis=1)) >= 8
    assert np.all(obs >= env.obs_low) and np.all(obs <= env.obs_high)
    assert equal(jax.vmap(jax.vmap(lambda o: env.outcome(o, jnp.zeros(28), o).success))(obs), success)


def test_policy_files_are_checked(tmp_path):
    arrays = dict(w0=np.ones((4, 39)), b0=np.ones(4), w1=np.ones((4, 4)), b1=np.ones(4), w2=np.ones((28, 4)), b2=np.ones(28))
    arrays |= dict(in_shift=np.zeros(39), in_scale=np.ones(39), out_shift=np.zeros(28), out_scale=np.ones(28))
    path = tmp_path / "policy.npz"
    np.savez(path, **arrays)
    expected = (np.ones((28, 4)) @ np.tanh(4 * np.tanh(np.full(4, 40.0)) + 1)) + 1
    assert np.allclose(mlp_policy(path)(jnp.ones(39)), expected, atol=1e-5)
    np.savez(path, **{k: v for k, v in arrays.items() if k != "b1"})
    with pytest.raises(TaskError, match="found no array 'b1'"):
        mlp_policy(path)
    np.savez(path, **arrays | {"w1": np.ones((4, 5))})
    with pytest.raises(TaskError, match=r"w1 is of shape \(4, 5\); expected \(4, 4\)"):
        mlp_policy(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(TaskError, match="cannot be read"):
        mlp_policy(path)
    with pytest.raises(TaskError, match="cannot be read"):
        mlp_policy(tmp_path / "absent.npz")
    np.savez(path, w0=np.array([{}], dtype=object))
    with pytest.raises(TaskError):
        mlp_policy(path)
