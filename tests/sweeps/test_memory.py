"""How many rows run at a time is what fits, is chosen once, and changes no row; what does not fit after all loses nothing."""

import contextlib
import dataclasses
import json

import jax
import killed_sweep
import pandas as pd
import pytest
from killed_sweep import LINEAR, run

from expo_bench import UserError, cli
from expo_bench.sweeps import cluster, devices, memory, program, runner
from expo_bench.sweeps.compiled import Builder

FREE = dataclasses.replace(LINEAR, block_rows=None, seeds=5)  # ten rows


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    killed_sweep.use_the_toy(monkeypatch.setattr)
    monkeypatch.setattr(program, "CHUNK_SECONDS", 2.0)
    devices.start()
    monkeypatch.setattr(devices, "start", lambda: jax.devices()[:1])  # ten rows at a time on however many cores


def asked(monkeypatch, experiment, folder):
    """(bytes that do not depend on the rows, bytes of a row) of the first program when all rows run at once."""
    seen = []
    needed = memory.needed
    with monkeypatch.context() as patch:
        patch.setattr(memory, "needed", lambda *arguments: seen.append(needed(*arguments)) or seen[-1])
        run(folder, experiment)
    return seen[0]


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def rows(folder):
    frame = pd.concat([pd.read_parquet(p) for p in sorted((folder / "results").glob("*.parquet"))])
    return frame.drop(columns="wall_s").sort_values(["tiny_agent.rate", "seed", "phase", "grad_step", "env_step"], ignore_index=True)


def test_rows_run_in_the_largest_even_blocks_that_fit(monkeypatch, tmp_path, capsys):
    fixed, row = asked(monkeypatch, FREE, tmp_path / "all")
    assert manifest(tmp_path / "all")["programs"][0]["block_rows"] == 10 and "10 rows of" in capsys.readouterr().out
    enough = f"{fixed + 7 * row + row // 2}B"
    run(tmp_path / "few", FREE, memory=enough)
    assert manifest(tmp_path / "few")["programs"][0]["block_rows"] == 5, (
        "seven fit; two waves of five take as long as one of seven and one of three"
    )
    said = capsys.readouterr().out
    assert "5 rows of" in said and "10 do not fit" in said
    run(tmp_path / "asked", dataclasses.replace(FREE, block_rows=5))
    pd.testing.assert_frame_equal(rows(tmp_path / "few"), rows(tmp_path / "asked"), check_exact=True)


def test_a_block_that_was_chosen_stays_and_one_that_was_asked_for_is_warned_of(monkeypatch, tmp_path, capsys):
    whole = dataclasses.replace(FREE, seeds=2)
    fixed, row = asked(monkeypatch, whole, tmp_path / "all")
    killed_sweep.signal_at("chunk", 4, 2, monkeypatch.setattr)  # SIGINT
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", whole, memory=f"{fixed + 3 * row}B")
    monkeypatch.undo()
    killed_sweep.use_the_toy(monkeypatch.setattr)
    monkeypatch.setattr(devices, "start", lambda: jax.devices()[:1])
    capsys.readouterr()
    run(tmp_path / "run", whole, memory=f"{fixed + row}B")
    assert manifest(tmp_path / "run")["programs"][0]["block_rows"] == 2
    said = capsys.readouterr().out
    assert said.count("warning: memory: 2 rows of") == 1 and "settled before" in said
    pd.testing.assert_frame_equal(rows(tmp_path / "run"), rows(tmp_path / "all"), check_exact=False, rtol=1e-4)


def test_one_row_that_does_not_fit_is_one_line_and_a_larger_limit_goes_on(tmp_path, capsys):
    with pytest.raises(UserError, match=r"point-umaze tiny_agent: one row needs .* MiB of a device, expected at most .* \(--memory\)"):
        run(tmp_path / "run", dataclasses.replace(LINEAR, block_rows=None), memory="100B")
    assert manifest(tmp_path / "run")["programs"][0]["block_rows"] is None and not list((tmp_path / "run" / "results").iterdir())
    run(tmp_path / "run", dataclasses.replace(LINEAR, block_rows=4))
    assert manifest(tmp_path / "run")["finished"]


