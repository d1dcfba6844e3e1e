"""AntMaze beside gymnasium-robotics' AntMaze_UMaze-v4, and D4RL's ant, which runs nowhere any more, beside C MuJoCo.

steps      the same start and the same 50 random actions: the largest difference of an observation. C MuJoCo against gymnasium-robotics in
           float64; MJX against C with the cones as released (pyramidal) and, in float64, with elliptic ones in both
policy     the demonstrator, led to the task's goal from the same starts with the same noise: success within the horizon, and the steps until
           then (the horizon where it does not arrive), which is the return as most papers shift it
open_loop  the actions of those episodes in C MuJoCo once more, from the same starts
rates      control steps per CPU second (not per second: machines are shared) of 1, 16 and 64 ants in one scan, and CPU seconds of
           compilation, before and after each simplification for MJX
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity.intervals import difference_of_means, difference_of_rates
from benchmarks.parity.table import Row

NAME = "antmaze"
TASKS = ("antmaze-minari-umaze", "antmaze-umaze")
BOTH = ("float32", "float64")
PAGE = "antmaze.md"
PARTS = {"steps": BOTH, "policy": ("float32",), "open_loop": ("float32",), "rates": ("float32",)}
STEPS, REPORTED = 50, (1, 10, 20, 50)
APART = {"float32": 1e-3, "float64": 1e-6}  # the difference from which on two trajectories count as parted
EPISODES = 50
HEIGHT = 0.56  # metres, at which an ant with bent legs stands


# --- the same actions -------------------------------------------------------------------------------------------------------------------


def given(task: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(qpos [15], qvel [14], actions [50, 8]) that float32 holds exactly: an ant standing in the start cell, under random actions."""
    from envs import ant

    rng = np.random.default_rng(0)
    legs = np.stack([np.zeros(4), [bend for *_, bend in ant.LEGS]], axis=1).ravel()
    qpos = np.concatenate([task.begin, [HEIGHT, 1.0, 0.0, 0.0, 0.0], legs])
    return tuple(np.asarray(x, np.float32).astype(float) for x in (qpos, 0.1 * rng.normal(size=14), rng.uniform(-1, 1, (STEPS, 8))))


def trajectory(task: Any, engine: str, *, few: bool, elliptic: bool = False) -> np.ndarray:
    """[50, 29] observations after each of the given actions, with few contacts or the released ones, in the precision that JAX runs in."""
    import mujoco

    from envs.physics import build

    system = task.system("mjx" if few else "mujoco")
    if elliptic:
        system.model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    physics = build(system, engine)
    qpos, qvel, actions = (jnp.asarray(x, jnp.result_type(float)) for x in given(task))

    def step(data, action):
        data, readout = physics.step(data, action, ())
        return data, jnp.concatenate([readout.qpos, readout.qvel])

    # Run once: a program that is compiled quickly serves best.
    program = jax.jit(lambda: jax.lax.scan(step, physics.init(qpos, qvel), actions)[1]).lower()
    return np.asarray(program.compile(compiler_options={"xla_backend_optimization_level": 0})(), float)


def their_trajectory(task: Any) -> np.ndarray:
    """The same in gymnasium-robotics."""
    env = gymnasium_robotics_maze(task)
    qpos, qvel, actions = given(task)
    env.ant_env.set_state(qpos, qvel)
    states = []
    for action in actions:
        env.step(action)
        states.append(np.concatenate([env.data.qpos, env.data.qvel]))
    env.close()
    return np.array(states)


def gymnasium_robotics_maze(task: Any) -> Any:
    """AntMaze_UMaze-v4 with the task's start and goal cells, before its first reset by us."""
    import gymnasium
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    marks = {"#": 1, "R": "r", "G": "g", " ": 0}
    env = gymnasium.make("AntMaze_UMaze-v4", maze_map=[[marks[cell] for cell in line] for line in task.layout]).unwrapped
    env.reset(seed=0)
    return env


