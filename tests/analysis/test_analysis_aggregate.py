"""Aggregates over tasks: rliable's numbers, unequal numbers of seeds, closed forms, and what is named when something is missing."""

import numpy as np
import pytest
from scipy import stats

from analysis import ResultsError
from analysis.aggregate import KINDS, PROFILE_KINDS, improvement_over_tasks, mover, over_tasks, profile, tasks_in_common
from analysis.comparisons import improvement
from analysis.intervals import interval
from analysis.statistics import differences, mean_interval, shortfall

# The scores and the results of rliable's own test (google-research/rliable, tests/rliable/metrics_test.py): runs x tasks
RLIABLE_X = {"a": [1, 2, 1, 2], "b": [2, 2, 1, 1]}
RLIABLE_Y = {"a": [1, 2, 3], "b": [1, 2, 3]}


def suite(tasks: int, seeds: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"task {k}": rng.normal(0.3 + 0.1 * k, 0.1, seeds) for k in range(tasks)}


def test_the_point_estimates_of_rliables_test():
    assert [over_tasks(RLIABLE_X, name).estimate for name in ("mean", "median", "iqm")] == pytest.approx([1.5, 1.5, 1.5])
    assert [over_tasks(RLIABLE_Y, name).estimate for name in ("mean", "median", "iqm")] == pytest.approx([2.0, 2.0, 2.0])
    assert improvement_over_tasks(RLIABLE_X, RLIABLE_Y).estimate == pytest.approx(1 / 3)


def test_the_point_estimates_by_rliables_formulas():
    # rliable/metrics.py: mean of task means; median of task means; trim_mean(scores, 0.25, axis=None); gamma - mean(min(scores, gamma))
    scores = suite(3, 8)
    matrix = np.stack(list(scores.values()), axis=1)
    assert over_tasks(scores).estimate == pytest.approx(matrix.mean())
    assert over_tasks(scores, "median").estimate == pytest.approx(np.median(matrix.mean(axis=0)))
    assert over_tasks(scores, "iqm").estimate == pytest.approx(stats.trim_mean(matrix, 0.25, axis=None))
    gap = over_tasks({task: shortfall(values, 0.5) for task, values in scores.items()})
    assert gap.estimate == pytest.approx(0.5 - np.minimum(matrix, 0.5).mean())


def test_every_task_weighs_the_same_however_many_seeds_it_has():
    # tasks of 1 and 3 values: weights 1/2 and 1/6 each; the middle half is 1/4 of the 0 (from 1/4 to 1/2), 1/6 of the 1, 1/12 of the 2
    scores = {"a": [0.0], "b": [1.0, 2.0, 3.0]}
    assert over_tasks(scores).estimate == pytest.approx(1.0)
    assert over_tasks(scores, "iqm").estimate == pytest.approx((0.25 * 0 + 1 / 6 * 1 + 1 / 12 * 2) / 0.5)
    # twice the seeds of the same values change no estimate
    scores, twice = suite(3, 5), suite(3, 5)
    twice["task 1"] = np.repeat(twice["task 1"], 2)
    for name in ("mean", "median", "iqm"):
        assert over_tasks(twice, name).estimate == pytest.approx(over_tasks(scores, name).estimate)


def test_the_mean_is_satterthwaites_t():
    scores = {"a": [0.1, 0.5, 0.9], "b": [0.2, 0.4, 0.6, 0.8, 1.0]}
    squares = [np.var(values, ddof=1) / len(values) for values in scores.values()]
    freedom = sum(squares) ** 2 / (squares[0] ** 2 / 2 + squares[1] ** 2 / 4)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(squares)) / 2
    found = over_tasks(scores)
    np.testing.assert_allclose([found.low, found.high], [0.55 - half, 0.55 + half])
    assert found.n == 3


@pytest.mark.parametrize("quantity", ["mean", "median", "iqm"])
def test_the_inflated_bootstrap_is_wider_than_rliables_by_the_two_corrections(quantity):
    scores = suite(4, 5)
    plain, wide = (over_tasks(scores, quantity, kind) for kind in ("percentile", "inflated"))
    assert wide.low < plain.low < plain.estimate < plain.high < wide.high
    if quantity == "mean":  # where both corrections are exact, it is Student's t
        np.testing.assert_allclose([wide.low, wide.high], [over_tasks(scores).low, over_tasks(scores).high], atol=0.01)


@pytest.mark.parametrize("kind", ["percentile", "inflated"])
def test_draws_come_from_the_seed_alone(kind):
    scores = suite(3, 4)
    one, same, other = (over_tasks(scores, "iqm", kind, rng=seed) for seed in (1, np.random.default_rng(1), 2))
    assert (one.low, one.high) == (same.low, same.high) and (one.low, one.high) != (other.low, other.high)


