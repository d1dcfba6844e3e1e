"""`gym:ID`: any Gymnasium environment (Towers et al. 2024, arXiv 2407.17032) with Box spaces, stepped in Python behind one callback
for the whole batch.

A Python environment hides its state. What is carried here instead is what made it: the episode's seed and the actions since its reset. A
worker thread keeps the live environments, each under the seed and actions that led to it, and hands a row the one that is where the row is;
where there is none (after a checkpoint was read, or when a state is stepped twice) it resets one with the seed and repeats the
actions. So `step` is a
pure function, and a sweep resumes bit for bit, for every environment that is a function of seed and actions. Whether this one is, is
tried when it is made (`GymEnvironment.repeatable`); one that is not starts its running episodes anew, differently, when a sweep resumes.

As many environments live as there are rows in a batch, and each steps at Python's pace.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp

from envs.adapters.gym_worker import Spec, Worker, open_environment
from envs.core import Described, Outcome, State, Step, TaskError
from envs.registry import TASKS, TaskInfo

# Environments whose observations and success are those of a task of this package: they get its reward, which is the literature's, and
# its score.
# gymnasium-robotics' sparse reward of these is 10 and -0.1.
TWINS = {f"AdroitHand{name.title()}Sparse": name for name in ("door", "pen", "relocate", "hammer")}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Episode:
    """What an environment's state follows from."""

    seed: jax.Array  #     [] uint32, of its reset
    count: jax.Array  #    [] int32, actions since then
    actions: jax.Array  #  [H, A] float32 in [-1, 1], the first `count` of which were taken


@dataclasses.dataclass(frozen=True, eq=False)
class GymEnvironment(Described):
    """A Gymnasium environment, as `envs.core.Environment` asks for it."""

    info: TaskInfo
    spec: Spec
    worker: Worker
    twin: Any  #  the task whose outcome is used, or None
    engine: str = "gymnasium"

    @property
    def observation_names(self) -> tuple[str, ...]:
        return self.spec.observation_names if self.twin is None else self.twin.observation_names

    @property
    def relabels(self) -> bool:
        """Whether reward and success are functions of recorded transitions."""
        return self.twin is not None

    @property
    def repeatable(self) -> bool:
        """Whether seed and actions alone decided what it did when that was tried."""
        return self.spec.repeatable

    @property
    def resumes(self) -> str:
        """What happens to running episodes when a sweep goes on from a checkpoint; for the manifest."""
        if self.repeatable:
            return "running episodes are repeated from their seeds and actions"
        return "running episodes start anew: the environment is no function of seed and actions, so that curves do not go on bit for bit"

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        """The twin's. Raises TaskError without one: a Python environment's reward cannot be asked for a recorded transition."""
        if self.twin is None:
            raise TaskError(f"task {self.name!r} cannot say the reward of a recorded transition")
        return self.twin.outcome(obs, action, next_obs)

    @functools.partial(jax.jit, static_argnums=0)
    def reset(self, key: jax.Array) -> State:
        episode = self._episode(key)
        shape = jax.ShapeDtypeStruct((self.obs_size,), jnp.float32)
        return self._start(episode, jax.pure_callback(self.worker.reset, shape, episode.seed, vmap_method="broadcast_all"))

    @functools.partial(jax.jit, static_argnums=0)
    def step(self, state: State, action: jax.Array) -> State:
        """One step; see `State`. A state in which the episode has ended stays as it is: Gymnasium's environments say nothing beyond it."""
        return self._step(state, action, state.data.seed, jnp.zeros((), bool))[0]

    @functools.partial(jax.jit, static_argnums=0)
    def autoreset(self, state: State, action: jax.Array, key: jax.Array) -> tuple[State, Step]:
        """As `envs.core.autoreset`, with a reset only of those rows whose episode ends."""
        fresh = self._episode(key)
        after, obs = self._step(state, action, fresh.seed, jnp.ones((), bool))
        step = Step(state.obs, action, after.reward, after.terminated, after.truncated, after.obs, after.success, after.blown_up)
        done = after.terminated | after.truncated
        return jax.tree.map(lambda new, old: jnp.where(done, new, old), self._start(fresh, obs), after), step

    def _episode(self, key: jax.Array) -> Episode:
        seed = jax.random.bits(key, (), jnp.uint32) >> 1  # Gymnasium takes any non-negative number; some environments only 31 bits
        return Episode(seed, jnp.zeros((), jnp.int32), jnp.zeros((self.horizon, self.action_size), jnp.float32))

    def _start(self, episode: Episode, obs: jax.Array) -> State:
        no = jnp.zeros((), bool)
        return State(episode, (), obs, jnp.zeros((), jnp.float32), no, no, no, no, jnp.zeros((), jnp.int32))

    def _step(self, state: State, action: jax.Array, fresh_seed: jax.Array, resets: jax.Array) -> tuple[State, jax.Array]:
        """(the state after `action`, the first observation of `fresh_seed` where `resets` is set and the episode has ended)."""
        action = jnp.asarray(action, jnp.float32)
        ended = state.terminated | state.truncated
        old = state.data
        episode = Episode(old.seed, old.count + 1, old.actions.at[old.count].set(jnp.clip(action, -1.0, 1.0)))
        one = lambda dtype: jax.ShapeDtypeStruct((), dtype)
        vector = jax.ShapeDtypeStruct((self.obs_size,), jnp.float32)
        shapes = (vector, one(jnp.float32), one(jnp.bool_), one(jnp.bool_), one(jnp.bool_), one(jnp.bool_), vector)
        arguments = episode.seed, old.count, episode.actions, ended, fresh_seed, resets
        obs, reward, terminated, truncated, success, bad, fresh = jax.pure_callback(
            self.worker.step, shapes, *arguments, vmap_method="broadcast_all"
        )
        stays = bad | ended
        obs = jnp.where(stays, state.obs, obs)
        if self.twin is not None:
            reward, success, own = self.twin.outcome(state.obs, action, obs)
            terminated = terminated | own
        t = state.t + 1
        terminated = jnp.where(stays, state.terminated, terminated)
        truncated = jnp.where(stays, bad | state.truncated, (truncated | (t >= self.horizon)) & ~terminated)
        after = State(
            data=jax.tree.map(lambda new, old: jnp.where(stays, old, new), episode, old),
            params=(),
            obs=obs,
            reward=jnp.where(stays & (self.twin is None), 0.0, reward),
            terminated=terminated,
            truncated=truncated,
            success=success & ~ended,
            blown_up=bad & ~ended,
            t=jnp.where(ended, state.t, t),
        )
        return after, fresh


