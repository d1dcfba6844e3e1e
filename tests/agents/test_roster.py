"""What every agent has to be, whatever its algorithm: one table over all of them and their variants.

Every entry lives alone, with its hyperparameters as constants; every agent also in a block of rows, with its hyperparameters as arguments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expo_bench import agents
from expo_bench.agents.base import Agent, Spec
from expo_bench.config import fields, replace, traced_values
from expo_bench.errors import UserError
from expo_bench.parts.replay import Batch

SPEC = Spec(obs_size=3, action_size=2, batch_size=4, updates=2)
SMALL = {  # whichever of these fields an agent has
    "n_samples": 3,
    "n_samples_eval": 2,
    "denoising_steps": 2,
    "flow_steps": 2,
    "base_hidden": 8,
    "base_blocks": 1,
    "time_features": 4,
    "hidden": (8, 6),
    "edit_hidden": (8, 6),
    "critics": 3,
    "critic_subset": 2,
}
EDITS = {"edit_scale", "edit_lr", "alpha_lr", "init_alpha"}


class Entry(NamedTuple):
    agent: str
    values: dict[str, Any] = {}
    inert: frozenset = frozenset()  # traced fields without effect, by design


ROSTER = {name: Entry(name) for name in agents.AGENTS} | {
    "expo": Entry("expo", {"n_edits": 2}),
    "idql_online": Entry("idql_online", inert=frozenset(EDITS)),  # is EXPO with n_edits = 0
    "cal_ql": Entry("cal_ql", {"lagrange": True}),
    "cql": Entry("cql", inert=frozenset({"target_gap"})),  # without the multiplier that seeks it
    "rebrac": Entry("rebrac", {"target_noise": 0.5}, frozenset({"explore_noise"})),  # large enough to be clipped; noise on actions alone
    "bc flow": Entry("bc", {"base": "flow"}),
    "expo flow": Entry("expo", {"n_edits": 3, "base": "flow"}),
    "expo random": Entry("expo", {"n_edits": 2, "select_act": "random", "select_backup": "random", "reachable_target_entropy": True}),
    "expo dropout": Entry("expo", {"n_edits": 2, "edit_dropout": 0.5}),
    "dsrl train base": Entry("dsrl", {"train_base_online": True, "base": "diffusion", "q_aggregate": "mean", "backup_entropy": False}),
    "faster flow": Entry("faster", {"base": "flow", "edit_dropout": 0.5, "reachable_target_entropy": True}),
    "rlpd entropy": Entry("rlpd", {"backup_entropy": True}),
    "idql train base": Entry("idql", {"train_base_online": True}),
    "iql dropout": Entry("iql", {"actor_dropout": 0.5, "actor_decay_steps": 100}),
    "fql min normalised": Entry("fql", {"q_aggregate": "min", "normalise_q": True}),
}


def build(entry: Entry) -> tuple[ModuleType, Any]:
    module = agents.load(entry.agent)
    small = {name: value for name, value in SMALL.items() if name in fields(module.Config())}
    config = dataclasses.replace(module.Config(), **small, **entry.values)
    if hasattr(module, "validate"):
        module.validate(config, entry.agent)
    return module, config


def jit(function: Callable) -> Callable:
    """Jitted with little optimisation: a third of the time to compile."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def life(agent: Agent, state: Any, key: jax.Array, *, whole: bool) -> tuple[Any, dict[str, Any]]:
    """A step of each kind that the agent knows, on random data -> its state and everything that comes out on the way.

    Not `whole`: without the offline phase where there is an online one, and without evaluation.
    """
    data_key, pretrain_key, learn_key, act_key = jax.random.split(key, 4)
    rows = jax.random.normal(data_key, (SPEC.updates, SPEC.batch_size, 9))
    terminated = (rows[..., 5] > 1).astype(jnp.float32)
    batches = Batch(rows[..., :3], jnp.tanh(rows[..., 3:5]), rows[..., 5], terminated, rows[..., 6:])
    batches = batches._replace(mc_return=jnp.where(rows[..., 0] > 0, rows[..., 5], -jnp.inf))  # not known yet for some
    batch, out = jax.tree.map(lambda x: x[0], batches), {}
    batch = batch._replace(next_action=jnp.tanh(rows[1, :, 3:5]), next_valid=1.0 - batch.terminated[:, None])
    if agent.pretrain is not None and (whole or agent.learn is None):
        state, out["pretrain"] = agent.pretrain(state, batch, agent.draw_pretrain(pretrain_key))
        out["pretrained"] = state
    if agent.learn is not None:
        state, out["learn"] = agent.learn(state, batches, agent.draw(learn_key))
    for explore in (True, False) if whole else (True,):
        out[f"act {explore}"], out[f"estimates {explore}"] = agent.act(
            state, batch.obs[0], agent.draw_act(act_key, explore), explore=explore
        )
    if agent.value is not None:
        out["value"] = agent.value(state, batch.obs[0], batch.action[0])
    return state, out


