"""The page of a running sweep: written again when something changed, reloading itself until the sweep is finished."""

import json

import pandas as pd
import pytest
from synthetic_runs import curve, write_run

from analysis import ResultsError
from analysis.watch import watch

RELOAD = '<meta http-equiv="refresh"'


def finish(run) -> None:
    (run / "manifest.json").write_text(json.dumps({"experiment": "trial", "finished": "2026-01-01T00:00:00"}))


def test_it_waits_writes_and_ends(tmp_path):
    run = write_run(tmp_path / "run", curve([0.1, 0.2]), finished=None)
    (run / "results" / "0000.parquet").rename(run / "results" / ".later")
    said, pages = [], []

    def sleep(seconds: float) -> None:
        """What happens on the disk between two looks."""
        steps = len(pages)
        pages.append((run / "report.html").read_text() if (run / "report.html").exists() else "")
        if steps == 0:
            (run / "results" / ".later").rename(run / "results" / "0000.parquet")
        elif steps == 2:
            pd.DataFrame(curve([0.1, 0.5], agent="idql")).to_parquet(run / "results" / "0001.parquet")
            finish(run)

    path = watch([run], said.append, sleep=sleep, figures=tmp_path / "paper")
    assert path == run / "report.html" and len(pages) == 3
    assert pages[0] == "" and RELOAD in pages[1] and pages[2] == pages[1]  # nothing new, nothing written
    assert "no results yet" in said[0] and "running" in said[1] and "finished" in said[2] and len(said) == 3
    assert RELOAD not in path.read_text() and "idql" in path.read_text()
    assert (tmp_path / "paper" / "curve-maze.pdf").is_file()


def test_an_interrupt_leaves_a_page_that_stays(tmp_path):
    run = write_run(tmp_path / "run", curve([0.1, 0.2]), finished=None)

    def sleep(seconds: float) -> None:
        assert RELOAD in (run / "report.html").read_text()
        raise KeyboardInterrupt

    assert watch([run], lambda line: None, sleep=sleep) == run / "report.html"
    text = (run / "report.html").read_text()
    assert RELOAD not in text and "not finished" in text
    assert not list(run.glob(".*.tmp"))


def test_a_folder_that_does_not_exist_is_not_waited_for(tmp_path):
    with pytest.raises(ResultsError, match="nowhere: no such folder"):
        watch([tmp_path / "nowhere"])
