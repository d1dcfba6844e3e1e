"""Agents from files beside agents by name: what they are called, what is refused, what a run keeps of them; and the template learns."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import tyro
from toy import Walk, dataset

import expo_bench
from expo_bench import Experiment, Method, UserError, agents, cli
from expo_bench.agents import files
from expo_bench.commands.sweep import experiment_of
from expo_bench.options import Sweep
from expo_bench.sweeps import runner

TINY = (Path(__file__).parent.parent / "tiny_agent.py").read_text()
STEPS = {"offline_steps": 6, "online_steps": 20, "updates": 2, "batch_size": 8, "eval_every": 20, "eval_episodes": 4}


@pytest.fixture()
def place(tmp_path, monkeypatch):
    """A working folder with an agent, where `point-umaze` is the toy walk, with the toy's data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner.envs, "make", lambda name, engine="auto": Walk())
    monkeypatch.setattr(runner.datasets, "default_dataset", lambda name, env, cache: dataset())
    (tmp_path / "my_agent.py").write_text(TINY)
    return tmp_path


def experiment(*methods, **values):
    return Experiment("files", tasks=["point-umaze"], methods=methods, seeds=2, protocol=STEPS, **values)


def test_a_file_runs_under_its_stem_and_the_run_keeps_it(place):
    methods = (Method("./my_agent.py", config={"scale": 2}), Method("./my_agent.py", "twice"))
    frame = expo_bench.run(experiment(*methods, vary={"my_agent.rate": (0.01, 0.1)}), place / "out")
    assert set(frame.agent) == {"my_agent"} and set(frame["my_agent.rate"]) == {0.01, 0.1} and set(frame.variant) == {"", "twice"}
    manifest = json.loads((place / "out" / "manifest.json").read_text())
    kept = {"file": "my_agent.py", "sha256": hashlib.sha256(TINY.encode()).hexdigest(), "copy": "agents/my_agent.py"}
    assert manifest["agent_files"] == {"my_agent": kept}
    assert (place / "out" / "agents" / "my_agent.py").read_text() == TINY
    assert [program["config"]["scale"] for program in manifest["programs"]] == [2, 1]
    again = dataclasses.replace(methods[1], agent=str(place / "out" / "agents" / "my_agent.py"))
    repeated = expo_bench.run(experiment(again, vary={"my_agent.rate": (0.01, 0.1)}), place / "again").drop(columns="wall_s")
    first = frame[frame.variant == "twice"].drop(columns="wall_s").reset_index(drop=True)
    assert repeated.equals(first)


def test_shipped_agents_leave_no_files(place):
    frame = expo_bench.run(experiment("bc", config={"base_hidden": 4, "base_blocks": 1, "denoising_steps": 1}), place / "out")
    assert json.loads((place / "out" / "manifest.json").read_text())["agent_files"] == {}
    assert not (place / "out" / "agents").exists() and len(frame)


def test_the_command_line_speaks_of_a_file_by_its_stem(place):
    line = "--tasks point-umaze --agents ./my_agent.py rlpd --set my_agent.scale=3 discount=0.9 --vary my_agent.rate=0.1,0.2"
    args = tyro.cli(Sweep, args=line.split())
    mine, rlpd = runner.plan(experiment_of(args))
    assert (mine.agent, mine.config.scale, {r.hyper["rate"] for r in mine.rows}) == ("my_agent", 3, {0.1, 0.2})
    assert {r.hyper["discount"] for r in (*mine.rows, *rlpd.rows)} == {0.9}
    with pytest.raises(UserError, match="agent 'tiny' does not run .running: my_agent, rlpd"):
        experiment_of(tyro.cli(Sweep, args=line.replace("my_agent.scale", "tiny.scale").split()))


def test_a_file_that_is_edited_is_loaded_anew_but_not_in_a_plan(place):
    (before,) = runner.plan(experiment("my_agent.py"))
    assert agents.load("my_agent.py") is before.module, "the same content is the same module"
    (place / "my_agent.py").write_text(TINY.replace("static(1,", "static(7,"))
    (after,) = runner.plan(experiment("my_agent.py"))
    assert (before.config.scale, after.config.scale) == (1, 7)
    assert b"static(1," in files.own(before.module).content


