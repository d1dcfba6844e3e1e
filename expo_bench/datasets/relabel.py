"""Rewards, successes and terminations of recorded transitions, said by the task itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from expo_bench.datasets.dataset import OfflineDataset, take, with_note

SAME = 1e-3  # rewards that differ by less are the same

# (obs [n, O], action [n, A], next_obs [n, O]) -> (reward [n], success [n], terminated [n]), numpy in and out
BatchOutcome = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def task_outcome(env: Any, rows: int = 32_768) -> BatchOutcome:
    """`env.outcome` over a batch, compiled once for blocks of at most `rows` transitions."""
    import jax

    batched = jax.jit(jax.vmap(lambda *transition: tuple(env.outcome(*transition)[:3])))

    def outcome(*arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n = len(arrays[0])
        block = min(rows, n)
        parts = []
        for start in range(0, n, block):
            index = np.minimum(np.arange(start, start + block), n - 1)  # the last block repeats the last row: one shape, one program
            parts.append([np.asarray(x)[: n - start] for x in batched(*(a[index] for a in arrays))])
        reward, success, terminated = (np.concatenate(column) for column in zip(*parts, strict=True))
        return reward.astype(np.float32), success.astype(bool), terminated.astype(bool)

    return outcome


def disagreement(recorded: np.ndarray, own: np.ndarray) -> tuple[float, str]:
    """(share of the recorded rewards [n] that are not the task's own [n], that in words, also where a constant is all that is between)."""
    differs = np.abs(recorded - own) > SAME
    shift = float(np.median((recorded - own).astype(np.float64)))
    shifted = np.abs(recorded - own - shift) > SAME
    text = f"{differs.mean():.2%} of the transitions have another reward than the task gives"
    if shifted.mean() < min(0.01, differs.mean()):
        text += f", {shifted.mean():.2%} if {shift:+g} is added to the task's"
    return float(differs.mean()), text


def relabel(dataset: OfflineDataset, outcome: BatchOutcome) -> OfflineDataset:
    """`dataset` with the task's reward, success and termination; `outcome` is `task_outcome(env)`.

    The task decides what terminates. Rows after a termination inside a recorded episode are dropped: they come from a world that ended.
    A recorded terminal that the task does not confirm becomes a truncation. Where such a row has no next observation of its own (D4RL keeps
    the row's own observation there) nobody can tell what the step led to: it is dropped and the row before it is truncated.
    What was dropped is said in `meta`.
    """
    reward, success, terminated = outcome(dataset.obs, dataset.action, dataset.next_obs)
    unknown = dataset.terminated & ~terminated & (dataset.obs == dataset.next_obs).all(1)
    after = _after_first(terminated, dataset.episode_ends)
    keep = ~(after | unknown)
    ended = dataset.terminated | dataset.truncated | np.append(unknown[1:], False)
    meta = {**dataset.meta, "relabelled": True, "success_recorded": True}
    if after.any():
        meta = with_note(meta, "notes", [f"{after.sum()} rows after a termination by the task's own rule dropped"])
    if (unknown & ~after).any():
        count = (unknown & ~after).sum()
        text = f"{count} terminal rows without a next observation, not confirmed by the task: dropped, their rewards are lost"
        meta = with_note(meta, "warnings", [f"{meta.get('file', 'dataset')}: {text}"])
    return take(
        dataset,
        keep,
        reward=reward[keep],
        success=success[keep],
        terminated=terminated[keep],
        truncated=(ended & ~terminated)[keep],
        meta=meta,
    )


def _after_first(terminated: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """[n] bool, rows that come after a termination in the same episode; `ends` are the episodes' last rows."""
    before = np.cumsum(terminated) - terminated  # terminations in the rows before this one
    starts = np.concatenate([[0], ends[:-1] + 1])
    return before > np.repeat(before[starts], np.diff(ends, prepend=-1))
