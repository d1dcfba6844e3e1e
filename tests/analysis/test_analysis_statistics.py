"""Every statistic against its closed form; that the intervals cover is the business of tests/benchmarks/test_coverage.py."""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import (
    differences,
    estimate,
    interquartile_mean,
    mean_interval,
    order_weights,
    paired_difference,
    shortfall,
    unseen_share,
)


def test_the_interval_is_scipys():
    values = np.array([0.2, 0.5, 0.9, 0.4, 0.7])
    interval = mean_interval(values)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    np.testing.assert_allclose([interval.mean, interval.low, interval.high], [values.mean(), low, high])
    assert interval.n == 5 and interval.note == ""


def test_two_seeds_by_hand():
    interval = mean_interval([0.0, 1.0])
    np.testing.assert_allclose(interval.high - interval.mean, 12.706204736 * 0.5)  # t_1(0.975) s / sqrt(2), s = sqrt(1/2)


def test_columns_are_independent_and_nan_is_an_absent_seed():
    values = np.array([[0.1, np.nan, np.nan], [0.3, 0.5, np.nan], [0.8, 0.7, 0.4]])
    interval = mean_interval(values)
    np.testing.assert_array_equal(interval.n, [3, 2, 1])
    np.testing.assert_allclose(interval.mean, [0.4, 0.6, 0.4])
    np.testing.assert_allclose(interval.low[1], mean_interval([0.5, 0.7]).low)
    assert np.isnan(interval.low[2]) and np.isnan(interval.high[2])
    np.testing.assert_allclose(mean_interval(values.T, axis=1).low, interval.low)


def test_one_seed_has_no_interval_and_says_so():
    interval = mean_interval([0.4])
    assert interval.mean == 0.4 and np.isnan(interval.low) and interval.note == "one seed: no interval"
    assert not interval.excludes_zero


def test_no_seed_is_no_data():
    for values in ([], [np.nan, np.nan]):
        interval = mean_interval(values)
        assert np.isnan(interval.mean) and np.isnan(interval.low) and interval.n == 0 and interval.note == "no data"


def test_equal_seeds_are_flagged():
    interval = mean_interval([1.0, 1.0, 1.0])
    assert interval.low == interval.high == 1.0 and interval.zero_width and interval.note == "all seeds equal"
    assert mean_interval([0.1 + 0.2, 0.3]).zero_width  # equal but for rounding


def test_the_interval_is_not_clipped():
    assert mean_interval([1.0, 1.0, 0.9]).high > 1.0


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_coverage(n):
    interval = mean_interval(np.random.default_rng(n).normal(0.6, 0.2, (n, 20_000)))
    covered = np.mean((interval.low <= 0.6) & (interval.high >= 0.6))
    assert abs(covered - 0.95) < 0.006  # four standard errors of the simulation


@pytest.mark.parametrize("n", [4, 8, 12])
def test_the_interquartile_mean_is_the_trimmed_mean_of_multiples_of_four(n):
    values = np.random.default_rng(n).uniform(size=n)
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25))


@pytest.mark.parametrize("values, expected", [
    ([0.7], 0.7),
    ([0.2, 0.6], 0.4),
    ([0.0, 0.3, 1.0], (0.25 * 0.0 + 1.0 * 0.3 + 0.25 * 1.0) / 1.5),
    ([0.0, 0.2, 0.4, 0.9, 1.0], (0.75 * 0.2 + 0.4 + 0.75 * 0.9) / 2.5),
    ([1.0, 0.0, 0.4, np.nan, 0.2, 0.9], (0.75 * 0.2 + 0.4 + 0.75 * 0.9) / 2.5),
])  # fmt: skip
def test_the_interquartile_mean_weighs_the_parts(values, expected):
    np.testing.assert_allclose(interquartile_mean(values), expected)


def test_the_interquartile_mean_of_many_columns():
    values = np.random.default_rng(0).uniform(size=(5, 3))
    np.testing.assert_allclose(interquartile_mean(values), [interquartile_mean(column) for column in values.T])
    assert np.isnan(interquartile_mean([np.nan]))


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_mean_and_median_are_numpys(n):
    values = np.random.default_rng(n).normal(size=(n, 3))
    np.testing.assert_allclose(estimate(values, "mean"), values.mean(axis=0))
    np.testing.assert_allclose(estimate(values, "median"), np.median(values, axis=0))
    np.testing.assert_allclose(estimate(values.T, "median", axis=1), np.median(values, axis=0))


def test_what_is_not_finite_is_no_seed():
    assert estimate([0.2, np.inf, 0.4, np.nan, -np.inf], "median") == pytest.approx(0.3)
    assert np.isnan(estimate([np.nan, np.inf], "mean")) and np.isnan(estimate([], "iqm"))


@pytest.mark.parametrize("quantity", ["mean", "median", "iqm"])
def test_the_weights_of_the_order_statistics_are_a_symmetric_mean(quantity):
    weights = order_weights(quantity, np.arange(1, 13))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    for n, row in zip(range(1, 13), weights, strict=True):
        np.testing.assert_allclose(row[:n], row[:n][::-1], atol=1e-15)
        assert not row[n:].any() and (row >= 0).all()


def test_the_optimality_gap_is_rliables():
    # rliable's definition (rliable/metrics.py): gamma - mean(min(score, gamma))
    scores = np.array([0.5, 0.9, 1.4, 1.0])
    assert estimate(shortfall(scores)) == pytest.approx((0.5 + 0.1) / 4)
    assert estimate(shortfall(scores, 2.0)) == pytest.approx(2.0 - scores.mean())


def test_equal_seeds_leave_room_for_others():
    # Clopper and Pearson's one-sided limit for 0 of n: 0.45 for five seeds; the "rule of three" 3 / n for many
    assert unseen_share(5) == pytest.approx(stats.beta.ppf(0.95, 1, 5))
    assert unseen_share(300) == pytest.approx(3 / 300, rel=0.01)


def test_differences_pair_by_seed():
    gaps, seeds = differences([0.9, 0.8, np.nan, 0.5], [3, 1, 2, 9], [0.1, 0.2, 0.3], [1, 2, 3])
    np.testing.assert_array_equal(seeds, [1, 3])
    np.testing.assert_allclose(gaps, [0.7, 0.6])


def test_the_paired_interval_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(2, 6))
    interval = paired_difference(a, range(6), b, range(6))
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose([interval.low, interval.high], expected)


def test_no_shared_seed():
    assert paired_difference([1.0], [0], [0.5], [1]).note == "no data"
