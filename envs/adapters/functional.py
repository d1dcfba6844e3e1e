"""What brax and MuJoCo Playground share: an environment that is `reset(key)` and `step(state, action)` already, with brax's State.

Their states are carried whole. Resets are computed at every step, as `autoreset` needs them, and cost what they cost there.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from envs.core import Described, Outcome, State, TaskError
from envs.registry import TaskInfo


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionalEnvironment(Described):
    """An environment of brax's kind, as `envs.core.Environment` asks for it."""

    info: TaskInfo
    engine: str
    foreign: Any  # what has reset and step
    relabels = False

    @property
    def observation_names(self) -> tuple[str, ...]:
        return tuple(f"obs_{i}" for i in range(self.obs_size))

    def outcome(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> Outcome:
        """Raises TaskError: the reward is a function of the physics, not of observations."""
        raise TaskError(f"task {self.name!r} cannot say the reward of a recorded transition: it depends on more than the observation")

    @functools.partial(jax.jit, static_argnums=0)
    def reset(self, key: jax.Array) -> State:
        # Raw bits, because what keeps its key in the state would keep a typed one there, which cannot be selected between or saved
        # everywhere.
        data = self.foreign.reset(jax.random.key_data(key))
        no = jnp.zeros((), bool)
        return State(data, (), _observation(data), jnp.zeros((), jnp.float32), no, no, no, no, jnp.zeros((), jnp.int32))

    @functools.partial(jax.jit, static_argnums=0)
    def step(self, state: State, action: jax.Array) -> State:
        """One control step; brax's `done` is a termination. Where anything becomes non-finite, or the action is not finite, the row
        stays where it was, `blown_up` and `truncated` are set."""
        action = jnp.asarray(action, jnp.float32)
        data = self.foreign.step(state.data, jnp.clip(action, -1.0, 1.0))
        data = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), data, state.data)  # the same types after every step
        obs, reward = _observation(data), jnp.asarray(data.reward, jnp.float32)
        finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((action, obs, reward, _physics(data)))]
        blown_up = ~jnp.all(jnp.stack(finite))
        keep = lambda new, old: jnp.where(blown_up, old, new)
        terminated = (data.done > 0) & ~blown_up
        success = jnp.asarray(data.metrics.get("success", 0.0), jnp.float32) > 0
        t = state.t + 1
        return State(
            data=jax.tree.map(keep, data, state.data),
            params=(),
            obs=keep(obs, state.obs),
            reward=keep(reward, jnp.zeros((), jnp.float32)),
            terminated=terminated,
            truncated=blown_up | ((t >= self.horizon) & ~terminated),
            success=success & ~blown_up,
            blown_up=blown_up,
            t=t,
        )


def _observation(data: Any) -> jax.Array:
    """[O]; of an observation in parts the one that policies see, "state"."""
    obs = data.obs["state"] if isinstance(data.obs, dict) else data.obs
    return jnp.asarray(obs, jnp.float32)


def _physics(data: Any) -> Any:
    """Positions and velocities: brax calls them q and qd in a pipeline state, playground qpos and qvel in a data."""
    inner = getattr(data, "pipeline_state", None)
    inner = getattr(data, "data", None) if inner is None else inner
    pairs = (("q", "qd"), ("qpos", "qvel"))
    return next(((getattr(inner, a), getattr(inner, b)) for a, b in pairs if hasattr(inner, a)), ())


def size_of(foreign: Any, name: str) -> int:
    """The number of observations. Raises TaskError for images and other shapes."""
    shape = jax.eval_shape(lambda: _observation(foreign.reset(jax.random.key_data(jax.random.key(0))))).shape
    if len(shape) != 1:
        raise TaskError(f"task {name!r}: observations have shape {shape}, expected a vector")
    return shape[0]


def unknown(name: str, kind: str, known: list[str]) -> TaskError:
    """A TaskError for a name that a package does not have, with the nearest ones."""
    import difflib

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    guess = (
        f"did you mean {' or '.join(repr(f'{kind}:{n}') for n in near)}?" if near else f"there are {len(known)}, such as {kind}:{known[0]}"
    )
    return TaskError(f"unknown task '{kind}:{name}'; {guess}")