def test_a_device_that_runs_out_of_memory_loses_no_row(monkeypatch, tmp_path, capsys):
    experiment = dataclasses.replace(LINEAR, block_rows=2)
    run(tmp_path / "whole", experiment)
    calls, original = [], program.ProgramRun._call

    def call(self, *arguments):
        calls.append(self.first)
        if self.first and calls.count(self.first) == 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(program.ProgramRun, "_call", call)
        with pytest.raises(UserError) as caught:
            run(tmp_path / "run", experiment)
    text = str(caught.value)
    assert "ran out of memory with 2 rows at a time" in text and "--block-rows 1 --resume-anyway" in text and "\n" not in text
    first = rows(tmp_path / "run")
    assert len(first[first["tiny_agent.rate"] == 0.01]) == len(rows(tmp_path / "whole")) // 2
    cli.main(["sweep", "--resume", str(tmp_path / "run"), "--block-rows", "1", "--resume-anyway", "--no-report"])
    pd.testing.assert_frame_equal(rows(tmp_path / "run"), rows(tmp_path / "whole"), check_exact=False, rtol=1e-4)


def test_other_errors_of_a_device_are_not_hidden():
    assert memory.exhausted(RuntimeError("INTERNAL: something else"), None, str) is None


def test_jobs_of_this_machine_share_its_memory(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(cluster.jobs, "run_local", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(cluster.parts, "join", lambda *arguments: None)
    fixed, row = asked(monkeypatch, FREE, tmp_path / "all")
    monkeypatch.setattr(memory, "machine_bytes", lambda: 4 * (fixed + 3 * row))
    local = cluster.Cluster("local", jobs=2)
    cluster.run(FREE, tmp_path / "run", local, memory="0.5")
    found = manifest(tmp_path / "run")
    assert found["cluster"]["memory"] == "0.25" and found["programs"][0]["block_rows"] == 2
    assert sum(part["rows"] for part in found["cluster"]["parts"]) == 10


@pytest.mark.parametrize("text, expected", [("0.9", (0.9, True)), ("1", (1, True)), ("2GiB", (2**31, False)), ("500 mb", (5e8, False))])
def test_a_share_or_an_amount(text, expected):
    assert memory.amount(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "2 GiBi", "all", "", "0B"])
def test_anything_else_is_refused_before_anything_is_made(text, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["sweep", "--tasks", "point-umaze", "--agents", "bc", f"--memory={text}", "--out", str(tmp_path / "run")])
    errors = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and len(errors) == 1 and "expected a share of a device's memory" in errors[0]
    assert not (tmp_path / "run").exists()


def test_the_cpus_of_a_program_share_the_machine_and_a_container_its_part(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 1000)
    share, amount = memory.limit("0.5", jax.devices()), memory.limit("600B", jax.devices())
    assert (share.each(1), share.each(4)) == (500, 125) and (amount.each(1), amount.each(4)) == (600, 600)
    monkeypatch.setattr(memory, "machine_bytes", lambda: None)
    assert memory.limit("0.5", jax.devices()).each(2) is None
    monkeypatch.undo()
    whole = memory.machine_bytes()
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "limit").write_text("12345\n")
    for paths, expected in (((tmp_path / "max", tmp_path / "none"), None), ((tmp_path / "max", tmp_path / "limit"), 12345)):
        monkeypatch.setattr(memory, "CGROUP_LIMITS", tuple(map(str, paths)))
        assert expected in (None, memory.machine_bytes()) and memory.machine_bytes() >= (expected or whole)


def test_what_a_program_needs_is_what_its_executables_say():
    programs = runner.plan(LINEAR)
    tasks = {"point-umaze": runner.prepare_task("point-umaze", LINEAR, programs, str)}
    (work,) = runner.work_of(programs, tasks, [3], 1)
    with contextlib.closing(Builder(jax.devices()[:1], "float32")) as builder:
        compiled = builder.submit(work.program, work.env, work.dataset, work.block)()
    online = compiled.calls["online"].memory_analysis()
    state = 3 * compiled.bytes_per_row
    assert online.alias_size_in_bytes >= state, "the state is written over, not held twice"
    assert compiled.peak_bytes >= state + work.dataset.nbytes + online.temp_size_in_bytes
    fixed, row = memory.needed(compiled, work, 100, cpu=False)
    assert fixed == 100 and abs(3 * row - (compiled.peak_bytes - work.dataset.nbytes)) < 3
    assert memory.needed(compiled, work, 100, cpu=True)[1] == row + compiled.bytes_per_row, "a checkpoint's copy"
