"""The experiments that come with the project: every file can be planned, and says what it claims to."""

import dataclasses
from pathlib import Path

import pytest

from expo_bench import agents
from expo_bench.sweeps import experiment
from expo_bench.sweeps.runner import plan

FOLDER = Path(__file__).parent.parent.parent / "experiments"
FILES = [path for path in sorted(FOLDER.rglob("*.py")) if path.name not in ("__init__.py", "sizes.py")]


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def programs(request):
    return plan(experiment.load(request.param))


def test_every_experiment_can_be_planned(programs):
    assert programs and all(len(program.rows) >= 4 for program in programs)


def planned(name):
    return plan(experiment.load(FOLDER / name))


def test_traced_axes_are_one_program_and_static_ones_are_not():
    assert [len(p.rows) for p in planned("ablations/edit_scale.py")] == [40, 40]  # four scales x ten seeds, once per target entropy
    assert [len(p.rows) for p in planned("ablations/samples.py")] == [60, 60]
    assert len(planned("ablations/base_policy.py")) == 6


def test_the_learning_table_has_every_algorithm_twice():
    for name in ("learning/released.py", "learning/equal.py"):
        assert {p.agent for p in planned(name)} == set(agents.AGENTS)
        assert {len(p.rows) for p in planned(name)} == {10}
    released = {p.agent: p.protocol for p in planned("learning/released.py")}
    assert released["expo"].updates == 4 and released["idql"].updates == 1 and released["fql"].sampling == "union"
    equal = [p.protocol for p in planned("learning/equal.py")]
    assert {(p.updates, p.sampling, p.warmup_steps, p.offline_fraction) for p in equal} == {(4, "mixed", 0, 0.5)}


def test_nothing_kept_means_no_offline_row_in_a_batch():
    kept = {p.variant: p.protocol for p in planned("ablations/data.py")}["nothing kept"]
    assert kept.offline_rows == 0 and kept.warmup == "policy" and kept.warmup_steps > 0 and kept.offline_steps > 0


def test_hybrid_sampling_is_a_protocol():
    """Hy-Q's union and its share of a fifth beside RLPD's half and none, nothing else different."""
    programs = planned("hy_q.py")
    assert {p.agent for p in programs} == {"rlpd"} and {len(p.rows) for p in programs} == {10} and len(programs) == 2 * 4
    protocols = {p.variant: p.protocol for p in programs}
    assert protocols["hy_q"].sampling == "union" and protocols["half offline"].sampling == "mixed"
    mixed = {name: protocol.offline_rows for name, protocol in protocols.items() if protocol.sampling == "mixed"}
    assert mixed == {"hy_q 20% offline": 13, "half offline": 32, "no offline data": 0}
    same = {dataclasses.replace(protocol, sampling="", offline_fraction=0.0) for protocol in protocols.values()}
    assert len(same) == 1 and len({p.config for p in programs}) == 1


def test_agents_on_a_frozen_base_policy_have_their_schedules_at_small_sizes():
    """The residual of Policy Decorator is used throughout most of a small run; its base policy and PEX's offline policy are pretrained."""
    programs = {p.agent: p for p in planned("learning/released.py")}
    decorator = programs["policy_decorator"]
    (steps,) = {row.hyper["progressive_steps"] for row in decorator.rows}
    assert 0 < steps < (decorator.protocol.online_steps - decorator.protocol.warmup_steps) / 4
    for name in ("ibrl", "pex", "policy_decorator", "residual"):
        protocol = programs[name].protocol
        assert protocol.offline_steps > 0 and protocol.warmup == "policy" and protocol.warmup_steps > 0
    assert decorator.protocol.offline_rows == 0 and decorator.protocol.reward_shift == -1.0
    assert programs["ibrl"].protocol.sampling == "union"


def test_agents_named_beside_a_file_run_as_the_file_sets_them():
    methods = experiment.load(FOLDER / "learning/released.py").methods_of(["rlpd", "./mine.py"])
    assert [(m.agent, m.protocol) for m in methods] == [("rlpd", {"updates": 4}), ("./mine.py", {})]
    assert len(experiment.load(FOLDER / "ablations/selection.py").methods_of(["expo"])) == 9  # all variants


def test_amortised_proposals_are_the_released_algorithm_but_for_how_often_they_are_drawn():
    programs = planned("amortised.py")
    rates = [(p.config.refresh_every, p.config.proposals_from_acting) for p in programs if p.task == "push-disc"]
    assert rates == [(1, False), (4, False), (16, False), (64, False), (16, True)] and len(programs) == 2 * 5
    same = {dataclasses.replace(p.config, refresh_every=1, proposals_from_acting=False) for p in programs}
    assert len(same) == 1 and {p.protocol.batch_size for p in programs} == {64}
