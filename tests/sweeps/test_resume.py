"""Nothing is lost: sweeps that are killed, interrupted, damaged, locked, and what they give in the end."""

import dataclasses
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import killed_sweep
import numpy as np
import pandas as pd
import pytest
from killed_sweep import EXPERIMENT, LINEAR, RLPD, TWO, run, signal_at
from shared_programs import Shared

from analysis.load import load
from analysis.report import text_table
from expo_bench import UserError, cli
from expo_bench.errors import Interrupted
from expo_bench.protocol import Protocol
from expo_bench.sweeps import checkpoints, devices, program, results
from expo_bench.sweeps.folder import RunFolder
from expo_bench.sweeps.interrupts import Interrupts
from expo_bench.sweeps.schedule import legs

LINE = (
    "sweep --tasks point-umaze --agents {agent} --seeds 2 --vary tiny_agent.rate=0.01,0.05 --protocol offline_steps=120 warmup_steps=30 "
    "online_steps=160 batch_size=8 eval_every=40 eval_episodes=4 offline_evals=3 --block-rows 1 --name killed --no-report "
    "--checkpoint-minutes 0.0025 --out {out}"
)


SHARED = Shared()


def prepare(patch):
    killed_sweep.use_the_toy(patch.setattr)
    SHARED.use(patch)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    prepare(monkeypatch)


def uninterrupted(factory, experiment):
    """The folder of a sweep that saves nothing on its way, in calls as long as they are outside of tests."""
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        patch.setattr(program, "CHUNK_SECONDS", 2.0)
        folder = factory.mktemp("runs") / "whole"
        run(folder, experiment, checkpoint_minutes=10)
        return folder


@pytest.fixture(scope="module")
def whole_two(tmp_path_factory):
    return uninterrupted(tmp_path_factory, TWO)


@pytest.fixture(scope="module")
def whole_linear(whole_two):
    """All rows but their wall time: the first program of `TWO` is all of `LINEAR`."""
    frame = on_disk(whole_two)
    return frame[frame.variant == ""].reset_index(drop=True)


def on_disk(folder):
    files = sorted((folder / "results").glob("*.parquet"))
    return pd.concat([pd.read_parquet(p) for p in files], ignore_index=True).drop(columns="wall_s")


def assert_complete(folder, expected):
    pd.testing.assert_frame_equal(on_disk(folder), expected, check_exact=True)
    assert json.loads((folder / "manifest.json").read_text())["finished"]
    assert not (folder / "checkpoints").exists() and not list(folder.rglob("*.tmp"))


