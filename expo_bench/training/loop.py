"""A whole training run as pure functions of one row (one seed, one set of hyperparameters), written once for all agents.

Nothing here knows of vmap, devices or disks. A row's randomness is a function of (its seed, phase, step), so a run may be cut into chunks
anywhere, and what its steps report is added up step by step (`tally`). The clock (steps done) is an argument that all rows of a sweep share: what it gates stays a branch and never becomes a select.

Shape letters: B batch, U updates per environment step, E evaluation episodes, H horizon, C action-chunk length, W packed width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.core import Environment, State, Step, autoreset
from expo_bench.agents.base import Agent, Metrics, Spec
from expo_bench.parts import proposals, replay
from expo_bench.precision import exactly
from expo_bench.protocol import Protocol
from expo_bench.training import returns, tally
from expo_bench.training.sampling import Offline, Sampler
from expo_bench.training.tally import Tally

Hyper = dict[str, jax.Array]  # the traced fields of the agent's config, each []
GivenStep = Callable[[jax.Array, Any], tuple[Any, Metrics]]  # (i, state) -> the i-th step of a call

# One stream of keys per purpose, so that adding a draw to one changes nothing in another.
INIT, PRETRAIN, ONLINE, EVALUATE, FILL = range(5)


class Chunk(NamedTuple):
    """The action chunk that each environment is executing."""

    actions: jax.Array  #  [num_envs, C, A]
    place: jax.Array  #    [num_envs] int32, the next action's place in it; 0: a new chunk is due


class RunState(NamedTuple):
    """All that one row is between two chunks; what is not in it cannot survive a restart."""

    seed: jax.Array  #    [] int32
    agent: Any  #         the agent's state
    envs: State  #        [num_envs]
    buffer: jax.Array  #  [capacity, W] packed transitions
    blowups: jax.Array  # [] int32, steps whose physics became non-finite so far
    chunk: Chunk | None = None  #              with action chunks: what is being executed
    returns: returns.Returns | None = None  #  where the agent asks for Monte-Carlo returns


class Clock(NamedTuple):
    """Shared by all rows, int32 scalars."""

    grad_step: jax.Array  #  gradient steps of the offline phase done
    env_step: jax.Array  #   environment steps done


class Run(NamedTuple):
    """The phases of a run. `count` is the number of steps to do, a traced integer: one program serves chunks of any length. `seen` is the
    tally to go on with; without it a new one is begun."""

    init: Callable  #      (seed, hyper) -> RunState
    pretrain: Callable  #  (state, clock, count, hyper, dataset [n, W], seen) -> (RunState, Tally): gradient steps
    online: (
        Callable  #    (state, clock, count, hyper, dataset, seen) -> (RunState, Tally): loop iterations of num_envs steps, warm-up included
    )
    evaluate: Callable  #  (state, evaluation, hyper) -> metrics of E episodes; `evaluation` [] int32 numbers it
    nothing: Callable  #   (phase, state, hyper, dataset) -> the empty Tally of a phase ("pretrain", "online")


def stream(seed: jax.Array, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), purpose), seed)


def capacity_of(protocol: Protocol) -> int:
    """Transitions that the replay holds: all of the online phase."""
    return max(protocol.online_steps, protocol.num_envs)


def spec_of(env: Environment, protocol: Protocol, dataset_size: int = 0) -> Spec:
    """What an algorithm has to know of its task and protocol; a chunk of actions is one action to it."""
    updates = protocol.updates * protocol.num_envs
    return Spec(env.obs_size, env.action_size * protocol.chunk, protocol.batch_size, updates, dataset_size + capacity_of(protocol))


def make(env: Environment, make_agent: Callable[[Any, Spec], Agent], config: Any, protocol: Protocol, dataset_size: int) -> Run:
    """The run of one algorithm on one task. `dataset_size` is the number of offline transitions (0: none)."""
    sampler = Sampler(env.obs_size, env.action_size, protocol, dataset_size)
    spec = spec_of(env, protocol, dataset_size)
    capacity = capacity_of(protocol)

    def config_of(hyper: Hyper) -> Any:
        """The config with a row's values. A chunk counts as one step, so an agent discounts it with discount^C."""
        traced = dataclasses.replace(config, **hyper)
        chunked = protocol.chunk > 1 and hasattr(traced, "discount")
        return dataclasses.replace(traced, discount=traced.discount**protocol.chunk) if chunked else traced

    def agent_of(hyper: Hyper) -> Agent:
        return make_agent(config_of(hyper), spec)

    def discount_of(hyper: Hyper) -> jax.Array:
        """Of a single step."""
        return hyper.get("discount", jnp.float32(getattr(config, "discount", 1.0)))

    def init(seed: jax.Array, hyper: Hyper) -> RunState:
        agent_key, env_key = jax.random.split(stream(seed, INIT))
        agent, n = agent_of(hyper), protocol.num_envs
        envs = jax.vmap(exactly(env.reset))(jax.random.split(env_key, n))
        buffer = replay.empty(capacity, env.obs_size, env.action_size)
        chunk = Chunk(jnp.zeros((n, protocol.chunk, env.action_size)), jnp.zeros(n, jnp.int32)) if protocol.chunk > 1 else None
        to_go = returns.empty(capacity, env.horizon, n) if agent.mc_return else None
        return RunState(seed, agent.init(agent_key), envs, buffer, jnp.zeros((), jnp.int32), chunk, to_go)

    def offline_of(agent: Agent, hyper: Hyper, dataset: jax.Array) -> Offline:
        """The offline data, with its returns to go where the agent asks for them."""
        if not (agent.mc_return and dataset_size):
            return Offline(dataset, None)
        rows, last = replay.unpack(dataset, env.obs_size, env.action_size), replay.last(dataset, env.obs_size, env.action_size)
        return Offline(dataset, returns.to_go(rows.reward, rows.terminated, last, discount_of(hyper)))

    # -- offline -----------------------------------------------------------------------------------------------------------------------

    def pretrain_step(state: RunState, clock: Clock, hyper: Hyper, dataset: jax.Array) -> GivenStep:
        agent, discount = agent_of(hyper), discount_of(hyper)
        offline = offline_of(agent, hyper, dataset)
        phase_key = stream(state.seed, PRETRAIN)

        def gradient_step(i: jax.Array, agent_state: Any) -> tuple[Any, Metrics]:
            batch_key, draw_key = jax.random.split(jax.random.fold_in(phase_key, clock.grad_step + i))
            batch = sampler.offline(batch_key, offline, discount)
            return agent.pretrain(agent_state, batch, agent.draw_pretrain(draw_key))

        return gradient_step

    def pretrain(
        state: RunState, clock: Clock, count: jax.Array, hyper: Hyper, dataset: jax.Array, seen: Tally | None = None
    ) -> tuple[RunState, Tally]:
        seen = nothing("pretrain", state, hyper, dataset) if seen is None else seen
        step = pretrain_step(state, clock, hyper, dataset)
        agent_state, seen = _repeat(step, state.agent, count, seen, lambda i: clock.grad_step + i)
        return state._replace(agent=agent_state), seen

    # -- online ------------------------------------------------------------------------------------------------------------------------

    def interact(state: RunState, env_step: jax.Array, actions: jax.Array, key: jax.Array, discount: jax.Array) -> tuple[RunState, Step]:
        """Step every environment with its action [num_envs, A] and store the true transitions."""
        step = exactly(lambda s, a, k: autoreset(env, s, a, k))
        envs, steps = jax.vmap(step)(state.envs, actions, jax.random.split(key, protocol.num_envs))
        reward = protocol.learnt_reward(steps.reward)
        last = steps.terminated | steps.truncated
        rows = replay.pack(replay.Batch(steps.obs, steps.action, reward, steps.terminated, steps.next_obs), last)
        # Nothing learns from a blow-up: the newest true transition is stored a second time in its place.
        newest = jax.lax.dynamic_index_in_dim(state.buffer, jnp.maximum(env_step - 1, 0) % capacity, keepdims=False)
        rows = jnp.where(steps.blown_up[:, None], newest, rows)
        blowups = state.blowups + jnp.sum(steps.blown_up.astype(jnp.int32))
        if state.returns is not None:
            lengths = state.envs.t + 1
            reward, terminated, last = (jnp.where(steps.blown_up, 0.0, x.astype(jnp.float32)) for x in (reward, steps.terminated, last))
            state = state._replace(
                returns=returns.insert(state.returns, env_step, env.horizon, reward, terminated, last, lengths, discount)
            )
        return state._replace(envs=envs, buffer=replay.insert(state.buffer, rows, env_step), blowups=blowups), steps

    def propose(agent: Agent, state: RunState, env_step: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        """What the agent, or who acts in its stead in the warm-up, would do now: [num_envs, C A]; and what it drew for that."""
        draws = jax.vmap(lambda k: agent.draw_act(k, True))(jax.random.split(key, protocol.num_envs))
        actions, extras = jax.vmap(lambda obs, d: agent.act(state.agent, obs, d, explore=True))(state.envs.obs, draws)
        if not protocol.warmup_steps:
            return actions, extras
        if protocol.warmup == "uniform":
            instead = jax.random.uniform(jax.random.fold_in(key, 1), actions.shape, minval=-1.0, maxval=1.0)
        else:
            instead = actions if agent.base_act is None else jax.vmap(lambda o, d: agent.base_act(state.agent, o, d))(state.envs.obs, draws)
        return jnp.where(env_step < protocol.warmup_steps, instead, actions), extras

    def keep_samples(
        keep: proposals.Keeping, state: RunState, env_step: jax.Array, before: State, extras: Metrics, key: jax.Array
    ) -> RunState:
        """The first samples of the transitions that were just stored; `before` are the environments as they acted, `extras` what they drew."""
        place = lambda i: dataset_size + i % capacity
        newest = env_step + jnp.arange(protocol.num_envs)
        led_here = jnp.where(before.t > 0, place(newest - protocol.num_envs), spec.stored)  # nothing led to a first state
        next_obs = replay.unpack(state.buffer[newest % capacity], env.obs_size, env.action_size).next_obs
        table = proposals.stored(keep, state.agent, key, place(newest), next_obs, led_here, extras.get(proposals.DRAWN))
        return state._replace(agent=state.agent._replace(table=table))

    def execute(state: RunState, proposed: jax.Array) -> tuple[RunState, jax.Array]:
        """The actions of this step [num_envs, A]: with chunks those of the running one, of `proposed` where a new one is due."""
        if state.chunk is None:
            return state, proposed
        proposed = proposed.reshape(state.chunk.actions.shape)
        actions = jnp.where((state.chunk.place == 0)[:, None, None], proposed, state.chunk.actions)
        action = jnp.take_along_axis(actions, state.chunk.place[:, None, None], axis=1)[:, 0]
        return state._replace(chunk=Chunk(actions, (state.chunk.place + 1) % protocol.chunk)), action

    def one_step(agent: Agent, state: RunState, env_step: jax.Array, offline: Offline, discount: jax.Array) -> tuple[RunState, Metrics]:
        """One iteration of the loop: act, physics, replay insert, sample U batches, learn."""
        key = jax.random.fold_in(stream(state.seed, ONLINE), env_step)
        act_key, env_key, batch_key, draw_key = jax.random.split(key, 4)
        before = state.envs
        proposed, extras = propose(agent, state, env_step, act_key)
        state, actions = execute(state, proposed)
        state, steps = interact(state, env_step, actions, env_key, discount)
        if agent.keep is not None:
            state = keep_samples(agent.keep, state, env_step, before, extras, jax.random.fold_in(act_key, 2))
        if state.chunk is not None:  # an episode's end ends its chunk
            place = jnp.where(steps.terminated | steps.truncated, 0, state.chunk.place)
            state = state._replace(chunk=state.chunk._replace(place=place))

        def learn(agent_state: Any) -> tuple[Any, Metrics]:
            drawn_from = sampler._replace(indexed=agent.keep is not None)
            stored = env_step + protocol.num_envs
            batches = drawn_from.mixed(batch_key, offline, state.buffer, state.returns, stored, env.horizon, discount)
            return agent.learn(agent_state, batches, agent.draw(draw_key))

        def skip(agent_state: Any) -> tuple[Any, Metrics]:
            return agent_state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(learn, agent_state)[1])

        # All rows share the clock, so this stays a branch under vmap.
        warming_up = env_step < protocol.warmup_steps
        agent_state, metrics = jax.lax.cond(warming_up, skip, learn, state.agent) if protocol.warmup_steps else learn(state.agent)
        reward = jnp.where(steps.blown_up, 0.0, steps.reward)  # of a blow-up it may be anything
        return state._replace(agent=agent_state), {**metrics, "train_reward": jnp.mean(reward)}

    def begin(state: RunState, clock: Clock, hyper: Hyper, dataset: jax.Array) -> RunState:
        """Before the first environment step: samples for the offline transitions, where the agent keeps some."""
        agent = agent_of(hyper)
        if agent.keep is None or not dataset_size:
            return state
        next_obs = lambda index: replay.unpack(dataset[index], env.obs_size, env.action_size).next_obs
        fill = lambda: proposals.filled(agent.keep, state.agent, stream(state.seed, FILL), dataset_size, next_obs)
        table = jax.lax.cond(clock.env_step == 0, fill, lambda: state.agent.table)
        return state._replace(agent=state.agent._replace(table=table))

    def online_step(state: RunState, clock: Clock, hyper: Hyper, dataset: jax.Array) -> GivenStep:
        agent, discount = agent_of(hyper), discount_of(hyper)
        offline = offline_of(agent, hyper, dataset)
        return lambda i, s: one_step(agent, s, clock.env_step + i * protocol.num_envs, offline, discount)

    def online(
        state: RunState, clock: Clock, count: jax.Array, hyper: Hyper, dataset: jax.Array, seen: Tally | None = None
    ) -> tuple[RunState, Tally]:
        seen = nothing("online", state, hyper, dataset) if seen is None else seen
        state = begin(state, clock, hyper, dataset)
        step = online_step(state, clock, hyper, dataset)
        return _repeat(step, state, count, seen, lambda i: clock.env_step + i * protocol.num_envs)

    def nothing(phase: str, state: RunState, hyper: Hyper, dataset: jax.Array) -> Tally:
        step_of, carried = (pretrain_step, state.agent) if phase == "pretrain" else (online_step, state)
        zero = jnp.zeros((), jnp.int32)
        return tally.empty(jax.eval_shape(lambda s: step_of(state, Clock(zero, zero), hyper, dataset)(zero, s)[1], carried))

    # -- evaluation --------------------------------------------------------------------------------------------------------------------

    def evaluate(state: RunState, evaluation: jax.Array, hyper: Hyper) -> Metrics:
        """E whole episodes. The keys depend on seed and evaluation alone: every agent meets the same episodes at the same evaluation."""
        agent = agent_of(hyper)
        reset_key, act_key = jax.random.split(jax.random.fold_in(stream(state.seed, EVALUATE), evaluation))
        envs = jax.vmap(exactly(env.reset))(jax.random.split(reset_key, protocol.eval_episodes))

        def step(carry: tuple[State, jax.Array], actions: jax.Array) -> tuple[tuple[State, jax.Array], Seen]:
            envs, running = carry
            after = jax.vmap(exactly(env.step))(envs, actions)
            seen = Seen(running, running * after.reward, running * after.success, running * after.blown_up, running * after.terminated)
            return (after, running * (1.0 - (after.terminated | after.truncated))), seen

        def decide(carry: tuple[State, jax.Array], t: jax.Array) -> tuple[tuple[State, jax.Array], tuple[Seen, Metrics]]:
            """One decision of every episode, and the C steps that it causes."""
            envs, running = carry
            keys = jax.random.split(jax.random.fold_in(act_key, t), protocol.eval_episodes)
            draws = jax.vmap(lambda k: agent.draw_act(k, False))(keys)
            actions, estimates = jax.vmap(lambda obs, d: agent.act(state.agent, obs, d, explore=False))(envs.obs, draws)
            if agent.value is not None:
                estimates = {**estimates, "q_value": jax.vmap(lambda obs, a: agent.value(state.agent, obs, a))(envs.obs, actions)}
            if protocol.chunk == 1:
                carry, seen = step(carry, actions)
                return carry, (jax.tree.map(lambda x: x[None], seen), estimates)
            per_step = actions.reshape(protocol.eval_episodes, protocol.chunk, env.action_size)
            carry, seen = jax.lax.scan(step, carry, jnp.moveaxis(per_step, 1, 0))
            return carry, (seen, estimates)

        decisions = -(-env.horizon // protocol.chunk)
        start = (envs, jnp.ones(protocol.eval_episodes))
        _, (seen, estimates) = jax.lax.scan(decide, start, jnp.arange(decisions))
        if agent.value is not None:
            estimates["q_bias"] = estimates["q_value"] - _returns_seen(seen, protocol, discount_of(hyper))
        deciding = seen.running[:, 0]
        measured = {name: jnp.sum(deciding * value) / jnp.sum(deciding) for name, value in estimates.items()}
        length, episode_return, solved_steps, blown_up = (jnp.sum(x, axis=(0, 1)) for x in seen[:4])
        success = jnp.mean((solved_steps > 0).astype(jnp.float32))
        finite = jnp.all(
            jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state.agent) if jnp.issubdtype(x.dtype, jnp.floating)])
        )
        scores = {"success": success, "solved": jnp.mean(solved_steps) / env.horizon, "return": jnp.mean(episode_return)}
        return {
            "score": scores[env.score],
            "episode_return": jnp.mean(episode_return),
            "success": success,
            "episode_length": jnp.mean(length),
            "eval_blowups": jnp.sum(blown_up),
            "blowups": state.blowups,
            "diverged": ~finite,
            **measured,
        }

    return Run(init, pretrain, online, evaluate, nothing)


