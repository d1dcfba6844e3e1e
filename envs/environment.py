"""A task on an engine: how every environment of this package resets and steps."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import Described, Outcome, State, TaskError
from envs.physics import Physics, Readout, System
from envs.registry import TaskInfo


class Start(NamedTuple):
    """Where an episode begins. None stands for the model's reference pose at rest."""

    readout: Readout  #  what the first observation is made of
    qpos: jax.Array | None
    qvel: jax.Array | None
    params: Any  #       what was drawn for the episode


class Task(Protocol):
    """What a task's file defines. All functions are pure and unbatched.

    A task whose goal is not in its observation also has `episode_outcome(params, obs, action, next_obs)`, which `step` then reports, while
    `outcome` says what is known without the episode's params.
    """

    observation_names: tuple[str, ...]  # [O]
    obs_low: np.ndarray  #                [O] float32, the plausible range of each observation, for checks of foreign data: not a bound
    obs_high: np.ndarray  #               [O] float32

    def system(self, engine: str) -> System: ...

    def start(self, key: jax.Array) -> Start: ...

    def fields(self, params: Any) -> tuple[jax.Array, ...]: ...

    def observe(self, readout: Readout) -> jax.Array: ...

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome: ...

    # A task may also have `restore(obs [O], first_obs [O], recorded) -> (qpos, qvel, params)`: the physics behind an observation of an
    # episode that began with first_obs. `recorded` holds what a file says of it by name: "qpos", "qvel", or nothing. It raises TaskError
    # where that is too little.


@dataclasses.dataclass(frozen=True, eq=False)
class TaskEnvironment(Described):
    """A task on an engine, as `envs.core.Environment` asks for it."""

    info: TaskInfo
    engine: str
    task: Task
    physics: Physics

    @property
    def observation_names(self) -> tuple[str, ...]:
        return self.task.observation_names

    @property
    def obs_low(self) -> np.ndarray:
        return self.task.obs_low

    @property
    def obs_high(self) -> np.ndarray:
        return self.task.obs_high

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        """Reward, success and termination of a transition, from observations alone."""
        return self.task.outcome(obs, action, next_obs)

    def _judge(self, params: Any, *transition: jax.Array) -> Outcome:
        of_episode = getattr(self.task, "episode_outcome", None)
        return self.task.outcome(*transition) if of_episode is None else of_episode(params, *transition)

    def restore(self, obs: jax.Array, first_obs: jax.Array, recorded: dict[str, jax.Array]) -> State:
        """The state in which a recorded transition began, to be stepped from: its physics are those of the recording, without warm start.

        Args:
            obs: [O] the observation.
            first_obs: [O] the first one of its episode, from which what was drawn for it may follow.
            recorded: "qpos" [nq], "qvel" [nv] and what else the file has of that moment; may be empty.

        Raises:
            TaskError: the file has no physics and observations do not determine them, or those of another model.
        """
        if hasattr(self.task, "restore"):
            qpos, qvel, params = self.task.restore(obs, first_obs, recorded)
        else:
            qpos, qvel, params = recorded.get("qpos"), recorded.get("qvel"), self.task.start(jax.random.key(0)).params
            if qpos is None or qvel is None or jax.tree.leaves(params):
                raise TaskError(f"task {self.name!r} cannot be set to a recorded state: neither file nor observation say enough of it")
        model = self.physics.system.model
        for name, value, size in (("qpos", qpos, model.nq), ("qvel", qvel, model.nv)):
            if value.shape != (size,):
                raise TaskError(
                    f"the recorded {name} has {value.shape[-1]} numbers; expected {size}, as the model of task {self.name!r} has"
                )
        state = self.reset(jax.random.key(0))
        data = self.physics.init(jnp.asarray(qpos, jnp.float32), jnp.asarray(qvel, jnp.float32))
        return dataclasses.replace(state, data=data, params=params, obs=jnp.asarray(obs, jnp.float32))

    def state_of(self, start: Start) -> State:
        """The first state of an episode that begins so."""
        no = jnp.zeros((), bool)
        return State(
            data=self.physics.init(start.qpos, start.qvel),
            params=start.params,
            obs=self.task.observe(start.readout).astype(jnp.float32),
            reward=jnp.zeros((), jnp.float32),
            terminated=no,
            truncated=no,
            success=no,
            blown_up=no,
            t=jnp.zeros((), jnp.int32),
        )

    # Both are jitted on their own so that many programs with this environment share one trace of the physics: tracing MJX takes seconds.
    @functools.partial(jax.jit, static_argnums=0)
    def reset(self, key: jax.Array) -> State:
        """The first state of an episode. Cheap (no physics is stepped): `autoreset` computes it at every step."""
        return self.state_of(self.task.start(key))

    @functools.partial(jax.jit, static_argnums=0)
    def step(self, state: State, action: jax.Array) -> State:
        """One control step. Where the physics blows up, or the action is not finite, the row stays where it was: data and observation are
        the last good ones, the reward is that of standing still, `blown_up` and `truncated` are set."""
        action = jnp.asarray(action, jnp.float32)
        data, readout = self.physics.step(state.data, jnp.clip(action, -1.0, 1.0), self.task.fields(state.params))
        obs = self.task.observe(readout).astype(jnp.float32)
        blown_up = readout.bad | ~jnp.all(jnp.isfinite(obs))
        keep = lambda new, old: jnp.where(blown_up, old, new)
        obs = keep(obs, state.obs)
        reward, success, terminated = self._judge(state.params, state.obs, action, obs)
        t = state.t + 1
        return State(
            data=jax.tree.map(keep, data, state.data),
            params=state.params,
            obs=obs,
            reward=reward,
            terminated=terminated,
            truncated=blown_up | ((t >= self.horizon) & ~terminated),
            success=success,
            blown_up=blown_up,
            t=t,
        )
