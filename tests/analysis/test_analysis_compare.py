"""One method against another: the right test for the seeds there are, words that are rarely wrong, and everything left out named."""

import json
import math
import re

import numpy as np
import pytest
from scipy import stats
from synthetic_runs import curve, evaluation, write_run

from analysis import ResultsError
from analysis.aggregate import over_tasks
from analysis.compare import Sample, as_json, compare, contrast, verdict
from analysis.compare_text import text
from analysis.comparisons import difference, holm
from analysis.seeds import to_separate, to_separate_unpaired
from analysis.statistics import mean_interval

OURS = [0.9, 0.75, 0.95, 0.8, 0.85]
THEIRS = [0.6, 0.7, 0.5, 0.55, 0.65]
NEAR = [0.68, 0.66, 0.55, 0.5, 0.68]


def rows(agent: str, finals, task: str = "maze", first: int = 0, steps: int = 4, **fields) -> list[dict]:
    """A method whose seeds rise in a straight line from 0 to these final scores."""
    out = []
    for seed, final in enumerate(finals, first):
        out += curve([final * i / (steps - 1) for i in range(steps)], agent=agent, task=task, seed=seed, **fields)
    return out


def versus(folder, *parts, candidate: str = "mine", **options):
    return compare(write_run(folder / "run", [row for part in parts for row in part]), candidate, **options)


def spoken(found) -> str:
    return " ".join(text(found).split())


def final(found, task: str = "maze"):
    return next(each for each in found.tasks if each.task == task).findings["final score"]


def test_shared_seeds_are_compared_in_pairs(tmp_path):
    found = versus(tmp_path, rows("mine", OURS), rows("expo", THEIRS))
    one, gaps = final(found), np.subtract(OURS, THEIRS)
    expected = stats.ttest_1samp(gaps, 0)
    assert (one.verdict, one.design, one.p) == ("better", "paired", pytest.approx(expected.pvalue))
    np.testing.assert_allclose([one.difference.low, one.difference.high], [*expected.confidence_interval(0.95)])
    assert found.overall["final score"] is one and one.needed is None
    area = found.tasks[0].findings["area"]  # of a straight line from 0: half of its end
    assert area.verdict == "better" and area.difference.estimate == pytest.approx(gaps.mean() / 2)
    said = spoken(found)
    assert said.startswith(
        "mine against expo: better by final score, better by sample efficiency maze final score: better 0.850 against 0.600"
    )
    assert f"difference +0.250 [{one.difference.low:+.3f}, {one.difference.high:+.3f}], p = {expected.pvalue:.3f}; 5 seeds, paired" in said
    assert "sample efficiency (mean score over environment steps 0 to 300): better" in said and "overall" not in said


def test_the_other_way_round_is_worse(tmp_path):
    found = versus(tmp_path, rows("mine", OURS), rows("expo", THEIRS), candidate="expo", reference="mine")
    assert [one.verdict for one in found.overall.values()] == ["worse", "worse"]
    assert final(found).difference.estimate == pytest.approx(-0.25)


@pytest.mark.parametrize("first, imported", [(5, None), (3, None), (0, {"source": "elsewhere"})])
def test_other_seeds_and_imported_runs_are_two_samples(first, imported, tmp_path):
    reference = write_run(tmp_path / "expo", rows("expo", THEIRS))
    mine = write_run(tmp_path / "mine", rows("mine", OURS, first=first), **({"imported": imported} if imported else {}))
    found = compare([reference, mine], "mine", "expo")
    one, expected = final(found), stats.ttest_ind(OURS, THEIRS, equal_var=False)
    assert one.design == "unpaired" and one.p == pytest.approx(expected.pvalue)
    np.testing.assert_allclose([one.difference.low, one.difference.high], [difference(OURS, THEIRS).low, difference(OURS, THEIRS).high])
    assert "5 seeds, unpaired" in spoken(found) and ("imported (elsewhere)" in spoken(found)) == bool(imported)


def test_what_is_not_separable_says_how_many_seeds_would_be(tmp_path):
    found = versus(tmp_path, rows("mine", NEAR), rows("expo", THEIRS))
    one, expected = final(found), to_separate(np.subtract(NEAR, THEIRS))
    assert one.verdict == "not separable" and one.needed == expected
    more = re.search(r"to separate them: about (\d+) more seeds of each", spoken(found))
    assert int(more[1]) == pytest.approx(expected.estimate - 5, rel=0.05) and "Not separable does not mean equal" in spoken(found)
    found = versus(tmp_path / "apart", rows("mine", NEAR, first=9), rows("expo", THEIRS))
    assert final(found).needed == to_separate_unpaired(NEAR, THEIRS)