class Seen(NamedTuple):
    """What an evaluation sees of its episodes, each [decisions, C, E]; all 0 after an episode's end."""

    running: jax.Array
    reward: jax.Array
    success: jax.Array
    blown_up: jax.Array
    terminated: jax.Array


def _returns_seen(seen: Seen, protocol: Protocol, discount: jax.Array) -> jax.Array:
    """The discounted return, in rewards as they are learnt from, that followed each decision: [decisions, E]."""
    running, reward, terminated = (x.reshape(-1, x.shape[-1]) for x in (seen.running, seen.reward, seen.terminated))
    last = running * (1.0 - jnp.concatenate([running[1:], jnp.zeros_like(running[:1])]))
    to_go = returns.to_go(running * protocol.learnt_reward(reward), terminated, last, discount)
    return to_go[:: protocol.chunk]


def _repeat(step: GivenStep, state: Any, count: jax.Array, seen: Tally, number: Callable[[jax.Array], jax.Array]) -> tuple[Any, Tally]:
    """`count` steps, and what they report added to what was `seen`. `number` gives the i-th of them its number in the run."""

    def body(i: jax.Array, carry: tuple[Any, Tally]) -> tuple[Any, Tally]:
        state, seen = carry
        state, metrics = step(i, state)
        return state, tally.add(seen, metrics, number(i))

    return jax.lax.fori_loop(0, count, body, (state, seen))
