"""What every agent has to be, whatever its algorithm: one table over all of them and their variants, and the template of new ones.

Every algorithm lives in a block of rows, with its hyperparameters as arguments; settings, variants and a few algorithms also alone, with their
hyperparameters as constants (`make soak`: all of them). The verdicts are those of `expo-bench check`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import pytest

from expo_bench import agents
from expo_bench.agents import files
from expo_bench.config import fields, replace, traced_values
from expo_bench.conformance import life, rules
from expo_bench.conformance.cases import CASES, SMALL, Case, case_of, config_of
from expo_bench.conformance.stages import STAGES, Stages
from expo_bench.errors import UserError

TEMPLATE = str(Path(files.__file__).with_name("template.py"))
NAMES = [*agents.AGENTS, "template"]
SETTINGS = (
    "cql",
    "idql_online",
    "qam_e",
    "qc_fql",
    "redq",
    "sac",
)  # other defaults of another agent's `make`: they live alone, as variants do
COMPOSED = [name for name in NAMES if name not in SETTINGS]
ALSO_ALONE = ("bc", "expo", "fql", "rlpd")


class Entry(NamedTuple):
    agent: str
    values: dict[str, Any] = {}  # over SMALL and the agent's own CASES


ROSTER = {name: Entry(name) for name in agents.AGENTS} | {
    "template": Entry(TEMPLATE),
    "bc flow": Entry("bc", {"base": "flow"}),
    "expo flow": Entry("expo", {"n_edits": 3, "base": "flow"}),
    "expo random": Entry("expo", {"n_edits": 2, "select_act": "random", "select_backup": "random", "reachable_target_entropy": True}),
    "expo amortised": Entry("expo", {"n_edits": 2, "refresh_every": 2, "proposals_from_acting": True}),
    "qc amortised": Entry("qc", {"refresh_every": 2, "proposals_from_acting": True}),
    "expo dropout": Entry("expo", {"n_edits": 2, "edit_dropout": 0.5}),
    "dsrl train base": Entry("dsrl", {"train_base_online": True, "base": "diffusion", "q_aggregate": "mean", "backup_entropy": False}),
    "faster flow": Entry("faster", {"base": "flow", "edit_dropout": 0.5, "reachable_target_entropy": True}),
    "ibrl max": Entry("ibrl", {"select": "max", "base": "flow", "actor_dropout": 0.0}),
    "policy_decorator base seen": Entry("policy_decorator", {"actor_input": "obs_base", "base": "flow"}),
    "rlpd entropy": Entry("rlpd", {"backup_entropy": True}),
    "idql train base": Entry("idql", {"train_base_online": True}),
    "iql dropout": Entry("iql", {"actor_dropout": 0.5, "actor_decay_steps": 100}),
    "dac hard": Entry("dac", {"guidance": "hard", "dual_ascent": False, "max_q_backup": True}),
    "diffusion_ql max": Entry("diffusion_ql", {"max_q_backup": True}),
    "pa_rl plain": Entry("pa_rl", {"conservative": False}),
    "fql min normalised": Entry("fql", {"q_aggregate": "min", "normalise_q": True}),
}


SLOW = (
    "bc flow",
    "ibrl max",
    "policy_decorator base seen",
    "expo flow",
    "expo dropout",
    "faster flow",
    "rlpd entropy",
    "idql train base",
    "iql dropout",
    "dac hard",
    "diffusion_ql max",
    "pa_rl plain",
    "qam_e",
)  # each a switch of one part


def build(name: str) -> tuple[ModuleType, Any, Case]:
    entry = ROSTER[name]
    module = agents.load(entry.agent)
    case = case_of(agents.name_of(entry.agent), module)
    return module, config_of(module, SMALL, {**case.small, **entry.values}), case


class Alone(NamedTuple):
    case: Case
    life: life.Alone


class Block(NamedTuple):
    name: str
    case: Case
    life: life.Block


@cache
def lives_alone(name: str) -> Alone:
    module, config, case = build(name)
    return Alone(case, life.alone(module, config, whole=name in COMPOSED))


@cache
def lives_in_a_block(name: str) -> Block:
    module, config, case = build(name)
    return Block(name, case, life.block(module, config))


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.soak) if n in SLOW else n for n in ROSTER])
def alone(request: pytest.FixtureRequest) -> Alone:
    """An entry by itself; of an algorithm that lives in a block, the first row, which has the defaults."""
    if request.param not in COMPOSED:
        return lives_alone(request.param)
    block, row = lives_in_a_block(request.param).life, lambda tree: jax.tree.map(lambda x: x[0], tree)
    first = row(block.first)
    return Alone(lives_in_a_block(request.param).case, life.Alone(build(request.param)[1], row(block.start), first, first, block.traces))


def test_everything_is_finite(alone: Alone) -> None:
    assert not rules.finite(alone.life.start, alone.life.first, alone.life.second)


def test_state_keeps_its_structure_and_strong_types(alone: Alone) -> None:
    """float32 and int32, never weak, before and after learning; so the state that came out is the same program's input."""
    assert not rules.types(alone.life)
    assert not rules.one_trace(alone.life.traces)


