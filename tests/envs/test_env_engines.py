"""The two engines against each other, and C MuJoCo through the callback against MuJoCo itself."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from env_programs import actions_of, equal, keys_of, make

from envs.mujoco_engine import bits_of, double_bits


def run_alone(code: str, **environment: str) -> dict:
    """Run code in a Python of its own, whose last line of output is JSON: JAX's settings cannot be changed after its start."""
    settings = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def scanned(env, states, actions):
    """[T, rows] states of stepping `actions` [T, rows, A] without reset, in one program."""

    def body(state, action):
        state = jax.vmap(env.step)(state, action)
        return state, state

    return jax.jit(lambda s, a: jax.lax.scan(body, s, a))(states, actions)


def uninterrupted(env, bits, fields, actions) -> tuple[np.ndarray, np.ndarray]:
    """(states [T, n] float64, site positions [T, sites, 3]) of one MjData stepped directly from `bits`."""
    system = env.physics.system
    model = env.physics._model
    for field, value in zip(system.fields, fields, strict=True):
        getattr(model, field.name)[field.index] = value
    data = mujoco.MjData(model)
    spec = mujoco.mjtState.mjSTATE_FULLPHYSICS | mujoco.mjtState.mjSTATE_WARMSTART
    state = np.asarray(bits).view(np.float64)
    mujoco.mj_setState(model, data, state, spec)
    states, sites = [], []
    for action in actions:
        data.ctrl[:] = system.control_middle + system.control_range * action.astype(np.float64)
        mujoco.mj_step(model, data, system.substeps)
        out = np.empty_like(state)
        mujoco.mj_getState(model, data, out, spec)
        states.append(out)
        sites.append(data.site_xpos[list(system.sites)].copy())
    return np.array(states), np.array(sites)


def test_float32_to_double_bits():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 3.4e38, 1.2e-38], np.float32)])
    x = x[~np.isnan(x) & ((np.abs(x) >= np.finfo(np.float32).tiny) | (x == 0))]
    assert np.array_equal(np.asarray(jax.jit(double_bits)(x)).reshape(-1), bits_of(x.astype(np.float64)))


def test_a_whole_door_episode_is_bitwise_mujoco():
    env = make("door", "mujoco")
    states = jax.jit(jax.vmap(env.reset))(keys_of(0, 3))
    actions = actions_of(env, 0, 200, 3)
    middle, first = scanned(env, states, actions[:90])
    end, second = scanned(env, middle, actions[90:])
    served = np.concatenate([first.data, second.data])
    obs = np.concatenate([first.obs, second.obs])
    assert np.any(end.truncated)
    for row in range(3):
        direct, sites = uninterrupted(env, states.data[row], (states.params[row],), actions[:, row])
        assert np.array_equal(served[:, row], bits_of(direct))
        assert np.array_equal(obs[:, row, 29:35], sites.astype(np.float32).reshape(-1, 6))


def test_nested_vmap_and_single_rows_agree():
    env = make("push-disc", "mujoco")
    states = jax.vmap(jax.vmap(env.reset))(keys_of(1, 6).reshape(2, 3))
    actions = actions_of(env, 1, 2, 3)
    nested = jax.jit(jax.vmap(jax.vmap(env.step)))(states, actions)
    step = jax.jit(env.step)
    for i in range(2):
        for j in range(3):
            row = lambda tree, i=i, j=j: jax.tree.map(lambda x: x[i, j], tree)
            assert equal(step(row(states), actions[i, j]), row(nested))


SHARDED = """
import json, os
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
from jax.sharding import Mesh, PartitionSpec as P
import envs
env = envs.make(NAME, "mujoco")
rows, steps = ROWS, 40
states = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), rows))
actions = np.random.default_rng(0).uniform(-1, 1, (steps, rows, env.action_size)).astype(np.float32)
weights = np.random.default_rng(1).normal(size=(256, 256)).astype(np.float32)

def block(states, actions):
    def body(carry, action):
        states, x = carry
        x = jnp.tanh(x @ weights)  # work beside the callback, as in training
        states = jax.vmap(env.step)(states, action)
        return (states, x), states.data
    (states, x), trace = jax.lax.scan(body, (states, jnp.ones((64, 256)) + 0 * states.obs[0, 0]), actions)
    return trace

mesh = Mesh(np.array(jax.devices()), ("rows",))
sharded = jax.jit(jax.shard_map(block, mesh=mesh, in_specs=(P("rows"), P(None, "rows")), out_specs=P(None, "rows"), check_vma=False))
single = np.asarray(jax.jit(block)(states, actions))
both = [np.asarray(sharded(states, actions)) for _ in range(3)]
print(json.dumps({"devices": len(jax.devices()), "equal": all(np.array_equal(single, b) for b in both), "size": single.size}))
"""


def test_sharded_over_two_cpu_devices():
    make("door", "mujoco")  # or skip
    done = run_alone(SHARDED.replace("NAME", "'door'").replace("ROWS", "8"))
    assert done["devices"] == 2 and done["equal"]


