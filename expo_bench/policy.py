"""A trained agent as a thing: `load` it from a file of `expo-bench export-policy`, let it act, evaluate it again.

policy = expo_bench.load_policy("policy.npz")
action = policy.act(obs, jax.random.key(0))
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.demonstrators import Demonstrator
from expo_bench import agents
from expo_bench.agents import files
from expo_bench.agents.base import Agent, Spec
from expo_bench.config import replace
from expo_bench.errors import UserError
from expo_bench.protocol import Protocol
from expo_bench.sweeps import policies
from expo_bench.sweeps.compiled import CPU_OPTIONS
from expo_bench.training import loop


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """An agent as it was at one evaluation of its training."""

    about: dict[str, Any]  # task, agent, variant, seed, env_step, score, config, versions, ...
    module: Any
    config: Any
    hyper: dict[str, float]  # the traced fields of the config in this run
    state: Any  #             the agent's; arrays that acting does not depend on are 0
    spec: Spec

    @functools.cached_property
    def agent(self) -> Agent:
        return self.module.make(dataclasses.replace(self.config, **{k: jnp.float32(v) for k, v in self.hyper.items()}), self.spec)

    def act(self, obs: jax.Array, key: jax.Array) -> jax.Array:
        """The action [A] in [-1, 1] that an evaluation takes at obs [O]; [C, A] of an agent that acts in chunks. Pure: may be jitted and vmapped."""
        action = self.agent.act(self.state, jnp.asarray(obs, jnp.float32), self.agent.draw_act(key, False), explore=False)[0]
        return action if self.about["chunk"] == 1 else action.reshape(self.about["chunk"], -1)


def load(path: str | Path, agent: str | Path | None = None) -> Policy:
    """The policy of a file. `agent` is the file of an algorithm that does not come with the suite, as it was when it was trained.

    Raises UserError for a file that is no policy, an agent that is missing or has changed, and arrays that do not fit it.
    """
    path = Path(path)
    about, arrays = policies.read(path)
    if "which" not in about:
        raise UserError(f"{path}: holds all agents of a part of a run; `expo-bench export-policy` writes one of them")
    return _made(path, about, arrays, agent)


def of_run(run: Path, wanted: Mapping[str, str], which: str) -> Policy:
    """One of the agents that a run folder keeps; `wanted` and `which` as of `expo-bench export-policy`. Raises UserError where none is that."""
    about, arrays = policies.one(run, wanted, which)
    return _made(run, about, arrays, None if about["agent_sha256"] is None else run / "agents" / f"{about['agent']}.py")


def following(policy: Policy) -> Demonstrator:
    """The policy as one that demonstrates, its chunks executed open loop."""

    def init(key: jax.Array, state: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.zeros((policy.about["chunk"], policy.about["action_size"])), jnp.zeros((), jnp.int32)

    def act(carry: tuple[jax.Array, jax.Array], state: Any, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        actions, place = carry
        actions = jnp.where(place == 0, policy.act(state.obs, key).reshape(actions.shape), actions)
        return actions[place], (actions, (place + 1) % len(actions))

    return Demonstrator(init, act, lambda carry: jnp.zeros((), jnp.int32))


def _made(path: Path, about: dict[str, Any], arrays: Mapping[str, np.ndarray], agent: str | Path | None) -> Policy:
    module = _module(path, about, agent)
    values = {name: tuple(x) if isinstance(x, list) else x for name, x in about["config"].items()}
    config = replace(module.Config(), f"{path}, agent {about['agent']!r}", **values)
    spec = Spec(about["obs_size"], about["action_size"] * about["chunk"], 1, 1)
    shapes = jax.eval_shape(module.make(config, spec).init, jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    filled = [_filled(path, x, arrays.get(f"{i:05}")) for i, x in enumerate(leaves)]
    if unknown := set(arrays) - {f"{i:05}" for i in range(len(leaves))}:
        raise UserError(f"{path}: its agent has {len(leaves)} arrays with these versions, and the file another one ({sorted(unknown)[0]})")
    return Policy(about, module, config, about["hyper"], jax.tree.unflatten(tree, filled), spec)


def _module(path: Path, about: Mapping[str, Any], agent: str | Path | None) -> Any:
    """The code of its agent."""
    if about["agent_sha256"] is None:
        if agent is not None:
            raise UserError(f"{path}: is one of agent {about['agent']!r}, which comes with the suite; leave out the file {agent}")
        return agents.load(about["agent"])
    if agent is None:
        raise UserError(f"{path}: is one of an agent of its own, {about['agent']!r}; give its file too (its run keeps a copy in agents/)")
    module = files.load(str(agent))
    if files.own(module).digest != about["agent_sha256"]:
        raise UserError(f"{agent}: is not the file that {path} was trained with (another checksum); its run keeps a copy in agents/")
    return module


def _filled(path: Path, shape: jax.ShapeDtypeStruct, array: np.ndarray | None) -> jax.Array:
    if array is None:
        return jnp.zeros(shape.shape, shape.dtype)
    if array.shape != shape.shape or array.dtype != shape.dtype:
        raise UserError(
            f"{path}: an array is {array.dtype}{list(array.shape)}, expected {shape.dtype}{list(shape.shape)}: it was trained with other code"
        )
    return jnp.asarray(array)


def check_sizes(policy: Policy, env: envs.Environment) -> None:
    """Raise UserError for a task of other sizes than the policy's."""
    sizes = (env.obs_size, env.action_size)
    if sizes != (policy.about["obs_size"], policy.about["action_size"]):
        own = f"{policy.about['obs_size']} and {policy.about['action_size']} on {policy.about['task']}"
        raise UserError(f"task {env.name}: has {sizes[0]} observations and {sizes[1]} actions, the policy {own}")


def evaluate(policy: Policy, task: str | None = None, *, episodes: int = 100, seed: int = 0, number: int = 0, engine: str = "auto") -> dict:
    """The metrics of whole episodes on a task (its own without one), as a sweep reports them: score, success, episode_return, q_bias, ...

    `seed` and `number` say which episodes: with the policy's own seed and `about["evaluation"]`, those that its sweep gave it, if they are as many.
    """
    env = envs.make(task or policy.about["task"], engine=engine)
    check_sizes(policy, env)
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, got {episodes}")
    learnt = {name: policy.about[name] for name in ("chunk", "reward_scale", "reward_shift")}
    protocol = dataclasses.replace(Protocol(), eval_episodes=episodes, online_steps=1, num_envs=1, **learnt)
    run = loop.make(env, policy.module.make, policy.config, protocol, 0)
    hyper = {name: jnp.float32(x) for name, x in policy.hyper.items()}
    empty = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run.init, jnp.int32(seed), hyper)._replace(agent=None, envs=None)
    )
    state = empty._replace(seed=jnp.int32(seed), agent=policy.state)
    call = jax.jit(run.evaluate, compiler_options=CPU_OPTIONS if jax.default_backend() == "cpu" else None)
    return {name: value.item() for name, value in call(state, jnp.int32(number), hyper).items()}
