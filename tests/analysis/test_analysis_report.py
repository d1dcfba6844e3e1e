"""The report: what it says, that it stands alone, and that it says so where the data do not allow a statement."""

import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import comparison, curve, evaluation, write_run

from analysis import ResultsError, summary, tables
from analysis.appendix import protocol_differences
from analysis.load import load
from analysis.report import text_table, write_report
from analysis.verdict import verdict


class Page(HTMLParser):
    """Checks nesting, gathers the text, and everything the page would load."""

    VOID = {"meta", "br", "img", "link", "hr", "input"}

    def __init__(self):
        super().__init__()
        self.open, self.text, self.loads, self.ids, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.loads += [values[name] for name in ("src", "href", "xlink:href", "data", "srcset") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)


def read(path) -> tuple[Page, str]:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert not page.open
    return page, " ".join(" ".join(page.text).split())


def sentences(results, reference: str = "expo") -> str:
    return " ".join(text for _, lines in verdict(summary.summarise(results), results.find(reference)) for text in lines)


def test_the_page_is_well_formed_and_stands_alone(run):
    page, _ = read(write_report(run))
    assert all(target.startswith("#") for target in page.loads)
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.loads} <= set(page.ids)
    source = (run / "report.html").read_text()
    assert set(re.findall(r"url\((.)", source)) <= {"#"} and "@import" not in source
    assert set(re.findall(r"url\(#([^)]*)\)", source)) <= set(page.ids)
    assert "script" not in page.tags and page.tags.count("svg") == 8  # curves, pairs and variants of two tasks, profile, improvement


def test_the_verdict_comes_first_and_is_of_the_numbers(run):
    _, text = read(write_report(run))
    assert text.index("Verdict") < text.index("Learning curves") < text.index("Results")
    # finals are top - 0.05 seed: the pairs differ by exactly 0.2, 0.3 and 0.7 in every seed
    assert "expo has the highest final score, 0.95 [0.83, 1.07] over 3 seeds; against expo (random selection): +0.200" in text
    assert "expo against bc:" in text


def test_a_difference_that_is_separable_and_one_that_is_not(tmp_path):
    finals = {"expo": [0.9, 0.8, 1.0], "idql": [0.5, 0.45, 0.55], "rlpd": [0.2, 1.0, 0.9]}
    rows = [
        row for agent, scores in finals.items() for seed, score in enumerate(scores) for row in curve([0.0, score], agent=agent, seed=seed)
    ]
    results = load(write_run(tmp_path / "run", rows))
    by_label = {s.label: s for s in summary.summarise(results)}
    assert summary.compare(by_label["expo"], by_label["idql"]).separable
    assert not summary.compare(by_label["expo"], by_label["rlpd"]).separable
    text = sentences(results)
    assert "expo has the highest final score" in text and "not separable from 0 over 3 shared seeds" in text


def test_a_tie_is_a_tie(tmp_path):
    rows = [row for agent in ("expo", "idql") for seed in range(3) for row in curve([0.0, 1.0], agent=agent, seed=seed)]
    assert "expo and idql end level at the top, 1.00 [all equal]" in sentences(load(write_run(tmp_path / "run", rows)))


def test_one_seed_allows_no_verdict(tmp_path):
    run = write_run(tmp_path / "run", curve([0.0, 0.9, 0.9]) + curve([0.0, 0.3, 0.4], agent="idql"))
    _, text = read(write_report(run))
    assert "0.90 [one seed] over 1 seed; against idql: +0.500 [one seed], from which nothing follows" in text
    assert "one seed only for expo, idql" in text and "one seed, no band" in text


def test_one_method_alone(tmp_path):
    path = write_report(write_run(tmp_path / "run", curve([0.0, 0.9], agent="rlpd")))
    _, text = read(path)
    assert "no other method has a final score to compare with" in text and "No task has another method" in text


