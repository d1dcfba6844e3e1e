"""The x axis: every rule on curves small enough to read off by eye, and what a curve says was done to it."""

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import curve, write_run

from analysis import ResultsError
from analysis.axes import align, common_steps, flop_curve, flop_per_env_step, smooth, wall_clock_curve
from analysis.efficiency import online_curve
from analysis.load import load


@pytest.fixture
def uneven():
    """Seed 0 evaluated at 0, 200, 400, seed 1 at 0, 100, 200, 300."""
    return online_curve(pd.DataFrame(curve([0.0, 0.4, 0.8], every=200) + curve([0.0, 0.3, 0.6, 0.9], every=100, seed=1)))


@pytest.mark.parametrize("rule, steps, values", [
    ("shared", [0, 200], [[0.0, 0.4], [0.0, 0.6]]),
    ("linear", [0, 100, 200, 300, 400], [[0.0, 0.2, 0.4, 0.6, 0.8], [0.0, 0.3, 0.6, 0.9, np.nan]]),
    ("last", [0, 100, 200, 300, 400], [[0.0, 0.0, 0.4, 0.4, 0.8], [0.0, 0.3, 0.6, 0.9, np.nan]]),
])  # fmt: skip
def test_the_rules_of_aligning(uneven, rule, steps, values):
    found = align(uneven, rule)
    np.testing.assert_array_equal(found.steps, steps)
    np.testing.assert_allclose(found.values, values, atol=1e-12)
    np.testing.assert_array_equal(found.evaluated, np.isfinite(values))
    assert "grids aligned" in found.statement and uneven.statement == "evaluations as they are, not smoothed"


def test_a_grid_of_ones_own(uneven):
    np.testing.assert_allclose(align(uneven, "linear", [50, 350]).values, [[0.1, 0.7], [0.15, np.nan]])
    np.testing.assert_allclose(align(uneven, "last", [50, 350]).values, [[0.0, 0.4], [0.0, np.nan]])
    assert align(uneven, "shared", [100, 200]).steps.tolist() == [200]
    with pytest.raises(ResultsError, match="rule 'spline' to align grids by; expected one of shared, linear, last"):
        align(uneven, "spline")


def test_what_is_not_finite_is_not_bridged():
    found = align(online_curve(pd.DataFrame(curve([0.0, np.nan, 0.8]))), "linear", [0, 50, 100, 150, 200])
    np.testing.assert_array_equal(np.isfinite(found.values[0]), [True, False, False, False, True])


def test_curves_are_compared_where_all_of_them_are(uneven):
    later = online_curve(pd.DataFrame(curve([0.1, 0.2], every=250, start=100)))
    assert common_steps([uneven, later]).tolist() == [100, 200, 300, 350]
    assert common_steps([]).size == 0


def test_smoothing_is_a_trailing_mean_and_says_so(uneven):
    found = smooth(uneven, 2)
    np.testing.assert_allclose(found.values[1, found.evaluated[1]], [0.0, 0.15, 0.45, 0.75])
    np.testing.assert_allclose(found.values[0, found.evaluated[0]], [0.0, 0.2, 0.6])
    assert found.statement == "smoothed: mean of a seed's last 2 evaluations"
    assert smooth(uneven, 1) is uneven
    with pytest.raises(ResultsError, match="a window of 0 evaluations"):
        smooth(uneven, 0)


def test_the_wall_clock_has_both_phases_and_says_whose_seconds():
    rows = pd.DataFrame(
        [row | {"wall_s": 10.0 * (i % 3) + row["seed"]} for i, row in enumerate(curve([0.1, 0.2, 0.3]) + curve([0.0, 0.1, 0.2], seed=1))]
    )
    rows.loc[[0, 3], "phase"] = "offline"
    found = wall_clock_curve(rows.assign(method="expo"))
    assert found.steps.tolist() == [0, 1, 10, 11, 20, 21] and "seconds of 2 seeds together" in found.statement
    np.testing.assert_allclose(align(found, "linear", [10.5]).values, [[0.205], [0.095]])
    rows.loc[1, "wall_s"] = np.nan
    with pytest.raises(ResultsError, match="maze/expo: seed 0 has rows without wall_s, so there is no wall-clock axis"):
        wall_clock_curve(rows.assign(method="expo"))


def program(flop, agent="expo", variant="", **cells) -> dict:
    return {"task": "maze", "agent": agent, "variant": variant, "flop_per_env_step": flop, "cells": [cells] if cells else []}


def test_flop_is_the_manifests(tmp_path):
    rows = [row for agent in ("expo", "idql") for row in curve([0.0, 0.5], agent=agent)]
    results = load(write_run(tmp_path / "run", rows, programs=[program(2e9), program(None, "idql"), program(7.0, variant="other")]))
    found = flop_curve(results, "maze", results.find("expo"))
    assert found.steps.tolist() == [0, 2e11] and found.statement == "2e+09 FLOP per environment step; the offline phase is not counted"
    with pytest.raises(ResultsError, match="maze/idql: no number of FLOP per environment step; expected one 'flop_per_env_step'"):
        flop_curve(results, "maze", results.find("idql"))


def test_flop_of_a_cell_is_that_of_its_program(tmp_path):
    rows = [
        row for n, scale in ((4, 0.1), (8, 0.1), (8, 0.3)) for row in curve([0.0, 0.5], **{"expo.n": n, "expo.scale": np.float32(scale)})
    ]
    small, large = program(1e9, **{"expo.n": 4, "expo.scale": 0.1}), program(2e9, **{"expo.n": 8, "expo.scale": 0.1})
    large["cells"].append({"expo.n": 8, "expo.scale": 0.3})
    results = load(write_run(tmp_path / "run", rows, programs=[small, large]))
    assert [flop_per_env_step(results, "maze", method) for method in results.methods] == [1e9, 2e9, 2e9]


def test_contradicting_programs_are_one_line(tmp_path):
    results = load(write_run(tmp_path / "run", curve([0.0, 0.5]), programs=[program(1e9), program(2e9)]))
    with pytest.raises(ResultsError, match="maze/expo: 2 different numbers of FLOP"):
        flop_per_env_step(results, "maze", results.find("expo"))