def test_tasks_are_judged_by_holm_and_overall_by_the_aggregate(tmp_path):
    tasks = {"a": ([0.9, 0.93, 0.82, 0.84, 0.97], THEIRS), "b": (NEAR, THEIRS), "c": ([0.9, 0.7, 0.95, 0.7, 0.95], THEIRS)}
    found = versus(tmp_path, *(rows(n, v, t) for t, pair in tasks.items() for n, v in zip(("mine", "expo"), pair, strict=True)))
    gaps = {task: np.subtract(*pair) for task, pair in tasks.items()}
    alone = [stats.ttest_1samp(gap, 0).pvalue for gap in gaps.values()]
    ones = [final(found, task) for task in tasks]
    np.testing.assert_allclose([one.p for one in ones], holm(alone))
    assert alone[2] < 0.05 < ones[2].p and [one.verdict for one in ones] == ["better", "not separable", "not separable"]
    assert "alone it would be separable, but not as one of 3 tasks (Holm)" in ones[2].note and not ones[1].note
    assert ones[1].needed.estimate > to_separate(gaps["b"]).estimate
    overall, expected = found.overall["final score"], over_tasks(gaps)
    np.testing.assert_allclose(
        [overall.difference.estimate, overall.difference.low, overall.difference.high], [expected.estimate, expected.low, expected.high]
    )
    said = spoken(found)
    assert overall.verdict == "better" and "overall: mean of 3 tasks" in said and "by Holm's method for the 3 tasks" in said


def test_one_seed_is_no_verdict(tmp_path):
    found = versus(tmp_path, rows("mine", [0.9]), rows("expo", THEIRS))
    assert final(found).verdict == "no verdict" and np.isnan(final(found).p)
    said = spoken(found)
    assert "mine against expo: no verdict by final score" in said and "no verdict; mine has one seed with a finite final score" in said
    assert "difference +0.300 [one seed]; 1 seed, paired" in said and "one seed only for mine" in said


def test_a_task_of_one_seed_is_left_out_overall_and_named(tmp_path):
    found = versus(tmp_path, *(rows(*args) for args in (("mine", OURS), ("expo", THEIRS), ("mine", [0.1], "b"), ("expo", THEIRS, "b"))))
    overall = found.overall["final score"]
    assert overall.difference.estimate == pytest.approx(0.25) and overall.note == "without b, see there"
    single = versus(tmp_path / "all", *(rows(n, [v], t) for t in "ab" for n, v in (("mine", 0.9), ("expo", 0.1))))
    assert single.overall["final score"].verdict == "no verdict" and "no task has two seeds of both" in spoken(single)


@pytest.mark.parametrize("n, word", [(3, "not separable"), (4, "better")])
def test_seeds_that_all_end_alike_are_flagged_and_permuted(n, word, tmp_path):
    found = versus(tmp_path, rows("mine", [1.0] * n), rows("expo", [0.0] * n))
    one = final(found)
    assert one.verdict == word and one.p == pytest.approx(2 / math.comb(2 * n, n))
    assert "an interval without width is no certainty" in one.note and "[all equal]" in spoken(found)


def test_permutations_without_spread():
    flat = Sample(np.ones(4), np.zeros(4), True)
    shifted = Sample(np.array([0.3, 0.5, 0.7]), np.array([0.2, 0.4, 0.6]), True)
    assert contrast([shifted])[1] == pytest.approx(2 / 2**3)  # only the two of a pair can be exchanged
    assert contrast([flat, shifted])[1] == pytest.approx(2 / (70 * 8))
    assert contrast([Sample(np.ones(3), np.ones(3), True)])[1] == 1.0
    up, p = contrast([flat, Sample(np.zeros(4), np.ones(4), True)])
    assert up.estimate == 0 and np.isnan(contrast([flat, Sample(np.zeros(4), np.full(4, 0.5), True)])[1])
    assert p != p and verdict(up, p) == "not separable"


DRAWS = {
    "normal": lambda rng, shift, size: rng.normal(0.5 + 0.1 * shift, 0.1, size),
    "success rates": lambda rng, shift, size: rng.binomial(32, 0.5 + 0.09 * shift, size) / 32,
    "solved or not": lambda rng, shift, size: (rng.random(size) < (0.5 if not shift else 0.98)).astype(float),
}


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("paired", [True, False])
def test_better_is_said_rarely_of_equals(kind, paired):
    draw, rng = DRAWS[kind], np.random.default_rng(0)
    single, family = [], []
    for _ in range(400):
        found = [contrast([Sample(draw(rng, 0, 5), draw(rng, 0, 5), paired)]) for _ in range(3)]
        single += [verdict(*one) for one in found]
        adjusted = holm([p for _, p in found])
        family.append("better" in [verdict(one, p) for (one, _), p in zip(found, adjusted, strict=True)])
    assert single.count("better") < 0.05 * len(single) and single.count("worse") < 0.05 * len(single)
    assert np.mean(family) < 0.05


@pytest.mark.parametrize("kind, n", [("normal", 5), ("success rates", 5), ("solved or not", 30)])
def test_better_is_said_often_of_the_clearly_better(kind, n):
    draw, rng = DRAWS[kind], np.random.default_rng(1)
    said = [verdict(*contrast([Sample(draw(rng, 3.0, n), draw(rng, 0, n), True)])) for _ in range(300)]
    assert said.count("better") > 0.9 * len(said) and "worse" not in said


