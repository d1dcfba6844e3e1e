"""Run folders in, one frame out; every bad input is one line that names the place."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import comparison, curve, evaluation, write_run

from analysis import ResultsError
from analysis.load import load


def fails(runs, *parts: str) -> None:
    with pytest.raises(ResultsError) as caught:
        load(runs)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_importing_the_package_is_light():
    heavy = "import sys, analysis; print([name for name in ('pandas', 'matplotlib', 'scipy', 'jax') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    table = heavy.replace("import sys, analysis;", "import sys, analysis.report;")
    shown = subprocess.run([sys.executable, "-c", table], capture_output=True, text=True, check=True).stdout
    assert "matplotlib" not in shown and "jax" not in shown


def test_files_are_concatenated_and_temporary_ones_ignored(run):
    (run / "results" / ".0007.parquet.tmp").write_bytes(b"half")
    (run / "results" / ".hidden.parquet").write_bytes(b"half")
    results = load(run)
    assert len(results.frame) == len(comparison(("maze", "door")))
    assert results.tasks == ["door", "maze"]
    assert results.labels == ["expo", "expo (random selection)", "bc", "idql"]
    assert (results.frame.groupby(["task", "method"])["seed"].nunique() == 3).all()


def test_the_order_of_methods_is_not_that_of_the_files(tmp_path):
    rows = comparison()
    left = load(write_run(tmp_path / "a", rows)).labels
    assert left == load(write_run(tmp_path / "b", rows[::-1], files=5)).labels


def test_cells_are_named_where_they_differ(tmp_path):
    rows = [row | {"expo.edit_scale": np.float32(scale), "expo.samples": 8} for scale in (0.5, 0.1, 0.05) for row in curve([0.1, 0.2])]
    rows += curve([0.3, 0.4], agent="idql")
    results = load(write_run(tmp_path / "run", rows))
    assert results.labels == ["expo edit_scale=0.05", "expo edit_scale=0.1", "expo edit_scale=0.5", "idql"]
    assert len(results.rows("maze", "expo edit_scale=0.1")) == 2


def test_a_cell_that_only_differs_between_tasks_is_no_method(tmp_path):
    rows = [
        row for task, alpha in (("maze", 10.0), ("door", 300.0)) for row in curve([0.1], task=task, agent="fql", **{"fql.alpha": alpha})
    ]
    assert load(write_run(tmp_path / "run", rows)).labels == ["fql"]


def test_cells_of_text_and_lists(tmp_path):
    rows = [row for rule in ("max", "random") for row in curve([0.1], **{"expo.selection": rule, "expo.widths": [256, 256]})]
    rows += curve([0.1], agent="rlpd")
    assert load(write_run(tmp_path / "run", rows)).labels == ["expo selection=max", "expo selection=random", "rlpd"]


def test_an_overridden_cell_beside_the_default(tmp_path):
    first = write_run(tmp_path / "a", curve([0.1, 0.2]))
    second = write_run(tmp_path / "b", curve([0.1, 0.2], **{"expo.edit_scale": 0.1}))
    assert load([first, second]).labels == ["expo", "expo edit_scale=0.1"]


def test_seeds_of_one_experiment_are_pooled_over_folders(tmp_path):
    folders = [write_run(tmp_path / name, curve([0.1, 0.2], seed=seed)) for seed, name in enumerate("ab")]
    results = load(folders)
    assert results.labels == ["expo"] and results.frame["seed"].nunique() == 2 and len(results.manifests) == 2


def test_two_experiments_stay_two(tmp_path):
    folders = [write_run(tmp_path / name, curve([0.1, 0.2], experiment=name)) for name in "ab"]
    assert load(folders).labels == ["expo [a]", "expo [b]"]


def test_equal_rows_count_once(tmp_path):
    first = write_run(tmp_path / "a", curve([0.1, 0.2, np.nan]))
    second = write_run(tmp_path / "b", [row | {"wall_s": 9.0} for row in curve([0.1, 0.2, np.nan, 0.4])])
    results = load([first, second])
    assert len(results.frame) == 4 and "3 rows were stored twice" in results.notes[0]


def test_a_folder_given_twice_counts_once(run):
    results = load([run, run / ".." / run.name])
    assert len(results.frame) == len(load(run).frame) and "twice" in results.notes[0]


def test_clashing_rows_name_both_files(tmp_path):
    first, second = write_run(tmp_path / "a", curve([0.1, 0.2])), write_run(tmp_path / "b", curve([0.1, 0.3]))
    fails([first, second], "a/results/0000.parquet", "b/results/0000.parquet", "maze/expo seed 0", "online step 100")


def test_control_characters_do_not_get_through(tmp_path):
    results = load(write_run(tmp_path / "run", curve([0.1], task="maze\x1b[31m")))
    assert results.tasks == ["maze?[31m"]


def test_folders_that_are_none(tmp_path):
    fails([], "no run folder given")
    fails(tmp_path / "nowhere", "nowhere", "no such folder")
    fails(tmp_path, "not a run folder", "manifest.json")


def test_no_results_yet(tmp_path):
    folder = write_run(tmp_path / "run", curve([0.1]))
    (folder / "results" / "0000.parquet").rename(folder / "results" / ".0000.parquet.tmp")
    fails(folder, "no results yet")
    pd.DataFrame([evaluation()]).iloc[:0].to_parquet(folder / "results" / "0000.parquet")
    fails(folder, "no results yet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all"])
def test_an_unreadable_file_is_named(run, content):
    (run / "results" / "0002.parquet").write_bytes(content)
    fails(run, "0002.parquet", "cannot be read")


def test_a_half_written_file_is_named(run):
    path = run / "results" / "0001.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    fails(run, "0001.parquet", "half-written")


@pytest.mark.parametrize("change, part", [
    (lambda frame: frame.drop(columns=["score", "diverged"]), "missing column score, diverged"),
    (lambda frame: frame.assign(score="high"), "column 'score' holds 'high'; expected a number"),
    (lambda frame: frame.assign(seed=0.5), "column 'seed' holds 0.5; expected a whole number"),
    (lambda frame: frame.assign(env_step=np.nan), "'env_step'"),
    (lambda frame: frame.assign(phase="warm-up"), "column 'phase' holds 'warm-up'; expected 'offline' or 'online'"),
    (lambda frame: frame.assign(task=None), "column 'task' holds None; expected a name"),
    (lambda frame: frame.assign(experiment="other"), "column 'experiment' holds 'other'; expected 'trial'"),
])  # fmt: skip
def test_bad_columns_are_named(tmp_path, change, part):
    folder = write_run(tmp_path / "run", curve([0.1]))
    path = folder / "results" / "0000.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    fails(folder, "0000.parquet", part)


@pytest.mark.parametrize("manifest, part", [
    ("{", "cannot be read as JSON"),
    ("[]", "has no 'experiment'"),
    ("{}", "has no 'experiment'"),
    (json.dumps({"experiment": "trial", "programs": {}}), "'programs' is dict, expected list"),
    (json.dumps({"experiment": "trial", "protocols": {"maze/expo/": 3}}), "an entry of 'protocols' is no object"),
])  # fmt: skip
def test_bad_manifests_are_named(tmp_path, manifest, part):
    folder = write_run(tmp_path / "run", curve([0.1]))
    (folder / "manifest.json").write_text(manifest)
    fails(folder, "manifest.json", part)


def test_null_variants_and_flags_are_the_defaults(tmp_path):
    results = load(write_run(tmp_path / "run", curve([0.1, 0.2], variant=None, diverged=None)))
    assert results.labels == ["expo"] and not results.frame["diverged"].any()


def test_find(run):
    results = load(run)
    assert results.find("expo").label == "expo" and results.find("expo (random selection)").variant == "random selection"
    with pytest.raises(ResultsError, match="no method 'exp0' in these results; did you mean 'expo'"):
        results.find("exp0")
