"""The table over several experiments: each cell is the right rows' last evaluation."""

import pytest
from synthetic_runs import comparison, curve, write_run

from analysis import ResultsError
from analysis.matrix import matrix


def test_a_column_per_experiment_and_task_and_a_line_per_method(run, tmp_path):
    other = [row | {"experiment": "other", "score": row["score"] / 2, "success": row["score"] / 2} for row in comparison(("maze",))]
    other = [row for row in other if row["agent"] != "idql"]
    header, rows = matrix([run, write_run(tmp_path / "other", other)])
    assert header == ["method", "door trial", "maze trial", "maze other"]
    cells = {row[0]: row[1:] for row in rows}
    assert list(cells) == ["expo", "expo (random selection)", "bc", "idql"]
    assert [cell[:4] for cell in cells["expo"]] == ["0.95", "0.95", "0.48"]  # seeds 1.0, 0.95, 0.9
    assert cells["idql"][1].startswith("0.65") and cells["idql"][2] == "-"
    assert cells["bc"][0].startswith("0.20 [all equal]")  # never went online: its last offline evaluation


def test_any_number_of_the_results_is_a_metric(tmp_path):
    rows = [row | {"q_bias": 2.0 * row["score"]} for seed in range(3) for row in curve([0.1, 0.5 + 0.1 * seed], seed=seed)]
    header, cells = matrix([write_run(tmp_path / "run", rows)], ("success", "q_bias"))
    assert header == ["method", "maze success", "maze q_bias"]
    assert cells[0][1].startswith("0.60 [") and cells[0][2].startswith("1.20 [")


def test_an_unknown_metric_is_named(run):
    with pytest.raises(ResultsError, match="no metric 'reward' in these results; expected one of: .*success"):
        matrix([run], ("reward",))
