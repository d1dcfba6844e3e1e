"""Results leave and come back: what an export writes reads back as the same curves, and what is imported is marked."""

import struct
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import comparison, curve, evaluation, write_run

from analysis import ResultsError, efficiency, files, summary
from analysis.exporting import export
from analysis.figures import curves, style
from analysis.importing import import_csv
from analysis.load import load
from analysis.report import text_table, write_report

LONG = "step,score,seed\n0,0.1,0\n100,0.5,0\n0,0.2,1\n100,0.625,1\n"


def csv_file(folder: Path, text: str | bytes, name: str = "curves.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def take(folder: Path, text: str | bytes, columns: str = "", out: str = "run", **names):
    """Import a file of this text; the rows as loaded."""
    names = {"source": "cleanrl", "task": "maze", "agent": "sac"} | names
    import_csv(csv_file(folder, text, f"{out}.csv"), folder / out, columns=columns, **names)
    return load(folder / out)


def values(results) -> dict[tuple, float]:
    return {(row.seed, row.phase, row.env_step, row.grad_step): row.score for row in results.frame.itertuples()}


def same_curves(left, right) -> bool:
    """Equal bit for bit in both phases, for every method, whatever it is called there."""
    pairs = list(zip(left.methods, right.methods, strict=True))
    assert all((a.agent, a.variant, a.hyperparameters) == (b.agent, b.variant, b.hyperparameters) for a, b in pairs) and pairs
    for task in left.tasks:
        for a, b in pairs:
            for phase in (efficiency.offline_curve, efficiency.online_curve):
                for metric in ("score", "success", "episode_length"):
                    one, two = phase(left.rows(task, a.label), metric), phase(right.rows(task, b.label), metric)
                    if not all(np.array_equal(getattr(one, f), getattr(two, f), equal_nan=f == "values") for f in vars(one)):
                        return False
    return left.tasks == right.tasks


def test_an_exported_csv_reads_back_as_the_same_curves(tmp_path):
    rng = np.random.default_rng(0)
    rows = [row | {"score": rng.random(), "success": rng.random() / 3} for row in comparison(("maze", "door"))]
    rows += [row | {"expo.edit_scale": np.float32(scale)} for scale in (0.1, 0.3) for row in curve(rng.random(4), variant="no edits")]
    rows += [row | {"score": np.nan, "success": np.nan, "diverged": True} for row in curve([0.0], agent="rlpd", start=500)]
    first = write_run(tmp_path / "first", rows, files=2)
    text = export(first, tmp_path / "new" / "all.csv")
    import_csv(text, tmp_path / "second", "back")
    before, after = load(first), load(tmp_path / "second")
    assert same_curves(before, after)
    assert after.frame["diverged"].sum() == 1 and set(after.frame["eval_episodes"]) == {10}
    assert all(label.endswith(" [imported: back]") for label in after.labels)
    assert "expo (no edits) edit_scale=0.3 [imported: back]" in after.labels


def test_the_csv_is_tidy_and_says_nothing_of_this_machine(run, tmp_path):
    frame = pd.read_csv(export([run], tmp_path / "folder"))
    assert (tmp_path / "folder" / "curves.csv").is_file() and len(frame) == len(comparison(("maze", "door")))
    assert list(frame.columns[:5]) == ["experiment", "task", "method", "agent", "variant"]
    assert not {"source", "imported"} & set(frame.columns) and set(frame["method"]) == set(load(run).labels)
    assert str(tmp_path) not in (tmp_path / "folder" / "curves.csv").read_text()


def test_imported_curves_are_marked_wherever_they_stand(run, tmp_path):
    take(tmp_path, LONG, out="sac")
    results = load([run, tmp_path / "sac"])
    label = "sac [imported: cleanrl]"
    assert results.labels[-1] == label and results.find("sac").imported == "cleanrl"
    styles = style.colours(results.methods)
    assert styles[label][1] == style.IMPORTED_DASHES and style.IMPORTED_DASHES not in [styles[other][1] for other in results.labels[:-1]]
    assert label in text_table(results) and "10/? episodes per evaluation" in text_table(results)
    report = write_report([run, tmp_path / "sac"], out=tmp_path / "report").read_text()
    assert "sac: imported (cleanrl), not measured here" in report and "success rate" in report
    assert "not finished" not in report and report.count(label) > 5
    manifest = results.manifests[1].data
    assert set(manifest["imported"]) == {"source", "file", "date"} and manifest["imported"]["file"] == "sac.csv"


def test_a_measured_and_an_imported_expo_stay_two_methods(tmp_path):
    own = write_run(tmp_path / "own", curve([0.1, 0.2], experiment="cleanrl"))
    take(tmp_path, LONG, agent="expo")
    results = load([own, tmp_path / "run"])
    assert results.labels == ["expo", "expo [imported: cleanrl]"] and results.find("expo").imported == ""


def test_files_of_one_source_are_pooled(tmp_path):
    for seed in (0, 1):
        take(tmp_path, f"Step,Value\n0,0.1\n100,0.{seed}\n", f"step=Step,score=Value,seed={seed}", out=f"seed{seed}")
    results = load([tmp_path / "seed0", tmp_path / "seed1"])
    assert results.labels == ["sac [imported: cleanrl]"] and sorted(results.frame["seed"].unique()) == [0, 1]


@pytest.mark.parametrize("text, columns", [
    (LONG, ""),
    ("\ufeff" + LONG.replace("\n", "\r\n"), ""),
    ("\n".join(reversed(LONG.split("\n")[1:-1])).join(["step,score,seed\n", "\n"]), ""),
    ("score , note,env_step, seed\n0.1,a,0,0\n\n0.5,b,1e2,0\n0.2,c,0.0,1\n0.625,d,100,1\n", ""),
    ("x,y,who\n0,0.1,0\n100,0.5,0\n0,0.2,1\n100,0.625,1\n", "step=x,score=y,seed=who"),
    ('x,"y, mean",who\n0,0.1,0\n100,0.5,0\n0,0.2,1\n100,0.625,1\n', "seed=who,score=y, mean,step=x"),
    ("step,0,1\n0,0.1,0.2\n100,0.5,0.625\n", ""),
    ("step,seed_1,note,Seed 0\n0,0.2,a,0.1\n100,0.625,b,0.5\n", ""),
    ("Step,a - eval,a - eval__MIN,b - eval\n0,0.1,0,0.2\n100,0.5,0,0.625\n", "step=Step,score=* - eval"),
])  # fmt: skip
def test_long_and_wide_files_say_the_same(tmp_path, text, columns):
    expected = {(0, "online", 0, 0): 0.1, (0, "online", 100, 0): 0.5, (1, "online", 0, 0): 0.2, (1, "online", 100, 0): 0.625}
    assert values(take(tmp_path, text, columns)) == expected


def test_a_pattern_takes_the_seeds_numbers_only_if_it_names_them_all(tmp_path):
    notes = import_csv(csv_file(tmp_path, "step,a7,b7\n0,1,0\n"), tmp_path / "run", "s", "t", "a", "score=*7")
    assert notes[:2] == ["seed 0: column 'a7'", "seed 1: column 'b7'"]
    assert set(take(tmp_path, "step,seed3,seed5\n0,1,0\n", "score=seed*", out="named").frame["seed"]) == {3, 5}


def test_an_empty_cell_of_a_wide_file_is_no_evaluation(tmp_path):
    found = values(take(tmp_path, "step,0,1\n0,0.1,\n50,,0.2\n100,0.5,0.6\n"))
    assert set(found) == {(0, "online", 0, 0), (0, "online", 100, 0), (1, "online", 50, 0), (1, "online", 100, 0)}


def test_an_offline_phase_counts_gradient_steps(tmp_path):
    found = values(take(tmp_path, "step,score,seed,phase\n500,0.1,0,offline\n1000,0.2,0,offline\n100,0.3,0,online\n"))
    assert found == {(0, "offline", 0, 500): 0.1, (0, "offline", 0, 1000): 0.2, (0, "online", 100, 0): 0.3}


def test_names_may_come_from_the_file(tmp_path):
    results = take(tmp_path, "step,score,seed,agent\n0,0.1,0,sac\n0,0.2,0,td3\n", agent=None)
    assert results.labels == ["sac [imported: cleanrl]", "td3 [imported: cleanrl]"]


def test_the_summary_names_seeds_steps_and_range_and_warns_of_percentages(tmp_path):
    file = csv_file(tmp_path, "step,score,seed\n0,10,4\n1000,92.5,4\n")
    lines = import_csv(file, tmp_path / "a", "paper", "maze", "sac")
    assert lines[0] == "maze: sac [imported: paper], 1 seed (4), 2 evaluations up to environment step 1,000, scores from 10 to 92.5"
    assert lines[1].startswith("warning: these scores leave [0, 1]")
    assert len(import_csv(csv_file(tmp_path, LONG), tmp_path / "b", "paper", "maze", "sac")) == 1


@pytest.mark.parametrize("text, message", [
    ("", "the file is empty"),
    ("\n , \n", "the file is empty"),
    ("step,score,seed\n", "holds a header but no rows"),
    ("<!DOCTYPE html>\n<html>\n", "not a CSV file: its first line is '<!DOCTYPE html>'"),
    ("step;score;seed\n0;0,5;1\n", "not a CSV file: its first line is 'step;score;seed'"),
    (bytes(range(256)), "not a CSV file (it is not text in UTF-8)"),
    (LONG.encode("utf-16"), "not a CSV file (it is not text in UTF-8)"),
    ('step,score,seed\n0,"0.1,0\n', "cannot be read as CSV"),
    ("step,score,seed\n0,0.1,0\n100,0.2\n", "line 3 has 2 fields; expected 3 as in the header"),
    ("step,score,score\n0,0.1,0.2\n", "column 'score' is there twice"),
    ("iter,score,seed\n0,0.1,0\n", "no column 'env_step' or 'step'; it has: iter, score, seed; name them: --columns step=NAME"),
    ("st\x1bep,score\n0,0.1\n", "it has: st?ep, score"),
    ("step,value,seed\n0,0.1,0\n", "no column 'score' and no column per seed (0, seed_0); it has: step, value, seed"),
    ("step,score\n0,0.1\n", "no column 'seed'; it has: step, score"),
    ("step,score,seed\n0,0.1,0\n\n100,high,0\n", "line 4, column 'score' holds 'high'; expected a number"),
    ("step,score,seed\n0,0.1,0\n100,NaN,0\n", "line 3, column 'score' holds 'NaN'; expected a number"),
    ("step,score,seed\n0,0.1,0\n100,,0\n", "line 3, column 'score' is empty; expected a number"),
    ("step,score,seed\n0,inf,0\n", "line 2, column 'score' holds 'inf'"),
    ("step,score,seed\n0,1_0,0\n", "line 2, column 'score' holds '1_0'"),
    ("step,score,seed\n0.5,0.1,0\n", "line 2, column 'step' holds '0.5'; expected a whole number of at least 0"),
    ("step,score,seed\n-5,0.1,0\n", "column 'step' holds '-5'; expected a whole number of at least 0"),
    ("step,score,seed\n0,0.1,a\n", "column 'seed' holds 'a'; expected a whole number"),
    ("step,score,seed\n0,0.1,0\n100,0.3,0\n1e2,0.3,0\n", "lines 3 and 4: two scores of seed 0 at online step 100"),
    ("step,0,1\n0,0.1,0.2\n0,0.1,0.2\n", "lines 2 and 3: two scores of seed 0 at online step 0"),
    ("step,score,seed,phase\n0,0.1,0,train\n", "line 2, column 'phase' holds 'train'; expected 'offline' or 'online'"),
    ("step,score,seed,success\n0,0.1,0,yes\n", "line 2, column 'success' holds 'yes'; expected a number"),
    ("step,0,1\n0,0.1,NaN\n", "line 2, column '1' holds 'NaN'; expected a number (leave a cell empty"),
    ("step,0,1\n0,0.1,\n", "column '1' is empty; expected the scores of a seed"),
])  # fmt: skip
def test_a_bad_file_is_one_line_and_leaves_nothing(tmp_path, text, message):
    refused(tmp_path, text, message)


@pytest.mark.parametrize("names, message", [
    ({"columns": "step=iter"}, "no column 'iter' (--columns step=...); it has: step, score, seed"),
    ({"columns": "score=*eval*"}, "no column '*eval*' (--columns score=...)"),
    ({"columns": "seed=x"}, "no column 'x' (--columns seed=...)"),
    ({"columns": "bogus"}, "--columns 'bogus': expected step=NAME, score=NAME or seed=NAME, each once"),
    ({"columns": "steps=step"}, "--columns 'steps=step'"),
    ({"columns": "step=step,step=step"}, "--columns 'step=step'"),
    ({"columns": "step="}, "--columns 'step='"),
    ({"source": " "}, "--source ' ': expected where the numbers come from"),
    ({"source": "a\x1b"}, "--source 'a\\x1b'"),
    ({"task": None}, "has no column 'task'; give its name: --task NAME"),
    ({"agent": None}, "has no column 'agent'; give its name: --agent NAME"),
    ({"agent": ""}, "--agent '': expected a name"),
    ({"out": "full"}, "already holds something"),
    ({"out": "curves.csv"}, "already holds something"),
    ({"out": "curves.csv/new"}, "is a file, expected a folder"),
])  # fmt: skip
def test_bad_options_are_one_line_and_leave_nothing(tmp_path, names, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    refused(tmp_path, LONG, message, **names)


def refused(folder: Path, text, message: str, out: str = "deep/run", **names) -> None:
    file = csv_file(folder, text)
    before = sorted(folder.rglob("*"))
    with pytest.raises(ResultsError) as caught:
        import_csv(file, folder / out, **({"source": "cleanrl", "task": "maze", "agent": "sac"} | names))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(folder.rglob("*")) == before


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path, message in ((tmp_path / "none.csv", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(ResultsError, match=f"{path.name}: {message}; expected a CSV file"):
            import_csv(path, tmp_path / "run", "s", "t", "a")


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    run = write_run(tmp_path / "measured", curve([0.1, 0.2]))
    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    refused(tmp_path, LONG, "deep/run: cannot be written (No space left on device)")
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(ResultsError, match="No space left"):
        export(run, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))] == []


def test_an_empty_folder_is_as_good_as_a_new_one(tmp_path):
    (tmp_path / "run").mkdir()
    assert take(tmp_path, LONG).tasks == ["maze"]
    with pytest.raises(ResultsError, match="already holds something"), files.whole(tmp_path / "run"):
        pytest.fail("a folder that holds something was given out")


def test_a_package_that_is_absent_is_named_before_anything_is_read(tmp_path, monkeypatch):
    for format, package in (("wandb", "wandb"), ("tensorboard", "tensorboardX")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ResultsError, match=rf"--format {format} needs the package {package}: pip install 'expo-bench\[{format}\]'"):
            export(tmp_path / "nowhere", tmp_path / "out", format)
    with pytest.raises(ResultsError, match="no export format 'xml'; expected one of: csv, wandb, tensorboard"):
        export(tmp_path / "nowhere", tmp_path / "out", "xml")
    assert not list(tmp_path.iterdir())


def events(path: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of every scalar of an event file: records of length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, at, out = path.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + size])
        out += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        at += 16 + size
    return out


def test_tensorboard_gets_a_folder_per_seed(tmp_path):
    pytest.importorskip("tensorboardX")
    rows = [evaluation(phase="offline", grad_step=50, score=0.25, task="a/b"), *curve([0.5, np.nan], start=100, task="a/b", success=1.0)]
    out = export(write_run(tmp_path / "run", rows), tmp_path / "events", "tensorboard")
    (file,) = (path for path in out.rglob("*") if path.is_file())
    assert file.relative_to(out).parts[:3] == ("a-b", "expo", "seed_0")
    found = events(file)
    assert [(step, value) for tag, step, value in found if tag.endswith("/score")] == [(50, 0.25), (100, 0.5)]
    assert ("offline/score", 50, 0.25) in found and ("online/score", 100, 0.5) in found and ("online/success", 200, 1.0) in found


def test_wandb_gets_an_offline_run_per_seed(tmp_path, monkeypatch):
    runs = []

    class Run(types.SimpleNamespace):
        def define_metric(self, name, step_metric):
            self.metrics[name] = step_metric

        def log(self, values):
            self.logged.append(values)

        def finish(self):
            self.finished = True

    def init(**options):
        assert Path(options["dir"]).is_dir()
        runs.append(Run(options=options, metrics={}, logged=[], finished=False))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Settings=lambda **settings: settings))
    rows = [row for seed in (0, 1) for row in curve([0.5, 0.75], seed=seed, experiment="a/b")]
    out = export(write_run(tmp_path / "run", rows), tmp_path / "wandb-runs", "wandb")
    assert out.is_dir() and len(runs) == 2 and all(run.finished for run in runs)
    options = runs[1].options
    assert options["mode"] == "offline" and options["project"] == "a-b" and options["name"] == "expo, seed 1"
    assert options["config"]["seed"] == 1 and options["config"]["agent"] == "expo"
    assert runs[0].metrics == {"offline/*": "grad_step", "online/*": "env_step"}
    assert [(v["env_step"], v["online/score"]) for v in runs[0].logged] == [(0, 0.5), (100, 0.75)]


def test_a_manifest_with_a_strange_mark_is_named(tmp_path):
    with pytest.raises(ResultsError, match="'imported' is str, expected dict"):
        load(write_run(tmp_path / "run", curve([0.1]), imported="yes"))
    assert load(write_run(tmp_path / "bare", curve([0.1]), imported={})).labels == ["expo [imported: unknown source]"]


def test_unknown_numbers_of_episodes_are_question_marks(tmp_path):
    results = take(tmp_path, LONG)
    summaries = summary.summarise(results)
    assert summary.show_episodes(summaries) == "?" and curves.caption(summaries).endswith("; ? episodes per evaluation")