def test_large_batches_over_two_cpu_devices_do_not_hang():
    # Inputs of a callback are put on a device by JAX, on threads that a program waiting for its callback may hold.
    done = run_alone(SHARDED.replace("NAME", "'point-umaze'").replace("ROWS", "4096").replace("40", "4"))
    assert done["devices"] == 2 and done["equal"]


def test_free_flight_agrees_in_float32():
    mjx, c = make("point-umaze", "mjx"), make("point-umaze", "mujoco")
    states = jax.vmap(mjx.reset)(keys_of(2, 2))
    # A push to and fro stays within the first corridor, clear of its walls.
    t = np.arange(50)[:, None, None]
    actions = np.broadcast_to(0.5 * np.cos(t / 2) * np.array([1.0, 0.2]), (50, 2, 2)).astype(np.float32)
    _, a = scanned(mjx, states, actions)
    _, b = scanned(c, jax.vmap(c.reset)(keys_of(2, 2)), actions)
    assert np.ptp(a.obs[..., 0]) > 0.1
    assert np.max(np.abs(a.obs - b.obs)) < 1e-5


CONTACT = """
import json
import jax, jax.numpy as jnp, mujoco, numpy as np
import envs
mjx, c = envs.make("push-disc", "mjx"), envs.make("push-disc", "mujoco")
system = c.physics.system
start = np.array([[-2.8, 0.95, -1.8, 1.0], [-2.4, 0.3, -1.2, 0.4]])  # past the post, grazing it; onto the post
t = np.arange(50)
actions = np.stack([np.stack([0.6 + 0 * t, 0.1 * np.sin(t / 5)], -1), np.stack([0.9 + 0 * t, -0.2 + 0 * t], -1)], 1)

def run(physics):
    def body(data, action):
        data, out = jax.vmap(lambda d, a: physics.step(d, a, ()))(data, action)
        return data, out
    return jax.jit(lambda q, a: jax.lax.scan(body, jax.vmap(physics.init)(q), a))(start, actions)[1]

a, b = run(mjx.physics), run(c.physics)
contacts = []
for row in range(2):
    data = mujoco.MjData(system.model)
    data.qpos[:] = start[row]
    for action in actions[:, row]:
        data.ctrl[:] = action
        for _ in range(system.substeps):
            mujoco.mj_step(system.model, data)
            contacts.append([data.ncon > 0, data.ncon > 1])
error = max(float(np.max(np.abs(a.qpos - b.qpos))), float(np.max(np.abs(a.qvel - b.qvel))))
one, two = np.sum(contacts, axis=0).tolist()
print(json.dumps({"error": error, "one": one, "two": two, "dtype": str(a.qpos.dtype), "bad": bool(np.any(a.bad | b.bad))}))
"""


def test_contact_agrees_in_float64():
    done = run_alone(CONTACT, JAX_ENABLE_X64="1")
    assert done["dtype"] == "float64" and not done["bad"]
    assert done["one"] > 100 and done["two"] > 20  # substeps with contact, and with two at once
    assert done["error"] < 1e-12


def test_a_real_blow_up_in_mujoco_is_seen_and_quiet(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    env = make("push-disc", "mujoco")
    state = env.reset(jax.random.key(0))
    numbers = np.asarray(state.data).copy().view(np.float64)
    numbers[env.physics._slices["qvel"]] = 1e9  # finite, until the first contact or limit answers
    state = jax.jit(env.step)(dataclasses.replace(state, data=jnp.asarray(numbers.view(np.uint32))), jnp.ones(2))
    assert bool(state.blown_up) and bool(state.truncated) and np.all(np.isfinite(state.obs)) and not bool(state.terminated)
    assert not list(tmp_path.iterdir())  # MuJoCo's log file
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["door", *(pytest.param(name, marks=pytest.mark.soak) for name in ("pen", "relocate", "hammer"))])
def test_poses_differ_between_rows(name):
    """Both engines: the episode's pose is the row's own, in MJX one real step of the whole model."""
    results = {}
    for engine in ("mujoco", "mjx"):
        env = make(name, engine)
        states = jax.vmap(env.reset)(keys_of(4, 2))
        # Compiled without optimisation: the program runs once, and MJX's hand takes long enough to compile.
        step = jax.jit(jax.vmap(env.step), compiler_options={"xla_backend_optimization_level": 0})
        after = step(states, actions_of(env, 3, 2))
        assert not np.any(after.blown_up)
        pose = {"door": slice(32, 35), "pen": slice(36, 39), "relocate": slice(36, 39), "hammer": slice(42, 45)}[name]
        assert np.allclose(after.obs[:, pose], states.obs[:, pose], atol=1e-3), engine
        assert np.all(np.ptp(np.asarray(after.obs[:, pose]), axis=0).max() > 0.01)
        assert np.all(after.reward == -1)
        results[engine] = np.asarray(after.obs)
    assert np.max(np.abs(results["mjx"] - results["mujoco"])) < (0.1 if name == "pen" else 1e-3)  # the pen touches the hand, and spins