def test_list_shows_the_fields_of_a_file(place, capsys):
    cli.main(["list", "./my_agent.py"])
    out = capsys.readouterr().out
    assert "A linear agent" in out and "--set my_agent.FIELD=VALUE" in out and "step size" in out


def test_the_template_is_written_once_and_is_short(place, capsys):
    cli.main(["new-agent", "fresh.py"])
    assert "expo-bench check fresh.py" in capsys.readouterr().out
    text = (place / "fresh.py").read_text()
    assert len(text.splitlines()) <= 60 and files.own(agents.load("fresh.py")).name == "fresh"


@pytest.mark.parametrize(
    "change, message",
    [
        (("", ""), None),
        (("class Config", "class Other"), "agent file my_agent.py: defines no Config; expected a frozen dataclass"),
        (("def make(", "def made("), "agent file my_agent.py: defines no make; expected make(config, spec) -> Agent"),
        (("PROTOCOL =", "protocol ="), "agent file my_agent.py: defines no PROTOCOL; expected PROTOCOL = Protocol(...)"),
        (('= static(1, "scale of the first weights")', "= 1"), "line 16: `scale: int = 1`: the field scale is not marked; expected static("),
        (("import jax.numpy", "import jaxx.numpy"), "cannot be run: ModuleNotFoundError: No module named 'jaxx' (line 6: `import jaxx.numpy as jnp`)"),
        (("class Config:", "class Config"), "cannot be run: SyntaxError: expected ':' (line 15: `class Config`)"),
        (("PROTOCOL =", "1 / 0\nPROTOCOL ="), "cannot be run: ZeroDivisionError: division by zero (line 21: `1 / 0`)"),
        (("PROTOCOL =", "raise SystemExit\nPROTOCOL ="), "cannot be run: SystemExit (line 21: `raise SystemExit`)"),
        (("scale: int =", "scale ="), "cannot be run: TypeError: 'scale' is a field but has no type annotation (line 14"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_agent_is_one_line_with_its_place(place, change, message):
    text = TINY.replace(*change) if change[0] else TINY
    (place / "my_agent.py").write_text(text)
    if message is None:
        assert len(runner.plan(experiment("my_agent.py"))) == 1
        return
    assert text != TINY
    with pytest.raises(UserError) as error:
        runner.plan(experiment("./my_agent.py"))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "method, message",
    [
        ("./missing.py", "agent file missing.py: does not exist"),
        ("./my_agent", "agent file my_agent: does not exist"),
        ("my_agent", "(a file is named by its path: ./my_agent.py)"),
        ("expo.py", "agent file expo.py: 'expo' is the name of a shipped agent; expected a name of its own"),
        ("my agent.py", "its name becomes the agent's; expected letters, digits, _ and -, got 'my agent'"),
        ("notes.txt/x", "agent file notes.txt/x: does not exist"),
        ("./notes.txt", "agent file notes.txt: expected a Python file (.py)"),
    ],
)
def test_a_name_that_cannot_be_is_refused(place, method, message):
    (place / "notes.txt").write_text("mine")
    for name in ("expo.py", "my agent.py"):
        (place / name).write_text(TINY)
    with pytest.raises(UserError) as error:
        runner.plan(experiment(method))
    assert message in str(error.value)


def test_two_files_of_one_name_are_refused(place):
    (place / "other").mkdir()
    (place / "other" / "my_agent.py").write_text(TINY)
    with pytest.raises(UserError, match="the agents my_agent.py and other/my_agent.py have one name, 'my_agent'"):
        runner.plan(experiment("my_agent.py", Method("other/my_agent.py", "new")))


def test_the_template_learns(place):
    """To walk to the end in nearly every episode, which it hardly does before it has learnt."""
    cli.main(["new-agent", "fresh.py"])
    small = {"n_samples": 4, "flow_steps": 3, "base_hidden": 32, "hidden": (32, 32), "lr": 3e-3, "tau": 0.05, "discount": 0.9}
    protocol = {"offline_steps": 1, "online_steps": 600, "updates": 2, "batch_size": 32, "eval_every": 600, "eval_episodes": 32}
    frame = expo_bench.run(dataclasses.replace(experiment("fresh.py", config=small), protocol=protocol), place / "out")
    success = frame.groupby("env_step").success.mean()
    assert success.loc[600] > 0.9, success
    assert success.loc[600] > success.loc[0] + 0.2, success
