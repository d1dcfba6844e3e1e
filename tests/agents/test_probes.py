"""Every agent in the probe environments (expo_bench/conformance/probes.py), where the value and the right action are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from expo_bench import agents
from expo_bench.agents import files
from expo_bench.conformance import probes
from expo_bench.conformance.cases import Case, case_of
from expo_bench.conformance.probes import PROBES, SPEC, Answer

TEMPLATE = str(Path(files.__file__).with_name("template.py"))
SAME = ("qc_fql", "cql", "redq")  # here, on single steps, without the penalty, with three critics: FQL, Cal-QL and SAC themselves
ALL = {name: name for name in agents.AGENTS if name not in SAME} | {"template": TEMPLATE}
WITH_VALUE = [n for n, agent in ALL.items() if agents.load(agent).make(agents.load(agent).Config(), SPEC).value is not None]


KINDRED = ("idql_online", "ifql", "qam_e", "sac")  # beside EXPO, IDQL, QAM and RLPD, whose parts they are made of
# Whose probes take longest to compile; their losses are tested by hand, too.
SLOW = ("dac", "diffusion_ql", "dipo", "dsrl", "faster", "pa_rl", "qam", "qvpo")


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.soak) if n in KINDRED + SLOW else n for n in WITH_VALUE])
def answers(request: pytest.FixtureRequest) -> dict[str, Answer]:
    module = agents.load(ALL[request.param])
    return probes.answers(module, case_of(request.param, module))


@pytest.mark.parametrize("probe", list(PROBES))
def test_the_known_value_is_recovered(answers: dict[str, Answer], probe: str) -> None:
    assert not probes.wrong_values(answers[probe])


@pytest.mark.parametrize("probe", [name for name in PROBES if PROBES[name].actions])
def test_the_right_action_is_taken(answers: dict[str, Answer], probe: str) -> None:
    """On the mean of 32 evaluations; a random action is 0.6 away."""
    assert not probes.wrong_actions(answers[probe].actions)


@pytest.mark.soak
@pytest.mark.parametrize("agent", ["expo", "idql_online", "qc"])
def test_amortised_proposals_find_the_values_and_the_actions_too(agent: str) -> None:
    module, case = agents.load(agent), case_of(agent, agents.load(agent))
    for answer in probes.answers(module, dataclasses.replace(case, probe={**case.probe, "refresh_every": 4})).values():
        assert not probes.wrong_values(answer) + probes.wrong_actions(answer.actions)


@pytest.mark.parametrize("base", ["diffusion", "flow"])
def test_behaviour_cloning_takes_the_action_of_its_data(base: str) -> None:
    actions = probes.imitation(agents.load("bc"), Case(), base=base, denoising_steps=5)
    assert len(actions) == 2 and not probes.wrong_actions(actions, probes.IMITATION_ERROR)
