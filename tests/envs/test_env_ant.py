"""AntMaze: the ant and the mazes against gymnasium and gymnasium-robotics, starts, goals and ends by hand, the walker and its planner."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from env_programs import make, program
from test_env_engines import run_alone

import envs
from envs import ant, ant_walk, antmaze
from envs.core import TaskError

D4RL_SIZES = {"umaze": (18, 7), "medium": (38, 26), "large": (62, 46)}  # walls, free cells
EVERY = [name for name in envs.TASKS if name.startswith("antmaze-")]


@functools.cache
def task_of(name: str) -> antmaze.AntMaze:
    return antmaze.ant_maze(*antmaze.maze_of(name))


# --- the models -------------------------------------------------------------------------------------------------------------------------


def test_our_ant_is_gymnasiums_number_for_number():
    gymnasium = pytest.importorskip("gymnasium")
    theirs = mujoco.MjModel.from_xml_path(str(Path(gymnasium.__file__).parent / "envs/mujoco/assets/ant.xml"))
    ours = ant.ant_model(ant.GYMNASIUM)
    looks = ("_", "cam_", "light_", "mat_", "tex_", "name", "numeric_", "geom_matid", "geom_rgba", "text", "paths")
    compared = [name for name in dir(theirs) if isinstance(getattr(theirs, name), np.ndarray) and not name.startswith(looks)]
    assert {"body_mass", "body_inertia", "jnt_range", "jnt_axis", "dof_armature", "geom_size", "geom_solimp", "actuator_gear"} <= set(
        compared
    )
    assert [name for name in compared if not np.array_equal(getattr(theirs, name), getattr(ours, name))] == []
    options = [name for name in dir(theirs.opt) if not name.startswith("_")]
    assert all(np.array_equal(getattr(theirs.opt, name), getattr(ours.opt, name)) for name in options)
    assert [ours.joint(i).name for i in range(1, 9)] == list(ant.JOINTS) == [theirs.joint(i).name for i in range(1, 9)]


def test_d4rls_ant_differs_where_its_xml_does():
    """d4rl/locomotion/assets/ant.xml: timestep 0.02, ctrlrange +-30 at gear 1, solimp .8 .8 .01; the rest is gymnasium's."""
    ours, other = ant.ant_model(ant.D4RL), ant.ant_model(ant.GYMNASIUM)
    assert ours.opt.timestep == 0.02 and other.opt.timestep == 0.01 and ours.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    assert np.all(ours.actuator_gear[:, 0] == 30) and np.all(other.actuator_gear[:, 0] == 150)
    assert np.allclose(ours.geom_solimp[:, :3], [0.8, 0.8, 0.01]) and np.allclose(ours.geom_solref, [0.02, 1])
    for name in ("body_mass", "body_inertia", "jnt_range", "geom_size", "geom_margin", "dof_damping", "qpos0"):
        assert np.array_equal(getattr(ours, name), getattr(other, name)), name


@pytest.mark.parametrize("size, ours", [("UMaze", "umaze"), ("Medium", "medium"), ("Large", "large")])
def test_layouts_are_gymnasium_robotics(size, ours):
    maps = pytest.importorskip("gymnasium_robotics.envs.maze.maps")
    theirs = {"UMaze": maps.U_MAZE, "Medium": maps.MEDIUM_MAZE, "Large": maps.LARGE_MAZE}[size]
    layout = antmaze.LAYOUTS[ours]
    assert [[cell == "#" for cell in line] for line in layout] == [[cell == 1 for cell in line] for line in theirs]
    if size != "UMaze":  # the cells picked by hand
        picked = {"Medium": maps.MEDIUM_MAZE_DIVERSE_GR, "Large": maps.LARGE_MAZE_DIVERSE_GR}[size]
        marks = "Rc" if size == "Medium" else "RGc"
        assert {tuple(c) for c in antmaze.cells(layout, marks).tolist()} == {
            (i, j) for i, line in enumerate(picked) for j, cell in enumerate(line) if cell == "c"
        }


