"""Every statistic against its closed form, and the coverage that the choice of interval rests on."""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import differences, interquartile_mean, mean_interval, paired_difference


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


def test_coverage_of_a_bootstrap_is_why_it_is_not_used():
    rng = np.random.default_rng(0)
    values = rng.normal(0.6, 0.2, (2_000, 5))
    means = np.take_along_axis(values[:, None], rng.integers(0, 5, (2_000, 300, 5)), axis=2).mean(axis=2)
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    assert 0.79 < np.mean((low <= 0.6) & (high >= 0.6)) < 0.87


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