def process(name, folder, kind, count):
    """A sweep in a process of its own, which kills itself, with as many devices as this one has."""
    devices.start()
    command = [sys.executable, killed_sweep.__file__, name, str(folder), kind, str(count), str(len(jax.devices()))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def saved(folder):
    return checkpoints.numbered(folder / "checkpoints")


# -- killed ----------------------------------------------------------------------------------------------------------------------------


def test_a_sweep_that_was_killed_three_times_gives_the_same_rows(whole_two, tmp_path, capsys):
    """kill -9 in a call of a program, while a checkpoint is written, and while results are; then `--resume`."""
    folder, draw = tmp_path / "run", random.Random(0)
    for kind, count in (("chunk", draw.randint(40, 60)), ("checkpoint", draw.randint(1, 2)), ("results", draw.randint(1, 3))):
        killed = process("TWO", folder, kind, count)
        said, _ = killed.communicate(timeout=300)
        assert killed.returncode == -signal.SIGKILL, said
        assert (folder / "manifest.json").exists()
    cli.main(["sweep", "--resume", str(folder), "--no-report"])
    said = capsys.readouterr().out
    assert "goes on with" in said, said
    assert_complete(folder, on_disk(whole_two))
    assert text_table(load((folder,))) == text_table(load((whole_two,))), "the same report"
    resumed = json.loads((folder / "manifest.json").read_text())["resumed"]
    assert len(resumed) == 3 and all(r["differs"] == {} for r in resumed)


@pytest.mark.soak
def test_twenty_kills_in_a_row(tmp_path_factory, tmp_path):
    """At random moments, by the process's own hand and by the clock; every sweep that comes to its end is compared, then a new one begun."""
    whole = uninterrupted(tmp_path_factory, EXPERIMENT)
    draw, run_number, kills = random.Random(1), 0, 0
    folder = tmp_path / "0"
    while kills < 20:
        kind = draw.choice(["chunk", "checkpoint", "results", "clock"])
        most = {"chunk": 200, "checkpoint": 4, "results": 12, "clock": 0}[kind]
        child = process("EXPERIMENT", folder, kind, draw.randint(1, max(1, most)))
        try:
            said, _ = child.communicate(timeout=draw.uniform(2, 20) if kind == "clock" else 300)
        except subprocess.TimeoutExpired:
            child.kill()
            said, _ = child.communicate()
        kills += child.returncode == -signal.SIGKILL
        if child.returncode == 0:
            assert_complete(folder, on_disk(whole))
            run_number += 1
            folder = tmp_path / str(run_number)
        else:
            assert child.returncode == -signal.SIGKILL, said
    run(folder)
    assert_complete(folder, on_disk(whole))


# -- interrupted -----------------------------------------------------------------------------------------------------------------------


def interrupted(folder, count=60, experiment=LINEAR):
    """A folder of a sweep that was stopped by a signal."""
    with pytest.MonkeyPatch.context() as patch:
        signal_at("chunk", count, signal.SIGTERM, patch.setattr)
        with pytest.raises(Interrupted):
            run(folder, experiment)
    return folder


def test_a_signal_saves_the_sweep_and_the_same_command_goes_on(whole_linear, tmp_path, capsys, monkeypatch):
    line = LINE.format(agent=killed_sweep.AGENT, out=tmp_path / "run").split()
    with pytest.MonkeyPatch.context() as patch:
        signal_at("chunk", 60, signal.SIGTERM, patch.setattr)
        with pytest.raises(SystemExit) as end:
            cli.main(line)
    assert end.value.code == 128 + signal.SIGTERM
    assert f"interrupted; `expo-bench sweep --resume {tmp_path / 'run'}` goes on from here" in capsys.readouterr().err
    assert 1 <= len(saved(tmp_path / "run")) <= 2 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    cli.main(line)
    assert "the next from checkpoint" in capsys.readouterr().out
    assert_complete(tmp_path / "run", whole_linear)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and p.name != ".lock"}
    monkeypatch.setattr(program.ProgramRun, "execute", lambda *_: pytest.fail("run again"))
    cli.main(line)
    assert "complete already" in capsys.readouterr().out
    assert before == {p: p.read_bytes() for p in before}


def test_optimisers_targets_and_replay_come_back(tmp_path_factory, tmp_path):
    """RLPD, stopped in its online phase."""
    whole = uninterrupted(tmp_path_factory, RLPD)
    folder = interrupted(tmp_path / "run", 20, RLPD)
    place = json.loads((saved(folder)[-1] / checkpoints.PLACE).read_text())
    assert place["phase"] == "online" and 0 < place["done"] < 160
    run(folder, RLPD)
    assert_complete(folder, on_disk(whole))


def test_a_second_signal_is_obeyed_at_once_and_an_ignored_one_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal_twice()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            assert interrupts.caught is None
    finally:
        signal.signal(signal.SIGINT, before)


def signal_twice():
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.caught == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


# -- damaged ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A sweep that was stopped when it had two checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        patch.setattr(killed_sweep, "SECONDS_BETWEEN_CHECKPOINTS", 0.01)
        folder = interrupted(tmp_path_factory.mktemp("stopped") / "run", 90)
    assert len(saved(folder)) == 2
    return folder


def largest(path):
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm, which", [(flip, "arrays"), (cut, "place"), (Path.unlink, "both")])
def test_a_damaged_checkpoint_is_seen_and_the_one_before_used(stopped, whole_linear, tmp_path, capsys, harm, which):
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    older, newest = saved(folder)
    if which == "both":
        harm(older / checkpoints.CHECKSUMS)
    harm(newest / checkpoints.PLACE if which == "place" else largest(newest / checkpoints.ARRAYS))
    run(folder, LINEAR)
    said = capsys.readouterr().out
    assert f"warning: checkpoint {newest} is damaged" in said
    assert (f"the next from checkpoint {older.name}" in said) == (which != "both")
    assert_complete(folder, whole_linear)


def test_every_changed_bit_is_seen(stopped, tmp_path):
    """One in every file of a checkpoint."""
    original = saved(stopped)[-1]
    assert checkpoints.damage(original) is None
    for i, path in enumerate(p for p in sorted(original.rglob("*")) if p.is_file() and p.name != checkpoints.CHECKSUMS):
        copy = Path(shutil.copytree(original, tmp_path / str(i)))
        flip(copy / path.relative_to(original))
        assert checkpoints.damage(copy) == f"{path.relative_to(original)} is not as it was written"


