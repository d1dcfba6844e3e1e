"""A sweep as jobs: what they give is what one process gives, whatever happens to one of them; and what `status` says meanwhile."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import killed_sweep
import pandas as pd
import pytest

from expo_bench import UserError, cli
from expo_bench.errors import Interrupted
from expo_bench.sweeps import cluster, jobs, parts, program, slurm, status
from expo_bench.sweeps.folder import JobFolder, RunFolder, job_path
from expo_bench.sweeps.progress import Heartbeat

TESTS = Path(killed_sweep.__file__).resolve().parent.parent
AGENT = TESTS / "sweeps" / "toy_agent.py"
LINE = (
    f"sweep --tasks point-umaze --agents {AGENT} --seeds 2 --vary toy_agent.rate=0.01,0.05 --protocol offline_steps=120 warmup_steps=30 "
    "online_steps=160 batch_size=8 eval_every=40 eval_episodes=4 offline_evals=3 --block-rows 1 --name jobs --no-report --out"
).split()


def prepare(patch):
    """Here and in the jobs, which read the environment."""
    killed_sweep.use_the_toy(patch.setattr)
    patch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # or its import closes what pytest captures
    patch.setenv("PYTHONPATH", ":".join(map(str, (TESTS.parent, TESTS, TESTS / "sweeps"))))


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    prepare(monkeypatch)


def on_disk(folder):
    """All rows but their wall time, in an order that does not depend on how they were cut."""
    files = sorted((folder / "results").glob("*.parquet"))
    frame = pd.concat([pd.read_parquet(p) for p in files], ignore_index=True).drop(columns="wall_s")
    return frame.sort_values(["toy_agent.rate", "seed", "phase", "grad_step", "env_step"], ignore_index=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The rows of the same sweep in one process, on the devices of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        patch.setattr(program, "CHUNK_SECONDS", 2.0)
        folder = tmp_path_factory.mktemp("runs") / "whole"
        cli.main([*LINE, str(folder)])
        return on_disk(folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """(run folder, what was said) of four jobs, of which one was killed."""
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        folder = tmp_path_factory.mktemp("runs") / "jobs"
        patch.setenv("TOY_MARKS", str(folder.parent))
        patch.setenv("TOY_TROUBLE", "1:kill")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            cli.main([*LINE, str(folder), "--cluster", "local", "--jobs", "4", "--checkpoint-minutes", "0.0025"])
        return folder, said.getvalue()


def test_four_jobs_of_which_one_is_killed_give_the_rows_of_one_process(whole, killed):
    folder, said = killed
    assert "4 runs in 4 jobs" in said and said.count("is done") == 4
    assert "job 001 was killed by signal 9; it is started again" in said
    pd.testing.assert_frame_equal(on_disk(folder), whole, check_exact=True)
    assert [p.name for p in (folder / "results").iterdir()] == ["000-point-umaze-toy_agent.parquet"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["finished"] and manifest["devices"] == 1 and manifest["cluster"]["differs"] == []
    assert manifest["programs"][0]["timings"]["online_s"] > 0 and manifest["programs"][0]["block_rows"] == 1
    assert not list(folder.rglob("*.tmp")) and not list(folder.rglob("checkpoints"))
    assert "goes on with" in (folder / "jobs" / "001.log").read_text()


@pytest.mark.parametrize("again", ["{same} --cluster local", "sweep --no-report --resume {folder} --cluster local", "{same}"])
def test_what_is_complete_is_not_run_again_with_jobs_or_without(killed, capsys, monkeypatch, again):
    folder, _ = killed
    monkeypatch.setattr(jobs, "run_local", lambda *_: pytest.fail("run again"))
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    cli.main(again.format(same=" ".join([*LINE, str(folder)]), folder=folder).split())
    assert "complete already" in capsys.readouterr().out
    assert before == {p: p.read_bytes() for p in before}


def test_the_report_cannot_tell_it_from_a_local_sweep(killed):
    from analysis.load import load

    results = load([killed[0]])
    assert not results.notes and len(results.frame) == 28 and len(results.methods) == 2


def test_status_of_a_finished_sweep(killed, capsys):
    folder, _ = killed
    cli.main(["status", str(folder)])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{folder}: done, 4 of 4 runs finished, none diverged, 28 of 28 evaluations" and len(said) == 5
    assert said[3].split() == "job 002 done 100% point-umaze toy_agent, runs 2 to 2".split()
    cli.main(["status", str(folder), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "done" and found["seconds_left"] == 0 and [job["state"] for job in found["jobs"]] == ["done"] * 4


@pytest.fixture()
def begun(killed, tmp_path):
    """A run folder of four jobs: 0 is done, 1 at work, 2 failed, 3 not yet started."""
    folder = tmp_path / "run"
    manifest = json.loads((killed[0] / "manifest.json").read_text()) | {"finished": None}
    (folder / "results").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for number in range(3):
        job_path(folder, number).mkdir(parents=True)
    own = json.loads((job_path(killed[0], 0) / "manifest.json").read_text())
    (job_path(folder, 0) / "manifest.json").write_text(json.dumps(own))
    Heartbeat(job_path(folder, 0)).beat("done", total=1000)
    Heartbeat(job_path(folder, 1)).beat("running", total=1000, done=400.0, rate=60.0)
    Heartbeat(job_path(folder, 2)).beat("failed", error="UserError: no space")
    rows = pd.read_parquet(killed[0] / "results" / "000-point-umaze-toy_agent.parquet")
    own = rows[(rows.seed == 0) & (rows["toy_agent.rate"] == 0.01)]
    own.assign(diverged=True).to_parquet(folder / "results" / "000-point-umaze-toy_agent-000.parquet")
    own.iloc[:2].assign(seed=1).to_parquet(folder / "results" / "000-point-umaze-toy_agent-001.parquet")
    return folder


@contextlib.contextmanager
def at_work(run, number):
    """A process is at this job."""
    with contextlib.closing(JobFolder(run, number)) as folder:
        folder.make("")
        yield


def test_status_of_a_sweep_under_way(begun, capsys):
    """One job of four is done and one at 40 %, of the others nothing is known: 2600 of 4000 gradient steps are left, at 60 a second."""
    with at_work(begun, 1):
        found = status.of(begun)
    assert [job["state"] for job in found["jobs"]] == ["done", "running", "failed", "stopped"] and found["state"] == "running"
    assert (found["runs_done"], found["runs"], found["runs_diverged"]) == (1, 4, 1)
    assert (found["evaluations_done"], found["evaluations"], found["rate"]) == (9, 28, 60.0)
    assert found["seconds_left"] == pytest.approx(2600 / 60)
    lines = status.text(found).splitlines()
    assert lines[0].endswith("running, 1 of 4 runs finished, 1 diverged, 9 of 28 evaluations, 60 gradient steps/s, about 43.3 s left")
    assert "UserError: no space" in lines[3]
    assert status.of(begun)["jobs"][1]["state"] == "stopped", "its lock is free, so that it is dead"


def test_status_asks_slurm(begun, monkeypatch):
    manifest = json.loads((begun / "manifest.json").read_text())
    manifest["cluster"] |= {"kind": "slurm", "jobs": {str(n): f"7_{n}" for n in range(4)}}
    (begun / "manifest.json").write_text(json.dumps(manifest))
    said = "7_0 COMPLETED\n7_1 RUNNING\n7_2 PENDING\n7_3 PENDING\n8_1 RUNNING\n"
    monkeypatch.setattr(status.shutil, "which", lambda name: name)
    monkeypatch.setattr(status.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess((), 0, said))
    assert [job["state"] for job in status.of(begun)["jobs"]] == ["done", "running", "requeued", "pending"]
    assert cluster._left(begun, manifest) == []
    said = "7_1 CANCELLED\n7_2 PENDING\n"
    assert cluster._left(begun, manifest) == [1, 3]


@pytest.mark.parametrize("name, message", [("", "not a run folder (no manifest.json)"), ("missing", "no such folder")])
def test_status_of_a_wrong_folder_is_one_line(tmp_path, capsys, name, message):
    with pytest.raises(SystemExit) as end:
        cli.main(["status", str(tmp_path / name)])
    errors = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and len(errors) == 1 and message in errors[0]


# -- several processes as one program --------------------------------------------------------------------------------------------------


def together(folder, coordinator, **environment):
    """Two processes with a device each -> their codes and what each of them said."""
    line = [
        sys.executable,
        "-c",
        "import sys; from expo_bench.sweeps import devices; devices.cores = lambda: 1; from expo_bench import cli; cli.main()",
    ]
    options = [*LINE, str(folder), "--coordinator", f"localhost:{coordinator}", "--processes", "2", "--process"]
    own = lambda i: {**os.environ, "TOY_NUMBER": str(i), "TOY_SECONDS": "0.5", **environment}
    run = lambda i: subprocess.Popen([*line, *options, str(i)], env=own(i), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    processes = [run(i) for i in range(2)]
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def free_port():
    with socket.socket() as own:
        own.bind(("localhost", 0))
        return own.getsockname()[1]


def test_two_processes_as_one_program_give_the_rows_of_one(whole, tmp_path):
    """The second is told to stop; both are saved by the first, stop, and go on to the same rows."""
    folder = tmp_path / "run"
    codes, said = together(folder, free_port(), TOY_TROUBLE="1:stop", TOY_CALLS="12", TOY_MARKS=str(tmp_path))
    assert codes == [128 + signal.SIGTERM] * 2, said
    assert list((folder / "checkpoints").iterdir()) and "goes on from here" in said[0]
    codes, said = together(folder, free_port())
    assert codes == [0, 0] and "the next from checkpoint" in said[0], said
    pd.testing.assert_frame_equal(on_disk(folder), whole, check_exact=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["devices"] == 2 and manifest["finished"] and not list(folder.rglob("*.tmp"))


# -- Slurm ----------------------------------------------------------------------------------------------------------------------------

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=5
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def slurm_says(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture()
def own_slurm(monkeypatch):
    """A Slurm of one node with four cores on this machine, two partitions, one of which pre-empts the other."""
    if not os.environ.get("EXPO_BENCH_TEST_SLURM"):
        pytest.skip("minutes with a Slurm of its own: `make test-slurm` runs it")
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"no {', '.join(missing)} here: `make test-slurm` installs Slurm" if missing else "only root can start a Slurm")
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # a short path: it holds a socket
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o600)
    text = SLURM_CONF.format(host=socket.gethostname().partition(".")[0], ports=(free_port(), free_port()), folder=folder)
    (folder / "slurm.conf").write_text(text)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    munge = {"socket": "munge.socket", "key-file": "key", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munged.seed"}
    commands = [
        ["munged", "--foreground", "--force", *(f"--{k}={folder / v}" for k, v in munge.items())],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    ]
    started = []
    try:
        for command in commands:
            with open(folder / f"{command[0]}.out", "w") as out:
                started.append(subprocess.Popen(command, stdout=out, stderr=out))
            time.sleep(1.0)
        until(lambda: "idle" in slurm_says("sinfo", "--noheader", "--format=%t"), 60, folder / "slurmd.out")
        yield folder
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def until(holds, seconds, what):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what.read_text() if isinstance(what, Path) else what()
        time.sleep(0.5)


@pytest.mark.slurm
def test_slurm_jobs_that_are_killed_pre_empted_and_out_of_time_give_the_rows_of_one_process(
    own_slurm, whole, tmp_path, capsys, monkeypatch
):
    """Job 1 is killed, 2 is pre-empted and requeued by Slurm, 3 gets the signal that comes before the end of its time and requeues itself."""
    run = tmp_path / "run"
    monkeypatch.setenv("TOY_MARKS", str(tmp_path))
    monkeypatch.setenv("TOY_TROUBLE", "1:kill 2:slow 3:slow")
    options = ["--cluster", "slurm", "--time", "30", "--checkpoint-minutes", "10"]
    cli.main([*LINE, str(run), "--jobs", "4", "--partition", "low", "--cpus-per-task", "1", *options])
    assert "4 jobs submitted" in capsys.readouterr().out
    ids = json.loads((run / "manifest.json").read_text())["cluster"]["jobs"]
    job = lambda n: status.of(run)["jobs"][n]
    logs = lambda: status.text(status.of(run)) + "".join(p.read_text()[-2000:] for p in (run / "jobs" / "slurm").glob("*log.*"))
    until(lambda: all((job(n)["done"] or 0) > 10 or job(n)["state"] != "running" for n in range(4)), 240, logs)
    until(lambda: job(0)["state"] == "done" and job(1)["state"] == "stopped" and "Slurm" in status.text(status.of(run)), 120, logs)
    until(lambda: job(2)["done"] > 10 and job(3)["done"] > 10, 120, logs)
    cli.main(["sweep", "--resume", str(run), "--no-report", "--jobs", "1", *options])  # while the others are alive
    assert "1 jobs submitted" in capsys.readouterr().out
    slurm_says("scancel", "--signal=USR2", ids["3"])
    until(lambda: (run / "jobs" / "003" / "checkpoints").exists(), 60, logs)
    slurm_says("sbatch", "--partition=high", "--ntasks=4", "--output=/dev/null", "--wrap=sleep 2")
    until(lambda: (run / "jobs" / "002" / "checkpoints").exists(), 60, logs)
    until(lambda: status.of(run)["state"] == "done", 300, logs)
    pd.testing.assert_frame_equal(on_disk(run), whole, check_exact=True)
    joined = ["000-point-umaze-toy_agent.parquet"]  # by the last job, a moment after it is done
    until(lambda: [p.name for p in (run / "results").iterdir()] == joined, 60, logs)
    assert [job(n)["restarts"] for n in (0, 2, 3)] in ([None, "1", "1"], ["0", "1", "1"])
    said = [p.read_text() for n in (2, 3) for p in (run / "jobs" / "slurm").glob(f"{ids[str(n)]}_0_log.out")]
    assert len(said) == 2 and all("the next from checkpoint" in text for text in said)


# -- refused ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ("--jobs 2", "--jobs: expected --cluster local or slurm beside it"),
        ("--cluster local --partition gpu", "--partition: expected --cluster slurm beside it"),
        ("--cluster local --process 0", "--process: expected no --cluster beside it"),
        ("--cluster local --jobs 0", "--jobs must be at least 1, got 0"),
        ("--cluster slurm --time soon", "--time soon: expected hours:minutes:seconds"),
        ("--cluster slurm --slurm qos", "--slurm 'qos': expected name=value"),
        ("--process 0", "--coordinator, --processes is missing"),
        ("--coordinator localhost:1 --processes 2 --process 2", "--process must be 0 to 1"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        cli.main([*LINE, str(tmp_path / "run"), *options.split()])
    errors = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and len(errors) == 1 and message in errors[0] and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ("", "is a sweep of jobs; `expo-bench sweep --resume"),
        ("--cluster local --block-rows 2", "leave out --block-rows"),
        ("--cluster local --seeds 3", "seeds.2 is nothing there and 2 here"),
    ],
)
def test_what_a_folder_of_jobs_refuses(begun, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        cli.main([*LINE, str(begun), *options.split()])
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_two_submitters_are_refused_and_a_job_that_is_alive_is_left_alone(begun, capsys, monkeypatch):
    submitter = RunFolder(begun)
    with pytest.raises(SystemExit):
        cli.main([*LINE, str(begun), "--cluster", "local"])
    assert "another sweep is at it" in capsys.readouterr().err
    submitter.close()
    started = []
    monkeypatch.setattr(jobs, "run_local", lambda run, left, *_: started.extend(left))
    with at_work(begun, 1):
        cli.main([*LINE, str(begun), "--cluster", "local"])
    assert started == [2, 3] and "pending or running" in capsys.readouterr().out


def test_a_folder_that_was_begun_without_jobs_is_refused(whole, tmp_path, capsys):
    (tmp_path / "manifest.json").write_text(json.dumps({"experiment": "x"}))
    with pytest.raises(UserError, match="holds another experiment"):
        cluster.run(killed_sweep.LINEAR, tmp_path, cluster.Cluster("local"))


def test_no_slurm_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as end:
        cli.main([*LINE, str(tmp_path / "run"), "--cluster", "slurm"])
    assert end.value.code == 2 and "no srun on this machine" in capsys.readouterr().err


# -- the parts -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows, block, devices, wanted, expected",
    [
        (10, 5, 2, 1, [(0, 10)]),
        (10, 3, 1, 4, [(0, 3), (3, 3), (6, 3), (9, 1)]),
        (10, 1, 2, 2, [(0, 4), (4, 6)]),
        (3, 1, 1, 8, [(0, 1), (1, 1), (2, 1)]),
    ],
)
def test_a_program_is_cut_into_whole_waves(rows, block, devices, wanted, expected):
    whole = dataclasses.replace(cluster.runner.plan(killed_sweep.LINEAR)[0], rows=(None,) * rows)
    cut = parts.cut([whole], [block], devices, wanted)
    assert [(part.first, part.rows) for part in cut] == expected
    assert len({part.name for part in cut}) == len(cut)


@pytest.mark.parametrize(
    "text, expected", [("4:00:00", 240), ("1-12:00:00", 2160), ("90", 90), ("0:30", 1), ("2-0", 2880), ("1:30:01", 91)]
)
def test_time_limits_are_slurms(text, expected):
    assert slurm.minutes(text) == expected


def test_what_slurm_is_asked_for():
    asked = slurm._parameters("x", 4, cluster.Cluster("slurm", 2, 8, 2, 3, "gpu", "lab", "4:00:00", {"qos": "low"}))
    assert asked["time"] == 240 and asked["array_parallelism"] == 2 and asked["ntasks_per_node"] == 2 and asked["nodes"] == 3
    assert asked["additional_parameters"] == {"requeue": True, "qos": "low"} and asked["srun_args"] == ["--cpus-per-task=8"]


def started(code):
    return lambda *_: subprocess.Popen([sys.executable, "-S", "-c", code])


def test_a_job_that_fails_is_named_when_the_others_are_done(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_start", lambda run, number, *_: started(f"raise SystemExit({2 * number})")())
    job_path(tmp_path, 1).mkdir(parents=True)
    Heartbeat(job_path(tmp_path, 1)).beat("failed", error="UserError: no space")
    with pytest.raises(UserError, match=r"2 of 3 jobs failed; job 00[12]: "):
        jobs.run_local(tmp_path, [0, 1, 2], 1, 1, lambda line: None, lambda: None)


def test_a_job_that_is_always_killed_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_start", started("import os; os.kill(os.getpid(), 9)"))
    said = []
    with pytest.raises(UserError, match="1 of 1 jobs failed; job 000: ended with code -9"):
        jobs.run_local(tmp_path, [0], 1, 1, said.append, lambda: None)
    assert len(said) == jobs.RESTARTS


def test_an_interrupt_reaches_every_job(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_start", started("import time; time.sleep(60)"))
    monkeypatch.setattr(jobs, "SHOW_SECONDS", 0.0)
    began, signals = time.monotonic(), [signal.SIGTERM]
    with pytest.raises(Interrupted, match="--cluster local` goes on"):
        show = lambda: signals and signal.raise_signal(signals.pop())
        jobs.run_local(tmp_path, [0, 1, 2], 2, 1, lambda line: None, show)
    assert time.monotonic() - began < 30
