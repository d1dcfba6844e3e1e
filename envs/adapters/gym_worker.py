"""The worker thread that owns the live environments of `gym:ID`. Nothing here calls JAX."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import io
import warnings
from typing import Any

import mujoco
import numpy as np

from envs.core import TaskError

SPARE = 4  #    times the largest batch: live environments beyond that are taken from rows that were not stepped for longest
LEAST = 64  #   live environments that are always allowed
TRIED = 5  #    steps by which it is tried whether an environment is a function of seed and actions
_BAD = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}")) for what in ("QPOS", "QVEL", "QACC", "CTRL")]


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is known of an environment after it was made once."""

    name: str
    obs_size: int
    action_size: int
    horizon: int
    middle: np.ndarray  #               [A] action = middle + width * what the agent does in [-1, 1]
    width: np.ndarray  #                [A]
    shape: tuple[int, ...]  #           of an action
    dtype: Any  #                       of an action
    observation_names: tuple[str, ...]
    reports_success: bool
    repeatable: bool


def open_environment(name: str) -> Spec:
    """Make the environment once and look at it.

    Raises:
        TaskError: an unknown id (with the nearest names), one that cannot be made, spaces that are not boxes, no time limit.
    """
    with _quiet():
        env = _make(name)
    spaces = importlib.import_module("gymnasium").spaces
    parts = env.observation_space.spaces if isinstance(env.observation_space, spaces.Dict) else {"obs": env.observation_space}
    for where, space in (*((f"observation {key!r}", part) for key, part in parts.items()), ("actions", env.action_space)):
        if not isinstance(space, spaces.Box):
            raise TaskError(f"task 'gym:{name}': its {where} space is {type(space).__name__}, expected Box")
    box, limit = env.action_space, env.spec.max_episode_steps
    if not (np.isfinite(box.low).all() and np.isfinite(box.high).all()):
        raise TaskError(f"task 'gym:{name}': its actions have no bounds, expected a finite Box")
    if not limit:
        raise TaskError(f"task 'gym:{name}': has no max_episode_steps, expected an environment that is registered with a time limit")
    names = tuple(f"{key}_{i}" for key in sorted(parts) for i in range(int(np.prod(parts[key].shape))))
    low, high = (np.asarray(b, np.float64).reshape(-1) for b in (box.low, box.high))
    spec = Spec(name, len(names), low.size, int(limit), (low + high) / 2, (high - low) / 2, box.shape, box.dtype, names, False, False)
    with _quiet():
        told, repeatable = _try_out(env, spec)
        env.close()
    return dataclasses.replace(spec, reports_success=told, repeatable=repeatable)


def _make(name: str) -> Any:
    import gymnasium

    if importlib.util.find_spec("gymnasium_robotics") is not None:
        gymnasium.register_envs(importlib.import_module("gymnasium_robotics"))
    try:
        return gymnasium.make(name)
    except (
        gymnasium.error.UnregisteredEnv,
        gymnasium.error.NameNotFound,
        gymnasium.error.NamespaceNotFound,
        gymnasium.error.VersionNotFound,
    ):
        from envs.adapters.functional import unknown

        raise unknown(name, "gym", sorted(gymnasium.registry)) from None
    except Exception as error:  # whatever a foreign environment raises when it is made: a missing package, most often
        raise TaskError(f"task 'gym:{name}': cannot be made: {' '.join(str(error).split())[:160] or type(error).__name__}") from error


def _try_out(env: Any, spec: Spec) -> tuple[bool, bool]:
    """(whether it reports success, whether the same seed and actions give the same observations and rewards twice)."""
    actions = np.random.default_rng(0).uniform(-1, 1, (TRIED, spec.action_size))
    seen, told = [], False
    for _ in range(2):
        trace = [_flat(env.reset(seed=7)[0])]
        for action in actions:
            obs, reward, terminated, truncated, info = env.step(_action(spec, action))
            told |= "success" in info or "is_success" in info
            trace.append(np.append(_flat(obs), reward))
            if terminated or truncated:
                break
        seen.append(np.concatenate(trace))
    return told, seen[0].shape == seen[1].shape and np.array_equal(*seen, equal_nan=True)


