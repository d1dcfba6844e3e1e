"""A whole training run as pure functions of one row (one seed, one set of hyperparameters), written once for all agents.

Nothing here knows of vmap, devices or disks. A row's randomness is a function of (its seed, phase, step), so a run may be cut into chunks
anywhere. The clock (steps done) is an argument that all rows of a sweep share: what it gates stays a branch and never becomes a select.

Shape letters: B batch, U updates per environment step, E evaluation episodes, C replay capacity, W packed width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.core import Environment, State, Step, autoreset
from expo_bench.agents.base import Agent, Metrics, Spec
from expo_bench.parts import replay
from expo_bench.protocol import Protocol

Hyper = dict[str, jax.Array]  # the traced fields of the agent's config, each []

# One stream of keys per purpose, so that adding a draw to one changes nothing in another.
INIT, PRETRAIN, ONLINE, EVALUATE = range(4)


class RunState(NamedTuple):
    """All that one row is between two chunks; what is not in it cannot survive a restart."""

    seed: jax.Array  #    [] int32
    agent: Any  #         the agent's state
    envs: State  #        [num_envs]
    buffer: jax.Array  #  [C, W] packed transitions
    blowups: jax.Array  # [] int32, steps whose physics became non-finite so far


class Clock(NamedTuple):
    """Shared by all rows, int32 scalars."""

    grad_step: jax.Array  #  gradient steps of the offline phase done
    env_step: jax.Array  #   environment steps done


class Run(NamedTuple):
    """The phases of a run. `count` is the number of steps to do, a traced integer: one program serves chunks of any length."""

    init: Callable  #      (seed, hyper) -> RunState
    pretrain: Callable  #  (state, clock, count, hyper, dataset [n, W]) -> (RunState, metrics): gradient steps
    online: Callable  #    (state, clock, count, hyper, dataset) -> (RunState, metrics): loop iterations of num_envs steps, warm-up included
    evaluate: Callable  #  (state, evaluation, hyper) -> metrics of E episodes; `evaluation` [] int32 numbers it


def stream(seed: jax.Array, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), purpose), seed)


def make(env: Environment, make_agent: Callable[[Any, Spec], Agent], config: Any, protocol: Protocol, dataset_size: int) -> Run:
    """The run of one algorithm on one task. `dataset_size` is the number of offline transitions (0: none)."""
    spec = Spec(env.obs_size, env.action_size, protocol.batch_size, protocol.updates * protocol.num_envs)
    capacity = max(protocol.online_steps, protocol.num_envs)

    def agent_of(hyper: Hyper) -> Agent:
        return make_agent(dataclasses.replace(config, **hyper), spec)

    def init(seed: jax.Array, hyper: Hyper) -> RunState:
        agent_key, env_key = jax.random.split(stream(seed, INIT))
        envs = jax.vmap(env.reset)(jax.random.split(env_key, protocol.num_envs))
        buffer = replay.empty(capacity, env.obs_size, env.action_size)
        return RunState(seed, agent_of(hyper).init(agent_key), envs, buffer, jnp.zeros((), jnp.int32))

    # -- offline -----------------------------------------------------------------------------------------------------------------------

    def pretrain(state: RunState, clock: Clock, count: jax.Array, hyper: Hyper, dataset: jax.Array) -> tuple[RunState, Metrics]:
        agent = agent_of(hyper)
        phase_key = stream(state.seed, PRETRAIN)

        def gradient_step(i: jax.Array, agent_state: Any) -> tuple[Any, Metrics]:
            batch_key, draw_key = jax.random.split(jax.random.fold_in(phase_key, clock.grad_step + i))
            rows = dataset[replay.index(jax.random.uniform(batch_key, (protocol.batch_size,)), dataset_size)]
            batch = replay.unpack(rows, env.obs_size, env.action_size)
            return agent.pretrain(agent_state, batch, agent.draw_pretrain(draw_key))

        agent_state, metrics = _repeat(gradient_step, state.agent, count)
        return state._replace(agent=agent_state), metrics

    # -- online ------------------------------------------------------------------------------------------------------------------------

    def interact(state: RunState, env_step: jax.Array, actions: jax.Array, key: jax.Array) -> tuple[RunState, Step]:
        """Step every environment with its action [num_envs, A] and store the true transitions."""
        envs, steps = jax.vmap(lambda s, a, k: autoreset(env, s, a, k))(state.envs, actions, jax.random.split(key, protocol.num_envs))
        reward = steps.reward + protocol.reward_shift
        rows = replay.pack(replay.Batch(steps.obs, steps.action, reward, steps.terminated, steps.next_obs))
        # Nothing learns from a blow-up: the newest true transition is stored a second time in its place.
        newest = jax.lax.dynamic_index_in_dim(state.buffer, jnp.maximum(env_step - 1, 0) % capacity, keepdims=False)
        rows = jnp.where(steps.blown_up[:, None], newest, rows)
        blowups = state.blowups + jnp.sum(steps.blown_up.astype(jnp.int32))
        return state._replace(envs=envs, buffer=replay.insert(state.buffer, rows, env_step), blowups=blowups), steps

    def sample_batches(key: jax.Array, buffer: jax.Array, stored: jax.Array, dataset: jax.Array) -> replay.Batch:
        """[U, B] transitions of the offline data and of the `stored` online ones."""
        stored = jnp.minimum(stored, capacity)
        if protocol.sampling == "union":
            i = replay.index(jax.random.uniform(key, (spec.updates, spec.batch_size)), dataset_size + stored)
            rows = buffer[jnp.maximum(i - dataset_size, 0)]
            if dataset_size:
                rows = jnp.where((i < dataset_size)[..., None], dataset[jnp.minimum(i, dataset_size - 1)], rows)
        else:
            offline = protocol.offline_rows
            u = jax.random.uniform(key, (spec.updates, spec.batch_size))
            rows = buffer[replay.index(u[:, offline:], stored)]
            if offline:
                rows = jnp.concatenate([dataset[replay.index(u[:, :offline], dataset_size)], rows], axis=1)
        return replay.unpack(rows, env.obs_size, env.action_size)

    def one_step(agent: Agent, state: RunState, env_step: jax.Array, dataset: jax.Array) -> tuple[RunState, Metrics]:
        """One iteration of the loop: act, physics, replay insert, sample U batches, learn."""
        key = jax.random.fold_in(stream(state.seed, ONLINE), env_step)
        act_key, env_key, batch_key, draw_key = jax.random.split(key, 4)
        draws = jax.vmap(lambda k: agent.draw_act(k, True))(jax.random.split(act_key, protocol.num_envs))
        actions = jax.vmap(lambda obs, d: agent.act(state.agent, obs, d, explore=True))(state.envs.obs, draws)
        warming_up = env_step < protocol.warmup_steps
        if protocol.warmup_steps:
            uniform = jax.random.uniform(jax.random.fold_in(act_key, 1), actions.shape, minval=-1.0, maxval=1.0)
            actions = jnp.where(warming_up, uniform, actions)
        state, steps = interact(state, env_step, actions, env_key)

        def learn(agent_state: Any) -> tuple[Any, Metrics]:
            batches = sample_batches(batch_key, state.buffer, env_step + protocol.num_envs, dataset)
            return agent.learn(agent_state, batches, agent.draw(draw_key))

        def skip(agent_state: Any) -> tuple[Any, Metrics]:
            return agent_state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(learn, agent_state)[1])

        # All rows share the clock, so this stays a branch under vmap.
        agent_state, metrics = jax.lax.cond(warming_up, skip, learn, state.agent) if protocol.warmup_steps else learn(state.agent)
        return state._replace(agent=agent_state), {**metrics, "train_reward": jnp.mean(steps.reward)}

    def online(state: RunState, clock: Clock, count: jax.Array, hyper: Hyper, dataset: jax.Array) -> tuple[RunState, Metrics]:
        agent = agent_of(hyper)
        return _repeat(lambda i, s: one_step(agent, s, clock.env_step + i * protocol.num_envs, dataset), state, count)

    # -- evaluation --------------------------------------------------------------------------------------------------------------------

    def evaluate(state: RunState, evaluation: jax.Array, hyper: Hyper) -> Metrics:
        """E whole episodes. The keys depend on seed and evaluation alone: every agent meets the same episodes at the same evaluation."""
        agent = agent_of(hyper)
        reset_key, act_key = jax.random.split(jax.random.fold_in(stream(state.seed, EVALUATE), evaluation))
        envs = jax.vmap(env.reset)(jax.random.split(reset_key, protocol.eval_episodes))

        def step(carry: tuple[State, jax.Array], t: jax.Array) -> tuple[tuple[State, jax.Array], jax.Array]:
            envs, running = carry
            keys = jax.random.split(jax.random.fold_in(act_key, t), protocol.eval_episodes)
            draws = jax.vmap(lambda k: agent.draw_act(k, False))(keys)
            actions = jax.vmap(lambda obs, d: agent.act(state.agent, obs, d, explore=False))(envs.obs, draws)
            after = jax.vmap(env.step)(envs, actions)
            seen = jnp.stack([running, running * after.reward, running * after.success, running * after.blown_up])
            return (after, running * (1.0 - (after.terminated | after.truncated))), seen

        (_, _), seen = jax.lax.scan(step, (envs, jnp.ones(protocol.eval_episodes)), jnp.arange(env.horizon))
        length, episode_return, solved_steps, blown_up = jnp.sum(seen, axis=0)
        success = jnp.mean((solved_steps > 0).astype(jnp.float32))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state.agent) if jnp.issubdtype(x.dtype, jnp.floating)]))
        return {
            "score": success if env.score == "success" else jnp.mean(solved_steps) / env.horizon,
            "episode_return": jnp.mean(episode_return),
            "success": success,
            "episode_length": jnp.mean(length),
            "eval_blowups": jnp.sum(blown_up),
            "blowups": state.blowups,
            "diverged": ~finite,
        }

    return Run(init, pretrain, online, evaluate)


def _repeat(step: Callable[[jax.Array, Any], tuple[Any, Metrics]], state: Any, count: jax.Array) -> tuple[Any, Metrics]:
    """`count` steps, and the mean of their metrics (nothing but zeros for count 0)."""
    shapes = jax.eval_shape(lambda s: step(jnp.zeros((), jnp.int32), s)[1], state)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)

    def body(i: jax.Array, carry: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
        state, total = carry
        state, metrics = step(i, state)
        return state, jax.tree.map(lambda t, m: t + m.astype(jnp.float32), total, metrics)

    state, total = jax.lax.fori_loop(0, count, body, (state, zeros))
    return state, jax.tree.map(lambda t: t / jnp.maximum(count, 1), total)
