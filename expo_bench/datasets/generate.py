"""Offline data from a task's own demonstrator: a function of the seed and of settings that the file keeps."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from envs.registry import TASKS
from expo_bench.datasets import mixture, npz, rollouts
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
    mix: str | None = None,
    env: Any = None,
    demonstrator: Any = None,
    **quality: Any,
) -> OfflineDataset:
    """Roll the task's demonstrator for `episodes` episodes, write them to `path` (None: write nothing) and return them.

    `policy` is an npz file of a trained tanh network (hand_dapg's) for tasks without a demonstrator of their own, and for AntMaze another
    walker than the package's; `noise` is that of its actions (`envs.demonstrators`); `mix` such as "expert=0.5,noisy=0.3,failed=0.2" says of
    what the episodes are made up (`mixture`); `quality` are the demonstrator's own options; `engine` is one of `envs.make` (C MuJoCo
    compiles fastest).
    `env` and `demonstrator` replace those of `task`. Episode k is the same however many there are. Runs on the CPU, so that the data do not
    depend on the accelerator. A generation that was killed goes on when it is asked for again, and gives the same file.
    Raises UserError for fewer than one episode, a path that cannot be written, an unknown task, a task without demonstrator, an
    unreadable policy file, and a mix that the demonstrator does not give.
    """
    import jax

    episodes = DEFAULT_EPISODES.get(task, 20) if episodes is None else episodes
    path = None if path is None else Path(path)
    streams = _requested(path, episodes, seed, noise, mix)
    with _on_cpu():
        env = _make_env(task, engine) if env is None else env
        own = [demonstrator or make_demonstrator(env, policy, noise if stream.noisy else None, quality) for stream in streams]
        settings = generation_settings(task, episodes, seed, engine=env.engine, policy=policy, noise=noise, mix=mix, **quality)
        root = jax.random.key(seed, impl="threefry2x32")
        found, attempts = [], {}
        with rollouts.parts(path, digest(settings)) as part:
            for number, stream in enumerate(streams):
                key = root if mix is None else jax.random.fold_in(root, number)
                kept, attempts[stream.name] = _attempts(stream, env, own[number], key, min(rollouts.BATCH, episodes), part, noise)
                found += kept
            if mix is not None:
                settings |= {"made_up_of": dict(collections.Counter(quality for quality, _ in found)), "attempts": attempts}
            meta = {"format": npz.FORMAT, "task": task, "success_recorded": True, "provenance": settings}
            dataset = _together(found, meta)
            if path is not None:
                npz.write(dataset, path)
    return dataset


def _requested(path: Path | None, episodes: int, seed: int, noise: float | None, mix: str | None) -> list[mixture.Stream]:
    """What is to be attempted. Raises UserError for what can be seen to be wrong before anything is built."""
    if episodes < 1:
        raise UserError(f"episodes: found {episodes}, expected at least 1")
    if not 0 <= seed < 2**31:
        raise UserError(f"seed: found {seed}, expected 0 to 2**31 - 1")
    if noise is not None and not 0 <= noise < float("inf"):
        raise UserError(f"noise: found {noise}, expected a finite number of at least 0")
    if path is not None and path.suffix != ".npz":
        raise UserError(f"{path}: found the suffix {path.suffix!r}, expected .npz")
    if path is not None and not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
    shares = None if mix is None else mixture.shares(mix)
    if shares and noise is None and set(shares) - {"expert"}:
        raise UserError(f"--mix {mix!r}: noisy and failed episodes come of a noise, found none: give one with --noise")
    return mixture.streams(shares, episodes)


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
    return f"{task}-{settings['episodes']}ep-seed{settings['seed']}-{digest(settings)}.npz"


def digest(settings: dict[str, Any]) -> str:
    """Twelve letters that are other ones for other settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _attempts(
    stream: mixture.Stream, env: Any, demonstrator: Any, root: Any, batch: int, part: Any, noise: float | None
) -> tuple[list[tuple[str, rollouts.Columns]], int]:
    """(quality and rows of every episode that is wanted of a stream, the number of attempts)."""
    run = rollouts.program(env, demonstrator, root, batch)
    batches: list[rollouts.Columns] = []

    def next_batch(k: int) -> np.ndarray:
        batches.append(part(f"{stream.name}-{k:05}", lambda: run(k)))
        return rollouts.solved(batches[-1])

    success = mixture.attempt(stream, batch, next_batch, lambda success: stream.refuse(success, env.name, noise))
    episodes = [(quality, rollouts.cut(batches[i // batch], i % batch)) for i, quality in stream.chosen(success)]
    return [(quality, rows) for quality, rows in episodes if len(rows["reward"])], len(success)


def _together(episodes: list[tuple[str, rollouts.Columns]], meta: dict[str, Any]) -> OfflineDataset:
    """One dataset of the episodes. Qualities are mixed evenly, so that the first episodes are like all of them."""
    if not episodes:
        raise UserError(f"{meta['task']}: no episode has a step, expected at least one")
    if episodes[0][0]:
        order = np.random.default_rng(len(episodes)).permutation(len(episodes))
        episodes = [episodes[i] for i in order]
        meta = {**meta, "episode_quality": [quality for quality, _ in episodes]}
    names = episodes[0][1]
    return build({name: np.concatenate([rows[name] for _, rows in episodes]) for name in names}, meta)


def _make_env(task: str, engine: str) -> Any:
    from envs.core import TaskError
    from envs.registry import make

    try:
        return make(task, engine)
    except TaskError as error:
        raise UserError(str(error)) from None


def make_demonstrator(env: Any, policy: Path | None, noise: float | None, quality: dict[str, Any]) -> Any:
    """The demonstrator of a task, or that of a policy file. Raises UserError where the task has none, or is given what it has no use
    for."""
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
    content = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".xml", ".npz")):
        content.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return content.hexdigest()[:12]