@functools.cache
def _built(name: str) -> GymEnvironment:
    """One per name and process: its live environments are dear."""
    spec = open_environment(name)
    twin_name = TWINS.get(name.rpartition("-v")[0].rpartition(":")[2].rpartition("/")[2])
    twin = importlib.import_module(TASKS[twin_name].module).task(TASKS[twin_name]) if twin_name in TASKS else None
    known = TASKS[twin_name] if twin is not None else None
    info = TaskInfo(
        name=f"gym:{name}",
        summary=f"Gymnasium's {name}" + (f"; reward, success and score are those of the task {known.name}" if known else ""),
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        horizon=spec.horizon,
        engines=("gymnasium",),
        default_engine_cpu="gymnasium",
        score=known.score if known else "success" if spec.reports_success else "return",
        demonstrator=f"none: bring a file{', of the same kinds as for ' + known.name if known else ' with recorded rewards'}",
        suite=known.suite if known else None,
        module="envs.adapters.gym",
    )
    return GymEnvironment(info, spec, Worker(spec), twin)


def info(name: str) -> TaskInfo:
    """The task of a Gymnasium id.

    Raises:
        TaskError: no gymnasium, an unknown id, spaces that are not boxes, no time limit.
    """
    if importlib.util.find_spec("gymnasium") is None:
        raise TaskError(f"task 'gym:{name}' needs gymnasium: pip install gymnasium, or 'expo-bench[adroit]' for gymnasium-robotics as well")
    return _built(name).info


def make(task: TaskInfo) -> GymEnvironment:
    """The environment of `info`."""
    return _built(task.name.partition(":")[2])
