"""The bars: what is met and what is not; one end to end at a tiny size, the arithmetic of the others on a loop of known speed."""

import json
import subprocess
from pathlib import Path

import pytest
from toy import SMALL

from benchmarks import bars, options, synthetic
from benchmarks.bars import Bar, compile_time, overhead, paper_update, seeds, small_loop
from benchmarks.bars import __main__ as command
from benchmarks.case import Size
from expo_bench.sweeps import devices

TINY = Size(synthetic.NAME, SMALL, {"offline_steps": 0, "online_steps": 4096, "updates": 1, "batch_size": 8, "eval_episodes": 2})
FIELDS = {"bar", "what", "limit", "at_most", "measured", "gemm_flop_per_s", "needs", "details", "met"}


@pytest.fixture(autouse=True)
def quick_gemm(monkeypatch):
    monkeypatch.setattr(bars, "gemm", lambda devices, precision: 1e12)


def check(found):
    """Every bar has the same fields, survives JSON, and the table has its verdict."""
    for bar in found:
        fields = bar.fields()
        assert set(fields) == FIELDS and json.loads(json.dumps(fields)) == fields
        assert (bar.met is None) == (bar.needs is not None)
        assert command.verdict(fields) in command.table([fields])
    return found


@pytest.mark.parametrize(
    ("at_most", "measured", "met"),
    [(True, 0.1, True), (True, 0.11, False), (False, 0.1, True), (False, 0.09, False), (True, float("nan"), False), (False, None, None)],
)
def test_a_missed_bar_is_reported_as_missed(at_most, measured, met):
    bar = Bar("overhead", "x", 0.1, at_most, measured, needs="a GPU" if measured is None else None)
    assert bar.met is met
    assert command.verdict(bar.fields()) == {True: "yes", False: "NO", None: "needs a GPU"}[met]


def test_the_overhead_is_the_loops_share_over_its_updates():
    (bar,) = check(overhead.measure("float32", TINY, turns=2, aim=0.02))
    loop, bare = (bar.details[name]["min"] for name in ("loop_s_per_env_step", "bare_s_per_env_step"))
    assert bar.measured == pytest.approx(loop / bare - 1) and bar.limit == 0.10
    assert bar.met is (bar.measured <= 0.10)


class Steady(bars.Loop):
    """A loop of which every step of n seeds takes n ** 0.5 milliseconds and a billion FLOP per seed."""

    def __init__(self, size, seeds, precision, name="paper"):
        self.size, self.seeds, self.devices_used = size, seeds, min(seeds, 2)

    def seconds(self, steps):
        return 1e-3 * self.seeds**0.5 * steps

    def flop(self):
        return 1e9


@pytest.mark.parametrize("peak", [1.2e12, 1.5e12])
def test_the_share_of_the_gemm_rate_counts_all_rows(monkeypatch, peak):
    monkeypatch.setattr(paper_update, "Loop", Steady)
    monkeypatch.setattr(bars, "gemm", lambda devices, precision: peak)
    monkeypatch.setattr(devices, "start", lambda: ["cpu:0", "cpu:1"])
    one, two, gpu = check(paper_update.measure("float32"))
    assert (one.measured, two.measured) == (pytest.approx(1e12 / peak), pytest.approx(2**0.5 * 1e12 / peak))
    assert (one.met, two.met) == (peak < 1e12 / 0.7, True)
    assert gpu.met is None and gpu.needs == "a GPU" and gpu.limit == 0.5
    monkeypatch.setattr(devices, "start", lambda: ["cpu:0"])
    assert check(paper_update.measure("float32"))[1].needs == "a CPU of 2 cores or more"


def test_the_small_loops_limit_moves_with_the_machine(monkeypatch):
    monkeypatch.setattr(small_loop, "Loop", Steady)
    (bar,) = check(small_loop.measure("float32"))
    assert bar.limit == pytest.approx(600 / 0.38) and bar.measured == pytest.approx(8**0.5 * 1e3) and bar.met