def test_what_limits_the_comparison_is_named(tmp_path):
    mine = (
        rows("mine", OURS, steps=5, eval_episodes=50)
        + rows("mine", OURS, "alone")
        + [evaluation(agent="mine", task="maze", seed=9, env_step=0)]
    )
    mine[4]["score"] = math.nan
    mine[5]["diverged"] = True
    protocols = {"maze/mine/": {"online_steps": 400, "updates": 1}, "maze/expo/": {"online_steps": 300, "updates": 1}}
    run = write_run(tmp_path / "run", mine + rows("expo", THEIRS), finished=None, protocols=protocols)
    said = spoken(compare(run, "mine"))
    for expected in (
        "Left out, as only mine ran there: alone.",
        "the run is not finished",
        "end at different environment steps (expo: 300, mine: 400)",
        "different numbers of episodes (expo: 10, mine: 10/50)",
        "no finite final score for seed 0 9 of mine",
        "the methods have different seeds",
        "diverged: 1",
        "ended early: 9",
        "evaluations without a finite score: 0",
        "maze: the protocols differ (online_steps 400 against 300).",
        "4 seeds, paired",
    ):
        assert expected in said, expected


def test_a_method_that_never_went_online_has_no_sample_efficiency(tmp_path):
    offline = [
        evaluation(agent="mine", phase="offline", grad_step=step, score=s, seed=i) for i, s in enumerate(OURS) for step in (500, 1000)
    ]
    found = versus(tmp_path, offline, rows("expo", THEIRS))
    assert final(found).verdict == "better" and found.overall["area"].verdict == "no verdict"
    assert "sample efficiency: no verdict; mine never went online" in spoken(found) and "nothing to compare without two online" in spoken(
        found
    )


def test_the_ratio_of_steps_is_a_bound_where_seeds_never_get_there(tmp_path):
    quick, slow = ([row for seed in range(5) for row in curve(scores, agent=agent, seed=seed)] for agent, scores in (
        ("mine", [0.0, 0.2, 0.9, 0.9, 0.9, 0.9]), ("expo", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    ))  # fmt: skip
    found = versus(tmp_path, quick, slow)
    assert found.tasks[0].steps.bound == "at least" and "steps of expo over those of mine: at least 2.67x" in spoken(found)
    assert "no seed of either gets there" in spoken(compare(tmp_path / "run", "mine", threshold=0.95))


def test_json_has_numbers_as_numbers_and_null_for_none(tmp_path):
    found = versus(tmp_path, rows("mine", [*NEAR, 0.5]), rows("expo", THEIRS), rows("mine", [0.5], "b"), rows("expo", [0.4], "b"))
    data = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert data["candidate"] == "mine" and data["tasks"]["maze"]["final_score"]["verdict"] == "not separable"
    one = data["tasks"]["maze"]["final_score"]
    expected = mean_interval(np.subtract(NEAR, THEIRS))
    assert one["difference"] == {
        k: pytest.approx(v) for k, v in {"estimate": expected.mean, "low": expected.low, "high": expected.high, "n": 5}.items()
    }
    assert one["seeds_needed"]["more"] == one["seeds_needed"]["estimate"] - 5 and one["seeds_needed"]["most"] is None
    lone = data["tasks"]["b"]["area"]
    assert (lone["verdict"], lone["p"], lone["difference"]["low"], lone["seeds_needed"]) == ("no verdict", None, None, None)
    assert data["tasks"]["maze"]["steps"]["bound"] == "none" and data["tasks"]["maze"]["area_window"] == [0, 300]
    assert data["overall"]["area"]["note"] == "without b, see there" and data["remarks"]


def test_wrong_names_are_one_line(tmp_path):
    run = write_run(tmp_path / "run", rows("mine", OURS, "a") + rows("expo", THEIRS, "b"))
    for arguments, message in (
        (("mine", "expo"), "no task in common: mine ran a, expo ran b; expected at least one task that both ran"),
        (("mime", "expo"), "no method 'mime' in these results; did you mean 'mine'"),
        (("mine", "mine"), "candidate 'mine' and reference 'mine' are both 'mine'; expected two methods"),
        (("mine", "expo", math.nan), "threshold: found nan"),
    ):
        with pytest.raises(ResultsError) as error:
            compare(run, *arguments)
        assert message in str(error.value) and "\n" not in str(error.value)


def test_an_agent_with_several_methods_says_which_is_meant(tmp_path):
    cells = [row | {"mine.beta": beta} for beta, finals in ((0.1, OURS), (0.3, NEAR)) for row in rows("mine", finals)]
    found = versus(tmp_path, cells, rows("expo", THEIRS))
    assert found.candidate.label == "mine beta=0.1"
    assert "'mine' is taken as 'mine beta=0.1'; there are also mine beta=0.3." in spoken(found)
