"""The Adroit tasks against the environments that they are ports of, and with the policies that were trained on those."""

import warnings

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from env_programs import HANDS, ROWS, actions_of, keys_of, make, policy_path, program

from envs.adroit import hand, pen
from envs.core import TaskError
from envs.demonstrators import mlp_policy

POSES = {"pen": ("desired_orien",), "door": ("door_body_pos",), "relocate": ("obj_pos", "target_pos"), "hammer": ("board_pos",)}
hands = pytest.mark.parametrize("name", HANDS)


@pytest.fixture(scope="module")
def robotics():
    module = pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics (extra 'adroit') is not installed")
    import gymnasium

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gymnasium.register_envs(module)
        yield lambda name: gymnasium.make(f"AdroitHand{name.title()}-v1", reward_type="sparse").unwrapped


def started(reference, name, params):
    """The first observation of a reference environment from an episode's parameters."""
    values = np.asarray(params, np.float64)
    poses = dict(zip(POSES[name], values if len(POSES[name]) > 1 else (values,), strict=True))
    reference.reset(seed=0)
    return reference.reset(seed=0, options={"initial_state_dict": {"qpos": reference.init_qpos, "qvel": reference.init_qvel, **poses}})[0]


@hands
def test_same_start_and_actions_as_the_reference(robotics, name):
    p = program(name, "mujoco")
    state = p.reset(keys_of(0))
    reference = robotics(name)
    assert np.max(np.abs(started(reference, name, state.params[0]) - state.obs[0])) < 1e-6
    for action in actions_of(p.env, 0, 50, ROWS):
        state = p.step(state, action)
        obs, reward, terminated, truncated, info = reference.step(action[0].astype(np.float64))
        numbers = np.asarray(state.data[0]).view(np.float64)
        for part, expected in (("qpos", reference.data.qpos), ("qvel", reference.data.qvel)):
            assert np.max(np.abs(numbers[p.env.physics._slices[part]] - expected)) < 1e-9
        assert np.allclose(obs, state.obs[0], rtol=1e-6, atol=1e-6)  # float32 against float64
        assert bool(state.success[0]) == bool(info["success"]) and not terminated
        assert float(state.reward[0]) == {-0.1: -1.0, 10.0: 0.0}[float(reward)]


@hands
def test_what_was_drawn_follows_from_the_first_observation(name):
    """As a replay of recorded episodes needs it; what a file says goes before."""
    p = program(name, "mujoco")
    state = p.reset(keys_of(0))
    found = np.stack([p.env.task.poses(obs, {}) for obs in state.obs])
    np.testing.assert_allclose(found, state.params, atol=2e-6)
    said = dict(zip(POSES[name], np.asarray(state.params[1]) if len(POSES[name]) > 1 else (np.asarray(state.params[1]),), strict=True))
    _, _, params = p.env.task.restore(state.obs[0], state.obs[0], {"qpos": 0, "qvel": 0, **said})
    np.testing.assert_array_equal(params, state.params[1])


@hands
def test_the_trained_policy_solves_the_task(name):
    p = program(name, "mujoco")
    trained = mlp_policy(policy_path(name))
    policy = jax.jit(jax.vmap(lambda obs: jnp.clip(trained(obs), -1.0, 1.0)))
    state = p.reset(keys_of(5))
    obs, solved = [], []
    for _ in range(p.env.horizon):
        state = p.step(state, policy(state.obs))
        obs.append(state.obs)
        solved.append(state.success)
    obs, solved = np.stack(obs), np.stack(solved)
    assert np.sum(solved.any(axis=0)) >= (2 if name == "pen" else ROWS) and np.all(state.truncated)
    assert np.all(obs >= p.env.obs_low) and np.all(obs <= p.env.obs_high)
    if name == "hammer":
        assert obs[..., 45].max() == 1 and obs[..., 45].min() == 0  # the nail feels the blows


def spread(drawn, low, high):
    """Whether 512 draws fill [low, high] in every component."""
    width = np.asarray(high) - np.asarray(low)
    inside = np.all((drawn >= np.asarray(low) - 1e-6) & (drawn <= np.asarray(high) + 1e-6))
    return (
        inside
        and np.all(np.ptp(drawn, axis=0) > 0.95 * width)
        and np.all(np.abs(drawn.mean(axis=0) - np.asarray(low) - width / 2) < 0.08 * width)
    )