def test_results_without_expo_take_the_first_method_unless_one_was_asked_for(tmp_path):
    run = write_run(tmp_path / "run", [row for agent in ("rlpd", "idql") for row in curve([0.0, 0.9], agent=agent)])
    assert "idql minus the others" in read(write_report(run))[1]
    assert "rlpd minus the others" in read(write_report(run, reference="rlpd"))[1]
    with pytest.raises(ResultsError, match="no method 'exp'"):
        write_report(run, reference="exp")


def test_diverged_and_missing_seeds_are_named(tmp_path):
    rows = [row for seed in range(3) for row in curve([0.1, 0.5, 0.9], seed=seed)]
    rows += [row | {"diverged": row["env_step"] >= 100} for row in curve([0.1, np.nan, np.nan], agent="idql", seed=0)]
    rows += curve([0.1, 0.2, 0.3], agent="idql", seed=1, blowups=7) + curve([0.1, 0.2], agent="idql", seed=2)
    run = write_run(tmp_path / "run", rows, finished=None)
    seeds = summary.seed_remarks(load(run)).set_index("seed")
    assert list(seeds["method"]) == ["idql"] * 3
    assert seeds.loc[0, "diverged_at"] == "online 100" and seeds.loc[0, "not_finite"] == 2
    assert seeds.loc[1, "blowups"] == 7
    assert (seeds.loc[2, "last_step"], seeds.loc[2, "final_step"]) == (100, 200)
    _, text = read(write_report(run))
    assert "no finite final score for seed 0 2 of idql" in text and "1/3" in text and "not finished" in text


def test_methods_of_different_length_seeds_and_episodes_are_remarked(tmp_path):
    rows = [row for seed in range(2) for row in curve([0.1, 0.2, 0.3], seed=seed)]
    rows += [row for seed in range(1, 4) for row in curve([0.1, 0.2], agent="idql", seed=seed, eval_episodes=50)]
    results = load(write_run(tmp_path / "run", rows))
    summaries = summary.summarise(results)
    assert {s.window for s in summaries} == {(0.0, 100.0)}
    np.testing.assert_allclose(summaries[0].area, [0.15, 0.15])
    text = " ".join(summary.remarks(results, summaries))
    assert "end at different environment steps (expo: 200, idql: 100)" in text
    assert "different seeds (expo: 0 1, idql: 1-3)" in text and "different numbers of episodes (expo: 10, idql: 50)" in text
    assert summary.paired(summaries, results.find("expo"))[0].interval.n == 1


def test_no_common_stretch_and_no_shared_seed(tmp_path):
    rows = curve([0.1, 0.2]) + curve([0.1, 0.2], start=1000, agent="idql", seed=5)
    _, text = read(write_report(write_run(tmp_path / "run", rows)))
    assert "no shared seed, so no paired comparison" in text


def test_nothing_finite(tmp_path):
    _, text = read(write_report(write_run(tmp_path / "run", curve([np.nan, np.nan], success=np.nan))))
    assert "No method has a final score." in text


def test_names_from_files_are_escaped(tmp_path):
    evil = "<script>alert('$x_')</script>"
    rows = [row for agent in ("expo", evil) for row in curve([0.0, 0.5], agent=agent, task="../" + evil, variant='"><b>|', experiment=evil)]
    run = write_run(tmp_path / "run", rows, command=evil, device=evil, notes=[evil], versions={evil: evil},
                    protocols={"t/a/v": {evil: 1}, "t/b/": {evil: evil}},
                    programs=[{"task": evil, "agent": evil, "timings": None, "config": {evil: evil}}])  # fmt: skip
    path = write_report(run)
    page, text = read(path)
    assert "script" not in page.tags and "b" not in page.tags and evil in text
    assert "\\|" in tables.markdown(summary.summarise(load(run)))


