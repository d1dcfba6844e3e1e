"""The experiments that come with the project: every file can be planned, and says what it claims to."""

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


def test_agents_named_beside_a_file_run_as_the_file_sets_them():
    methods = experiment.load(FOLDER / "learning/released.py").methods_of(["rlpd", "./mine.py"])
    assert [(m.agent, m.protocol) for m in methods] == [("rlpd", {"updates": 4}), ("./mine.py", {})]
    assert len(experiment.load(FOLDER / "ablations/selection.py").methods_of(["expo"])) == 9  # all variants
