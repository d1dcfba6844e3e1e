"""What is read off learning curves, on curves small enough to read off by eye."""

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import curve, evaluation

from analysis import efficiency


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
    assert efficiency.summarise_steps(efficiency.online_curve(rows), 0.8).text == "-"


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


@pytest.mark.parametrize("scores, steps", [
    ([0.0, 0.8, 0.8], 100),
    ([0.9, 0.9, 0.0], 0),
    ([0.9, 0.1, 0.9, 0.1], np.inf),  # never twice in a row
    ([0.0, 0.9, np.nan, 0.9, 0.9], 300),
    ([0.1, 0.2, 0.9], np.inf),  # once, at the very end
    ([0.9], np.inf),
])  # fmt: skip
def test_steps_to_a_threshold_need_two_in_a_row(scores, steps):
    np.testing.assert_array_equal(efficiency.steps_to(online(scores), 0.8), [steps])


def test_steps_when_every_seed_got_there():
    summary = efficiency.summarise_steps(online([0.0, 0.9, 0.9, 0.9], [0.0, 0.0, 0.9, 0.9], [0.0, 0.9, 0.9, 0.9]), 0.8)
    assert (summary.reached, summary.n, summary.median) == (3, 3, 100)
    assert summary.text == "133 [-10, 277]"


def test_steps_when_most_or_few_got_there():
    there, never = [0.0, 0.9, 0.9], [0.0, 0.1, 0.1]
    most = efficiency.summarise_steps(online(there, never, there), 0.8)
    assert most.interval is None and most.text == "median 100 (2 of 3)"
    assert efficiency.summarise_steps(online(there, never), 0.8).text == ">200 (1 of 2)"
    assert efficiency.summarise_steps(online(never, never), 0.8).text == ">200 (0 of 2)"
    assert efficiency.summarise_steps(online(there), 0.8).text == "100 [one seed]"
    assert efficiency.summarise_steps(online(there, there), 0.8).text == "100 [all equal]"


def test_the_drop_is_the_first_online_evaluation_minus_the_last_offline_one():
    rows = []
    for seed, after in ((0, 0.1), (1, 0.5)):
        rows += [evaluation(phase="offline", grad_step=step, score=0.4, seed=seed) for step in (500, 1000)]
        rows += curve([0.9, after, 0.7], seed=seed)  # the one at step 0 is still the offline policy
    rows += curve([0.0, 0.1], seed=2)  # no offline phase: no drop
    drop, seeds = efficiency.switch_drop(pd.DataFrame(rows))
    np.testing.assert_allclose(drop, [-0.3, 0.1])
    np.testing.assert_array_equal(seeds, [0, 1])