def steps(env: Any, precision: str) -> list[Row]:
    task, mjx = env.task, f"MJX {'float32' if precision == 'float32' else 'x64'}"
    released = trajectory(task, "mujoco", few=False)
    pairs = {f"{mjx} against C": (trajectory(task, "mjx", few=True), released)}
    if precision == "float64":
        if task.rules.centred:
            pairs["C MuJoCo against gymnasium-robotics"] = released, their_trajectory(task)
        pairs["C MuJoCo, few contacts against all"] = trajectory(task, "mujoco", few=True), released
        engines = [trajectory(task, engine, few=True, elliptic=True) for engine in ("mjx", "mujoco")]
        pairs[f"{mjx} against C, few contacts and elliptic cones in both"] = engines
    rows = []
    for variant, (ours, theirs) in pairs.items():
        off = np.abs(ours - theirs).max(axis=1)
        apart = off > APART[precision]
        rows += [Row(env.name, "steps", variant, f"difference at step {t}", float(off[t - 1])) for t in REPORTED]
        rows.append(Row(env.name, "steps", variant, "apart from step", int(apart.argmax()) + 1 if apart.any() else "never"))
    return rows


# --- the demonstrator -------------------------------------------------------------------------------------------------------------------


def _led(env: Any) -> tuple[Callable, Callable]:
    """The demonstrator, led to the episode's goal instead of one that it draws: (init(state), act)."""
    import envs

    demonstrator = envs.demonstrator(env)
    return lambda state: (state.params, demonstrator.init(jax.random.key(0), state)[1]), demonstrator.act


def _keys() -> jax.Array:
    return jax.random.split(jax.random.key(0), EPISODES)