def test_manifest_facts_are_shown(tmp_path):
    run = write_run(
        tmp_path / "run", comparison(), command="expo-bench sweep experiments/trial.py", device="cpu", git_commit="0123456789abcdef",
        versions={"jax": "0.9.9"}, precision="float32", notes=["resumed once"],
        protocols={"maze/expo/": {"utd": 20, "batch": 256}, "maze/expo/random selection": {"utd": 20, "batch": 256},
                   "maze/idql/": {"utd": 1, "batch": 256, "chunk": 4}},
        programs=[{"task": "maze", "agent": "expo", "variant": "", "rows": 3, "config": {"edit_scale": 0.125}, "env_steps_per_s": 1234.56,
                   "timings": {"compile_s": 31.25, "online_s": 5}}],
    )  # fmt: skip
    header, rows = protocol_differences(load(run))
    assert header == ["task", "field", "expo", "expo (random selection)", "idql"]
    assert rows == [["maze", "utd", "20", "20", "1"], ["maze", "chunk", "-", "-", "4"]]
    _, text = read(write_report(run))
    for part in ("experiments/trial.py", "0123456789abcdef", "0.9.9", "float32", "resumed once", "0.125", "31.2", "1,234.6"):
        assert part in text


def test_a_bare_manifest_is_enough(run):
    (run / "manifest.json").write_text(json.dumps({"experiment": "trial"}))
    _, text = read(write_report(run))
    assert "lists no protocols" in text and "lists no programs" in text and "not finished" in text


def test_success_is_shown_beside_a_score_that_differs(tmp_path):
    rows = [row | {"success": 1.0} for seed in range(3) for row in curve([0.1, 0.6 + 0.1 * seed], seed=seed)]
    run = write_run(tmp_path / "run", rows)
    write_report(run)
    text = (run / "report.html").read_text()
    assert "learning curve on maze, score" in text and "learning curve on maze, success" in text
    assert "0.70 [0.45, 0.95]  1.00 [all equal]" in text_table(load(run))


def test_the_terminal_table(run):
    lines = text_table(load(run)).splitlines()
    assert lines[0] == "door: final = at 400 environment steps or 1,000 offline gradient steps, 10 episodes per evaluation"
    assert lines[1].split() == "method n final success [95 %] AUC [95 %] steps to 80 %".split()
    assert lines[3].split() == "expo 3 0.95 [0.83, 1.07] 0.61 [0.56, 0.65] 250 [200, 300]".split()
    assert max(map(len, lines)) <= 110 and text_table(load(run)).isascii()


def test_a_long_label_is_cut_in_the_terminal_only(tmp_path):
    run = write_run(tmp_path / "run", curve([0.1, 0.2], variant="v" * 200))
    assert max(map(len, text_table(load(run)).splitlines())) <= 110
    assert "v" * 200 in write_report(run).read_text()


def test_the_csv_holds_numbers(run):
    table = pd.read_csv(io.StringIO(tables.csv_table(summary.summarise(load(run))))).set_index(["task", "method"])
    row = table.loc[("maze", "expo")]
    np.testing.assert_allclose([row["score_mean"], row["score_iqm"], row["steps_restricted_mean"]], [0.95, 0.95, 250])
    steps = [row[f"steps_{name}"] for name in ("restricted_low", "restricted_high", "median_from", "median_to")]
    np.testing.assert_allclose(steps, [200, 300, 200, 300])
    np.testing.assert_allclose(row["switch_change_mean"], 0.1)
    assert np.isnan(table.loc[("maze", "bc"), "auc_mean"]) and table.loc[("maze", "idql"), "threshold_reached"] == 0


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match="file/report.html: the report cannot be written"):
        write_report(run, out=tmp_path / "file")


def test_offline_only_results(tmp_path):
    rows = [
        evaluation(phase="offline", grad_step=s, score=0.1 * k * (seed + 1), seed=seed) for k, s in enumerate((0, 500)) for seed in (0, 1)
    ]
    _, text = read(write_report(write_run(tmp_path / "run", rows)))
    assert "0.15" in text and "gradient steps (offline phase)" in text


def test_a_reports_folder_may_be_loaded_again(run):
    write_report(run)
    assert text_table(load(run)) == text_table(load([run]))