def test_the_small_loop_has_the_stated_sizes():
    size = small_loop.SMALL
    stated = {"base_hidden": 64, "base_blocks": 1, "n_samples": 4, "n_edits": 4, "denoising_steps": 5, "critics": 2}
    assert size.task == "push-disc" and size.protocol["updates"] == 2 and size.protocol["batch_size"] == 64
    assert {name: size.config[name] for name in stated} == stated


def test_the_curve_over_seeds_needs_a_gpu_for_its_bar_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(seeds, "Loop", Steady)
    (bar,) = check(seeds.measure("float32"))
    assert bar.met is None and bar.needs == "a GPU" and bar.details["ratio"] == pytest.approx(4)
    monkeypatch.setattr(bars, "on_gpu", lambda: True)
    (bar,) = check(seeds.measure("float32"))
    assert bar.met is False and bar.measured == pytest.approx(4) and bar.details["stops_paying_beyond"] is None
    command.draw(tmp_path / "seeds.png", bar.details["points"], 8)
    assert (tmp_path / "seeds.png").stat().st_size > 1000


def test_where_more_seeds_stop_paying():
    point = lambda n, per_seed: {"seeds": n, "s_per_env_step_and_seed": {"min": per_seed}}
    assert seeds.stops_paying([point(1, 1.0), point(2, 0.5), point(4, 0.46), point(8, 0.2)]) == 2
    assert seeds.stops_paying([point(1, 1.0), point(2, 0.5), point(4, 0.3)]) is None


def test_a_report_keeps_the_bars_that_are_not_measured_again(tmp_path, monkeypatch, capsys):
    found = [Bar("overhead", "the loop's share", 0.1, True, 0.2, 1e12).fields()]
    answers = {"machine": {"error": "none"}, "bars.overhead": found, "bars.compile_time": {"error": "boom"}}
    monkeypatch.setattr(command, "child", lambda module, options: answers[module])
    path = tmp_path / "bars.json"
    assert command.main(["--only", "compile_time", "--out", str(path)]) == 1
    assert "failed: boom" in capsys.readouterr().out
    assert command.main(["--only", "overhead", "--out", str(path)]) == 1  # the failure is still in the report
    out = capsys.readouterr().out
    assert "| the loop's share | at most 0.1 | 0.2 | NO | 1000 |" in out and "failed: boom" in out
    assert [bar["bar"] for bar in json.loads(path.read_text())["bars"]] == ["overhead", "compile_time"]
    answers["bars.compile_time"] = []
    assert command.main(["--only", "compile_time", "--out", str(path)]) == 0


def test_the_second_process_starts_from_what_the_first_has_left(monkeypatch):
    """A stand-in for python that says how many programs it finds in its cache, and leaves one."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")

    def run(command, *, env, check, stdout, text):
        assert command[1:] == ["-m", "benchmarks.bars.compile_time", "--precision", "float32", "--start"]
        assert "JAX_COMPILATION_CACHE_DIR" not in env  # the cache that is on by default is the one that is measured
        folder = Path(env["EXPO_BENCH_CACHE"])
        found = len(list(folder.iterdir()))
        (folder / "program-cache").touch()
        return subprocess.CompletedProcess(command, 0, json.dumps({"compile_s": 1.0 if found else 61.0}))

    monkeypatch.setattr(compile_time.subprocess, "run", run)
    cold, warm = check(compile_time.measure("float32"))
    assert (cold.measured, cold.met, warm.met) == (61.0, False, True) and warm.measured < 1
    assert cold.details["warm"]["compile_s"] == 1.0 and cold.details["programs"] == 1


def test_every_set_of_options_compiles_and_is_timed():
    times = options.measure(lambda: (lambda x: x @ x, (options.normal(0, 8, 8),)), turns=2)
    assert list(times) == list(options.OPTIONS)
    assert all(len(values) == 2 and 0 <= values[0] <= values[1] for values in times.values())
