"""The step contract: what an environment is.

An environment is MuJoCo physics plus a reward and an observation, as pure functions of one row; rows come from `jax.vmap`.
`step` never resets: `State.obs` after it is the true next observation, also where the episode ends. `autoreset` is the only place
that starts the next episode, and it hands out the true transition beside the reset state, so that nobody bootstraps from a reset
observation at a time limit.

Shape letters: O observation, A action.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from envs.registry import TaskInfo


class TaskError(ValueError):
    """A wrong task, engine or asset. One line: what was found and what was expected."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """One environment between two steps (a pytree; brax's `State` with the two ends of an episode kept apart)."""

    data: Any  #               what the physics engine carries: a pytree of arrays
    params: Any  #             what was drawn for this episode (a goal, a door's place): a pytree of arrays, () where nothing is
    obs: jax.Array  #          [O] float32
    reward: jax.Array  #       [] float32, of the step that led here
    terminated: jax.Array  #   [] bool, the task ended (no bootstrap)
    truncated: jax.Array  #    [] bool, the time limit or a physics blow-up ended the episode (bootstrap)
    success: jax.Array  #      [] bool, this step fulfils the task
    blown_up: jax.Array  #     [] bool, the physics became non-finite in this step
    t: jax.Array  #            [] int32, steps since the reset


class Outcome(NamedTuple):
    """What a task says of a transition. A function of (obs, action, next_obs) alone, so that any dataset can be relabelled."""

    reward: jax.Array  #       [] float32
    success: jax.Array  #      [] bool
    terminated: jax.Array  #   [] bool


class Environment(Protocol):
    """One task on one engine. `reset` and `step` are pure, unbatched and may be jitted, vmapped and scanned."""

    name: str
    engine: str  #             "mjx" or "mujoco"; of other packages also "brax" and "gymnasium"
    obs_size: int
    action_size: int
    horizon: int  #            steps until truncation
    score: str  #              the task's published metric: "success" (of the episode), "solved" (share of the horizon's steps solved) or "return"
    observation_names: tuple[str, ...]  # [O]

    def reset(self, key: jax.Array) -> State: ...

    def step(self, state: State, action: jax.Array) -> State:
        """The next state under `action` [A], nominally in [-1, 1]; the environment clips. No automatic reset."""
        ...

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome: ...


class Described:
    """The part of an environment that its task's `info` says."""

    info: TaskInfo

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def obs_size(self) -> int:
        return self.info.obs_size

    @property
    def action_size(self) -> int:
        return self.info.action_size

    @property
    def horizon(self) -> int:
        return self.info.horizon

    @property
    def score(self) -> str:
        return self.info.score


class Step(NamedTuple):
    """The true transition of one step: `next_obs` is never an observation after a reset."""

    obs: jax.Array  #          [O]
    action: jax.Array  #       [A] as given, not clipped
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_obs: jax.Array  #     [O]
    success: jax.Array
    blown_up: jax.Array


def autoreset(env: Environment, state: State, action: jax.Array, key: jax.Array) -> tuple[State, Step]:
    """Step, and start the next episode with `key` where this one ended: (the state to act in, the true transition).

    An environment whose resets are dear may do it itself, by a method of this name.
    """
    if hasattr(env, "autoreset"):
        return env.autoreset(state, action, key)
    after = env.step(state, action)
    step = Step(state.obs, action, after.reward, after.terminated, after.truncated, after.obs, after.success, after.blown_up)
    fresh = env.reset(key)
    done = after.terminated | after.truncated
    return jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, after), step
