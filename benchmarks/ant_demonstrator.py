"""How often AntMaze's demonstrator arrives: `python -m benchmarks.ant_demonstrator` prints a Markdown table, in C MuJoCo.

Each episode starts where the task's data start, with the data's action noise, and is led to a goal of the data's ("own goal"), for the task's
whole horizon; or, "task", it is led from the task's start to the task's goal, which is what an agent is evaluated on.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

TASKS = (
    *(
        "antmaze-umaze",
        "antmaze-umaze-diverse",
        "antmaze-medium-play",
        "antmaze-medium-diverse",
        "antmaze-large-play",
        "antmaze-large-diverse",
    ),
    *("antmaze-minari-umaze", "antmaze-minari-medium-play", "antmaze-minari-large-diverse"),
)


def measure(task: str, episodes: int, to_the_task: bool) -> dict[str, Any]:
    """Of `episodes` episodes: the share that arrives, the median steps until then, the share that ends on its back."""
    import jax
    import jax.numpy as jnp

    import envs

    env = envs.make(task, "mujoco")
    demonstrator = envs.demonstrator(env)

    def episode(key):
        key_reset, key_init, key_act = jax.random.split(key, 3)
        state = env.reset(key_reset) if to_the_task else demonstrator.reset(key_reset)
        goal, ahead = demonstrator.init(key_init, state)
        goal = state.params if to_the_task else goal

        def step(carry, key):
            state, memory, there = carry
            action, memory = demonstrator.act(memory, state, key)
            state = env.step(state, action)
            there = there | (jnp.linalg.norm(state.obs[:2] - goal) <= env.task.rules.goal_radius)
            return (state, memory, there), there

        none = jnp.zeros((), bool)
        (state, _, _), there = jax.lax.scan(step, (state, (goal, ahead), none), jax.random.split(key_act, env.horizon))
        return there, 1 - 2 * (state.obs[4] ** 2 + state.obs[5] ** 2) < 0

    there, fallen = map(np.asarray, jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), episodes)))
    until = (env.horizon - there.sum(1))[there[:, -1]]
    return {"arrived": there[:, -1].mean(), "steps": float(np.median(until)) if len(until) else float("nan"), "fallen": fallen.mean()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ant_demonstrator", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--episodes", type=int, default=50)
    args = parser.parse_args(argv)
    print("| task | led to | arrived | steps (median) | on its back at the end |\n|---|---|---|---|---|", flush=True)
    for task in args.tasks:
        for to_the_task in (True, False):
            found = measure(task, args.episodes, to_the_task)
            goal = "the task's goal" if to_the_task else "own goals"
            print(f"| `{task}` | {goal} | {found['arrived']:.2f} | {found['steps']:.0f} | {found['fallen']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