@contextlib.contextmanager
def _quiet():
    """Without the notices that Gymnasium and its environments print."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _flat(obs: Any) -> np.ndarray:
    """[O] float64; the parts of a dict in alphabetical order."""
    parts = [obs[key] for key in sorted(obs)] if isinstance(obs, dict) else [obs]
    return np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])


def _action(spec: Spec, action: np.ndarray) -> np.ndarray:
    """From [-1, 1] to the bounds of the box."""
    return (spec.middle + spec.width * action.astype(np.float64)).reshape(spec.shape).astype(spec.dtype)


class Worker:
    """The live environments, each under the seed and actions that led to it, and the one thread that touches them.

    The callbacks run on XLA's own threads, on which MuJoCo must not be stepped.
    """

    def __init__(self, spec: Spec):
        self.spec = spec
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="gymnasium")
        self._live: collections.OrderedDict[tuple, list[Any]] = collections.OrderedDict()
        self._idle: list[Any] = []
        self._count = 0  #      environments there are
        self._largest = 0  #    rows of the largest batch so far
        self.repeated = 0  #    actions that were repeated because no environment was where a row is

    def reset(self, seed: Any) -> np.ndarray:
        """[...] seeds -> [..., O] first observations."""
        seed = np.asarray(seed)
        obs = self._thread.submit(self._reset_rows, seed.reshape(-1)).result()
        return obs.reshape(*seed.shape, self.spec.obs_size)

    def step(self, seed: Any, count: Any, actions: Any, ended: Any, fresh_seed: Any, resets: Any) -> tuple[np.ndarray, ...]:
        """Step every row that has not ended by actions[count]; reset it to `fresh_seed` where it then has ended and `resets` is set.

        [...] of everything, actions [..., H, A] -> observations [..., O], rewards, terminated, truncated, success, bad, first observations."""
        seed, count, actions, ended, fresh_seed, resets = (np.asarray(x) for x in (seed, count, actions, ended, fresh_seed, resets))
        lead, rows = seed.shape, seed.size
        arguments = seed.reshape(rows), count.reshape(rows), actions.reshape(rows, *actions.shape[len(lead) :])
        arguments += tuple(x.reshape(rows) for x in (ended, fresh_seed, resets))
        results = self._thread.submit(self._step_rows, *arguments).result()
        return tuple(x.reshape((*lead, *x.shape[1:])) for x in results)

    def _reset_rows(self, seeds: np.ndarray) -> np.ndarray:
        self._largest = max(self._largest, len(seeds))
        obs = np.zeros((len(seeds), self.spec.obs_size), np.float32)
        for row, seed in enumerate(seeds):
            env, first = self._begin(int(seed))
            obs[row] = first
            self._keep(env, int(seed), 0, b"")
        return obs

    def _step_rows(self, seed, count, actions, ended, fresh_seed, resets):
        rows = len(seed)
        self._largest = max(self._largest, rows)
        obs, fresh = (np.zeros((rows, self.spec.obs_size), np.float32) for _ in range(2))
        reward = np.zeros(rows, np.float32)
        terminated, truncated, success, bad = (np.zeros(rows, bool) for _ in range(4))
        for row in range(rows):
            done = bool(ended[row])
            if not done:
                n = int(count[row])
                outcome = self._step_row(int(seed[row]), n, actions[row])
                obs[row], reward[row], terminated[row], truncated[row], success[row], bad[row] = outcome
                done = terminated[row] or truncated[row] or bad[row] or n + 1 >= self.spec.horizon
            if done and resets[row]:
                env, first = self._begin(int(fresh_seed[row]))
                fresh[row] = first
                self._keep(env, int(fresh_seed[row]), 0, b"")
        return obs, reward, terminated, truncated, success, bad, fresh

    def _step_row(self, seed: int, count: int, actions: np.ndarray) -> tuple[Any, float, bool, bool, bool, bool]:
        """(observation, reward, terminated, truncated, success, bad) of one row; the last alone says something where it is set."""
        nothing = np.zeros(self.spec.obs_size, np.float32), 0.0, False, False, False, True
        if not np.isfinite(actions[count]).all():
            return nothing
        env = self._take(seed, count, actions)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            raw, reward, terminated, truncated, info = env.step(_action(self.spec, actions[count]))
            obs = _flat(raw).astype(np.float32)
        if _warned(env) or not (np.isfinite(obs).all() and np.isfinite(reward)):
            self._idle.append(env)
            return nothing
        if terminated or truncated or count + 1 >= self.spec.horizon:
            self._idle.append(env)
        else:
            self._keep(env, seed, count + 1, actions[: count + 1].tobytes())
        success = bool(np.any(info.get("success", info.get("is_success", False))))
        return obs, float(reward), bool(terminated), bool(truncated), success, False

    def _begin(self, seed: int) -> tuple[Any, np.ndarray]:
        """An environment that was reset with `seed`, and its first observation."""
        env = self._free()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            obs, _ = env.reset(seed=seed)
        _arm(env)
        return env, _flat(obs).astype(np.float32)

    def _take(self, seed: int, count: int, actions: np.ndarray) -> Any:
        """The environment that is where `seed` and the first `count` actions lead; brought there if there is none."""
        key = _key(seed, count, actions[:count].tobytes())
        if key in self._live:
            waiting = self._live[key]
            env = waiting.pop()
            if not waiting:
                del self._live[key]
            return env
        env, _ = self._begin(seed)
        for action in actions[:count]:
            env.step(_action(self.spec, action))
        self.repeated += count
        return env

    def _keep(self, env: Any, seed: int, count: int, actions: bytes) -> None:
        self._live.setdefault(_key(seed, count, actions), []).append(env)

    def _free(self) -> Any:
        """An environment that nobody needs: an idle one, a new one, or that of the row that was not stepped for longest."""
        if self._idle:
            return self._idle.pop()
        if self._live and self._count >= max(LEAST, SPARE * self._largest):
            oldest, waiting = next(iter(self._live.items()))
            env = waiting.pop()
            if not waiting:
                del self._live[oldest]
            return env
        self._count += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _make(self.spec.name)


def _key(seed: int, count: int, actions: bytes) -> tuple[int, int, bytes]:
    return seed, count, hashlib.blake2b(actions, digest_size=16).digest()


def _arm(env: Any) -> None:
    """MuJoCo prints a warning, and writes a log file into the working directory, only when it is the first of its kind."""
    data = getattr(env.unwrapped, "data", None)
    if isinstance(data, mujoco.MjData):
        data.warning.number[:] = 1


def _warned(env: Any) -> bool:
    """Whether MuJoCo met a non-finite or huge state: it puts such a row back to its reference pose by itself, as if nothing were."""
    data = getattr(env.unwrapped, "data", None)
    return isinstance(data, mujoco.MjData) and data.warning.number[_BAD].max() > 1
