"""How many seeds: published sample sizes, and widths that follow Student's t."""

import numpy as np
import pytest
from scipy import special, stats

from analysis.seeds import MOST, POWER, power_of, to_separate, to_separate_unpaired, widths


def with_effect(effect: float, n: int = 6) -> np.ndarray:
    """n values of standard deviation 1 and this mean."""
    values = np.arange(n) - (n - 1) / 2
    return effect + values / values.std(ddof=1)


@pytest.mark.parametrize("effect, n", [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_paired_sizes_are_the_tabulated_ones(effect, n):
    assert to_separate(with_effect(effect)).estimate == n  # G*Power: two-sided t test of pairs, alpha 0.05, power 0.8


@pytest.mark.parametrize("effect, n", [(0.2, 394), (0.5, 64), (0.8, 26)])
def test_sizes_of_two_groups_are_the_tabulated_ones(effect, n):
    assert to_separate_unpaired(with_effect(effect), with_effect(0.0)).estimate == n  # G*Power: two independent means


def test_the_number_is_as_uncertain_as_the_difference():
    found = to_separate(with_effect(0.9, 4))  # the interval includes 0
    assert found.fewest < found.estimate < found.most == np.inf and found.have == 4 and found.power == POWER
    assert found.text == f"{found.estimate:.0f} seeds ({found.fewest:.0f} to more than {MOST:,})"
    clear = to_separate(with_effect(3.0, 8))
    assert clear.fewest <= clear.estimate <= clear.most < 20
    assert to_separate(with_effect(0.0)).estimate == np.inf


def test_power_is_that_of_simulated_tests():
    rng = np.random.default_rng(0)
    simulated = np.mean(stats.ttest_1samp(rng.normal(0.7, 1, (20_000, 12)), 0, axis=1).pvalue < 0.05)
    assert power_of(0.7, 12, 11) == pytest.approx(simulated, abs=0.012)
    assert power_of(0.0, 12, 11) == pytest.approx(0.05)


def test_nothing_to_plan_with():
    assert to_separate([0.1]) is None and to_separate([0.2, 0.2, 0.2]) is None and to_separate([]) is None
    assert to_separate_unpaired([0.1], [0.2, 0.3]) is None and to_separate_unpaired([1.0, 1.0], [0.0, 0.0]) is None


def test_widths_fall_with_the_number_of_seeds_as_students_t_does():
    values, counts = np.random.default_rng(0).normal(0.5, 0.1, 200), [3, 5, 10, 40]
    found = widths(values, counts)
    short = lambda n: np.sqrt(2 / (n - 1)) * special.gamma(n / 2) / special.gamma((n - 1) / 2)  # the mean of s over sigma
    expected = [2 * stats.t.ppf(0.975, n - 1) * short(n) * values.std(ddof=1) / np.sqrt(n) for n in counts]
    assert (np.diff(found) < 0).all()
    np.testing.assert_allclose(found, expected, rtol=0.06)
    np.testing.assert_array_equal(found, widths(values, counts, rng=0))
    assert np.isnan(widths([0.4, np.nan], counts)).all() and (np.diff(widths(values, counts, "iqm")) < 0).all()
