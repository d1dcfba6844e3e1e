"""Whether recorded transitions are those of a task's physics: set it to a recorded state, take the recorded action, compare what comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from expo_bench import datasets
from expo_bench.datasets import checks
from expo_bench.datasets.dataset import OfflineDataset, select_observation
from expo_bench.datasets.relabel import disagreement, task_outcome
from expo_bench.errors import UserError

ROWS = 256  #      transitions that are replayed, spread evenly over the file
EPISODES = 32  #   of files that record only how episodes begin: these are replayed open-loop
STRANGE = 0.5  #   of the length of the recorded steps: a prediction that is further off is no better than a guess
EXCHANGE = 4  #    times better, from which two components are taken for exchanged
SETTLE, APART = 20, 60


@dataclasses.dataclass(frozen=True)
class Replay:
    """Recorded transitions beside what the task's physics make of them."""

    predicted: np.ndarray  #  [k, O]
    recorded: np.ndarray  #   [k, O]
    before: np.ndarray  #     [k, O] where the replay began

    @property
    def error(self) -> np.ndarray:
        """[k, O] absolute."""
        return np.abs(self.predicted - self.recorded)

    @property
    def share(self) -> float:
        """The error over the length of the recorded steps, each as root mean square over rows in units of how far each component moves."""
        scale = np.maximum(np.abs(self.recorded - self.before).max(0), 1e-6)
        off, step = ((np.mean(np.square(x / scale))) ** 0.5 for x in (self.error, self.recorded - self.before))
        return float(off / max(step, 1e-12))


def check(source: str | Path, env: Any) -> Iterator[str]:
    """What `expo-bench data check FILE --task TASK` prints: the fit of shapes and ranges, the one-step error, the rewards.

    Raises UserError, in one line, for everything that `prepare` refuses, and for data whose transitions are not the task's.
    """
    dataset = select_observation(datasets.load(source, with_state=True), env.obs_size)
    for warning in checks.check(dataset, env, str(source)):
        yield f"warning: {warning}"
    yield (
        f"{source}: {dataset.size:,} transitions in {len(dataset.episode_ends):,} episodes have the task's {env.obs_size} observations and "
        f"{env.action_size} actions, finite and in its range"
    )
    yield from _replayed(dataset, env, str(source))
    yield from _rewards(dataset, env)


def _replayed(dataset: OfflineDataset, env: Any, source: str) -> Iterator[str]:
    from envs.core import TaskError

    if not hasattr(env, "restore"):
        yield f"replay: not possible, the state of {env.name} cannot be set"
        return
    only_starts = dataset.state is not None and any(np.isnan(value).any() for value in dataset.state.values())
    try:
        replay, line = open_loop(dataset, env) if only_starts else one_step(dataset, env)
    except TaskError as error:
        yield f"replay: not possible, {error}"
        return
    yield line
    pair = _exchanged(replay)
    if pair is not None or replay.share > STRANGE:
        raise UserError(f"{source}: {_blame(replay, env.observation_names, env.name, pair)}")


def one_step(dataset: OfflineDataset, env: Any) -> tuple[Replay, str]:
    """Replay up to `ROWS` transitions whose state is recorded, or else follows from the observation; (the result, a line on it)."""
    import jax

    recorded = dataset.state or {}
    rows = np.unique(np.linspace(0, dataset.size - 1, ROWS).astype(int))
    firsts = np.concatenate([[0], dataset.episode_ends[:-1] + 1])
    first = firsts[np.searchsorted(dataset.episode_ends, rows)]

    def step(obs, first_obs, action, state):
        return env.step(env.restore(obs, first_obs, state), action).obs

    state = {name: value[rows].astype(np.float32) for name, value in recorded.items()}
    predicted = jax.jit(jax.vmap(step))(dataset.obs[rows], dataset.obs[first], dataset.action[rows], state)
    replay = Replay(np.asarray(predicted), dataset.next_obs[rows], dataset.obs[rows])
    worst = int(replay.error.max(0).argmax())
    how = "recorded qpos and qvel" if recorded else "the observation alone"
    line = f"replay: {len(rows)} transitions from {how}, each one step in {env.name} ({env.engine}): error {np.median(replay.error.max(1)):.2g} in "
    line += f"the median, {replay.error.max():.2g} at most (component {worst} '{env.observation_names[worst]}')"
    return replay, f"{line}; {replay.share:.1%} of how far a step goes"


