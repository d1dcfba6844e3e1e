"""What is read off learning curves, on curves small enough to read off by eye."""

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import curve, evaluation

from analysis import efficiency, survival


def online(*seeds, **fields) -> efficiency.Curve:
    rows = [row for seed, scores in enumerate(seeds) for row in curve(scores, seed=seed, **fields)]
    return efficiency.online_curve(pd.DataFrame(rows))


def test_the_last_offline_evaluation_starts_the_online_curve():
    rows = [evaluation(phase="offline", grad_step=step, score=score) for step, score in ((0, 0.0), (1000, 0.4), (500, 0.2))]
    result = efficiency.online_curve(pd.DataFrame(rows + curve([0.5, 0.6], start=100)))
    np.testing.assert_array_equal(result.steps, [0, 100, 200])
    np.testing.assert_allclose(result.values, [[0.4, 0.5, 0.6]])


def test_an_online_evaluation_at_step_0_is_kept_instead():
    rows = [evaluation(phase="offline", grad_step=1000, score=0.4)] + curve([0.45, 0.6])
    np.testing.assert_allclose(efficiency.online_curve(pd.DataFrame(rows)).values, [[0.45, 0.6]])


def test_a_method_that_never_went_online_ends_with_its_offline_phase():
    rows = pd.DataFrame([evaluation(phase="offline", grad_step=step, score=score) for step, score in ((0, 0.0), (1000, 0.4))])
    assert efficiency.online_curve(rows).steps.size == 0
    np.testing.assert_allclose(efficiency.final(efficiency.final_curve(rows)), [0.4])
    assert np.isnan(efficiency.area(efficiency.online_curve(rows)))
    assert survival.summarise(efficiency.times_to(efficiency.online_curve(rows), 0.8)).text == "-"


def test_final_is_nan_for_a_seed_that_did_not_get_there():
    result = online([0.1, 0.5, 0.9], [0.1, 0.8])
    np.testing.assert_array_equal(efficiency.final(result), [0.9, np.nan])
    np.testing.assert_array_equal(result.unfinished, [1])


def test_the_area_is_the_trapezoid_rule():
    np.testing.assert_allclose(efficiency.area(online([0.0, 1.0, 1.0], [0.5, 0.5, 0.5])), [0.75, 0.5])


def test_the_area_of_a_stretch_between_evaluations():
    # the line y = x / 200 from 50 to 150 has mean 0.5
    np.testing.assert_allclose(efficiency.area(online([0.0, 0.5, 1.0]), 50, 150), [0.5])
    np.testing.assert_allclose(efficiency.area(online([0.0, 0.5, 1.0]), 110, 120), [0.575])


def test_the_area_on_unequal_grids_is_that_of_the_seeds_own_evaluations():
    rows = curve([0.0, 1.0], every=200, seed=0) + curve([0.0, 0.0, 1.0], every=100, seed=1)
    np.testing.assert_allclose(efficiency.area(efficiency.online_curve(pd.DataFrame(rows))), [0.5, 0.25])


def test_no_area_without_the_whole_stretch_or_with_a_gap_in_it():
    result = online([0.0, 0.5], [0.0, np.nan, 1.0], [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(np.isnan(efficiency.area(result)), [True, True, False])
    assert np.isnan(efficiency.area(result, 100, 100)).all()


@pytest.mark.parametrize("scores, left, right", [
    ([0.0, 0.8, 0.8], 0, 100),
    ([0.9, 0.9, 0.0], 0, 0),  # there from the start: exactly 0
    ([0.9, 0.1, 0.9, 0.1], 300, np.inf),  # never twice in a row
    ([0.0, 0.9, np.nan, 0.9, 0.9], 200, 300),
    ([0.1, 0.2, 0.9], 100, np.inf),  # once, at the very end: may have been since the evaluation before
    ([0.1, 0.2, 0.3], 200, np.inf),
    ([0.9], 0, np.inf),
])  # fmt: skip
def test_steps_to_a_threshold_lie_between_two_evaluations(scores, left, right):
    times = efficiency.times_to(online(scores), 0.8)
    assert (times.left.item(), times.right.item()) == (left, right)


def test_the_horizon_is_the_last_evaluation_but_one():
    assert efficiency.times_to(online([0.0, 0.1, 0.2], [0.0, 0.1, 0.2, 0.3]), 0.8).horizon == 200
    assert np.isnan(efficiency.times_to(online([0.0]), 0.8).horizon)


def test_a_curve_that_starts_later_leaves_its_first_gap_open():
    times = efficiency.times_to(online([0.9, 0.9, 0.9], start=500), 0.8)
    assert (times.left.item(), times.right.item()) == (0, 500)


def test_regret_is_what_a_perfect_policy_would_have_had_more():
    result = online([0.0, 1.0, 1.0], [0.5, 0.5, 0.5])
    np.testing.assert_allclose(efficiency.regret(result), [50.0, 100.0])  # 0.25 and 0.5 of a score over 200 steps
    np.testing.assert_allclose(efficiency.regret(result, ceiling=2.0, start=100, stop=200), [100.0, 150.0])
    assert np.isnan(efficiency.regret(online([0.5], [0.4]))).all()


def test_the_drop_is_the_first_online_evaluation_minus_the_last_offline_one():
    rows = []
    for seed, after in ((0, 0.1), (1, 0.5)):
        rows += [evaluation(phase="offline", grad_step=step, score=0.4, seed=seed) for step in (500, 1000)]
        rows += curve([0.9, after, 0.7], seed=seed)  # the one at step 0 is still the offline policy
    rows += curve([0.0, 0.1], seed=2)  # no offline phase: no drop
    drop, seeds = efficiency.switch_drop(pd.DataFrame(rows))
    np.testing.assert_allclose(drop, [-0.3, 0.1])
    np.testing.assert_array_equal(seeds, [0, 1])


def test_recovery_counts_from_the_switch_to_the_own_offline_score():
    rows = []
    for seed, scores in enumerate(([0.1, 0.2, 0.5, 0.6], [0.5, 0.4, 0.5, 0.5], [0.1, 0.2, 0.3, 0.6], [0.1, 0.2, 0.3, 0.3])):
        rows += [evaluation(phase="offline", grad_step=step, score=0.4, seed=seed) for step in (500, 1000)]
        rows += curve(scores, seed=seed, start=100)
    rows += curve([0.0, 0.1, 0.1], seed=9)  # no offline phase
    times, seeds = efficiency.recovery(pd.DataFrame(rows))
    np.testing.assert_array_equal(seeds, [0, 1, 2, 3])
    np.testing.assert_array_equal(times.left, [200, 0, 300, 400])
    np.testing.assert_array_equal(times.right, [300, 0, np.inf, np.inf])  # 1 lost nothing; 2 is back once, at the end
    eased, _ = efficiency.recovery(pd.DataFrame(rows), tolerance=0.1)
    np.testing.assert_array_equal(eased.right, [300, 0, 300, 300])  # 0.3 is enough


def test_recovery_of_a_method_without_a_switch_is_empty():
    times, seeds = efficiency.recovery(pd.DataFrame(curve([0.0, 0.5])))
    assert seeds.size == times.n == 0 and survival.summarise(times).text == "-"