def test_starts_are_drawn_as_published():
    """The ranges are those of the reset_model of each reference environment."""
    starts = {name: jax.jit(jax.vmap(make(name, "mujoco").task.start))(keys_of(1, 512)) for name in HANDS}
    params = {name: np.asarray(start.params) for name, start in starts.items()}
    assert spread(params["door"], (-0.3, 0.25, 0.252), (-0.2, 0.35, 0.35))
    assert spread(params["relocate"][:, 0, :2], (-0.15, -0.15), (0.15, 0.3)) and np.allclose(params["relocate"][:, 0, 2], 0.035)
    assert spread(params["relocate"][:, 1], (-0.2, -0.2, 0.15), (0.2, 0.2, 0.35))
    assert spread(params["hammer"][:, 2], 0.1, 0.25) and np.allclose(params["hammer"][:, :2], (0.05, 0.0))
    assert np.allclose(np.linalg.norm(params["pen"], axis=1), 1.0, atol=1e-6)
    along = np.diff(np.asarray(starts["pen"].readout.sites[:, 2:4]), axis=1)[:, 0] / -pen.LENGTH
    assert spread(np.stack([np.arctan2(-along[:, 1], along[:, 2]), np.arcsin(along[:, 0])], axis=1), (-1, -1), (1, 1))


def test_every_row_has_its_own_pose_without_a_new_program():
    """What the episode drew is still in the observation after a step of the physics. Door: test_env_engines."""
    seen = {"pen": slice(36, 39), "relocate": slice(36, 39), "hammer": slice(42, 45)}
    for name, columns in seen.items():
        p = program(name, "mujoco")
        before = p.reset(keys_of(6))
        after = p.step(before, np.zeros((ROWS, p.env.action_size), np.float32))
        assert np.allclose(before.obs[:, columns], after.obs[:, columns], atol=1e-3)
        assert len(np.unique(np.asarray(after.obs[:, columns]).round(3), axis=0)) == ROWS
        assert len(p.traces) == 1


def outcomes(name, rows):
    """(rewards, successes) of observations given as {column: value}, zero elsewhere; none of them terminates."""
    env = make(name, "mujoco")
    obs = np.zeros((len(rows), env.obs_size), np.float32)
    for row, values in zip(obs, rows, strict=True):
        for column, value in values.items():
            row[column] = value
    reward, success, terminated = jax.vmap(env.outcome)(jnp.asarray(obs), jnp.zeros((len(rows), env.action_size)), jnp.asarray(obs))
    assert not terminated.any() and np.array_equal(reward, np.asarray(success) - 1.0)
    return success.tolist()


def test_success_by_hand():
    up = {35: 1.0}
    tilted = lambda cosine: {36: (1 - cosine**2) ** 0.5, 38: cosine}
    pens = [up | {38: 1.0}, up | tilted(0.951), up | tilted(0.949), up | {38: 1.0, 40: 0.074}, up | {38: 1.0, 39: 0.06, 41: -0.05}, {}]
    assert outcomes("pen", pens) == [True, True, False, True, False, False]
    assert outcomes("relocate", [{36: 0.099}, {36: 0.06, 37: -0.06, 38: 0.06}, {38: -0.101}]) == [True, False, False]
    goal = make("hammer", "mujoco").task.goal
    nails = [dict(zip((42, 43), goal + away, strict=True)) for away in ((0, 0), (0.0099, 0), (0.0101, 0), (0.008, 0.008))]
    assert outcomes("hammer", [nail | {44: 0.2} for nail in nails]) == [True, True, False, False]


def test_names_say_what_the_columns_are():
    names = {name: make(name, "mujoco").observation_names for name in HANDS}
    assert (
        names["pen"][24] == "pen_x" and names["pen"][27] == "pen_velocity_x" and names["pen"][44] == "pen_direction_to_desired_direction_z"
    )
    assert names["relocate"][0] == "ARTx" and names["relocate"][30] == "palm_to_ball_x" and names["relocate"][36] == "ball_to_target_x"
    assert names["hammer"][26] == "nail_depth" and names["hammer"][42] == "nail_x" and names["hammer"][45] == "nail_force"


