"""Bad input of a report: what can be shown is shown, and what was left out is named in one line."""

import re

import numpy as np
import pytest
from synthetic_runs import comparison, curve, evaluation, write_run

from analysis import ResultsError, summary
from analysis.findings import find
from analysis.load import load
from analysis.report import write_report
from analysis.verdict import overall_sentence


def text_of(path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", path.read_text(encoding="utf-8")))


def left_out(results) -> list[str]:
    notes = [note for note in results.notes if note.startswith("Left out: ")]
    assert not any("\n" in note for note in notes)
    return notes


def test_a_folder_that_is_no_result_is_named_and_the_others_are_shown(run, tmp_path):
    (tmp_path / "photos").mkdir()
    results = load([tmp_path / "photos", run, tmp_path / "nowhere"], partial=True)
    assert len(results.frame) == len(load(run).frame)
    first, second = left_out(results)
    assert "photos: not a run folder" in first and "nowhere: no such folder" in second
    with pytest.raises(ResultsError, match="photos: not a run folder"):
        load([tmp_path / "photos", tmp_path / "nowhere"], partial=True)


def test_a_half_written_file_is_named_on_the_page(run, tmp_path):
    path = run / "results" / "0001.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    results = load(run, partial=True)
    assert 0 < len(results.frame) < len(comparison(("maze", "door")))
    (note,) = left_out(results)
    assert "0001.parquet: cannot be read, half-written" in note
    page = text_of(write_report(run, out=tmp_path / "page.html"))
    assert page.index("0001.parquet: cannot be read") < page.index("Learning curves")


def test_only_half_written_files_are_an_error(tmp_path):
    run = write_run(tmp_path / "run", curve([0.1, 0.2]))
    (run / "results" / "0000.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match="0000.parquet: cannot be read"):
        write_report(run)


def test_of_two_experiments_with_one_name_the_first_is_shown(tmp_path):
    first, second = write_run(tmp_path / "a", curve([0.1, 0.2])), write_run(tmp_path / "b", curve([0.1, 0.3]))
    results = load([first, second], partial=True)
    assert list(results.frame["score"]) == [0.1, 0.2] and len(results.manifests) == 1
    (note,) = left_out(results)
    assert "two different results of experiment 'trial'" in note and "b/results/0000.parquet" in note


def test_agents_without_a_common_task(tmp_path):
    rows = [row for seed in range(3) for row in curve([0.1, 0.5 + 0.1 * seed], seed=seed)]
    rows += [row for seed in range(3) for row in curve([0.1, 0.4], task="door", agent="idql", seed=seed)]
    run = write_run(tmp_path / "run", rows)
    findings = find(load(run), "expo")
    assert findings.common[0] == [] and "expo and idql: no task on which all have a finite score" in findings.common[1][0]
    assert overall_sentence(findings) == "Over 2 tasks, no other method shares a task and seeds with expo: nothing to compare it with."
    page = text_of(write_report(run))
    assert "no task on which all have a finite score" in page
    assert "expo ends at 0.60" in page and "idql ends at 0.40 [all equal]" in page


def test_one_seed_and_scores_that_are_no_number(tmp_path):
    rows = curve([0.1, 0.9]) + curve([np.nan, np.nan], agent="idql", success=np.nan) + curve([0.1, 0.3], agent="rlpd")
    run = write_run(tmp_path / "run", rows)
    findings = find(load(run), "expo")
    assert [one.other.label for one in findings.overall] == ["rlpd"] and np.isnan(findings.overall[0].p)
    assert "cannot be told from 1 (rlpd)" in overall_sentence(findings) and "+0.600 [one seed]" in overall_sentence(findings)
    page = text_of(write_report(run))
    assert "one seed only for expo, idql, rlpd" in page and "no finite final score for seed 0 of idql" in page


def test_results_without_a_single_number(tmp_path):
    rows = [row for agent in ("expo", "idql") for row in curve([np.nan, np.nan], agent=agent, success=np.nan)]
    page = text_of(write_report(write_run(tmp_path / "run", rows)))
    assert "No method has a final score." in page and "nothing to compare it with" in page


PLAN = {
    "protocols": {
        "maze/expo/": {"online_steps": 300}, "maze/idql/": {"online_steps": 300}, "maze/expo/random selection": {"online_steps": 300},
        "door/expo/": {"online_steps": 300},
    },
    "finished": None,
}  # fmt: skip


def test_an_unfinished_run_says_what_is_missing(tmp_path):
    rows = [row for seed in range(2) for row in curve([0.1, 0.2, 0.3, 0.4], seed=seed)]
    rows += [row for seed in range(2) for row in curve([0.1, 0.2], agent="idql", seed=seed)]
    run = write_run(tmp_path / "run", rows, **PLAN)
    findings = find(load(run), "expo")
    (progress,) = findings.progress
    assert progress.running == {("maze", "idql"): (100, 300)}
    assert set(progress.waiting) == {("maze", "expo (random selection)"), ("door", "expo")}
    assert (
        "1 of 4 methods complete; idql on maze at step 100 of 300; nothing yet on maze expo (random selection); on door expo."
        in progress.text
    )
    page = text_of(write_report(run))
    assert page.count("idql [unfinished: step 100 of 300]") == 2 and page.index("1 of 4 methods complete") < page.index("Learning curves")


def test_an_overall_sentence_counts_after_holm(tmp_path):
    shift = {"expo": 0.0, "idql": -0.4, "rlpd": -0.01, "sac": 0.2}
    rng = np.random.default_rng(0)
    rows = []
    for task in ("door", "maze"):
        for seed in range(6):
            for agent, gap in shift.items():
                score = 0.6 + gap + 0.05 * rng.standard_normal()
                rows += [evaluation(task=task, agent=agent, seed=seed, env_step=step, score=score) for step in (0, 100)]
    findings = find(load(write_run(tmp_path / "run", rows)), "expo")
    better, worse, level = ([one.other.label for one in part] for part in findings.judged)
    assert (better, worse, level) == (["idql"], ["sac"], ["rlpd"])
    said = overall_sentence(findings)
    assert said.startswith("Over 2 tasks, expo ends above 1 of 3 other methods, below 1 (sac), and cannot be told from 1 (rlpd)")
    assert re.search(r"its difference to sac, the strongest of them, is -0\.(1[6-9]|2[0-4])\d \[-0\.", said)
    own = findings.by_name[("door", "expo")]
    pair = summary.compare(own, findings.by_name[("door", "rlpd")])
    assert [pair.other.label for pair, _ in findings.needed] == ["rlpd", "rlpd"] and findings.needed[0][
        0
    ].interval.mean == pair.interval.mean
