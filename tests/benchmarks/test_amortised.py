"""The page of amortised proposals: tables and picture from a run folder, prose kept."""

import dataclasses
import json

import pandas as pd
import pytest

from benchmarks import amortised
from experiments.amortised import EXPERIMENT

TASK = EXPERIMENT.tasks[0]


@pytest.fixture
def run(tmp_path):
    """Two seeds of every variant: success 0 after the offline phase, then 0.4 + 0.2 seed; 0.1 less with any k above 1."""
    rows = []
    for i, method in enumerate(EXPERIMENT.methods):
        own = {"experiment": "amortised", "task": TASK, "agent": "expo", "variant": method.variant, "wall_s": 1.0, "diverged": False}
        own |= {"episode_return": 0.0, "episode_length": 9.0, "eval_episodes": 32, "blowups": 0}
        for seed in (0, 1):
            for step, success in ((0, 0.0), (500, 0.4 + 0.2 * seed - 0.1 * (i > 0))):
                phase = "online" if step else "offline"
                rows.append(
                    {
                        **own,
                        "seed": seed,
                        "phase": phase,
                        "env_step": step,
                        "grad_step": step,
                        "score": success,
                        "success": success,
                        "q_bias": 0.1,
                    }
                )
    folder = tmp_path / "run"
    (folder / "results").mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "results" / "0.parquet")
    definition = json.loads(json.dumps(dataclasses.asdict(EXPERIMENT)))
    manifest = {"experiment": "amortised", "finished": "now", "definition": definition, "tasks": {TASK: {"transitions": 1000}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_tables_and_picture_are_written_and_prose_stays(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(amortised, "paper_table", lambda: "| paper |\n")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "amortised.md").write_text(f"before\n{amortised.BEGIN}\nold\n{amortised.END}\nafter\n")
    assert amortised.main([str(run), "--out", str(docs)]) == 0
    page = (docs / "amortised.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page and capsys.readouterr().out in page
    (released,) = (line for line in page.splitlines() if line.startswith("| k = 1 |"))
    (kept,) = (line for line in page.splitlines() if line.startswith("| k = 64 |"))
    assert "2 seeds, evaluations until 500 environment steps." in page
    assert "(1.0)" in released and "0.50 [" in released and "0.25 [" in released
    assert "(3.8)" in kept and "| -0.100 [all equal] |" in kept and "| -0.050 [all equal] |" in kept
    assert (docs / "images/amortised.png").stat().st_size > 10_000


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    assert amortised.main([str(tmp_path), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