def test_euler_angles_are_the_reference_s(robotics):
    from gymnasium_robotics.utils.rotations import quat2euler

    from envs.adroit.hammer import euler_angles

    quats = np.random.default_rng(0).normal(size=(200, 4))
    quats = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32)
    ours, theirs = np.asarray(jax.vmap(euler_angles)(quats)), quat2euler(quats.astype(np.float64))
    error = np.abs(np.angle(np.exp(1j * (ours - theirs))))  # -pi is pi
    assert np.quantile(error, 0.95) < 1e-5 and error.max() < 1e-2  # large near the poles


@hands
def test_the_mjx_model_differs_where_it_says(name):
    """It can be put on MJX (which refuses what it has no collision for), and masses, joints and actuators are the released ones."""
    env = make(name, "mujoco")
    released, changed = env.physics.system.model, make(name, "mjx").physics.system.model
    kinds = set(changed.geom_type[(changed.geom_contype | changed.geom_conaffinity) > 0])
    assert mujoco.mjtGeom.mjGEOM_CYLINDER not in kinds
    for field in ("body_mass", "body_inertia", "body_ipos", "jnt_range", "dof_damping", "actuator_gainprm", "actuator_biasprm", "site_pos"):
        assert np.allclose(getattr(released, field), getattr(changed, field), rtol=1e-6, atol=1e-12), field
    assert (changed.opt.iterations, changed.nsensor) == (8, int(name == "hammer"))
    assert changed.ngeom == released.ngeom and np.array_equal(released.geom_pos, changed.geom_pos)
    colliding = ((changed.geom_contype | changed.geom_conaffinity) > 0) & (changed.geom_type != mujoco.mjtGeom.mjGEOM_PLANE)
    assert np.all(changed.geom_margin[colliding] == 0) and np.all(released.geom_margin[colliding] > 0) == (name != "hammer")
    if name == "relocate":
        spheres_and_capsules = colliding & (changed.geom_type != mujoco.mjtGeom.mjGEOM_BOX)
        grown = released.geom_size + released.geom_margin[:, None] * (np.arange(3) < np.where(spheres_and_capsules, 1, 3)[:, None])
        assert np.array_equal(released.geom_type, changed.geom_type)
        assert np.allclose(changed.geom_size[colliding], grown[colliding], rtol=0, atol=1e-12)


def test_margins_as_size_push_from_the_same_distance_on():
    """A capsule 0.4 mm above a box, within their margin of 1 mm: C MuJoCo pushes, MJX as well once the margin is a part of the shapes."""
    from envs.physics import import_mjx

    mjx = import_mjx()
    spec = mujoco.MjSpec.from_string("""<mujoco><worldbody><geom type="box" size=".1 .1 .01" margin=".0005"/>
        <body pos="0 0 .0304"><freejoint/><geom type="capsule" size=".02 .03" euler="0 90 0" margin=".0005"/></body></worldbody></mujoco>""")
    released = spec.compile()
    hand._margins_as_size(spec)
    changed = spec.compile()

    def pushing(model):
        collide = jax.jit(lambda data, device: mjx.collision(device, mjx.kinematics(device, data))._impl.contact)
        contact = collide(mjx.make_data(model, impl="jax"), mjx.put_model(model, impl="jax"))
        depth = np.asarray(contact.dist - contact.includemargin)
        return depth[depth < 0]

    data = mujoco.MjData(released)
    mujoco.mj_forward(released, data)
    expected = [contact.dist - contact.includemargin for contact in data.contact]
    assert np.allclose(expected, -0.0006) and len(expected) == 2
    np.testing.assert_allclose(pushing(changed), expected, atol=1e-6)
    assert len(pushing(released)) == 0  # were it otherwise, the change would not be needed
    assert np.allclose(released.body_mass, changed.body_mass) and np.allclose(released.body_inertia, changed.body_inertia)


def test_a_wrong_name_of_a_model_is_one_line(robotics):
    with pytest.raises(TaskError, match="gymnasium-robotics has no adroit_spoon.xml at .*; expected version 1.4.2"):
        hand.asset("adroit_spoon.xml")


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