def test_seeds_are_resampled_within_tasks_only():
    scores = {"low": [0.1, 0.1, 0.1], "high": [0.9, 0.9, 0.9]}  # resampling over tasks would mix them
    for quantity in ("mean", "median", "iqm"):
        found = over_tasks(scores, quantity, "percentile")
        assert found.zero_width and found.note == "all seeds equal" and found.estimate == pytest.approx(0.5)


def test_a_single_task_has_the_interval_of_one_task():
    values = [0.1, 0.5, 0.9, 0.4, 0.7]
    assert over_tasks({"a": values}, "iqm") == interval(values, "iqm")
    assert over_tasks({"a": values}, "median").low == pytest.approx(mean_interval(values).low)


def test_a_task_with_one_seed_leaves_no_interval():
    found = over_tasks({"a": [0.1, 0.2, 0.3], "b": [0.5, np.nan]})
    assert found.estimate == pytest.approx(0.35) and np.isnan(found.low) and found.note == "one seed: no interval"
    assert np.isnan(profile({"a": [0.1, 0.2], "b": [0.5]}, 0.3).low)


def test_paired_differences_over_tasks():
    x, y = suite(3, 6, 1), suite(3, 6, 2)
    gaps = {task: differences(x[task], range(6), y[task], range(6))[0] for task in x}
    assert over_tasks(gaps).estimate == pytest.approx(over_tasks(x).estimate - over_tasks(y).estimate)


def test_no_task_and_no_score_are_one_line():
    with pytest.raises(ResultsError, match="no task to aggregate over"):
        over_tasks({})
    with pytest.raises(ResultsError, match="door: no finite score; expected at least one seed"):
        over_tasks({"door": [np.nan, np.nan], "maze": [0.5]})


def test_what_is_not_common_is_named():
    tasks, notes = tasks_in_common({"expo": {"a": [0.5, np.nan], "b": [np.nan]}, "rlpd": {"a": [0.4], "b": [0.3], "c": [0.1]}})
    assert tasks == ["a"]
    assert notes == [
        "left out of expo, as not all methods have a finite score there: b",
        "seeds of expo without a finite score, left out: 1 on a",
        "left out of rlpd, as not all methods have a finite score there: b, c",
    ]
    with pytest.raises(ResultsError, match="expo and rlpd: no task on which all have a finite score"):
        tasks_in_common({"expo": {"a": [0.5]}, "rlpd": {"b": [0.4]}})
    with pytest.raises(ResultsError, match="the first and the second: no task"):
        improvement_over_tasks({"a": [0.5]}, {"b": [0.4]})


def test_the_mean_of_independent_intervals():
    assert [part.item() for part in mover([0.5], [0.3], [0.9])] == pytest.approx([0.5, 0.3, 0.9])
    # four alike: the distances to the limits halve
    assert [part.item() for part in mover([0.5] * 4, [0.3] * 4, [0.9] * 4)] == pytest.approx([0.5, 0.4, 0.7])


def test_the_improvement_over_tasks_is_the_mean_of_theirs():
    x, y = suite(3, 5, 1), suite(3, 4, 2)
    parts = [improvement(x[task], y[task]) for task in x]
    found = improvement_over_tasks(x, y)
    assert found.estimate == pytest.approx(np.mean([part.estimate for part in parts])) and found.n == 4
    assert min(part.low for part in parts) < found.low < found.estimate < found.high < max(part.high for part in parts)


@pytest.mark.parametrize("kind, scipys", [("wilson", "wilson"), ("clopper", "exact")])
def test_a_profile_of_one_task_is_scipys_interval_of_a_share(kind, scipys):
    values = np.array([0.1, 0.4, 0.6, 0.9, 0.95, 0.3, 0.2])
    thresholds = [0.0, 0.35, 0.6, 1.0]
    found = profile({"a": values}, thresholds, kind)
    for i, threshold in enumerate(thresholds):
        expected = stats.binomtest(int((values > threshold).sum()), 7).proportion_ci(method=scipys)
        np.testing.assert_allclose([found.low[i], found.high[i]], [expected.low, expected.high], atol=1e-12)
    np.testing.assert_allclose(found.estimate, [1.0, 4 / 7, 2 / 7, 0.0])  # above, not at


@pytest.mark.parametrize("kind", PROFILE_KINDS)
def test_a_profile_falls_from_one_to_zero(kind):
    found = profile(suite(4, 5), np.linspace(-1, 2, 50), kind)
    assert (np.diff(found.estimate) <= 0).all() and found.estimate[0] == 1 and found.estimate[-1] == 0
    assert (np.diff(found.low) <= 1e-12).all() and (np.diff(found.high) <= 1e-12).all()
    assert not found.zero_width.any()  # where all seeds are above, too


def test_every_kind_has_a_name_and_an_interval():
    for kind in KINDS:
        found = over_tasks(suite(2, 4), "mean", kind)
        assert found.method == kind and found.low < found.estimate < found.high