class Alone(NamedTuple):
    """An entry that has lived twice by itself, with its hyperparameters as constants."""

    name: str
    config: Any
    start: Any
    first: tuple
    second: tuple
    traces: list[int]


@pytest.fixture(params=list(ROSTER))
def alone(request: pytest.FixtureRequest) -> Alone:
    return lives_alone(request.param)


@cache
def lives_alone(name: str) -> Alone:
    module, config = build(ROSTER[name])
    agent, traces = module.make(config, SPEC), []

    @jit
    def program(state: Any, key: jax.Array) -> tuple:
        traces.append(1)
        return life(agent, state, key, whole=name in agents.AGENTS)

    start = jit(agent.init)(jax.random.key(0))
    first = program(start, jax.random.key(1))
    return Alone(name, config, start, first, program(first[0], jax.random.key(2)), traces)


def test_everything_is_finite(alone: Alone) -> None:
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((alone.start, alone.first, alone.second)))


def test_state_keeps_its_structure_and_strong_types(alone: Alone) -> None:
    """float32 and int32, never weak, before and after learning: a weakly typed scalar would compile everything twice."""
    for state in (alone.start, alone.first[0], alone.first[1].get("pretrained", alone.start), alone.second[0]):
        for leaf in jax.tree.leaves(state):
            assert leaf.dtype in (np.float32, np.int32) and not leaf.weak_type, leaf
        chex.assert_trees_all_equal_structs(alone.start, state)
        chex.assert_trees_all_equal_shapes_and_dtypes(alone.start, state)
    assert len(alone.traces) == 1  # the state that came out is the same program's input


def test_outputs(alone: Alone) -> None:
    """Actions [A] in float32 within what the agent may add to [-1, 1]; metrics and values are scalars; there is a step of some kind."""
    out = alone.first[1]
    reach = 1 + (getattr(alone.config, "edit_scale", 0.0) if getattr(alone.config, "n_edits", 0) else 0.0)
    for action in (out["act True"], out.get("act False", out["act True"])):
        assert action.shape == (SPEC.action_size,) and action.dtype == np.float32
        assert np.all(np.abs(action) <= reach + 1e-6)
    assert "pretrain" in out or "learn" in out
    for metrics in (
        out.get("pretrain", {}),
        out.get("learn", {}),
        out.get("estimates False", {}),
        {"value": out.get("value", np.float32(0))},
    ):
        assert all(x.shape == () for x in metrics.values())


def test_learning_moves_the_state(alone: Alone) -> None:
    """Nearly every leaf: a state that comes out as it went in means that a step was dropped."""
    moved = [not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(alone.start), jax.tree.leaves(alone.first[0]), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


class Block(NamedTuple):
    """An agent that has lived in a block of rows: row 0 with its defaults, row i + 1 with another value of the traced field `names[i]`."""

    name: str
    names: list[str]
    start: Any
    first: tuple
    again: tuple  #      the same call
    elsewhere: tuple  #  row 0 beside other rows
    traces: list[int]


@pytest.fixture(scope="module", params=list(agents.AGENTS))
def block(request: pytest.FixtureRequest) -> Block:
    module, config = build(ROSTER[request.param])
    defaults, traces = traced_values(config), []
    other = {name: 0.5 if name == "weight_decay" else value / 2 for name, value in defaults.items()}
    values = {name: np.float32([other[name] if name == row else defaults[name] for row in ["", *defaults]]) for name in defaults}
    make = lambda values: module.make(dataclasses.replace(config, **values), SPEC)

    @jit
    @jax.vmap
    def program(values: dict, state: Any, key: jax.Array) -> tuple:
        traces.append(1)
        return life(make(values), state, key, whole=True)

    rows = len(defaults) + 1
    start = jit(jax.vmap(lambda values: make(values).init(jax.random.key(0))))(values)
    keys = jnp.stack([jax.random.key(1)] * rows)
    first = program(values, start, keys)
    others = lambda x: np.concatenate([x[:1], x[:0:-1] * 0.9])
    other_values = {name: others(x) for name, x in values.items()}
    elsewhere = program(other_values, start, jax.random.split(jax.random.key(3), rows).at[0].set(keys[0]))
    return Block(request.param, list(defaults), start, first, program(values, start, keys), elsewhere, traces)


def test_other_values_and_keys_are_the_same_program(block: Block) -> None:
    assert len(block.traces) == 1
    for leaf in jax.tree.leaves((block.start, block.first[0])):
        assert leaf.dtype in (np.float32, np.int32) and not leaf.weak_type, leaf
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((block.start, block.first, block.elsewhere)))


