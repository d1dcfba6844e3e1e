"""The published numbers: well formed, those of the papers, and never beside a quantity they are not."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import comparison, curve, evaluation, write_run

import analysis
from analysis import ResultsError, published, summary
from analysis.figures import style
from analysis.figures.curves import learning_curves
from analysis.figures.drawing import paper_figure
from analysis.load import load
from analysis.published import beside
from analysis.report import write_report


def test_every_row_is_well_formed():
    frame = published.load()
    assert tuple(frame.columns) == published.COLUMNS
    text = frame.drop(columns=["env_step", "score", "low", "high", "seeds", "differs"])
    assert text.notna().all(axis=None) and (text.astype(str) != "").all(axis=None) and frame["differs"].notna().all()
    for name, allowed in (
        ("metric", published.METRICS), ("setting", published.SETTINGS), ("interval", published.INTERVALS), ("phase", ("offline", "online")),
    ):  # fmt: skip
        assert set(frame[name]) == set(allowed)
    assert not frame.duplicated(["key", "task", "metric", "method", "phase", "env_step"]).any()
    shares = frame[frame["metric"] != "normalised"]
    assert shares["score"].between(0, 1).all() and (frame["env_step"] >= 0).all() and (frame["seeds"].dropna() >= 3).all()
    assert (frame.loc[frame["phase"] == "offline", "env_step"] == 0).all()
    assert frame["agent"].str.fullmatch(r"[a-z][a-z0-9_]*").all() and frame["source"].str.contains(r"arXiv \d{4}\.\d{5}").all()


def test_bounds_enclose_the_score_and_say_what_they_are():
    frame = published.load()
    bounded = frame["interval"] != "none"
    assert (frame["low"].notna() == bounded).all() and (frame["high"].notna() == bounded).all() and bounded.sum() > 2000
    rows = frame[bounded]
    assert (rows["low"] <= rows["score"] + 1e-9).all() and (rows["score"] <= rows["high"] + 1e-9).all()
    deviations = rows[rows["interval"] == "standard deviation"]
    np.testing.assert_allclose(deviations["score"] - deviations["low"], deviations["high"] - deviations["score"], atol=1.1e-4)


def test_a_changed_copy_changes_nothing():
    frame = published.load()
    frame["score"] = 0.0
    assert published.load()["score"].max() > 1


@pytest.mark.parametrize("key, task, metric, method, phase, step, score, spread", [
    ("expo-fig4-curve", "antmaze-large-diverse", "success", "EXPO", "online", 20_000, 0.50, None),
    ("expo-fig4-curve", "robomimic-lift", "success", "EXPO", "online", 120_000, 0.94, None),
    ("expo-fig4-curve", "door", "solved", "EXPO", "online", 50_000, 0.41, None),
    ("expo-fig5-curve", "relocate", "solved", "EXPO", "online", 775_000, 0.23, None),
    ("expo-fig5-curve", "robomimic-square", "success", "EXPO", "online", 250_000, 0.95, None),
    ("expo-fig4-read", "mimicgen-threading", "success", "RLPD", "online", 80_000, 0.10, None),
    ("expo-fig4-read", "robomimic-can", "success", "DAC", "online", 120_000, 0.69, None),
    ("expo-fig5-read", "relocate", "solved", "Cal-QL", "online", 775_000, 0.53, None),
    ("expo-fig5-read", "antmaze-medium-play", "success", "IDQL", "online", 20_000, 0.65, None),
    ("fql-table4", "antmaze-large-play", "success", "FQL", "online", 1_000_000, 0.84, 0.30),
    ("fql-table4", "pen", "normalised", "FQL", "online", 1_000_000, 1.49, 0.06),
    ("fql-table4", "cube-double-play-singletask-task2-v0", "success", "IFQL", "offline", 0, 0.12, 0.09),
    ("fql-table2", "humanoidmaze-medium-navigate", "success", "IFQL", "offline", 0, 0.60, None),
    ("fql-table2", "antmaze-medium-diverse", "success", "IDQL", "offline", 0, 0.85, None),
    ("corl", "antmaze-large-diverse", "success", "Cal-QL", "online", 1_000_000, 0.915, 0.0391),
    ("corl", "antmaze-umaze-diverse", "success", "AWAC", "online", 1_000_000, 0.0, 0.0),
    ("corl", "door", "normalised", "IQL", "online", 1_000_000, 0.2034, 0.0932),
    ("qc", "cube-triple-play", "success", "QC", "online", 1_000_000, 0.64, 0.025),
    ("qc", "robomimic-square", "success", "QC-FQL", "offline", 0, 0.37, None),
    ("qc", "scene-play", "success", "RLPD", "online", 1_000_000, 0.942, 0.016),
    ("qam", "cube-triple-play", "success", "FEdit", "online", 500_000, 0.40, 0.12),
    ("qam", "antmaze-giant-navigate", "success", "QSM", "offline", 0, 0.15, None),
    ("qam", "puzzle-3x3-play", "success", "DAC", "online", 500_000, 0.38, 0.05),
    ("qam", "scene-play-singletask-task2-v0", "success", "FEdit", "offline", 0, 0.968, 0.029),
])  # fmt: skip
def test_the_numbers_are_those_of_the_sources(key, task, metric, method, phase, step, score, spread):
    frame = published.load()
    at = {"key": key, "task": task, "metric": metric, "method": method, "phase": phase, "env_step": step}
    row = frame[np.logical_and.reduce([frame[name] == value for name, value in at.items()])]
    assert len(row) == 1
    rounding = 0.006 if key in ("qc", "qam") else 1e-9  # the facts give these two to whole per cents
    assert row["score"].item() == pytest.approx(score, abs=rounding)
    if spread is not None:
        assert (row["high"] - row["low"]).item() / 2 == pytest.approx(spread, abs=rounding)


@pytest.mark.parametrize("task, metric", [("antmaze-large-play", "success"), ("antmaze-medium-diverse", "success"), ("relocate", "solved")])
def test_all_methods_of_expos_figures_are_there(task, metric):
    finals = published.finals(task, metric)
    names = {n: set(finals.loc[finals["label"] == f"EXPO Fig. {n}", "agent"]) for n in (4, 5)}
    assert names == {4: {"expo", "rlpd", "idql", "dac", "qsm"}, 5: {"expo", "rlpd", "idql", "dac", "cal_ql"}}


def test_curves_are_series_in_the_order_of_their_steps():
    rows = published.curves("antmaze-large-diverse")
    assert set(rows["agent"]) == {"expo", "rlpd"} and set(rows["task"]) == {"antmaze-large-diverse"}
    for _, series in rows.groupby(["key", "method"]):
        assert len(series) >= 3 and series["env_step"].is_monotonic_increasing
    assert len(rows[rows["key"] == "expo-fig4-curve"]) == 21


def test_finals_are_the_last_of_each_phase():
    finals = published.finals("antmaze-umaze")
    cal_ql = finals[(finals["key"] == "corl") & (finals["method"] == "Cal-QL")]
    assert list(zip(cal_ql["phase"], cal_ql["env_step"], cal_ql["score"], strict=True)) == [
        ("offline", 0, 0.7675),
        ("online", 1_000_000, 0.9975),
    ]
    expo = published.finals("door", "solved").set_index("key").loc["expo-fig4-curve"]
    assert (expo["env_step"], expo["score"]) == (200_000, 0.65)


def test_a_name_that_means_something_else_says_so():
    frame = published.load().drop_duplicates(["key", "method"]).set_index(["key", "method"])["differs"]
    assert "UTD 1" in frame["qam", "RLPD"] and "UTD 1" in frame["fql-table4", "RLPD"] and "not EXPO" in frame["qam", "FEdit"]
    assert set(published.load().query("agent == 'expo'")["method"]) == {"EXPO"}


def test_unknown_tasks_have_no_numbers_and_unknown_metrics_are_refused():
    assert published.curves("push-disc").empty and published.finals("push-disc").empty
    with pytest.raises(ResultsError, match="no metric 'return'.*expected one of: success, solved, normalised"):
        published.finals("door", "return")


@pytest.mark.parametrize("task", published.ADROIT)
def test_normalised_returns_are_never_beside_the_share_of_steps_solved(task, tmp_path):
    rows = [row for agent in ("expo", "iql", "rlpd", "fql", "cal_ql") for row in curve([0.1, 0.5], task=task, agent=agent)]
    rows += [evaluation(phase="offline", grad_step=10, task=task)]
    results = load(write_run(tmp_path / "run", rows))
    assert published.metric_of(task) == "solved" and published.metric_of(task, "success") == "success"
    assert "normalised" in set(published.load().query("task == @task")["metric"])
    assert set(beside.drawn(results, task)["metric"]) <= {"solved"}
    assert beside.drawn(results, task, "success").empty
    _, cells, _ = beside.table(results, summary.summarise(results))
    assert not [row for row in cells if "CORL" in row[5] or "FQL" in row[5]]


def test_elsewhere_the_score_is_the_success_rate():
    assert {published.metric_of(task, column) for task in ("antmaze-large-play", "robomimic-lift") for column in ("score", "success")} == {
        "success"
    }


def test_what_is_drawn_is_of_the_agents_and_the_setting_of_the_run(tmp_path):
    online = curve([0.1, 0.5], task="door", agent="expo") + curve([0.1, 0.5], task="door", agent="rlpd")
    rows = beside.drawn(load(write_run(tmp_path / "online", online)), "door")
    assert set(rows["agent"]) == {"expo", "rlpd"} and set(rows["label"]) == {"EXPO Fig. 4"}
    both = [*online, evaluation(phase="offline", grad_step=10, task="door", agent="expo")]
    assert set(beside.drawn(load(write_run(tmp_path / "both", both)), "door")["label"]) == {"EXPO Fig. 5"}


def draw(tmp_path, every: int):
    run = load(
        write_run(
            tmp_path / f"run{every}",
            [row for agent in ("expo", "idql") for row in curve([0.1] * 11, every=every, task="door", agent=agent)],
        )
    )
    figure = paper_figure(learning_curves(run, summary.summarise(run), published=beside.drawn(run, "door")))
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    return figure, hollow


def test_published_curves_look_different_and_are_labelled(tmp_path):
    figure, hollow = draw(tmp_path, every=30_000)
    curve_line, final = hollow
    assert len(curve_line.get_xdata()) == 21 and curve_line.get_linestyle() == "--" and curve_line.get_linewidth() < 1
    assert list(final.get_xdata()) == [200_000] and final.get_linestyle() == "None"
    assert curve_line.get_color() not in (style.COLOURS["expo"].lower(), style.COLOURS["idql"].lower())
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["expo", "idql", "expo, as published (EXPO Fig. 4): 0.65 at 200k", "idql, as published (EXPO Fig. 4): 0.00 at 200k"]


def test_a_number_beyond_the_axis_stands_on_its_edge(tmp_path):
    figure, hollow = draw(tmp_path, every=100)
    assert figure.axes[0].get_xlim()[1] < 1100
    edge = [line for line in hollow if line.get_marker() == ">"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in edge] == [([1], [0.65]), ([1], [0.0])]


def test_offline_results_have_nothing_to_be_beside(tmp_path):
    rows = [evaluation(phase="offline", grad_step=step, task="antmaze-large-play", agent="fql") for step in (0, 10)]
    run = load(write_run(tmp_path / "run", rows))
    figure = paper_figure(learning_curves(run, summary.summarise(run), published=published.rows("antmaze-large-play")))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fql"]


def test_the_report_shows_them_only_when_asked(tmp_path):
    run = write_run(tmp_path / "run", comparison(("door", "maze")))
    plain = write_report(run).read_text()
    assert "as published" not in plain and "Published numbers" not in plain
    text = re.sub(r"<[^>]*>", " ", write_report(run, published=True).read_text())
    assert "expo, as published (EXPO Fig. 5): 0.65 at 200k" in text and "No published numbers for maze." in text
    assert "arXiv 2507.07986 v2, Figure 5" in text and "read by eye, +-0.03" in text and "0.95 [0.83, 1.07] at 400" in text


def test_the_table_gives_bounds_by_their_kind(tmp_path):
    rows = [row for task in ("antmaze-umaze", "scene-play") for row in curve([0.1, 0.5], task=task, agent="cal_ql")]
    results = load(write_run(tmp_path / "run", rows))
    header, cells, notes = beside.table(results, summary.summarise(results))
    found = {(row[0], row[1], row[2], row[3]) for row in cells}
    assert ("antmaze-umaze", "cal_ql", "1.00 ± 0.00 sd", "1,000,000") in found
    assert ("antmaze-umaze", "awac", "0.53 ± 0.09 sd", "after the offline phase") in found
    assert ("scene-play", "idql_online (BFN)", "0.99 [0.99, 1.00]", "1,000,000") in found
    assert ("scene-play", "bc", "0.05", "after the offline phase") in found
    assert len(header) == len(cells[0]) and [row[1] for row in cells][:2] == ["cal_ql", "cal_ql"] and len(notes) == len(set(notes)) == 5
    assert "0.50 [one seed] at 100" in cells[0]


def test_the_files_are_part_of_the_package():
    folder = Path(published.__file__).parent
    declared = tomllib.loads((Path(analysis.__file__).parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert declared["analysis.published"] == ["*.csv"]
    assert {path.stem for path in folder.glob("*.csv")} == {*published.PAPERS, "sources", "methods"}