def test_outputs(alone: Alone) -> None:
    """Actions [A] in float32 within what the agent may add to [-1, 1]; metrics and values are scalars; there is a step of some kind."""
    assert not rules.outputs(alone.life, alone.case)
    assert "pretrain" in alone.life.first[1] or "learn" in alone.life.first[1]


def test_learning_moves_the_state(alone: Alone) -> None:
    """Nearly every leaf: a state that comes out as it went in means that a step was dropped."""
    assert not rules.moved(alone.life)


@pytest.fixture(params=COMPOSED)
def block(request: pytest.FixtureRequest) -> Block:
    return lives_in_a_block(request.param)


def test_other_values_and_keys_are_the_same_program(block: Block) -> None:
    assert not rules.one_trace(block.life.traces)
    assert not rules.strong(block.life.start, "init") + rules.kept(block.life.start, block.life.first[0], "learn")
    assert not rules.finite(block.life.start, block.life.first, block.life.elsewhere)


def test_same_key_same_result(block: Block) -> None:
    assert not rules.repeats(block.life)


def test_a_row_does_not_see_its_neighbours(block: Block) -> None:
    """Bitwise the same in a block of the same shape, whatever the other rows are."""
    assert not rules.neighbours(block.life)


@pytest.mark.parametrize("name", [n if n in ALSO_ALONE else pytest.param(n, marks=pytest.mark.soak) for n in COMPOSED])
def test_a_row_equals_the_run_alone(name: str) -> None:
    """To float tolerance, its hyperparameters as constants instead of arguments: the order of sums changes with the shape."""
    alone = lives_alone(name)
    assert not rules.equals_alone(lives_in_a_block(name).life, alone.life)
    assert not rules.types(alone.life) + rules.one_trace(alone.life.traces) + rules.finite(*alone.life[1:4])


def test_every_traced_field_has_its_effect(block: Block) -> None:
    """Row by row against the defaults; but not where the agent switches that part off."""
    assert not rules.effects(block.life, block.case)


@pytest.mark.parametrize("name", COMPOSED)
def test_every_function_returns_what_the_loop_expects_and_is_pure(name: str) -> None:
    """Each traced by itself: what `expo-bench check` says first. Whether a second trace is the same program is told of one agent."""
    module, config, _ = build(name)
    assert not list(files.problems(module))
    stages = Stages(module, config)
    assert not rules.agent(stages.agent)
    for stage in STAGES:
        if getattr(stages.agent, stage) is not None:
            traced = stages.trace(stage)
            stages.state = traced.out if stage == "init" else stages.state
            assert not rules.returned(stage, traced, stages.state)
            assert name != "template" or not rules.same_program(stage, traced, stages.trace(stage))


def test_the_cases_are_those_of_agents() -> None:
    assert set(CASES) <= set(agents.AGENTS)


# -- configurations ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_read_from_strings(name: str) -> None:
    """As the command line gives them: every default comes back from its own text."""
    config = agents.load(ROSTER[name].agent).Config()
    for field in fields(config):
        value = getattr(config, field)
        text = (
            "x".join(str(v) for v in value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
        )
        read = getattr(replace(config, name, **{field: text}), field)
        assert read == value and type(read) is (float if field in traced_values(config) else type(value)), field
        assert getattr(replace(config, name, **{field: value}), field) == value
        assert fields(config)[field].metadata["kind"] in ("static", "traced") and fields(config)[field].metadata["help"]


@pytest.mark.parametrize("name", NAMES)
def test_bad_values_are_refused(name: str) -> None:
    config = agents.load(ROSTER[name].agent).Config()
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
        ("dac", {"guidance": "denoised"}),
        ("diffusion_ql", {"critics": 1}),
        ("fql", {"q_aggregate": "max"}),
        ("dsrl", {"q_aggregate": "max"}),
        ("dsrl", {"base": "gaussian"}),
        ("ibrl", {"select": "mean"}),
        ("ibrl", {"critic_subset": 6}),
        ("ibrl", {"base": "gaussian"}),
        ("policy_decorator", {"actor_input": "base"}),
        ("policy_decorator", {"progressive_steps": 0.0}),
        ("residual", {"critic_subset": 11}),
        ("faster", {"critic_subset": 1}),
        ("faster", {"base": "gaussian"}),
        ("pa_rl", {"critic_subset": 11}),
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
