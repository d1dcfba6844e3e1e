"""Offline data from a task's own demonstrator: one scan over the horizon, vmapped over episodes, a function of the seed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from envs.registry import TASKS
from expo_bench.datasets import npz
from expo_bench.datasets.dataset import OfflineDataset, build
from expo_bench.errors import UserError

# Episodes of the standard offline data; a task that is missing here has none.
DEFAULT_EPISODES = {"point-umaze": 20, "point-medium": 40, "push-disc": 40}
# Few of AntMaze's recorded episodes pass the task's own goal.
DEFAULT_EPISODES |= {name: 200 if "umaze" in name else 400 for name in TASKS if name.startswith("antmaze-")}
NEEDS_POLICY = ("pen", "door", "relocate", "hammer")  # tasks without a scripted demonstrator
NO_DEFAULT = (
    "the task {task} has no default offline data: give some with --dataset FILE (for door: hand_dapg's door-v0_demos.pickle), or make some "
    "with `expo-bench data generate {task} --policy FILE.npz`"
)


def generate(
    task: str,
    path: Path | None,
    *,
    episodes: int | None = None,
    seed: int = 0,
    engine: str = "mujoco",
    policy: Path | None = None,
    noise: float | None = None,
    env: Any = None,
    demonstrator: Any = None,
    **quality: Any,
) -> OfflineDataset:
    """Roll the task's demonstrator for `episodes` episodes, write them to `path` (None: write nothing) and return them.

    `policy` is an npz file of a trained tanh network (hand_dapg's) for tasks without a demonstrator of their own, and for AntMaze another
    walker than the package's; `noise` scales its action noise; `quality` are the demonstrator's own options; `engine` is one of `envs.make` (C MuJoCo compiles fastest).
    `env` and `demonstrator` replace those of `task`. Episode k is the same however many there are. Runs on the CPU, so that the data do not
    depend on the accelerator.
    Raises UserError for fewer than one episode, a path that cannot be written, an unknown task, a task without demonstrator, and an
    unreadable policy file.
    """
    import jax

    episodes = DEFAULT_EPISODES.get(task, 20) if episodes is None else episodes
    if episodes < 1:
        raise UserError(f"episodes: found {episodes}, expected at least 1")
    if not 0 <= seed < 2**31:
        raise UserError(f"seed: found {seed}, expected 0 to 2**31 - 1")
    if noise is not None and not 0 <= noise < float("inf"):
        raise UserError(f"noise: found {noise}, expected a finite number of at least 0")
    if path is not None and Path(path).suffix != ".npz":
        raise UserError(f"{path}: found the suffix {Path(path).suffix!r}, expected .npz")
    if path is not None and not Path(path).parent.is_dir():
        raise UserError(f"{path}: the folder {Path(path).parent} does not exist")
    with _on_cpu():
        env = _make_env(task, engine) if env is None else env
        demonstrator = _make_demonstrator(env, policy, noise, quality) if demonstrator is None else demonstrator
        root = jax.random.key(seed, impl="threefry2x32")
        columns = jax.tree.map(np.asarray, _rollouts(env, demonstrator, root, episodes))
    settings = generation_settings(task, episodes, seed, engine=env.engine, policy=policy, noise=noise, **quality)
    dataset = _flatten(columns, {"format": npz.FORMAT, "task": task, "success_recorded": True, "provenance": settings})
    if path is not None:
        npz.write(dataset, path)
    return dataset


def generation_settings(task: str, episodes: int, seed: int, *, policy: Path | None = None, **options: Any) -> dict[str, Any]:
    """Everything that the data depend on, as plain values: the provenance in the file, and what a cache's name hashes."""
    import jax
    import mujoco

    settings = {"task": task, "episodes": episodes, "seed": seed}
    settings |= {"jax": jax.__version__, "mujoco": mujoco.__version__, "tasks": _source_hash(), "layout": npz.VERSION}
    if policy is not None:
        settings["policy"] = {"file": Path(policy).name, "sha256": hashlib.sha256(Path(policy).read_bytes()).hexdigest()}
    return {**settings, **{name: value for name, value in options.items() if value is not None}}


def cache_name(task: str, settings: dict[str, Any]) -> str:
    """The file name of generated data: whatever changes in `settings` gives another name, so that nothing stale is ever read."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return f"{task}-{settings['episodes']}ep-seed{settings['seed']}-{digest}.npz"


def _rollouts(env: Any, demonstrator: Any, root: Any, episodes: int) -> dict[str, Any]:
    """Arrays [episodes, horizon, ...]: the transitions, `live` (before the episode's end) and the flags of each step."""
    import jax
    import jax.numpy as jnp

    reset = getattr(demonstrator, "reset", None) or env.reset

    def episode(key):
        key_reset, key_demo, key_act = jax.random.split(key, 3)
        state = reset(key_reset)

        def step(carry, t):
            state, memory, live = carry
            action, memory = demonstrator.act(memory, state, jax.random.fold_in(key_act, t))
            action = jnp.clip(action, -1.0, 1.0)  # what the environment will execute
            after = env.step(state, action)
            row = {
                "obs": state.obs,
                "action": action,
                "reward": after.reward,
                "terminated": after.terminated,
                "truncated": after.truncated,
                "next_obs": after.obs,
                "success": after.success,
                "live": live & ~after.blown_up,
            }
            return (after, memory, live & ~(after.terminated | after.truncated | after.blown_up)), row

        start = (state, demonstrator.init(key_demo, state), jnp.asarray(True))
        return jax.lax.scan(step, start, jnp.arange(env.horizon))[1]

    keys = jax.vmap(lambda k: jax.random.fold_in(root, k))(jnp.arange(episodes))
    return jax.jit(jax.vmap(episode))(keys)


def _flatten(columns: dict[str, np.ndarray], meta: dict[str, Any]) -> OfflineDataset:
    """The live rows, episode after episode; an episode that a physics blow-up cut short is truncated at its last sound row."""
    live = columns.pop("live")
    last = np.zeros_like(live)
    index = live.shape[1] - 1 - live[:, ::-1].argmax(1)
    last[np.arange(len(live)), index] = live.any(1)
    columns["truncated"] = columns["truncated"] | (last & ~columns["terminated"])
    return build({name: value[live] for name, value in columns.items()}, meta)


def _make_env(task: str, engine: str) -> Any:
    from envs.core import TaskError
    from envs.registry import make

    try:
        return make(task, engine)
    except TaskError as error:
        raise UserError(str(error)) from None


def _make_demonstrator(env: Any, policy: Path | None, noise: float | None, quality: dict[str, Any]) -> Any:
    from envs.core import TaskError
    from envs.demonstrators import demonstrator

    if env.name in NEEDS_POLICY and policy is None:
        raise UserError(f"the task {env.name} is demonstrated by a trained policy, found none: give one (hand_dapg) with --policy FILE.npz")
    if not env.name.startswith((*NEEDS_POLICY, "antmaze-")) and policy is not None:
        raise UserError(f"{policy}: the task {env.name} has a scripted demonstrator, expected no policy file")
    quality = {**quality, **{name: value for name, value in (("path", policy), ("noise", noise)) if value is not None}}
    try:
        return demonstrator(env, **quality)
    except TaskError as error:
        raise UserError(str(error)) from None
    except (zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{policy}: damaged npz file ({error}), expected a policy's arrays") from None


def _on_cpu() -> contextlib.AbstractContextManager:
    """Computation on the host's CPU, where JAX was started with one."""
    import jax

    try:
        return jax.default_device(jax.devices("cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names accelerators only
        return contextlib.nullcontext()


def _source_hash() -> str:
    """A hash of the tasks' code and assets: data generated by other code are other data."""
    import envs

    root = Path(envs.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".xml", ".npz")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
