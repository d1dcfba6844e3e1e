"""EXPO, RLPD and IDQL in one whole sweep on a published task, as small as can be: data from a file, every phase, evaluations."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from toy import SMALL

import envs
import expo_bench
from envs import registry
from expo_bench import Experiment
from expo_bench.datasets import npz
from expo_bench.datasets.dataset import build
from expo_bench.sweeps import compiled

AGENTS = ("expo", "rlpd", "idql")
# Compilation is all that these sweeps cost: little to compile, and LLVM leaves it as it is.
TINY = {**SMALL, "hidden": (4,), "edit_hidden": (4,), "base_hidden": 4}
PROTOCOL = {"offline_steps": 2, "warmup_steps": 2, "online_steps": 8, "updates": 1, "batch_size": 4, "eval_every": 8, "eval_episodes": 1}
STEPS = 12


def shorten(patch, task: str, horizon: int) -> None:
    """Episodes of `horizon` steps. The rest of the task stays."""
    patch.setitem(registry.TASKS, task, dataclasses.replace(registry.TASKS[task], horizon=horizon))


def recorded(task: str, path: Path) -> Path:
    """A file of two episodes of random actions in the task's C physics."""
    env = envs.make(task, "mujoco")
    rng, rows = np.random.default_rng(0), {name: [] for name in ("obs", "action", "next_obs")}
    for seed in range(2):
        state = env.reset(jax.random.key(seed))
        for _ in range(STEPS):
            before, action = np.asarray(state.obs), rng.uniform(-1, 1, env.action_size).astype(np.float32)
            state = env.step(state, action)
            for name, value in zip(rows, (before, action, np.asarray(state.obs)), strict=True):
                rows[name].append(value)
    ends, no = np.arange(2 * STEPS) % STEPS == STEPS - 1, np.zeros(2 * STEPS, bool)
    columns = {name: np.stack(values) for name, values in rows.items()}
    meta = {"format": npz.FORMAT, "task": task}
    npz.write(build({**columns, "reward": np.zeros(2 * STEPS), "terminated": no, "truncated": ends, "success": no}, meta), path)
    return path


def run(patch, task: str, folder: Path, data: Path | None = None, agents=AGENTS, engine: str = "mujoco") -> pd.DataFrame:
    """The rows of the last evaluations, one per agent; that every agent went all its way without divergence or blow-up was checked."""
    if registry.TASKS[task].extra == "adroit" and importlib.util.find_spec("gymnasium_robotics") is None:
        pytest.skip("the Adroit models come with gymnasium-robotics")
    patch.setitem(compiled.CPU_OPTIONS, "xla_backend_optimization_level", 0)
    source = str(data or recorded(task, folder / "data.npz"))
    small = Experiment("small", [task], agents, seeds=1, engine=engine, dataset=source, config=TINY, protocol=PROTOCOL)
    frame = expo_bench.run(small, folder / "run")
    assert set(frame.task) == {task} and sorted(set(frame.env_step)) == [0, 8] and not frame.diverged.any() and (frame.blowups == 0).all()
    last = frame[frame.env_step == 8].set_index("agent")
    learnt = {"expo": 2 + 8, "rlpd": 8 - 2, "idql": 2 + 8 - 2}
    assert dict(last.grad_step) == {name: learnt[name] for name in agents}
    assert last.critic_loss.notna().all() and (last.episode_length == registry.TASKS[task].horizon).all()
    return last
