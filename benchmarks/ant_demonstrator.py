"""How often AntMaze's demonstrator arrives: `python -m benchmarks.ant_demonstrator` prints a Markdown table, in C MuJoCo.

"Recorded" episodes are those that `expo-bench data generate` makes, except that nothing ends them early: they start where the task's data start
and aim at goals of the data's. "Led to the task's goal" are episodes as an agent is evaluated in, with the demonstrator's noise.
"""

from __future__ import annotations

import argparse

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


def measure(task: str, episodes: int, to_the_task: bool) -> dict[str, float]:
    """Of `episodes` episodes: the shares that arrive, that pass the task's goal, that end on their back, and the median steps to arrive."""
    import jax
    import jax.numpy as jnp

    import envs

    env = envs.make(task, "mujoco")
    demonstrator, rules = envs.demonstrator(env), env.task.rules

    def episode(key):
        key_reset, key_init, key_act = jax.random.split(key, 3)
        state = env.reset(key_reset) if to_the_task else demonstrator.reset(key_reset)
        goal, ahead = demonstrator.init(key_init, state)
        goal = state.params if to_the_task else goal
        at = lambda state, goal: jnp.linalg.norm(state.obs[:2] - goal) <= rules.goal_radius

        def step(carry, key):
            state, memory, there, passed = carry
            action, memory = demonstrator.act(memory, state, key)
            state = env.step(state, action)
            there, passed = there | at(state, goal), passed | at(state, state.params)
            return (state, memory, there, passed), there

        none = jnp.zeros((), bool)
        (state, _, _, passed), there = jax.lax.scan(step, (state, (goal, ahead), none, none), jax.random.split(key_act, env.horizon))
        return there, passed, 1 - 2 * (state.obs[4] ** 2 + state.obs[5] ** 2) < 0

    there, passed, fallen = map(np.asarray, jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), episodes)))
    until = (env.horizon - there.sum(1))[there[:, -1]]
    steps = float(np.median(until)) if len(until) else float("nan")
    return {"arrived": there[:, -1].mean(), "steps": steps, "passed": passed.mean(), "fallen": fallen.mean()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ant_demonstrator", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--episodes", type=int, default=50)
    args = parser.parse_args(argv)
    print(
        "| task | | arrived | steps until then (median) | passed the task's goal | on its back at the end |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for task in args.tasks:
        for to_the_task in (False, True):
            if to_the_task and task.endswith("diverse"):  # the same task as without
                continue
            found = measure(task, args.episodes, to_the_task)
            what = "led to the task's goal" if to_the_task else "recorded"
            shares = f"{found['passed']:.2f} | {found['fallen']:.2f}"
            print(f"| `{task}` | {what} | {found['arrived']:.2f} | {found['steps']:.0f} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