def test_c_engine_is_gymnasium_robotics_antmaze():
    """The same start beside a wall and the same 50 actions, with wall and floor contacts: every number of the state."""
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("gymnasium_robotics")
    theirs = gymnasium.make("AntMaze_UMaze-v4").unwrapped
    theirs.reset(seed=0)
    env = make("antmaze-minari-umaze", "mujoco")
    data = mujoco.MjData(env.physics._model)
    data.qpos[:2] = (-1.1, 2.7)  # in the upper corridor, heading for its inner wall
    data.qpos[2], data.qvel[1] = 0.6, -2.0
    theirs.ant_env.set_state(data.qpos.copy(), data.qvel.copy())
    mujoco.mj_forward(env.physics._model, data)
    bits = jnp.asarray(env.physics.snapshot(data))
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 8)).astype(np.float32)
    states, readouts = jax.jit(lambda b, a: jax.lax.scan(lambda b, a: _state_after(env, b, a), b, a)[1])(bits, actions)
    touched = 0
    for action, bits, qpos in zip(actions, np.asarray(states), np.asarray(readouts), strict=True):
        seen, *_ = theirs.step(action)
        real = bits.view(np.float64)
        expected = np.concatenate([theirs.data.qpos, theirs.data.qvel])
        np.testing.assert_allclose(real[1:30], expected, atol=1e-9, rtol=0)
        np.testing.assert_allclose(
            qpos, np.concatenate([seen["achieved_goal"], seen["observation"]])[:15], atol=1e-6
        )  # as float32, and our order
        pairs = np.sort(theirs.data.contact.geom[: theirs.data.ncon], axis=1)
        touched += np.any((pairs[:, 0] >= 1) & (pairs[:, 0] <= 18))
    assert touched > 5
    theirs.close()


def _state_after(env, bits, action):
    bits, readout = env.physics.step(bits, action, ())
    return bits, (bits, readout.qpos)


def test_mjx_allocates_tens_of_rows():
    from envs.physics import import_mjx

    mjx = import_mjx()
    rows = {}
    for name in ("antmaze-umaze", "antmaze-large-play", "antmaze-minari-medium-play"):
        model = task_of(name).system("mjx").model
        rows[name] = mjx.make_data(model, impl="jax")._impl.nefc
    assert set(rows.values()) == {8 + 4 * ant.MJX_CONTACTS}  # joint limits, and four rows for each contact: 56, whatever the maze
    full = task_of("antmaze-umaze").system("mujoco").model
    assert mjx.make_data(full, impl="jax")._impl.nefc == 1908


# --- the rules --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_every_task_says_what_it_is(name):
    info, task = envs.TASKS[name], task_of(name)
    assert info.horizon == (700 if "umaze" in name else 1000) and info.suite == "antmaze"
    assert (len(task.walls), len(task.free)) == D4RL_SIZES[next(size for size in D4RL_SIZES if size in name)]
    assert len(task.observation_names) == 29 == len(set(task.observation_names)) and task.observation_names[15:18] == ("vx", "vy", "vz")


def test_starts_and_goals_of_d4rl():
    """maze_env.py: x = 4 (column - R's column), y = 4 (row - R's row); a goal is a cell's middle + U(0, 1) + U(0, 0.5) on each axis."""
    for name, cell in (("antmaze-umaze", (0, 8)), ("antmaze-medium-play", (20, 20)), ("antmaze-large-diverse", (32, 24))):
        np.testing.assert_allclose(task_of(name).goal_middle, np.add(cell, 0.75))
        assert np.all(task_of(name).begin == 0)
    start = _starts(task_of("antmaze-large-diverse"))
    offset = np.asarray(start.params) - (32, 24)
    assert offset.min() >= 0 and offset.max() <= 1.5 and np.abs(offset.mean(0) - 0.75).max() < 0.02
    assert abs(offset.std() - np.sqrt(1 / 12 + 0.25 / 12)) < 0.02
    qpos, qvel = np.asarray(start.qpos), np.asarray(start.qvel)
    assert np.abs(qpos[:, :2]).max() <= 0.1 and 0.65 <= qpos[:, 2].min() and qpos[:, 2].max() <= 0.85
    assert np.abs(qpos[:, 7:]).max() <= 0.1 and np.abs(np.linalg.norm(qpos[:, 3:7], axis=1) - 1).max() < 1e-6
    assert 0.09 < qvel.std() < 0.11 and np.abs(qvel).max() > 0.25


