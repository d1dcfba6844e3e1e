"""Two agents: against scipy, rliable's numbers, and formulas solved the other way round."""

import numpy as np
import pytest
from scipy import stats

from analysis.comparisons import IMPROVEMENT_KINDS, KINDS, difference, holm, improvement, p_value, ratio, score

X = np.array([0.81, 0.95, 0.72, 0.99, 0.64, 0.9])
Y = np.array([0.5, 0.75, 0.4, 0.66, 0.7, 0.45, 0.64, 0.3])


def test_the_difference_is_welchs():
    found = difference(X, Y)
    expected = stats.ttest_ind(X, Y, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high])
    assert found.n == 6 and found.estimate == pytest.approx(X.mean() - Y.mean())


def test_the_percentile_difference_is_scipys():
    expected = stats.bootstrap(
        (X, Y), lambda a, b, axis: a.mean(axis) - b.mean(axis), method="percentile", n_resamples=20_000, rng=np.random.default_rng(0)
    ).confidence_interval
    found = difference(X, Y, "percentile")
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], atol=0.008)


@pytest.mark.parametrize("kind", KINDS)
def test_differences_and_ratios_are_antisymmetric(kind):
    there, back = difference(X, Y, kind), difference(Y, X, kind)
    np.testing.assert_allclose([there.low, there.high], [-back.high, -back.low], atol=0.02)
    there, back = ratio(X, Y, f"log {kind}"), ratio(Y, X, f"log {kind}")
    np.testing.assert_allclose([there.low, there.high], [1 / back.high, 1 / back.low], atol=0.04)
    assert there.low < there.estimate < there.high and there.estimate == pytest.approx(X.mean() / Y.mean())


def test_the_log_ratio_by_the_delta_method():
    variances = [side.var(ddof=1) / side.size / side.mean() ** 2 for side in (X, Y)]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 5 + variances[1] ** 2 / 7)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(variances))
    np.testing.assert_allclose(np.log([ratio(X, Y).low, ratio(X, Y).high]) - np.log(X.mean() / Y.mean()), [-half, half])


def test_a_ratio_has_no_unit_and_needs_positive_means():
    np.testing.assert_allclose(ratio(1e6 * X, 1e6 * Y).low, ratio(X, Y).low)
    assert np.isnan(ratio(X, -Y).estimate) and np.isnan(ratio([0.0, 0.0], Y).low)


def test_the_probability_of_improvement_is_mann_and_whitneys():
    assert improvement(X, Y).estimate == pytest.approx(stats.mannwhitneyu(X, Y).statistic / 48)
    ties = np.round(X, 1), np.round(Y, 1)
    assert improvement(*ties).estimate == pytest.approx(stats.mannwhitneyu(*ties).statistic / 48)


@pytest.mark.parametrize("kind", IMPROVEMENT_KINDS)
def test_improvements_of_the_two_add_up_to_one(kind):
    there, back = improvement(X, Y, kind), improvement(Y, X, kind)
    np.testing.assert_allclose([there.low, there.high], [1 - back.high, 1 - back.low], atol=0.02)


def test_the_score_limits_solve_newcombes_equation():
    middle = improvement(X, Y).estimate
    for limit in (improvement(X, Y).low, improvement(X, Y).high):
        q1, q2 = limit / (2 - limit), 2 * limit**2 / (1 + limit)  # Hanley and McNeil (1982), with (n + m) / 2 for n and for m
        variance = (limit * (1 - limit) + 6 * (q1 - limit**2) + 6 * (q2 - limit**2)) / 48
        assert abs(middle - limit) == pytest.approx(stats.norm.ppf(0.975) * np.sqrt(variance))


def test_an_agent_that_wins_every_pair_is_not_certain_to():
    found = improvement(np.arange(5) + 10, np.arange(5))
    assert found.estimate == found.high == 1.0 and 0.5 < found.low < 0.8 and not found.zero_width
    assert improvement(np.arange(5) + 10, np.arange(5), "t").zero_width
    assert improvement(np.arange(30) + 99, np.arange(30)).low > 0.9


def test_the_t_kind_is_brunner_and_munzels():
    found, expected = improvement(X, Y, "t"), stats.brunnermunzel(Y, X)
    freedom = stats.brunnermunzel(Y, X, distribution="t")
    assert freedom.pvalue == pytest.approx(expected.pvalue)
    # the interval at confidence 1 - p just touches 1/2
    touching = improvement(X, Y, "t", confidence=1 - expected.pvalue)
    assert touching.low == pytest.approx(0.5) and found.low > 0.5


def test_many_pairs_of_columns_at_once():
    x, y = np.random.default_rng(0).normal(size=(2, 6, 30))
    x[0, 3] = np.nan
    for function in (difference, improvement):
        whole = function(x, y)
        assert whole.n[3] == 5 and whole.n[4] == 6
        for column in (3, 4):
            np.testing.assert_allclose(whole.low[column], function(x[:, column], y[:, column]).low)


def test_one_seed_has_no_interval():
    for function in (difference, ratio, improvement):
        found = function([0.5], Y)
        assert np.isfinite(found.estimate) and np.isnan(found.low) and found.note == "one seed: no interval"
        assert function([np.nan], Y).note == "no data"
    assert score(np.ones((1, 3)), np.ones((1, 3)), 0.95, None)[0] < 0.5  # ties: one half, with a width


def test_p_is_scipys():
    gaps = X - Y[:6]
    assert p_value(gaps) == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)
    assert np.isnan(p_value([0.1])) and np.isnan(p_value([0.2, 0.2, 0.2])) and np.isnan(p_value([]))


def test_holm_by_hand():
    # 0.005 x 4, then 0.01 x 3, 0.03 x 2, and 0.04 x 1, which may not be below the one before
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    np.testing.assert_array_equal(holm([0.01, np.nan, 0.2]), [0.03, np.nan, 0.4])
    assert holm([]).size == 0


def test_holm_keeps_the_chance_of_any_false_finding():
    p = np.random.default_rng(0).uniform(size=(4_000, 5))
    false = np.mean([(holm(row) <= 0.05).any() for row in p])
    assert false < 0.062 and np.mean((p <= 0.05).any(axis=1)) > 0.2
