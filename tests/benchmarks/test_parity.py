"""The parity command's bookkeeping and statistics; what it measures is measured by command."""

import numpy as np
import pytest

from benchmarks.parity import __main__ as command
from benchmarks.parity import adroit, table
from benchmarks.parity.intervals import difference_of_means, difference_of_rates
from benchmarks.parity.table import Row


def pairs(both: int, first: int, second: int, neither: int):
    """Paired outcomes with these counts."""
    a = np.repeat([True, True, False, False], (both, first, second, neither))
    return a, np.repeat([True, False, True, False], (both, first, second, neither))


def test_the_score_interval_of_paired_rates():
    # Tango (1998), table 1: one pair of 44 differs.
    assert difference_of_rates(*pairs(43, 1, 0, 0)) == pytest.approx((0.0227, -0.0594, 0.1181), abs=2e-3)
    mean, low, high = difference_of_rates(*pairs(100, 0, 0, 0))
    assert mean == 0 and high == -low == pytest.approx(0.0370, abs=1e-4)
    assert difference_of_rates(*pairs(20, 30, 10, 40))[0] == 0.2
    swapped = difference_of_rates(*pairs(20, 10, 30, 40))
    assert swapped == pytest.approx(tuple(-x for x in np.array(difference_of_rates(*pairs(20, 30, 10, 40)))[[0, 2, 1]]), abs=1e-9)


def test_the_score_interval_covers():
    rng = np.random.default_rng(0)
    first, second = rng.random((600, 100)), rng.random((600, 100))
    a = first < 0.8
    b = np.where(second < 0.3, second < 0.21, a)  # three in ten are drawn anew, at 0.7
    inside = [low <= 0.8 - (0.7 * 0.8 + 0.3 * 0.7) <= high for _, low, high in map(difference_of_rates, a, b)]
    assert 0.92 < np.mean(inside) < 0.975


def test_the_interval_of_paired_means():
    a, b = np.array([0.5, 0.7, 0.9, 0.5]), np.array([0.4, 0.6, 0.6, 0.4])
    assert difference_of_means(a, b) == pytest.approx((0.15, 0.15 - 1.96 * 0.05, 0.15 + 1.96 * 0.05), abs=1e-4)


OLD = [Row("pen", "steps", "C", "error", 1e-9), Row("pen", "rates", "C", "steps/s", 9.0), Row("door", "steps", "C", "error", 0.0)]


def test_new_rows_replace_those_of_the_same_variant(tmp_path):
    new = [
        Row("pen", "steps", "C", "error", 2e-9),
        Row("pen", "steps", "MJX", "contact", "palm-pen (step 3)"),
        Row("pen", "steps", "MJX", "success", 0.5, 0.4, 0.6),
    ]
    rows = table.merged(OLD, new)
    assert len(rows) == 5 and [row.part for row in rows] == ["rates"] + 4 * ["steps"] and OLD[0] not in rows
    table.write(tmp_path / "p.csv", rows)
    again = table.read(tmp_path / "p.csv")
    assert [(r.task, r.variant, r.metric, r.low) for r in again] == [(r.task, r.variant, r.metric, r.low) for r in rows]
    assert table.markdown(again, "steps", ("door", "pen")) == table.markdown(rows, "steps", ("door", "pen"))
    assert table.markdown(rows, "steps", ("door", "pen")).splitlines()[2:] == [
        "| `door` | C |  |  | 0 |",
        "| `pen` | C |  |  | 2e-09 |",
        "| `pen` | MJX | palm-pen (step 3) | 0.5 [+0.40, +0.60] |  |",
    ]
    assert table.read(tmp_path / "none.csv") == []


def test_tables_lie_between_their_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- ant: steps -->\nold\n<!-- end of ant: steps -->\nafter\n")
    table.into_page(page, "ant", "steps", "new\n")
    assert page.read_text() == "before\n<!-- ant: steps -->\nnew\n<!-- end of ant: steps -->\nafter\n"
    with pytest.raises(ValueError, match="expected the marks"):
        table.into_page(page, "ant", "rates", "new\n")


def test_the_committed_pages_are_made_of_the_committed_numbers():
    rows = table.read(command.CSV)
    for family in command.FAMILIES:
        page = (command.DOCS / family.PAGE).read_text()
        for part in family.PARTS:
            assert f"<!-- {family.NAME}: {part} -->\n{table.markdown(rows, part, family.TASKS)}<!-- end" in page


def test_where_two_trajectories_part():
    contacts = [{"ball-table"}, {"ball-table"}, {"ball-table", "ball-palm"}, {"ball-thumb"}]
    parting = lambda *apart: adroit._parting(np.array(apart), contacts)
    assert parting(False, False, False, True) == {"apart from step": 4, "last new contact": "ball-thumb (step 4)"}
    assert parting(False, True, True, True) == {"apart from step": 2, "last new contact": "ball-table (step 1)"}
    assert parting(False, False, False, False) == {"apart from step": "never", "last new contact": ""}


def test_one_process_per_task_and_precision(monkeypatch, tmp_path):
    asked = []
    answers = lambda module, options, cold: asked.append((module, options, cold)) or {"rows": [], "error": "no"}
    monkeypatch.setattr(command, "child", answers)
    assert command.main(["--tasks", "pen", "--parts", "steps", "policy"]) == 1
    common = {"task": "pen", "data": None}
    expected = [{**common, "parts": "steps,policy", "precision": "float32"}, {**common, "parts": "steps", "precision": "float64"}]
    assert asked == [("parity.adroit", options, False) for options in expected]