def test_a_damaged_file_of_results_is_named(stopped, tmp_path):
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    cut(next((folder / "results").glob("*.parquet")))
    with pytest.raises(UserError, match=r"parquet: cannot be read .*; delete it"):
        run(folder, LINEAR)


# -- full, read-only, in use, of another experiment ---------------------------------------------------------------------------------


def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path):
    """A limit on the size of files stands for the full disk: the operating system refuses the same writes."""
    arrays = {"00000": np.random.default_rng(0).normal(size=10_000)}
    first = checkpoints.write(tmp_path, {"rows": []}, arrays)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, before[1]))
    try:
        with pytest.raises(UserError, match="cannot be written: File too large; what was written before is intact"):
            checkpoints.write(tmp_path, {"rows": []}, arrays)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert saved_here(tmp_path) == [first] and checkpoints.damage(first) is None and not list(tmp_path.glob(".*"))


def saved_here(folder):
    return checkpoints.numbered(folder)


def test_a_sweep_whose_results_cannot_be_written_stops_and_goes_on_later(whole_linear, tmp_path, capsys):
    folder, replace, left = tmp_path / "run", os.replace, [7]

    def full(source, target):
        left[0] -= str(target).endswith(".parquet")
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    line = LINE.format(agent=killed_sweep.AGENT, out=folder).split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(SystemExit) as end:
            cli.main(line)
    errors = [text for text in capsys.readouterr().err.splitlines() if text]
    assert end.value.code == 2 and len(errors) == 1
    assert "cannot be written: No space left on device; what was written before is intact" in errors[0]
    expected = whole_linear.iloc[: len(on_disk(folder))]
    together = min(len(jax.devices()), 4)  # a row per device, of four
    assert len(expected) == 7 * together, "seven evaluations of the first rows"
    pd.testing.assert_frame_equal(on_disk(folder), expected, check_exact=True)
    cli.main(line)
    assert_complete(folder, whole_linear)


def test_a_read_only_folder_is_one_line():
    folder = Path(tempfile.mkdtemp())  # not below pytest's own, which only its owner may enter
    root = os.geteuid() == 0
    try:
        folder.chmod(0o555)
        if root:  # who may write anywhere
            os.seteuid(65534)
        for out in (folder, folder / "new"):
            with pytest.raises(UserError, match=r"cannot be (written|created): Permission denied"):
                RunFolder(out).make("x")
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_a_folder_that_is_in_use_is_refused_at_once(stopped, tmp_path):
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    holder = RunFolder(folder)
    try:
        with pytest.raises(UserError, match=rf"another sweep is at it \(process {os.getpid()} on "):
            run(folder, LINEAR)
    finally:
        holder.close()
    RunFolder(folder).close()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"name": "other"}, 'experiment is "killed" there and "other" here'),
        ({"seeds": 3}, "seeds.2 is nothing there and 2 here"),
        ({"vary": {"tiny_agent.rate": (0.01, 0.06)}}, "programs.0.cells.2.tiny_agent.rate is 0.05 there and 0.06 here"),
        (
            {"protocol": {**LINEAR.protocol, "online_steps": 200}},
            "protocols.point-umaze/tiny_agent/.online_steps is 160 there and 200 here",
        ),
    ],
)
def test_a_folder_of_another_experiment_is_refused_with_the_first_difference(stopped, values, message):
    with pytest.raises(UserError) as refused:
        run(stopped, dataclasses.replace(LINEAR, **values))
    assert message in str(refused.value) and "holds another experiment" in str(refused.value)


def test_other_data_are_another_experiment(stopped, monkeypatch):
    other = killed_sweep.dataset(seed=1)
    monkeypatch.setattr(killed_sweep.runner.datasets, "default_dataset", lambda name, env, cache: other)
    with pytest.raises(UserError, match=r"holds another experiment: tasks.point-umaze.data_sha256 is"):
        run(stopped, LINEAR)