def test_starts_and_goals_of_minari():
    """maze_v4.py: the maze's middle is the origin, y runs against the rows, +-0.25 cells on start and goal, the pose is the reference one."""
    for name, begin, cell in (("antmaze-minari-umaze", (-4, -4), (-4, 4)), ("antmaze-minari-large-play", (-18, 12), (14, -12))):
        assert np.all(task_of(name).begin == begin) and np.all(task_of(name).goal == cell)
    start = _starts(task_of("antmaze-minari-large-play"))
    place, goal = np.asarray(start.qpos)[:, :2] - begin, np.asarray(start.params) - cell
    assert all(0.95 < np.abs(offset).max() <= 1 and np.abs(offset.mean()) < 0.05 for offset in (place, goal))
    assert np.all(np.asarray(start.qpos)[:, 2:] == [0.75, 1, *[0] * 11]) and not np.any(start.qvel)


def _starts(task, n=2000):
    return jax.jit(jax.vmap(task.start))(jax.random.split(jax.random.key(0), n))


def test_recorded_starts_and_goals():
    count = lambda name: tuple(map(len, task_of(name).recorded[:2]))
    assert count("antmaze-umaze") == count("antmaze-minari-umaze") == (1, 1)
    assert count("antmaze-medium-play") == (23, 3) and count("antmaze-large-play") == (39, 7)  # starts are never goals
    assert count("antmaze-medium-diverse") == (26, 26) and count("antmaze-large-diverse") == (46, 46)
    assert count("antmaze-minari-medium-play") == (26, 26) and count("antmaze-minari-medium-diverse") == (4, 4)
    assert count("antmaze-minari-large-diverse") == (8, 8) and count("antmaze-minari-umaze-diverse") == (7, 7)
    assert np.all(task_of("antmaze-medium-play").recorded.goals == [[20, 4], [0, 16], [16, 20]])


def test_reward_and_end_by_hand():
    obs = lambda x, y: jnp.zeros(29).at[:2].set(jnp.array([x, y]))
    say = lambda task, goal, *place: tuple(map(float, task.episode_outcome(jnp.array(goal), obs(0, 0), jnp.zeros(8), obs(*place))))
    ours, minari = task_of("antmaze-umaze"), task_of("antmaze-minari-umaze")
    assert say(ours, (0.2, 8.3), 0.2, 8.79) == (1, 1, 1) and say(ours, (0.2, 8.3), 0.2, 8.81) == (0, 0, 0)
    assert say(minari, (-4.0, 4.0), -4.0, 4.44) == (1, 1, 0) and say(minari, (-4.0, 4.0), -4.0, 4.46) == (0, 0, 0)
    middle = ours.outcome(obs(0, 0), jnp.zeros(8), obs(0.75, 9.2))  # data are judged by one goal, the middle of D4RL's
    assert tuple(map(float, middle)) == (1, 1, 1) and float(ours.outcome(obs(0, 0), jnp.zeros(8), obs(0.0, 8.0)).reward) == 0


def test_step_judges_by_the_episodes_own_goal_and_by_the_clock():
    p = program("antmaze-umaze", "mujoco")
    state = p.reset(jax.random.split(jax.random.key(0), 4))
    near = state.obs[:, :2] + jnp.array([[0.1, 0.0], [0.0, -0.2], [3.0, 0.0], [0.0, 3.0]])
    state = _with(state, params=near)
    after = p.step(state, np.zeros((4, 8), np.float32))
    assert np.array_equal(after.reward, [1, 1, 0, 0]) and np.array_equal(after.terminated, [True, True, False, False])
    late = p.step(_with(state, t=state.t + 699), np.zeros((4, 8), np.float32))
    assert np.array_equal(late.truncated, [False, False, True, True]) and np.array_equal(late.success, late.terminated)
    assert len(p.traces) == 1  # a goal is an argument


def _with(state, **fields):
    return dataclasses.replace(state, **fields)


# --- the walker -------------------------------------------------------------------------------------------------------------------------


