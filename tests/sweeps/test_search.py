"""Search: points of a Sobol sequence, seeds that choose and seeds that report, and what the report says of it."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from toy import SMALL, Walk, dataset

import expo_bench
from expo_bench import Experiment, Range, Search, UserError
from expo_bench.sweeps import runner, search
from expo_bench.sweeps.experiment import validate

RANGES = {"rlpd.critic_lr": Range(1e-5, 1e-3, log=True), "rlpd.tau": Range(0.0, 0.1)}
BASE = Experiment("tiny", tasks=["point-umaze"], methods=["rlpd", "bc"], seeds=2, vary=RANGES, search=Search(samples=8, seeds=3))


def test_points_cover_their_ranges_evenly_and_repeat():
    """Of 2^k points of a Sobol sequence one lies in each of 2^k equal parts of every axis, in the logarithm where that is the scale."""
    points = search.points(RANGES, 16)
    assert points == search.points(RANGES, 16)
    lr = np.log([p["rlpd.critic_lr"] for p in points])
    tau = np.array([p["rlpd.tau"] for p in points])
    parts = lambda x, low, high: sorted(np.clip((x - low) / (high - low) * 16 + 1e-6, 0, 15).astype(int))
    assert parts(lr, np.log(1e-5), np.log(1e-3)) == parts(tau, 0.0, 0.1) == list(range(16))
    assert abs(np.corrcoef(lr, tau)[0, 1]) < 0.4


def test_points_are_rows_of_one_program_and_lists_multiply_with_them():
    experiment = search.choosing(dataclasses.replace(BASE, vary={**RANGES, "rlpd.discount": (0.9, 0.99)}))
    (program,) = runner.plan(experiment)
    assert program.agent == "rlpd", "nothing is searched of bc"
    assert len(program.rows) == 8 * 2 * 3 and {row.seed for row in program.rows} == {0, 1, 2}
    assert len({tuple(row.labels.values()) for row in program.rows}) == 8 * 2


def frame(*rows):
    columns = ["task", "variant", "rlpd.tau", "seed", "env_step", "score", "diverged"]
    return pd.DataFrame([dict(zip(columns, row, strict=True), agent="rlpd") for row in rows])


def test_the_best_mean_over_seeds_and_tasks_is_chosen():
    rows = [
        (task, "", tau, seed, step, score, False)
        for task in "ab"
        for seed in (0, 1)
        for tau, step, score in [(0.1, 10, 0.9), (0.1, 20, 0.2 + 0.1 * seed), (0.2, 20, 0.4 if task == "a" else 0.3), (0.3, 20, 0.3)]
    ]
    table = search.scores(frame(*rows), {"rlpd": ["rlpd.tau"]})
    assert [(p["values"]["rlpd.tau"], round(p["score"], 6)) for p in table] == [(0.2, 0.35), (0.3, 0.3), (0.1, 0.25)]
    final = search.chosen(dataclasses.replace(BASE, vary={"rlpd.tau": Range(0.0, 1.0)}), table)
    assert final.methods[0].config == {"tau": 0.2} and final.first_seed == 3 and final.search is None and not final.vary


def test_a_point_that_diverged_is_never_chosen():
    rows = [
        ("a", "", 0.1, 0, 20, 1.0, False),
        ("a", "", 0.1, 1, 20, 1.0, True),
        ("a", "", 0.2, 0, 20, float("nan"), False),
        ("a", "", 0.3, 0, 20, 0.1, False),
    ]
    table = search.scores(frame(*rows), {"rlpd": ["rlpd.tau"]})
    assert [(p["values"]["rlpd.tau"], p["score"]) for p in table] == [(0.3, 0.1), (0.1, None), (0.2, None)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": None}, "is a range: name a search"),
        ({"vary": {"rlpd.tau": Range(0.1, 0.1)}}, "expected a range from low to high, got 0.1 to 0.1"),
        ({"vary": {"rlpd.tau": Range(0.0, 0.1, log=True)}}, "a logarithmic range must begin above 0, got 0"),
        ({"vary": {"rlpd.tau": (0.1, 0.2)}}, "a search needs a range"),
        ({"vary": {"rlpd.critics": Range(2, 10)}}, "critics shapes the program; expected values such as rlpd.critics=8,16"),
        ({"vary": {"rlpd.no_such": Range(2, 10)}}, "unknown field"),
        ({"search": Search(samples=1)}, "samples must be at least 2, got 1"),
        ({"search": Search(seeds=0)}, "search_seeds must be at least 1, got 0"),
        ({"search": Search(method="tpe")}, "search must be 'sobol', got 'tpe'"),
    ],
)
def test_what_cannot_be_searched_is_refused(change, message):
    experiment = dataclasses.replace(BASE, **change)
    with pytest.raises(UserError, match=message.replace("(", "\\(")):
        validate(experiment)
        runner.plan(experiment)


def test_a_search_reports_on_seeds_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(runner.envs, "make", lambda name, engine="auto": Walk())
    monkeypatch.setattr(runner.datasets, "default_dataset", lambda name, env, cache: dataset())
    protocol = {"warmup_steps": 5, "online_steps": 10, "updates": 1, "batch_size": 4, "eval_every": 10, "eval_episodes": 2}
    experiment = dataclasses.replace(BASE, methods=["rlpd"], config=SMALL, protocol=protocol, search=Search(samples=2, seeds=1))
    found = expo_bench.run(experiment, tmp_path / "out")
    assert sorted(found["seed"].unique()) == [1, 2]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["search"]["seeds"] == [0] and len(manifest["search"]["tried"]) == 2
    best = manifest["search"]["tried"][0]["values"]
    config = manifest["programs"][0]["config"]
    assert [config["critic_lr"], config["tau"]] == [best["rlpd.critic_lr"], best["rlpd.tau"]]
    assert json.loads((tmp_path / "out-search" / "manifest.json").read_text())["seeds"] == [0]

    from analysis.report import write_report

    page = write_report([tmp_path / "out"]).read_text()
    assert "Chosen by search" in page and "on seed 0, which are in no number above; those come from seeds 1 to 2" in page

    pd.testing.assert_frame_equal(expo_bench.run(experiment, tmp_path / "out"), found)  # complete: nothing is run again
    assert "search" in json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds something"):
        expo_bench.run(experiment, tmp_path / "other")
    assert not (tmp_path / "other-search").exists()
