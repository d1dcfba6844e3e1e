"""Times that evaluations only bracket: published estimates, Kaplan and Meier, counts by hand, and statements that hold either way."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import curve

from analysis import comparisons, efficiency
from analysis.survival import Times, npmle, outer_mean, pseudo_values, ratio, summarise

INF = np.inf
# Months to breast retraction after radiotherapy alone, (left, right], 46 patients: Finkelstein and Wolfe (1985, Biometrics 41: 933).
COSMESIS = [
    (45, INF), (6, 10), (0, 7), (46, INF), (46, INF), (7, 16), (17, INF), (7, 14), (37, 44), (0, 8), (4, 11), (15, INF), (11, 15),
    (22, INF), (46, INF), (46, INF), (25, 37), (46, INF), (26, 40), (46, INF), (27, 34), (36, 44), (46, INF), (36, 48), (37, INF),
    (40, INF), (17, 25), (46, INF), (11, 18), (38, INF), (5, 12), (37, INF), (0, 5), (18, INF), (24, INF), (36, INF), (5, 11), (19, 35),
    (17, 25), (24, INF), (32, INF), (33, INF), (19, 26), (37, INF), (34, INF), (36, INF),
]  # fmt: skip


def times(*pairs, horizon=1000.0) -> Times:
    left, right = np.array(pairs, dtype=float).reshape(-1, 2).T
    return Times(left, right, horizon)


def test_the_published_estimate_of_the_cosmesis_data():
    # as published with the R package interval (Fay and Shaw, 2010, J. Stat. Softw. 36(2))
    found = npmle(times(*COSMESIS))
    kept = found.mass > 1e-6
    np.testing.assert_array_equal(found.left[kept], [4, 6, 7, 11, 24, 33, 38, 46])
    np.testing.assert_array_equal(found.right[kept], [5, 7, 8, 12, 25, 34, 40, 48])
    np.testing.assert_allclose(found.mass[kept], [0.0463, 0.0334, 0.0887, 0.0708, 0.0926, 0.0818, 0.1209, 0.4656], atol=6e-5)


def test_the_estimates_of_lifelines_tests():
    # lifelines, tests/test_npmle.py: whole numbers in closed intervals [left, right], which are (left - 1/2, right] here
    left = np.array([1, 8, 8, 7, 7, 17, 37, 46, 46, 45]) - 0.5
    given = Times(left, np.array([7, 8, 10, 16, 14, INF, 44, INF, INF, INF]), 46.0)
    np.testing.assert_allclose(npmle(given).mass, [0.16667016, 0.33332984, 0.125, 0.375], rtol=1e-4)
    weighted = npmle(given, np.array([2, 2, 2, 1, 1, 1, 1, 1, 1, 1])).mass
    np.testing.assert_allclose(weighted, [0.2051282, 0.4102564, 0.0961539, 0.2884615], rtol=1e-4)


def test_exact_times_with_early_ends_are_kaplan_and_meiers():
    exact, ended = [2.0, 3.0, 5.0, 8.0], [3.5, 6.0]
    found = npmle(times(*[(t, t) for t in exact], *[(t, INF) for t in ended]))
    expected = stats.ecdf(stats.CensoredData.right_censored(exact + ended, [False] * 4 + [True] * 2)).sf
    np.testing.assert_allclose(found.mass[np.isfinite(found.right)], -np.diff([1.0, *expected.evaluate(exact)]), atol=1e-8)


def test_one_grid_is_a_count():
    given = times((0, 100), (100, 200), (0, 100), (300, INF))
    found = npmle(given)
    np.testing.assert_array_equal(found.right, [100, 200, INF])
    np.testing.assert_allclose(found.mass, [0.5, 0.25, 0.25])
    assert [side.item() for side in found.mean(300)] == pytest.approx([(0 + 100 + 0 + 300) / 4, (100 + 200 + 100 + 300) / 4])
    assert [side.item() for side in found.median()] == [0, 100]
    low, high = pseudo_values(given, 300)
    np.testing.assert_allclose(low, [0, 100, 0, 300], atol=1e-6)
    np.testing.assert_allclose(high, [100, 200, 100, 300], atol=1e-6)


def test_time_zero_is_exact():
    found = npmle(times((0, 0), (0, 0), (0, 100)))
    np.testing.assert_array_equal(found.right, [0, 100])
    np.testing.assert_allclose(found.mass, [2 / 3, 1 / 3])


def test_a_run_that_ended_early_is_neither_dropped_nor_a_failure():
    # one seed stopped at 100: its chance of getting there later is that of the others that went on
    found = npmle(times((0, 100), (100, 200), (200, 300), (100, INF)))
    np.testing.assert_allclose(found.mass, [1 / 4, 3 / 8, 3 / 8], atol=1e-8)
    assert pseudo_values(times((0, 100), (100, 200), (200, 300), (100, INF)), 300)[1].mean() == pytest.approx(212.5, abs=1e-4)


def test_a_mean_with_all_there():
    found = summarise(times((100, 200), (200, 300), (100, 200), (300, 400), (200, 300)))
    assert found.mean.estimate == pytest.approx(230) and found.span == pytest.approx((180, 280))
    # each end has Student's t on the log scale, deviations being the same: s = 83.67, error 37.42
    factor = lambda mean: np.exp(stats.t.ppf(0.975, 4) * 37.4166 / mean)
    assert (found.mean.low, found.mean.high) == pytest.approx((180 / factor(180), 280 * factor(280)), rel=1e-4)
    assert found.complete and found.text == f"230 [{found.mean.low:,.0f}, {found.mean.high:,.0f}]"
    assert found.median == (200, 300) and found.median_limits == (100, 400)


def test_what_is_said_when_seeds_never_got_there():
    some = summarise(times((100, 200), (300, INF), (100, 200), (300, INF), (200, INF), horizon=300))
    assert (some.reached, some.n, some.complete) == (2, 5, False) and some.text.startswith(">=") and some.text.endswith("(2 of 5)")
    assert some.median[1] == INF and some.median_limits[1] == INF
    none = summarise(times((300, INF), (200, INF), horizon=300))
    assert none.text == ">200 (0 of 2)" and none.median == (300, INF)
    assert summarise(times((100, 200))).text == "150 [one seed]" and summarise(times((100, 200))).note == "one seed: no interval"
    assert summarise(times((100, 200), (100, 200))).note == "all seeds between the same two evaluations"
    assert summarise(times((100, 200), (100, 200))).text == "150 [100, 200]"
    assert summarise(times((0, 0), (0, 0))).text == "0 [0, 0]"


def test_medians_of_few_seeds_have_no_limits_and_draws_come_from_the_seed():
    assert np.isnan(summarise(times(*[(i, i + 1) for i in range(4)])).median_limits).all()
    many = times(*[(i, i + 1) for i in range(9)])
    assert summarise(many, rng=1) == summarise(many, rng=1)
    assert summarise(many).median_limits[0] < summarise(many).median[0] < summarise(many).median_limits[1]


def test_a_ratio_is_of_means_and_reciprocal():
    slow, fast = times((400, 500), (500, 600), (300, 400)), times((100, 200), (200, 300), (100, 200), (200, 300))
    there, back = ratio(slow, fast), ratio(fast, slow)
    assert there.interval.estimate == pytest.approx(450 / 200) and there.bound == "exact"
    np.testing.assert_allclose([back.interval.low, back.interval.high], [1 / there.interval.high, 1 / there.interval.low])
    inner = [comparisons.ratio(s, f) for s, f in (([400, 500, 300], [200, 300, 200, 300]), ([500, 600, 400], [100, 200, 100, 200]))]
    assert (there.interval.low, there.interval.high) == pytest.approx((inner[0].low, inner[1].high), rel=1e-6)
    assert there.separable == (there.interval.low > 1) and there.text == f"2.25x [{there.interval.low:.2f}, {there.interval.high:.2f}]"


def test_an_agent_is_as_fast_as_itself_and_twice_as_fast_as_at_half_speed():
    pairs = np.array([(1000, 1010), (1200, 1210), (900, 910), (1100, 1110)])
    own = ratio(times(*pairs, horizon=9000), times(*pairs, horizon=9000))
    assert own.interval.estimate == pytest.approx(1) and not own.separable
    double = ratio(times(*(2 * pairs), horizon=9000), times(*pairs, horizon=9000))
    assert double.interval.estimate == pytest.approx(2) and double.separable


def test_at_least_and_at_most():
    fast, never = times((100, 200), (150, 200), (100, 150)), times(*[(1000, INF)] * 3)
    least = ratio(never, fast)
    assert least.bound == "at least" and least.separable and least.text.startswith("at least 6.67x [") and least.text.endswith(", ...]")
    most = ratio(fast, never)
    assert most.bound == "at most" and most.separable and most.text.startswith("at most 0.15x [..., ")
    part = times((100, 200), (1000, INF), (300, 400))
    assert ratio(part, fast).bound == "at least" and ratio(part, part).bound == "restricted"
    assert "over the first 1,000, where 2 of 3 and 0 of 3 seeds get there" in ratio(part, never).text
    assert ratio(never, never).text == "no statement: neither got there" and not ratio(never, never).separable


def test_an_interval_without_spread_between_seeds_is_flagged():
    flat = ratio(times(*[(300, INF)] * 3, horizon=300), times(*[(100, 200)] * 3))
    assert flat.flat and flat.text == "at least 2.00x [1.50, ...] (no spread between seeds)"
    assert not ratio(times((100, 200), (200, 300)), times((100, 200), (100, 200))).flat


def test_a_later_end_only_raises_an_at_least():
    fast = times((100, 200), (150, 200), (100, 150))
    short = ratio(times(*[(500, INF)] * 3, horizon=500), fast)
    long = ratio(times(*[(1000, INF)] * 3, horizon=1000), fast)
    assert short.horizon == 500 and short.interval.estimate < long.interval.estimate


def test_ratios_that_cannot_be_made():
    fast = times((100, 200), (150, 200))
    assert ratio(times((300, 400)), fast).text == "2.00x [one seed]"  # (100, 200] and (150, 200] put all probability into the second
    empty = Times(np.array([]), np.array([]), np.nan)
    assert ratio(empty, fast).text == "-" and ratio(fast, empty).bound == "none" and not ratio(fast, empty).separable
    at_once = ratio(fast, times((0, 100), (0, 100)))  # may have been there from the start
    assert at_once.interval.high == INF and np.isfinite(at_once.interval.low)
    assert not np.isfinite(ratio(fast, times((0, 0), (0, 0))).interval.estimate)


def test_lower_thresholds_are_reached_no_later():
    rng = np.random.default_rng(0)
    scores = np.clip(np.cumsum(rng.normal(0.03, 0.05, (6, 30)), axis=1), 0, 1)
    rows = pd.DataFrame([row for seed, values in enumerate(scores) for row in curve(values, seed=seed)])
    found = [efficiency.times_to(efficiency.online_curve(rows), threshold) for threshold in (0.2, 0.4, 0.6, 0.8)]
    for easier, harder in zip(found, found[1:], strict=False):
        assert (easier.right <= harder.right).all() and (easier.left <= harder.left).all()
        assert summarise(easier).mean.estimate <= summarise(harder).mean.estimate


@pytest.mark.parametrize("kind", ["t", "log t"])
def test_outer_limits_enclose_those_of_any_times_in_between(kind):
    rng = np.random.default_rng(0)
    low = rng.integers(1, 9, (5, 40)) * 100.0
    between = outer_mean(low + 50, low + 50, kind)
    outer = outer_mean(low, low + 100, kind)
    assert (outer.low < between.low).all() and (between.high < outer.high).all()
    np.testing.assert_allclose(outer.estimate, between.estimate)