def test_the_walker_sees_an_ant_that_looks_the_same_from_four_sides():
    """An ant whose legs are renamed by a quarter turn, going a quarter turn elsewhere: the same features, the same actions on the same legs."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=29)
    obs[3:7] = [np.cos(0.4), 0.05, -0.1, np.sin(0.4)]
    obs[3:7] /= np.linalg.norm(obs[3:7])
    waypoint = obs[:2] + [3.0, 1.0]
    turned, across = obs.copy(), obs[:2] + [-1.0, 3.0]  # the waypoint a quarter turn on, and the ant turned with it
    half = np.sqrt(0.5)
    w, x, y, z = obs[3:7]
    turned[3:7] = half * np.array([w - z, x - y, x + y, w + z])
    turned[15:17] = [-obs[16], obs[15]]
    egocentric = jax.jit(ant_walk.egocentric)
    first, side = egocentric(jnp.asarray(obs), jnp.asarray(waypoint))
    same, same_side = egocentric(jnp.asarray(turned), jnp.asarray(across))
    np.testing.assert_allclose(first, same, atol=1e-5)
    assert side == same_side and first.shape == (ant_walk.FEATURES,)
    back, other = egocentric(jnp.asarray(obs), jnp.asarray(obs[:2] + [-1.0, 3.0]))  # the same ant, the other waypoint
    assert other == (side + 1) % 4 and np.isclose(first[0], back[0])
    np.testing.assert_allclose(back[26:], first[26:], atol=1e-5)
    np.testing.assert_allclose(back[10:14], jnp.roll(first[10:14], -1), atol=1e-6)  # hips
    np.testing.assert_allclose(back[14:18], jnp.roll(first[14:18], -1), atol=1e-6)  # ankles, outwards positive on every leg


_ACTUATE = jax.jit(ant_walk.to_actuators)


@pytest.mark.parametrize("side", range(4))
def test_walker_actions_reach_the_leg_they_mean(side):
    """Action 0 is the hip and action 4 the ankle of the front side's left leg: at side s leg s + 1, which actuators s + 1 (mod 4) drive."""
    pushed = np.asarray(_ACTUATE(np.eye(8)[0] + np.eye(8)[4], side))
    expected = np.zeros(8)
    pair = ant.ACTUATOR_LEGS.index(side)
    expected[2 * pair : 2 * pair + 2] = 1, ant.LEGS[side][2]
    assert np.array_equal(pushed, expected)


def test_planner_takes_a_shortest_way():
    from envs.ant_demonstrator import next_cells

    task = task_of("antmaze-large-play")
    table = next_cells(task.free)
    for start, goal in ((0, len(table) - 1), (len(table) - 1, 0), (5, 5)):
        way = [start]
        while way[-1] != goal:
            way.append(table[way[-1], goal])
            step = np.abs(task.free[way[-1]] - task.free[way[-2]]).sum()
            assert step == 1 and len(way) <= len(table)
    start, goal = (next(i for i, cell in enumerate(task.free.tolist()) if cell == place) for place in ([1, 1], [7, 9]))
    steps, here = 0, start
    while here != goal:
        steps, here = steps + 1, table[here, goal]
    assert steps == 14  # by hand on the layout


def test_a_damaged_walker_is_refused(tmp_path):
    path = tmp_path / "walker.npz"
    np.savez(path, w0=np.zeros((3, 8)), b0=np.zeros(8), mean=np.zeros(28), deviation=np.ones(28))
    with pytest.raises(TaskError, match="walker.npz: found .*; expected a walker of 28 features"):
        ant_walk.walker(path)
    with pytest.raises(TaskError, match="nowhere.npz: cannot be read"):
        ant_walk.walker(tmp_path / "nowhere.npz")


def test_the_demonstrator_walks_to_its_goals():
    """Eight episodes of the U maze, 35 s each, with D4RL's noise: most arrive, and the data's start is the data set's."""
    env = make("antmaze-umaze-diverse", "mujoco")
    demo = envs.demonstrator(env)

    def episode(key):
        state = demo.reset(key)
        memory = demo.init(key, state)

        def step(carry, key):
            state, memory = carry
            action, memory = demo.act(memory, state, key)
            state = env.step(state, action)
            return (state, memory), (jnp.linalg.norm(state.obs[:2] - memory[0]), action)

        distance, action = jax.lax.scan(step, (state, memory), jax.random.split(key, 350))[1]
        return state.obs, state.params, distance, action

    obs, params, distance, action = jax.tree.map(np.asarray, jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 8)))
    assert np.mean(distance.min(axis=1) <= 0.5) >= 0.7
    assert np.all(np.abs(action) <= 1) and np.all(params == np.float32([0.75, 8.75]))  # all are judged by one goal, as D4RL's files are
    cells = np.asarray(env.task.recorded.starts)
    offset = obs[:, None, :2] - cells
    assert np.all(np.any(np.all((offset >= 0) & (offset <= 1), axis=2), axis=1))


