"""The intervals cover: the known reference values, the defaults of `analysis` against the measured table, and the simulation itself."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import aggregate, comparisons, efficiency, intervals, survival
from benchmarks import coverage
from benchmarks import coverage_designs as designs

DOCS = coverage.ROOT / "docs"


SIMULATIONS = 1_000


def measured(quantity: str, design: str, n: int, *kinds: str, simulations: int = SIMULATIONS) -> list[coverage.Row]:
    case = next(case for case in coverage.cases() if (case.quantity, case.design) == (quantity, design))
    return coverage.measure(case, n, simulations, kinds)


def near(share: float, expected: float) -> bool:
    """Within four standard errors of the simulation."""
    return abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / SIMULATIONS)


def test_a_percentile_bootstrap_of_five_seeds_covers_83_percent():
    bootstrap, student = measured("mean", "normal", 5, "percentile", "t")
    assert near(bootstrap.coverage, 0.84) and near(student.coverage, 0.95)


def test_t_covers_90_percent_on_success_rates():
    (student,) = measured("mean", "success", 5, "t")
    assert near(student.coverage, 0.895)


def test_seeds_that_solve_or_do_not_leave_a_third_without_width():
    for row in measured("mean", "solve 0.8", 5, "t", "percentile"):
        # by hand: all five alike in 0.8^5 + 0.2^5 = 0.328; of the rest, only one solved of five (0.0064) misses
        assert near(row.zero_width, 0.328) and near(row.coverage, 1 - 0.328 - 0.0064)


@pytest.mark.parametrize("quantity, design, n, kind, least", [
    ("iqm", "normal", 3, "scaled", 0.94),
    ("iqm", "success", 3, "scaled", 0.85),
    ("median", "normal", 3, "scaled", 0.95),
    ("difference", "normal", 5, "t", 0.93),
    ("improvement", "normal", 3, "score", 0.93),
    ("improvement", "solve", 3, "score", 0.95),
])  # fmt: skip
def test_defaults_cover_where_a_percentile_bootstrap_does_not(quantity, design, n, kind, least):
    default, bootstrap = measured(quantity, design, n, kind, "percentile", simulations=500)
    assert default.coverage > least > bootstrap.coverage and default.unbounded == 0


@pytest.mark.parametrize("quantity, kind", [("time", "log t"), ("time ratio", "outer log t")])
@pytest.mark.parametrize("design", designs.TIMES)
def test_times_and_their_ratios_are_covered(quantity, design, kind):
    (row,) = measured(quantity, design, 5, kind)
    assert row.coverage > (0.91 if design == "solve" else 0.94) and row.unbounded == 0


def test_the_aggregate_over_tasks_covers_where_rliables_bootstrap_does_not():
    corrected, bootstrap = measured("iqm of 5 tasks", "normal", 3, "inflated", "percentile", simulations=150)
    assert corrected.coverage > 0.9 > bootstrap.coverage


def test_the_defaults_are_those_of_the_measured_table():
    chosen = coverage.defaults(coverage.read(DOCS / "coverage.csv"))
    for quantity, kinds in intervals.DEFAULT.items():
        few, more = chosen[f"{quantity}, fewer than {intervals.FEW} seeds"], chosen[f"{quantity}, {intervals.FEW} seeds or more"]
        assert (few, more) == kinds, quantity
    assert chosen["difference"] == comparisons.DIFFERENCE and chosen["improvement"] == comparisons.IMPROVEMENT
    assert chosen["time ratio"] == f"outer {comparisons.RATIO}" and chosen["paired difference"] == "t"
    assert chosen["time"] == "log t" and chosen["optimality gap"] == intervals.DEFAULT["mean"][0]
    for quantity, kind in aggregate.DEFAULT.items():
        assert {chosen[f"{quantity} of {count} tasks"] for count in (2, 5)} == {kind}, quantity
    assert chosen["profile of 5 tasks"] == aggregate.PROFILE and chosen["improvement over 5 tasks"] == aggregate.IMPROVEMENT


def test_the_committed_tables_are_those_of_the_committed_numbers():
    rows = coverage.read(DOCS / "coverage.csv")
    assert coverage.tables(rows) in (DOCS / "coverage.md").read_text(encoding="utf-8")
    assert {row.n for row in rows} == set(coverage.SEEDS) and max(row.simulations for row in rows) == coverage.SIMULATIONS


def row(kind: str, value: float, unbounded: float = 0.0, n: int = 5) -> coverage.Row:
    return coverage.Row("mean", "normal", kind, n, value, 1.0, 0.0, unbounded, 100)


@pytest.mark.parametrize("rows, chosen", [
    ([row("a", 0.97), row("b", 0.96), row("c", 0.90)], "b"),  # nearest from above
    ([row("a", 0.80), row("b", 0.90)], "b"),  # none reaches it: the nearest
    ([row("a", 0.955, unbounded=0.5), row("b", 0.93)], "b"),  # an infinite interval is no interval
    ([row("a", 0.99, unbounded=0.5), row("b", 0.96, unbounded=0.5)], "b"),  # unless all are
    ([row("a", 0.948), row("b", 0.99)], "a"),  # within the error of the simulation
    ([row("a", 0.956), row("b", 0.952)], "a"),  # equal within it: the first
    ([row("a", 0.966), row("b", 0.952)], "b"),
    ([row("a", 0.99), row("a", 0.85), row("b", 0.93), row("b", 0.93)], "b"),  # what is above does not make up for what is below
])  # fmt: skip
def test_the_rule(rows, chosen):
    assert coverage.choose(rows) == chosen


def test_the_command_writes_both_files_and_keeps_the_prose(tmp_path, capsys):
    arguments = ["--simulations", "20", "--seeds", "3", "5", "--quantities", "paired difference", "--out", str(tmp_path)]
    assert coverage.main(arguments) == 0
    page = tmp_path / "coverage.md"
    page.write_text(page.read_text().replace("# Coverage of intervals", "# Coverage\n\nA reading."))
    assert coverage.main(arguments) == 0
    assert "A reading." in page.read_text() and page.read_text().count("### Paired difference (20 simulations)") == 1
    assert {row.simulations for row in coverage.read(tmp_path / "coverage.csv")} == {20}
    assert coverage.main([*arguments[:5], "--quantities", "time", "--out", str(tmp_path)]) == 0  # the others keep their rows
    assert [row.quantity for row in coverage.read(tmp_path / "coverage.csv")] == 18 * ["paired difference"] + 12 * ["time"]
    assert coverage.main(["--quantities", "nothing"]) == 2 and "expected some of: mean" in capsys.readouterr().err


def test_the_true_values_of_the_designs():
    rng = np.random.default_rng(0)
    for x, y in designs.TWO.values():
        a, b = x.sample(rng, (400_000,)), y.sample(rng, (400_000,))
        assert designs.better(x, y) == pytest.approx(np.mean((a > b) + 0.5 * (a == b)), abs=0.003)
        assert designs.gap(x, y).quantity("mean") == pytest.approx((a - b).mean(), abs=0.003)
        assert x.above(0.5) == pytest.approx((a > 0.5).mean(), abs=0.003)
        assert x.lack(0.7) == pytest.approx(np.maximum(0.7 - a, 0).mean(), abs=0.003)
    rates = designs.success(0.8)
    drawn = rates.sample(rng, (400_000,))
    assert rates.quantity("iqm") == pytest.approx(stats.trim_mean(drawn, 0.25), abs=0.003)
    assert rates.quantity("median") == np.median(drawn) and rates.quantity("mean") == pytest.approx(0.8)
    for arrival in (designs.Arrival(12.0), designs.Arrival(6.0, share=0.8)):
        left, right = arrival.sample(rng, (400_000,))
        middle = (np.minimum(left, designs.HORIZON) + np.minimum(right, designs.HORIZON)) / 2
        assert arrival.mean() == pytest.approx(middle.mean(), rel=0.003)
        assert np.median(left) <= arrival.middle() <= np.median(right)


def test_the_simulated_brackets_are_those_of_the_curves():
    above = np.random.default_rng(0).random((60, 7)) < 0.5
    rows = pd.DataFrame([
        {"seed": seed, "phase": "online", "env_step": step, "grad_step": step, "score": float(hit)}
        for seed, hits in enumerate(above) for step, hit in enumerate(hits)
    ])  # fmt: skip
    expected = efficiency.times_to(efficiency.online_curve(rows), 1.0)
    left, right = designs.brackets(above)
    np.testing.assert_array_equal(left, expected.left)
    np.testing.assert_array_equal(right, expected.right)


def test_the_simulated_ratio_is_that_of_the_package():
    rng = np.random.default_rng(0)
    slow, fast = (arrival.sample(rng, (1, 6)) for arrival in designs.TIMES["solve"])
    case = next(case for case in coverage.cases() if (case.quantity, case.design) == ("time ratio", "solve"))
    low, high = case.kinds["outer log t"]((slow, fast), rng)
    found = survival.ratio(*(survival.Times(left[0], right[0], designs.HORIZON) for left, right in (slow, fast))).interval
    assert (low.item(), high.item()) == pytest.approx((found.low, found.high), rel=1e-6)