def test_same_key_same_result(block: Block) -> None:
    chex.assert_trees_all_equal(block.first, block.again)


def test_a_row_does_not_see_its_neighbours(block: Block) -> None:
    """Bitwise the same in a block of the same shape, whatever the other rows are."""
    row = lambda i, tree: jax.tree.map(lambda x: x[i], tree)
    chex.assert_trees_all_equal(row(0, block.first), row(0, block.elsewhere))
    for i in range(1, len(block.names) + 1):
        pairs = zip(jax.tree.leaves(row(i, block.first)), jax.tree.leaves(row(i, block.elsewhere)), strict=True)
        assert not all(np.array_equal(a, b) for a, b in pairs)


def test_a_row_equals_the_run_alone(block: Block) -> None:
    """To float tolerance, its hyperparameters as constants instead of arguments: the order of sums changes with the shape."""
    row = jax.tree.map(lambda x: x[0], block.first)
    chex.assert_trees_all_close(row, lives_alone(block.name).first, rtol=1e-3, atol=2e-5)


def test_every_traced_field_has_its_effect(block: Block) -> None:
    """On the state after learning, row by row against the defaults; but not where the agent switches that part off."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(block.first[0])]
    without_effect = {name for i, name in enumerate(block.names) if all(np.array_equal(x[0], x[i + 1]) for x in leaves)}
    assert without_effect == ROSTER[block.name].inert


# -- configurations ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(agents.AGENTS))
def test_fields_are_read_from_strings(name: str) -> None:
    """As the command line gives them: every default comes back from its own text."""
    config = agents.load(name).Config()
    for field in fields(config):
        value = getattr(config, field)
        text = (
            "x".join(str(v) for v in value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
        )
        read = getattr(replace(config, name, **{field: text}), field)
        assert read == value and type(read) is (float if field in traced_values(config) else type(value)), field
        assert getattr(replace(config, name, **{field: value}), field) == value
        assert fields(config)[field].metadata["kind"] in ("static", "traced") and fields(config)[field].metadata["help"]


@pytest.mark.parametrize("name", list(agents.AGENTS))
def test_bad_values_are_refused(name: str) -> None:
    config = agents.load(name).Config()
    with pytest.raises(UserError, match="unknown field of agent"):
        replace(config, f"agent {name!r}", no_such_field=1)
    for field in fields(config):
        if not isinstance(getattr(config, field), str):
            for bad in ("much", "1,5", None, {}, 1 if isinstance(getattr(config, field), bool) else True):
                with pytest.raises(UserError, match=field):
                    replace(config, name, **{field: bad})


def test_an_unknown_field_is_answered_with_its_neighbours() -> None:
    with pytest.raises(UserError, match="agent 'expo' 'edit_scal'; did you mean 'edit_scale'"):
        replace(agents.load("expo").Config(), "agent 'expo'", edit_scal=1.0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("expo", {"select_act": "best"}),
        ("expo", {"select_backup": "mean"}),
        ("expo", {"base": "gaussian"}),
        ("expo", {"n_edits": 9}),
        ("expo", {"n_edits": -1}),
        ("expo", {"critic_subset": 11}),
        ("expo", {"critic_subset": 0}),
        ("idql_online", {"base": "gaussian"}),
        ("bc", {"base": "gaussian"}),
        ("rlpd", {"critic_subset": 11}),
        ("sac", {"critic_subset": 3}),
        ("awac", {"temperature": 0.0}),
        ("fql", {"q_aggregate": "max"}),
        ("dsrl", {"q_aggregate": "max"}),
        ("dsrl", {"base": "gaussian"}),
        ("faster", {"critic_subset": 1}),
        ("faster", {"base": "gaussian"}),
    ],
)
def test_what_cannot_run_is_refused_before_it_does(name: str, values: dict) -> None:
    module = agents.load(name)
    where = f"agent {name!r}"
    with pytest.raises(UserError, match=f"{where}: {next(iter(values))}"):
        module.validate(replace(module.Config(), where, **values), where)
    module.validate(module.Config(), name)


def test_an_unknown_agent() -> None:
    with pytest.raises(UserError, match="unknown agent 'exo'; did you mean 'expo'"):
        agents.load("exo")
