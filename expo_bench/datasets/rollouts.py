"""Episodes of a demonstrator in a task: one scan over the horizon, vmapped over a batch of episodes, each a function of its own key.

Batches have a fixed size and are kept as parts beside the file to be, so that a generation that was killed goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from expo_bench.errors import UserError

BATCH = 64  # episodes side by side, where that many are asked for

Columns = dict[str, np.ndarray]  # [batch, horizon, ...] by field of a dataset, and `live`: before the episode's end


def program(env: Any, demonstrator: Any, root: Any, batch: int) -> Callable[[int], Columns]:
    """A function of k, compiled once: the episodes k * batch to (k + 1) * batch - 1 of `root`, whatever the batch is."""
    import jax
    import jax.numpy as jnp

    reset = getattr(demonstrator, "reset", None) or env.reset  # AntMaze's data begin elsewhere than its evaluation

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

    rollouts = jax.jit(lambda first: jax.vmap(lambda k: episode(jax.random.fold_in(root, k)))(first + jnp.arange(batch)))
    return lambda k: {name: np.asarray(value) for name, value in rollouts(k * batch).items()}


def cut(columns: Columns, episode: int) -> Columns:
    """The live rows [T, ...] of one episode; one that a physics blow-up cut short is truncated at its last sound row. May have none."""
    live = columns["live"][episode]
    rows = {name: value[episode][live] for name, value in columns.items() if name != "live"}
    if live.any() and not rows["terminated"][-1]:
        rows["truncated"] = rows["truncated"].copy()
        rows["truncated"][-1] = True
    return rows


def solved(columns: Columns) -> np.ndarray:
    """[batch] bool, some live step of the episode fulfils the task."""
    return (columns["success"] & columns["live"]).any(1)


@contextlib.contextmanager
def parts(path: Path | None, digest: str) -> Iterator[Callable[[str, Callable[[], Columns]], Columns]]:
    """A function (name, make) that makes a batch, or reads it where it was made before; nothing is kept without a `path`.

    The parts lie in a hidden folder beside `path` whose name says what they are parts of (`digest`). The folder is removed when all is done
    and when what was asked for cannot be; it stays where the process is interrupted.
    """
    if path is None:
        yield lambda name, make: make()
        return
    folder = path.with_name(f".{path.name}.{digest}.parts")

    def part(name: str, make: Callable[[], Columns]) -> Columns:
        file = folder / f"{name}.npz"
        with contextlib.suppress(Exception):  # not there, or cut off while it was written elsewhere: it is made again
            with np.load(file, allow_pickle=False) as stored:
                return dict(stored)
        columns = make()
        _store(file, columns)
        return columns

    try:
        yield part
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _store(file: Path, columns: Columns) -> None:
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(exist_ok=True)
        try:
            with open(temporary, "wb") as out:
                np.savez(out, **columns)
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror or error}") from None