def test_walking_as_brax_sees_it():
    """brax's wrappers around the walk: a fall ends an episode, the time limit truncates it, and what comes next starts afresh."""
    pytest.importorskip("brax")
    from brax.envs.wrappers import training

    from envs.to_brax import BraxView

    env = training.wrap(BraxView(_walk()), episode_length=3)
    state = jax.jit(env.reset)(jax.random.split(jax.random.PRNGKey(0), 2))
    assert state.obs.shape == (2, env.observation_size) == (2, 28) and env.action_size == 8 and env.backend == "mujoco"
    step, first = jax.jit(env.step), state.obs
    walk = state.pipeline_state.params
    over = np.array(_walk().ant.physics._rest).view(np.float64)  # row 0 lies on its back
    slices = _walk().ant.physics._slices
    over[slices["qpos"]] = [0, 0, 0.4, 0, 1, 0, 0, *[0] * 8]
    inner = state.pipeline_state
    fallen = dataclasses.replace(inner, data=inner.data.at[0].set(over.view(np.uint32)))
    after = step(state.replace(pipeline_state=fallen), jnp.zeros((2, 8)))
    assert np.array_equal(after.done, [1, 0]) and np.array_equal(after.info["truncation"], [0, 0])
    np.testing.assert_array_equal(after.obs[0], first[0])
    for _ in range(2):
        after = step(after, jnp.zeros((2, 8)))
    assert np.array_equal(after.done, [0, 1]) and np.array_equal(after.info["truncation"], [0, 1])
    assert np.all(np.abs(np.asarray(walk.waypoint - walk.ant[:, :2])) <= ant_walk.NEXT_WAYPOINT)


@functools.cache
def _walk():
    return ant_walk.ant_walk("mujoco")


def test_the_reward_of_walking_is_the_approach():
    walk = _walk()
    state = jax.jit(walk.reset)(jax.random.key(1))
    step = jax.jit(walk.step)
    action = jnp.full(8, 0.5)
    after = step(state, action)
    left = lambda obs: float(jnp.linalg.norm(state.params.waypoint - obs[:2]))
    expected = (left(state.params.ant) - left(after.params.ant)) / 0.1 - ant_walk.EFFORT * 0.25
    assert np.isclose(after.reward, expected, atol=1e-4) and not after.terminated and after.params.passed == 0
    there = dataclasses.replace(state, params=state.params._replace(waypoint=state.params.ant[:2] + 0.5))
    after = step(there, action)
    assert after.success and after.params.passed == 1
    away = float(jnp.linalg.norm(after.params.waypoint - after.params.ant[:2]))
    assert np.isclose(away, ant_walk.NEXT_WAYPOINT, atol=1e-4)


# --- MJX --------------------------------------------------------------------------------------------------------------------------------


def test_mjx_falls_as_c_falls_and_comes_to_stand():
    """The one MJX program of an ant that is compiled here: as C in the air; after the first contact with pyramidal cones only about alike."""
    states = {}
    for engine in ("mujoco", "mjx"):
        env = make("antmaze-umaze", engine)
        start = env.state_of(env.task.start_at(jnp.zeros(2), jnp.array([0.75, 8.75]), jax.random.key(0)))
        roll = jax.jit(lambda s, env=env: jax.lax.scan(lambda s, _: (env.step(s, jnp.zeros(8)),) * 2, s, None, length=20)[1])
        quickly = {"xla_backend_optimization_level": 0}  # compiling is what this test costs
        states[engine] = np.asarray(roll.lower(start).compile(compiler_options=quickly)(start).obs)
    off = np.abs(states["mjx"] - states["mujoco"])[:, :15].max(axis=1)
    assert off[0] < 1e-5 and off.max() < 0.3
    assert 0.2 < states["mjx"][-1, 2] < 0.7 and np.all(np.isfinite(states["mjx"]))


@pytest.mark.soak
def test_mjx_in_double_is_c_with_elliptic_cones():
    """What parts the engines is the pyramidal cones' contact frames: with elliptic ones and float64 they agree through every contact."""
    pytest.importorskip("gymnasium_robotics")
    code = "import dataclasses, json; from benchmarks.parity import antmaze; import envs; env = envs.make('antmaze-umaze', 'mujoco'); "
    found = run_alone(code + "print(json.dumps([dataclasses.asdict(row) for row in antmaze.steps(env, 'float64')]))", JAX_ENABLE_X64="1")
    off = {(row["variant"], row["metric"]): row["value"] for row in found}
    assert off["MJX x64 against C, few contacts and elliptic cones in both", "difference at step 50"] < 1e-6
    assert off["C MuJoCo, few contacts against all", "difference at step 50"] == 0
    assert off["MJX x64 against C", "difference at step 1"] < 1e-12 < off["MJX x64 against C", "difference at step 10"]