def open_loop(dataset: OfflineDataset, env: Any) -> tuple[Replay, str]:
    """Replay up to `EPISODES` episodes under the recorded actions from their recorded start; (what came after the first steps, a line
    on it).

    The first `SETTLE` steps are left out: the start states of hand_dapg's files are not those of their first observations (the arm
    is elsewhere), which position control makes good soon; contacts make trajectories part for good later, after `APART` steps.
    """
    import jax

    starts = np.concatenate([[0], dataset.episode_ends[:-1] + 1])[:EPISODES]
    lengths = np.minimum(dataset.episode_lengths[:EPISODES], env.horizon)
    steps = int(lengths.max())
    rows = np.minimum(starts[:, None] + np.arange(steps), dataset.size - 1)

    def episode(obs, action, state):
        def step(carry, action):
            after = env.step(carry, action)
            return after, (after.obs, after.success)

        return jax.lax.scan(step, env.restore(obs, obs, state), action)[1]

    state = {name: value[starts].astype(np.float32) for name, value in dataset.state.items()}
    obs, success = (np.asarray(x) for x in jax.jit(jax.vmap(episode))(dataset.obs[starts], dataset.action[rows], state))
    inside = np.arange(steps) < lengths[:, None]
    error = np.where(inside, np.abs(obs - dataset.next_obs[rows]).max(2), np.nan)
    drift = ", ".join(f"{np.nanmedian(error[:, k - 1]):.2g} after {k}" for k in (1, 10, 50, 200) if k <= steps and inside[:, k - 1].any())
    solved = task_outcome(env)(dataset.obs, dataset.action, dataset.next_obs)[1]
    line = f"replay: {len(starts)} episodes from their recorded start, open loop, at most {steps} steps in {env.name} ({env.engine}): error {drift} "
    line += (
        f"in the median; {(success & inside).any(1).sum()} of them fulfil the task, {(solved[rows] & inside).any(1).sum()} do as recorded"
    )
    chosen = inside & (np.arange(steps) >= min(SETTLE, steps - 1)) & (np.arange(steps) < APART)
    before = np.broadcast_to(dataset.obs[starts][:, None], obs.shape)
    replay = Replay(obs[chosen], dataset.next_obs[rows][chosen], before[chosen])
    return replay, f"{line}; {replay.share:.0%} of how far steps {SETTLE} to {APART} are from the start"


def _exchanged(replay: Replay) -> tuple[int, int] | None:
    """Two components each of which is predicted much better by what is recorded of the other; the pair that gains most."""
    off = np.median(np.abs(replay.predicted[:, :, None] - replay.recorded[:, None, :]), axis=0)  # [O, O] predicted against recorded
    own = np.diag(off)
    moves = np.maximum(np.abs(replay.recorded - replay.before).max(0), 1e-6)
    wrong = (own > EXCHANGE * off) & (own > 0.02 * moves)[:, None] & (moves > 1e-3)[:, None]
    gain = np.where(wrong & wrong.T, own[:, None] + own[None] - off - off.T, 0.0)
    first, second = np.unravel_index(gain.argmax(), gain.shape)
    return (int(first), int(second)) if gain[first, second] > 0 else None


def _blame(replay: Replay, names: tuple[str, ...], task: str, pair: tuple[int, int] | None) -> str:
    says = f"replaying {len(replay.recorded)} recorded transitions in {task} is off by {replay.share:.0%} of how far they go"
    if pair is not None:
        i, j = pair
        says += f", and component {i} '{names[i]}' moves as component {j} '{names[j]}' should, and the other way round"
    elif replay.share > STRANGE:
        says += f", expected under {STRANGE:.0%}"
    return f"{says}; are observation order, actions and dynamics those of the task?"


def _rewards(dataset: OfflineDataset, env: Any) -> Iterator[str]:
    if not getattr(env, "relabels", True):
        yield f"rewards: as recorded, {env.name} cannot say them of recorded transitions"
        return
    reward, success, terminated = task_outcome(env)(dataset.obs, dataset.action, dataset.next_obs)
    solved = np.logical_or.reduceat(success, np.concatenate([[0], dataset.episode_ends[:-1] + 1])).sum()
    yield f"task: {success.mean():.2%} of the transitions and {solved} of {len(dataset.episode_ends)} episodes fulfil it, {terminated.sum():,} end it"
    if not dataset.meta.get("rewards_recorded", True):
        yield "rewards: none recorded"
        return
    yield f"rewards: {disagreement(dataset.reward, reward)[1]} (training uses the task's, or these with --rewards recorded)"
    if dataset.terminated.any():
        yield f"ends: {(dataset.terminated & ~terminated).sum():,} recorded terminals are none by the task's rule"
