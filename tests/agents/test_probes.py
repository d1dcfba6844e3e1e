"""Probe environments: tables of transitions so small that the value and the right action are known.

Each agent is trained on all probes and seeds in one program, the rows being (probe, seed). Actions in the data are uniform in [-1, 1], so that
every agent's learning is well posed; an observation is (stage, side, 2, -2), where the constants keep stage and side apart behind the
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

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from expo_bench import agents
from expo_bench.agents.base import Agent, Spec
from expo_bench.config import fields
from expo_bench.parts import replay
from expo_bench.parts.replay import Batch

DISCOUNT, EXPECTILE = 0.7, 0.8
SEEDS, ROWS, PRETRAIN, LEARN = 2, 1024, 200, 300
SPEC = Spec(obs_size=4, action_size=1, batch_size=64, updates=2)
FIELDS = {  # whichever of these an agent has; learning rates of 3e-3
    "hidden": (32, 32),
    "edit_hidden": (32, 32),
    "critics": 3,
    "critic_subset": 2,
    "base_hidden": 16,
    "base_blocks": 1,
    "time_features": 8,
    "denoising_steps": 3,
    "n_samples": 8,
    "n_samples_eval": 32,
    "flow_steps": 4,
    "discount": DISCOUNT,
    "expectile": EXPECTILE,
    "tau": 0.05,
    "ema_tau": 0.05,
    "distill": 0.03,
    "init_alpha": 0.1,
    "temperature": 0.03,  # so that the weighted likelihood comes close to the best action
    "inverse_temperature": 10.0,
    "edit_scale": 0.1,
    "cql_weight": 0.0,  # what these penalise makes the values wrong on purpose
    "actor_bc": 0.0,
    "critic_bc": 0.0,
}
OF = {  # by agent, over FIELDS
    "expo": {"n_edits": 4},
    # The entropy that DSRL keeps at 0 by design is that of an actor who covers half of its noise: here as good as none, also in the backup.
    "dsrl": {"alpha_lr": 0.0, "init_alpha": 0.01},
    # FASTER's backup draws its seed instead of taking the best: here it nearly takes it, and nearly the best edit.
    "faster": {"filter_temperature": 0.1, "edit_scale": 0.3, "init_alpha": 0.01},
}
NO_NEXT_STATE = {"faster": [(0, 0)]}  # by agent, where it has not learnt how to act: FASTER's filter critic learns at next states alone
SAME = ("qc_fql", "cql")  # on single steps it is FQL itself; without the penalty it is Cal-QL
WITH_VALUE = [n for n in agents.AGENTS if n not in SAME and agents.load(n).make(agents.load(n).Config(), SPEC).value is not None]


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


def best_value(side: float) -> float:
    """max over a' of side - (a' - side / 2)^2."""
    return side


def expectile_value(side: float) -> float:
    """IQL's V at the second stage: the expectile of side - (a' - side / 2)^2 over uniform a'."""
    reward = side - (np.linspace(-1, 1, 10_001) - side / 2) ** 2
    balance = lambda m: EXPECTILE * np.mean(np.maximum(reward - m, 0)) - (1 - EXPECTILE) * np.mean(np.maximum(m - reward, 0))
    return optimize.brentq(balance, reward.min(), reward.max())


def build(name: str, values: dict) -> Agent:
    module = agents.load(name)
    known = fields(module.Config())
    rates = {field: 3e-3 for field in known if field.endswith("lr")}
    return module.make(dataclasses.replace(module.Config(), **{k: v for k, v in {**FIELDS, **rates, **values}.items() if k in known}), SPEC)