def walked(env: Any, given: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """([EPISODES, horizon] bool, whether the episode has been at its goal; [EPISODES, horizon, 8] the actions): the demonstrator's, or
    those that are `given`."""
    init, act = _led(env)
    given = np.zeros((EPISODES, env.horizon, 0), np.float32) if given is None else given

    def episode(key, given):
        state = env.reset(key)

        def step(carry, t):
            state, memory, there = carry
            action, memory = (given[t], memory) if given.size else act(memory, state, jax.random.fold_in(key, t))
            state = env.step(state, action)
            there = there | state.success
            return (state, memory, there), (there, action)

        return jax.lax.scan(step, (state, init(state), state.success), jnp.arange(env.horizon))[1]

    there, actions = jax.jit(jax.vmap(episode))(_keys(), given)
    return np.asarray(there), np.asarray(actions)


def walked_there(env: Any, given: np.ndarray | None = None) -> np.ndarray:
    """The same in gymnasium-robotics, without the actions: starts, goals and noise of ours."""
    import mujoco

    theirs = gymnasium_robotics_maze(env.task)
    init, act = _led(env)
    act, reset = jax.jit(act), jax.jit(env.reset)
    result = np.zeros((EPISODES, env.horizon), bool)
    for i, key in enumerate(_keys()):
        state = reset(key)
        theirs.goal = np.asarray(state.params, float)
        mujoco.mj_resetData(theirs.ant_env.model, theirs.ant_env.data)  # the solver's warm start, too
        theirs.ant_env.set_state(*np.split(np.asarray(state.obs, float), [15]))
        memory = init(state)
        for t in range(env.horizon):
            action, memory = act(memory, state, jax.random.fold_in(key, t)) if given is None else (given[i, t], memory)
            seen, reward, *_ = theirs.step(np.asarray(action))
            if reward:
                result[i, t:] = True
                break
            obs = np.concatenate([seen["achieved_goal"], seen["observation"]])
            state = dataclasses.replace(state, obs=jnp.asarray(obs, jnp.float32))
    theirs.close()
    return result


def walks(env: Any, parts: list[str]) -> list[Row]:
    """The demonstrator, and its actions in C MuJoCo once more."""
    import envs

    mjx = envs.make(env.name, "mjx")
    there, actions = walked(env)
    rows: list[Row] = []
    if "policy" in parts:
        found = {"gymnasium-robotics": walked_there(env)} if env.task.rules.centred else {}
        rows += compared(env, "policy", {**found, "C MuJoCo": there, "MJX float32": walked(mjx)[0]})
    if "open_loop" in parts:
        found = {"gymnasium-robotics": walked_there(env, actions)} if env.task.rules.centred else {}
        rows += compared(env, "open_loop", {"C MuJoCo": walked(env, actions)[0], **found, "MJX float32": walked(mjx, actions)[0]})
    return rows


def compared(env: Any, part: str, found: dict[str, np.ndarray]) -> list[Row]:
    """The first engine's success and steps until the goal, and those of the others with their difference from it."""
    rows, first = [], next(iter(found.values()))
    for variant, there in found.items():
        until, expected = (env.horizon - x.sum(axis=1).astype(float) for x in (there, first))
        metrics = {"episodes": (EPISODES,), "success": (float(there[:, -1].mean()),)}
        if there is not first:
            metrics["its difference"] = difference_of_rates(there[:, -1], first[:, -1])
        metrics["steps to the goal"] = (float(until.mean()),)
        if there is not first:
            metrics["their difference"] = difference_of_means(until, expected)
        rows += [Row(env.name, part, variant, metric, *values) for metric, values in metrics.items()]
    return rows


# --- rates ------------------------------------------------------------------------------------------------------------------------------


def rate(env: Any, engine: str, few: bool, written_out: bool, width: int, length: int) -> tuple[float, float, int | None]:
    """(control steps per CPU second of `width` ants under random actions, CPU seconds of compiling, constraint rows that MJX holds);
    `written_out`: with MJX's own Runge-Kutta step."""
    from envs.physics import build, import_mjx

    physics = build(env.task.system("mjx" if few else "mujoco"), engine)
    if written_out:
        physics._step = import_mjx().step
    qpos, qvel, _ = given(env.task)

    def roll(keys):
        def step(data, key):
            action = jax.random.uniform(key, (width, 8), minval=-1.0, maxval=1.0)
            data, readout = jax.vmap(lambda d, a: physics.step(d, a, ()))(data, action)
            return data, readout.qpos[:, 2]

        start = physics.init(jnp.asarray(qpos, jnp.float32), jnp.asarray(qvel, jnp.float32))
        return jax.lax.scan(step, jax.tree.map(lambda x: jnp.repeat(x[None], width, 0), start), keys)[1]

    keys = jax.random.split(jax.random.key(0), length)
    began = time.process_time()
    program = jax.jit(roll).lower(keys).compile()
    compiled = time.process_time() - began
    jax.block_until_ready(program(keys))
    began = time.process_time()
    jax.block_until_ready(program(keys))
    rows = physics._blank._impl.efc_J.shape[0] if engine == "mjx" else None
    return width * length / (time.process_time() - began), compiled, rows


def rates(env: Any) -> list[Row]:
    """MJX as it was before each simplification is measured with one ant and, with all contacts, few steps."""
    rows = []
    for variant, engine, few, written_out, widths, length in (
        ("C MuJoCo, all contacts", "mujoco", False, False, (1, 16, 64), 100),
        ("C MuJoCo, few contacts", "mujoco", True, False, (1, 16, 64), 100),
        ("MJX, all contacts", "mjx", False, False, (1,), 2),
        ("MJX, few contacts, its own RK4", "mjx", True, True, (1,), 20),
        ("MJX, few contacts", "mjx", True, False, (1, 16, 64), 20),
    ):
        for width in widths:
            speed, compiled, constraints = rate(env, engine, few, written_out, width, length)
            rows.append(Row(env.name, "rates", variant, f"{width} env{'s' * (width > 1)}", speed))
        rows.append(Row(env.name, "rates", variant, "compilation", compiled))
        if constraints is not None:
            rows.append(Row(env.name, "rates", variant, "constraint rows", constraints))
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity.antmaze", description=__doc__)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument(
        "--parts", type=lambda text: text.split(","), required=True, help=f"some of {', '.join(PARTS)}, with commas between"
    )
    parser.add_argument("--precision", choices=BOTH, default="float32")
    parser.add_argument("--data", type=Path, help="where other families have their policies; the ant's is part of the package")
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", args.precision == "float64")  # before any array is made
    warnings.simplefilter("ignore")
    import envs

    env = envs.make(args.task, "mujoco")
    rows = steps(env, args.precision) if "steps" in args.parts else []
    rows += walks(env, args.parts) if {"policy", "open_loop"} & set(args.parts) else []
    rows += rates(env) if "rates" in args.parts else []
    print(json.dumps({"rows": [dataclasses.asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
