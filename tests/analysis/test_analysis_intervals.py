"""The kinds of interval for one agent: against scipy, closed forms, and what every one of them has to satisfy."""

import numpy as np
import pytest
from scipy import stats

from analysis import aggregate, comparisons
from analysis.intervals import DEFAULT, FEW, KINDS, default_kind, interval
from analysis.statistics import METHODS, mean_interval

VALUES = np.array([0.31, 0.75, 0.52, 0.98, 0.44, 0.87, 0.66, 0.71])
CASES = [(quantity, kind) for quantity in DEFAULT for kind in KINDS if kind != "order" or quantity == "median"]


def limits(values, quantity, kind, **options):
    found = interval(values, quantity, kind, **options)
    return np.array([found.low, found.high])


@pytest.mark.parametrize("quantity, statistic", [("mean", np.mean), ("median", np.median)])
@pytest.mark.parametrize("kind, scipys", [("percentile", "percentile"), ("bca", "BCa")])
def test_bootstraps_are_scipys(quantity, statistic, kind, scipys):
    expected = stats.bootstrap((VALUES,), statistic, method=scipys, n_resamples=20_000, rng=np.random.default_rng(1)).confidence_interval
    found = limits(VALUES, quantity, kind, resamples=20_000)
    np.testing.assert_allclose(found, [expected.low, expected.high], atol=0.006)


def test_t_of_a_mean_is_students():
    np.testing.assert_allclose(limits(VALUES, "mean", "t"), stats.t.interval(0.95, 7, VALUES.mean(), stats.sem(VALUES)))
    np.testing.assert_allclose(limits(VALUES, "mean", "scaled", resamples=100_000), limits(VALUES, "mean", "t"), atol=0.003)


def test_t_of_an_iqm_is_tukey_and_mclaughlins():
    # 1 ... 8: two trimmed at each end, winsorised 3 3 3 4 5 6 6 6 with squares 14 about 4.5, h = 4: error sqrt(14 / (4 x 3))
    half = stats.t.ppf(0.975, 3) * np.sqrt(14 / 12)
    np.testing.assert_allclose(limits(np.arange(1.0, 9.0), "iqm", "t"), [4.5 - half, 4.5 + half])


def test_t_of_a_median_is_mckean_and_schraders():
    # n = 20, c = round(10.5 - 2.5758 sqrt(5)) = 5: (x_(16) - x_(5)) / (2 x 2.5758) = 11 / 5.1517
    half = stats.t.ppf(0.975, 19) * 11 / (2 * stats.norm.ppf(0.995))
    np.testing.assert_allclose(limits(np.arange(1.0, 21.0), "median", "t"), [10.5 - half, 10.5 + half])


@pytest.mark.parametrize("n, first", [(3, 1), (5, 1), (6, 1), (8, 1), (9, 2), (10, 2), (30, 10)])
def test_order_statistics_around_a_median_are_the_tabulated_ones(n, first):
    # tables of the sign test's interval: ranks 1 and 6 of 6, 2 and 9 of 10, 10 and 21 of 30
    np.testing.assert_array_equal(limits(np.arange(1.0, n + 1), "median", "order"), [first, n + 1 - first])


@pytest.mark.parametrize("quantity, kind", CASES)
def test_intervals_move_and_stretch_with_the_values(quantity, kind):
    low, high = limits(VALUES, quantity, kind)
    assert low < interval(VALUES, quantity).estimate < high
    np.testing.assert_allclose(limits(1e6 + 10 * VALUES, quantity, kind), [1e6 + 10 * low, 1e6 + 10 * high], rtol=1e-9)
    narrow = limits(VALUES, quantity, kind, confidence=0.5)
    assert low <= narrow[0] and narrow[1] <= high


@pytest.mark.parametrize("quantity, kind", CASES)
def test_equal_seeds_have_no_width_and_say_so(quantity, kind):
    for value in (1.0, 0.1 + 0.2, 1e6 / 3):
        found = interval(np.full(6, value), quantity, kind)
        assert found.zero_width and found.note == "all seeds equal" and found.estimate == pytest.approx(value)


def test_the_same_seed_gives_the_same_numbers():
    np.testing.assert_array_equal(
        limits(VALUES, "iqm", "percentile", rng=3), limits(VALUES, "iqm", "percentile", rng=np.random.default_rng(3))
    )
    assert (limits(VALUES, "iqm", "scaled", rng=3) != limits(VALUES, "iqm", "scaled", rng=4)).any()


def test_columns_with_absent_seeds_are_taken_by_their_own_number():
    table = np.stack([VALUES, np.where(np.arange(8) < 6, VALUES, np.nan), np.where(np.arange(8) < 1, VALUES, np.nan), np.full(8, np.nan)])
    found = interval(table, "mean", "t", axis=1)
    np.testing.assert_array_equal(found.n, [8, 6, 1, 0])
    np.testing.assert_allclose(found.low[:2], [mean_interval(VALUES).low, mean_interval(VALUES[:6]).low])
    assert found.estimate[2] == VALUES[0] and np.isnan(found.low[2:]).all() and np.isnan(found.estimate[3])
    assert interval(table.reshape(2, 2, 8), "iqm", axis=2).low.shape == (2, 2)


def test_blocks_of_many_columns_are_put_together_in_order(monkeypatch):
    table = np.random.default_rng(0).normal(size=(7, 40))
    whole = interval(table, "iqm")
    monkeypatch.setattr("analysis.intervals.BLOCK", 12_000)
    np.testing.assert_array_equal(interval(table, "iqm").low, whole.low)


def test_one_seed_and_none():
    assert interval([0.4], "iqm").note == "one seed: no interval" and interval([0.4], "iqm").estimate == 0.4
    assert interval([], "median").note == "no data" and np.isnan(interval([np.nan], "mean").estimate)


def test_the_kind_follows_the_number_of_seeds_and_is_named():
    few, more = (interval(VALUES[:n], "iqm") for n in (FEW - 1, FEW))
    assert (few.method, more.method) == DEFAULT["iqm"] == (default_kind("iqm", 4), default_kind("iqm", 5))
    assert interval(VALUES).method == "t"
    both = interval(np.stack([VALUES, np.where(np.arange(8) < 3, VALUES, np.nan)]), "iqm", axis=1)
    assert both.described == "percentile bootstrap at the levels of Student's t or Student's t with the standard error of a bootstrap"


def test_every_kind_has_a_name_for_captions():
    kinds = {*KINDS, *comparisons.KINDS, *comparisons.IMPROVEMENT_KINDS, *aggregate.KINDS, *aggregate.PROFILE_KINDS, comparisons.RATIO}
    assert kinds == set(METHODS)


def test_bootstrap_t_of_three_seeds_is_infinite():
    assert np.isinf(limits([0.1, 0.5, 0.6], "mean", "studentised")).all()
    assert np.isfinite(limits(VALUES, "mean", "studentised")).all()
