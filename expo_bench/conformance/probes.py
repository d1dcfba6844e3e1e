"""Probe environments: tables of transitions so small that the value and the right action are known.

Each agent is trained on all probes and seeds in one program, the rows being (probe, seed). Actions in the data are uniform in [-1, 1], so
that every agent's learning is well posed; an observation is (stage, side, 2, -2), where the constants keep stage and side apart behind the
LayerNorm that IDQL's value function has on its input.

| probe | reward | what it needs |
|---|---|---|
| constant | 1 | the critic's regression |
| observation | side | the observation reaches the critic |
| discount | 0, then 1 at the second stage | bootstrapping, the discount, and that the last step does not bootstrap |
| action | 1 - (a - side / 2)^2 | the action reaches the critic, the policy follows it |
| two stages | side' = 1 - (a - 1/2)^2 leads to side' - (a' - side' / 2)^2 | the policy's own actions enter the backup |
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from expo_bench.agents.base import Agent, Spec
from expo_bench.config import fields
from expo_bench.conformance.cases import DISCOUNT, PROBE, Case, config_of
from expo_bench.conformance.stages import Problem
from expo_bench.parts import proposals, replay
from expo_bench.parts.replay import Batch

SEEDS, ROWS, PRETRAIN, LEARN = 2, 1024, 200, 300
SPEC = Spec(obs_size=4, action_size=1, batch_size=64, updates=2, stored=ROWS)
VALUE_ERROR, ACTION_ERROR, IMITATION_ERROR = 0.1, 0.2, 0.1  # what is tolerated; a random action is 0.6 away


class Probe(NamedTuple):
    table: Callable[[np.random.Generator], Batch]  #         [ROWS] transitions
    values: Callable[[Callable], list[tuple]]  #             of V(side) at the second stage -> (obs, action, value)
    actions: list[tuple]  #                                  (obs, right action)


def observation(stage: Any, side: Any) -> np.ndarray:
    return np.stack(np.broadcast_arrays(np.float32(stage), np.float32(side), 2.0, -2.0), axis=-1)


def one_stage(reward: Callable) -> Callable:
    def table(rng: np.random.Generator) -> Batch:
        side, action = rng.choice([-1.0, 1.0], ROWS), rng.uniform(-1, 1, ROWS)
        obs = observation(0, side)
        return Batch(obs, action[:, None], reward(side, action), np.ones(ROWS), obs)

    return table


def two_stages(next_side: Callable, reward: Callable) -> Callable:
    """Half the rows at stage 0, side 0, half at stage 1; what would be bootstrapped after the end is a state of high value."""

    def table(rng: np.random.Generator) -> Batch:
        stage, action = np.arange(ROWS) % 2, rng.uniform(-1, 1, ROWS)
        side = np.where(stage, next_side(rng.uniform(-1, 1, ROWS)), 0.0)
        after = np.where(stage, 1.0, next_side(action))
        return Batch(
            observation(stage, side), action[:, None], np.where(stage, reward(side, action), 0.0), stage * 1.0, observation(1, after)
        )

    return table


quadratic = lambda side, a: 1 - (a - side / 2) ** 2
PROBES = {
    "constant": Probe(one_stage(lambda side, a: np.ones_like(a)), lambda v: [((0, s), a, 1) for s in (-1, 1) for a in (-0.6, 0.6)], []),
    "observation": Probe(one_stage(lambda side, a: side), lambda v: [((0, s), a, s) for s in (-1, 1) for a in (-0.6, 0.6)], []),
    "discount": Probe(
        two_stages(lambda a: np.ones_like(a), lambda side, a: np.ones_like(a)),
        lambda v: [((0, 0), a, DISCOUNT) for a in (-0.6, 0.6)] + [((1, 1), a, 1) for a in (-0.6, 0.6)],
        [],
    ),
    "action": Probe(
        one_stage(quadratic),
        lambda v: [((0, s), a, quadratic(s, a)) for s in (-1, 1) for a in (-0.6, 0.6)],
        [((0, -1), -0.5), ((0, 1), 0.5)],
    ),
    "two stages": Probe(
        two_stages(lambda a: quadratic(1, a), lambda side, a: side - 1 + quadratic(side, a)),
        lambda v: [((0, 0), a, DISCOUNT * v(quadratic(1, a))) for a in (-0.4, 0.1, 0.6)] + [((1, 0), 0.0, 0.0)],
        [((0, 0), 0.5), ((1, 1), 0.5)],
    ),
}


MEANING = {  # what a wrong answer to each says
    "constant": "every reward is 1 and every step the last: does the critic learn its target, and is `value` that critic?",
    "observation": "the reward is a part of the observation: does it reach the critic?",
    "discount": "a reward of 1 one step later: r + discount * (1 - terminated) * V(next_obs), with the config's discount",
    "action": "the reward is 1 - (a - side / 2)^2: does the action reach the critic, and does `act` follow it?",
    "two stages": "what is best first depends on acting well then: do the policy's own actions enter the target?",
}


def build(module: ModuleType, case: Case, **values: Any) -> Agent:
    rates = {field: 3e-3 for field in fields(module.Config) if field.endswith("lr")}
    return module.make(config_of(module, PROBE | rates, {**case.probe, **values}), SPEC)


def train(agent: Agent, table: Batch, key: jax.Array) -> Any:
    """Offline phase, then online phase, on batches from the table."""
    init_key, pretrain_key, learn_key = jax.random.split(key, 3)

    def batch(key: jax.Array, *shape: int) -> Batch:
        index = replay.index(jax.random.uniform(key, shape), ROWS)
        drawn = jax.tree.map(lambda x: x[index], table)
        drawn = drawn if agent.keep is None else drawn._replace(next_index=index)
        return drawn._replace(mc_return=jnp.full(shape, -jnp.inf)) if agent.mc_return else drawn

    def pretrain(state: Any, key: jax.Array) -> tuple:
        batch_key, draw_key = jax.random.split(key)
        drawn = batch(batch_key, SPEC.batch_size)
        drawn = drawn._replace(next_action=drawn.action, next_valid=jnp.ones((SPEC.batch_size, 1)), next_index=None)
        return agent.pretrain(state, drawn, agent.draw_pretrain(draw_key))[0], None

    def learn(state: Any, key: jax.Array) -> tuple:
        batch_key, draw_key = jax.random.split(key)
        return agent.learn(state, batch(batch_key, SPEC.updates, SPEC.batch_size), agent.draw(draw_key))[0], None

    state = agent.init(init_key)
    if agent.pretrain is not None:
        state, _ = jax.lax.scan(pretrain, state, jax.random.split(pretrain_key, PRETRAIN))
    if agent.keep is not None:
        state = state._replace(table=proposals.filled(agent.keep, state, learn_key, ROWS, lambda index: table.next_obs[index]))
    if agent.learn is not None:
        state, _ = jax.lax.scan(learn, state, jax.random.split(learn_key, LEARN))
    return state


def acts(agent: Agent, state: Any, obs: jax.Array) -> jax.Array:
    """32 actions at each of obs [Q, O] in evaluation -> [Q, 32]."""
    act = lambda obs, key: agent.act(state, obs, agent.draw_act(key, False), explore=False)[0][0]
    return jax.vmap(lambda obs: jax.vmap(lambda key: act(obs, key))(jax.random.split(jax.random.key(9), 32)))(obs)


class Answer(NamedTuple):
    """What an agent says of one probe: (obs, action, known value, estimates [SEEDS]) and (obs, right action, mean distance [SEEDS])."""

    values: list[tuple]
    actions: list[tuple]


def answers(module: ModuleType, case: Case) -> dict[str, Answer]:
    """By probe, after training on it."""
    agent = build(module, case)
    tables = [probe.table(np.random.default_rng(seed)) for probe in PROBES.values() for seed in range(SEEDS)]
    table = jax.tree.map(lambda *x: jnp.asarray(np.stack(x), jnp.float32), *tables)
    queries = [probe.values(case.value) for probe in PROBES.values()]
    greedy = [probe.actions or [((0, 0), 0.0)] * 2 for probe in PROBES.values()]
    ask = lambda rows, i: np.float32([[query[i] for query in row] for row in rows for _ in range(SEEDS)])
    see = lambda rows: observation(*np.moveaxis(ask(rows, 0), -1, 0))

    @jax.jit
    @jax.vmap
    def run(table: Batch, key: jax.Array, obs: jax.Array, action: jax.Array, act_obs: jax.Array) -> tuple:
        state = train(agent, table, key)
        return jax.vmap(lambda o, a: agent.value(state, o, a[None]))(obs, action), acts(agent, state, act_obs)

    keys = jax.random.split(jax.random.key(0), len(tables))
    values, actions = run(table, keys, see(queries), ask(queries, 1), see(greedy))
    distance = np.abs(np.asarray(actions) - ask(greedy, 1)[..., None]).mean(axis=-1)
    by_probe = lambda x: np.moveaxis(np.asarray(x).reshape(len(PROBES), SEEDS, -1), 1, 2)
    result = {}
    for name, asked, estimates, right, distances in zip(PROBES, queries, by_probe(values), greedy, by_probe(distance), strict=True):
        taught = [(*q, d) for q, d in zip(right, distances, strict=True) if q[0] not in case.untaught]
        actions = taught if PROBES[name].actions else []
        exempt = name in case.exempt
        result[name] = Answer([], []) if exempt else Answer([(*q, v) for q, v in zip(asked, estimates, strict=True)], actions)
    return result


def imitation(module: ModuleType, case: Case, **values: Any) -> list[tuple]:
    """Of an agent without critics: (obs, the action of its data, its mean distance [SEEDS])."""
    agent = build(module, case, **values)

    @jax.jit
    @jax.vmap
    def run(key: jax.Array) -> jax.Array:
        side = np.where(np.arange(ROWS) % 2, np.float32(1), np.float32(-1))
        obs = observation(0, side)
        table = Batch(*(jnp.asarray(x) for x in (obs, side[:, None] / 2, side, side, obs)))
        return acts(agent, train(agent, table, key), observation(0, [-1.0, 1.0]))

    sides = np.array([-1.0, 1.0])
    actions = np.asarray(run(jax.random.split(jax.random.key(0), SEEDS)))
    distance = np.abs(actions - sides[:, None] / 2).mean(axis=-1)
    return [((0, side), side / 2, distance[:, i]) for i, side in enumerate(sides)]


# -- verdicts ------------------------------------------------------------------------------------------------------------------------------


def wrong_values(answer: Answer) -> list[Problem]:
    missed = [a for a in answer.values if not np.all(np.abs(a[3] - a[2]) < VALUE_ERROR)]
    return [Problem("value", f"Q({obs}, {a}) is {known:.3f}, estimated {_show(estimates)}") for obs, a, known, estimates in missed]


def wrong_actions(actions: list[tuple], tolerance: float = ACTION_ERROR) -> list[Problem]:
    """On the mean of 32 evaluations."""
    missed = [a for a in actions if not np.all(a[2] < tolerance)]
    return [Problem("act", f"pi({obs}) is {right:+.1f}, missed by {_show(distance)}") for obs, right, distance in missed]


def _show(numbers: np.ndarray) -> str:
    return " and ".join(f"{x:.3f}" for x in numbers)