def train(agent: Agent, table: Batch, key: jax.Array) -> Any:
    """Offline phase, then online phase, on batches from the table."""
    init_key, pretrain_key, learn_key = jax.random.split(key, 3)
    table = table._replace(mc_return=jnp.full(ROWS, -jnp.inf), next_action=table.action, next_valid=jnp.ones((ROWS, 1)))

    def batch(key: jax.Array, *shape: int) -> Batch:
        index = replay.index(jax.random.uniform(key, shape), ROWS)
        return jax.tree.map(lambda x: x[index], table)

    def pretrain(state: Any, key: jax.Array) -> tuple:
        batch_key, draw_key = jax.random.split(key)
        return agent.pretrain(state, batch(batch_key, SPEC.batch_size), agent.draw_pretrain(draw_key))[0], None

    def learn(state: Any, key: jax.Array) -> tuple:
        batch_key, draw_key = jax.random.split(key)
        return agent.learn(state, batch(batch_key, SPEC.updates, SPEC.batch_size), agent.draw(draw_key))[0], None

    state = agent.init(init_key)
    if agent.pretrain is not None:
        state, _ = jax.lax.scan(pretrain, state, jax.random.split(pretrain_key, PRETRAIN))
    if agent.learn is not None:
        state, _ = jax.lax.scan(learn, state, jax.random.split(learn_key, LEARN))
    return state


def acts(agent: Agent, state: Any, obs: jax.Array) -> jax.Array:
    """32 actions at each of obs [Q, O] in evaluation -> [Q, 32]."""
    act = lambda obs, key: agent.act(state, obs, agent.draw_act(key, False), explore=False)[0][0]
    return jax.vmap(lambda obs: jax.vmap(lambda key: act(obs, key))(jax.random.split(jax.random.key(9), 32)))(obs)


@pytest.fixture(scope="module", params=WITH_VALUE)
def answers(request: pytest.FixtureRequest) -> dict[str, tuple]:
    """By probe: (obs, action, known value, its estimates [SEEDS]) and (obs, right action, its mean distance [SEEDS])."""
    agent = build(request.param, OF.get(request.param, {}))
    v = expectile_value if request.param in ("idql", "ifql", "iql") else best_value
    tables = [probe.table(np.random.default_rng(seed)) for probe in PROBES.values() for seed in range(SEEDS)]
    table = jax.tree.map(lambda *x: jnp.asarray(np.stack(x), jnp.float32), *tables)
    queries = [probe.values(v) for probe in PROBES.values()]
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
    for probe, asked, values_, right, distances in zip(PROBES, queries, by_probe(values), greedy, by_probe(distance), strict=True):
        distances = [(*q, d) for q, d in zip(right, distances, strict=True) if q[0] not in NO_NEXT_STATE.get(request.param, [])]
        result[probe] = [(*q, v) for q, v in zip(asked, values_, strict=True)], distances
    return result


@pytest.mark.parametrize("probe", list(PROBES))
def test_the_known_value_is_recovered(answers: dict, probe: str) -> None:
    for obs, action, value, estimates in answers[probe][0]:
        assert np.all(np.abs(estimates - value) < 0.1), f"Q({obs}, {action}) is {value:.3f}, estimated {estimates}"


@pytest.mark.parametrize("probe", [name for name in PROBES if PROBES[name].actions])
def test_the_right_action_is_taken(answers: dict, probe: str) -> None:
    """On the mean of 32 evaluations; a random action is 0.6 away."""
    for obs, action, distances in answers[probe][1]:
        assert np.all(distances < 0.2), f"pi({obs}) is {action}, missed by {distances}"


@pytest.mark.parametrize("base", ["diffusion", "flow"])
def test_behaviour_cloning_takes_the_action_of_its_data(base: str) -> None:
    agent = build("bc", {"base": base, "denoising_steps": 5})

    @jax.jit
    @jax.vmap
    def run(key: jax.Array) -> jax.Array:
        side = np.where(np.arange(ROWS) % 2, np.float32(1), np.float32(-1))
        obs = observation(0, side)
        table = Batch(*(jnp.asarray(x) for x in (obs, side[:, None] / 2, side, side, obs)))
        return acts(agent, train(agent, table, key), observation(0, [-1.0, 1.0]))

    actions = np.asarray(run(jax.random.split(jax.random.key(0), SEEDS)))
    assert np.all(np.abs(actions - np.array([-0.5, 0.5])[:, None]).mean(axis=-1) < 0.1)