def test_another_plan_is_refused_unless_it_is_asked_for(stopped, whole_linear, tmp_path, capsys):
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    wider = dataclasses.replace(LINEAR, block_rows=2)
    with pytest.raises(UserError, match=r"under another plan: blocks.0 is 1 there and 2 here.*--resume-anyway"):
        run(folder, wider)
    run(folder, wider, resume_anyway=True)
    frame = on_disk(folder)
    keys = ["tiny_agent.rate", "seed", "phase", "env_step", "grad_step"]
    assert len(frame) == len(whole_linear) and not frame.duplicated(keys).any()
    np.testing.assert_allclose(frame.sort_values(keys).loss, whole_linear.sort_values(keys).loss, rtol=1e-4)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["resumed"][0]["differs"] == {"blocks.0": ["1", "2"]} and manifest["programs"][0]["block_rows"] == 2


@pytest.mark.parametrize(
    "options, message",
    [
        ("--resume {missing}", "not a run folder (no manifest.json)"),
        ("--resume {stopped} --seeds 3", "what to run is in its manifest; leave out --seeds"),
        ("--resume {stopped} other.py", "leave out an experiment file"),
        ("--resume {stopped} --precision bfloat16", 'precision is "float32" there and "bfloat16" here'),
        ("--resume {stopped} --denoiser-precision bfloat16", 'denoiser_precision is "float32" there and "bfloat16" here'),
        ("--resume {stopped} --checkpoint-minutes 0", "--checkpoint-minutes must be above 0, got 0.0"),
    ],
)
def test_what_resume_refuses_is_one_line(stopped, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        cli.main(["sweep", *options.format(stopped=stopped, missing=tmp_path / "missing").split()])
    errors = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and len(errors) == 1 and message in errors[0]


# -- diverged --------------------------------------------------------------------------------------------------------------------------


def test_a_row_that_diverges_is_marked_at_its_step_and_the_others_are_untouched(whole_linear, tmp_path, monkeypatch):
    """NaN into the weights of one row of the first wave, after 100 environment steps or a few more."""
    call, at = program.ProgramRun._call, []

    def break_one(run, phase, count):
        if phase == "online" and run.done >= 100 and not at:
            at.append(run.done)
            run.state = run.state._replace(agent={"w": run.state.agent["w"].at[0].set(np.nan)})
        return call(run, phase, count)

    monkeypatch.setattr(program.ProgramRun, "_call", break_one)
    frame = run(tmp_path / "run", LINEAR).drop(columns="wall_s")
    broken = (frame.seed == 0) & (frame["tiny_agent.rate"] == 0.01)
    assert frame[broken].diverged.tolist() == [False] * 5 + [True] * 2
    assert frame[broken].diverged_step.tolist() == [-1] * 5 + at * 2 and 100 <= at[0] < 120
    pd.testing.assert_frame_equal(on_disk(tmp_path / "run")[~broken], whole_linear[~broken], check_exact=True)


# -- the parts -------------------------------------------------------------------------------------------------------------------------


def test_a_run_is_cut_into_legs():
    """Offline evaluations evenly spaced; the warm-up a leg of its own, with nothing to report; the last leg shorter."""
    protocol = Protocol(offline_steps=7, offline_evals=2, warmup_steps=30, online_steps=50, eval_every=20, updates=2)
    seen = [
        (leg.phase, leg.start, leg.stop, leg.evaluation and tuple(leg.evaluation), leg.reported)
        for leg in legs(protocol, ["pretrain", "online"])
    ]
    assert seen == [
        ("pretrain", 0, 3, ("offline", 3, 0, -3), True),
        ("pretrain", 3, 7, ("offline", 7, 0, 0), True),
        ("online", 0, 20, ("online", 7, 20, 20), False),
        ("online", 20, 30, None, False),
        ("online", 30, 40, ("online", 27, 40, 40), True),
        ("online", 40, 50, ("online", 47, 50, 50), True),
    ]
    assert [leg.phase for leg in legs(protocol, ["pretrain"])] == ["pretrain"] * 2 + [None] * 3
    assert legs(protocol, ["online"])[0].evaluation == ("online", 0, 0, 0)
    assert legs(dataclasses.replace(protocol, online_steps=0), ["pretrain"])[-1].stop == 7


def test_rows_come_back_from_disk_as_they_were(tmp_path):
    rows = [{"a": "x", "n": 1, "hidden": (8, 8), "q": float("nan"), "b": True}, {"a": "y", "n": 2, "hidden": (16,), "q": 0.1, "b": False}]
    (tmp_path / "results").mkdir()
    results.write_rows(tmp_path, "x", rows)
    back = results.read_rows(tmp_path, "x")
    assert repr(back) == repr(rows) and results.read_rows(tmp_path, "y") == []
