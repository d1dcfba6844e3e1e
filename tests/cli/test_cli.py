"""The command line: what help costs, what `list` says, and one line and exit code 2 for every wrong input."""

import dataclasses
import importlib.util
import json
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest
from toy import Walk

from expo_bench import cli
from expo_bench.datasets import npz
from expo_bench.datasets.dataset import OfflineDataset

HEAVY = ("jax", "flax", "pandas", "matplotlib", "mujoco")
HELP = [
    "",
    "sweep",
    "status",
    "report",
    "compare",
    "export",
    "import",
    "list",
    "watch",
    "data",
    "data inspect",
    "data fetch",
    "data check",
    "data generate",
    "new-agent",
    "check",
]


def dataset(obs_size=4, action_size=2, rows=8):
    rng = np.random.default_rng(0)
    obs, next_obs = (rng.normal(size=(rows, obs_size)).astype(np.float32) for _ in range(2))
    flags = np.zeros(rows, bool)
    last = np.arange(rows) == rows - 1
    action = rng.uniform(-0.9, 0.9, (rows, action_size)).astype(np.float32)
    return OfflineDataset(obs, action, np.zeros(rows, np.float32), flags, last, next_obs, flags, {"source": "test"})


@pytest.fixture()
def place(tmp_path, monkeypatch):
    """A working folder with files of every kind, good and bad."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "no" / "datasets"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "syntax.py").write_text("EXPERIMENT = (\n")
    (tmp_path / "raises.py").write_text("raise RuntimeError('two\\nlines')\n")
    (tmp_path / "none.py").write_text("x = 1\n")
    (tmp_path / "wrong.py").write_text("from expo_bench import Experiment\nEXPERIMENT = Experiment('e', ['point-umaz'], ['expo'])\n")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("hello")
    npz.write(dataset(), tmp_path / "maze.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "maze.npz").read_bytes()[:300])
    with h5py.File(tmp_path / "cut.hdf5", "w") as file:
        file["observations"] = np.zeros((1000, 4))
    (tmp_path / "cut.hdf5").write_bytes((tmp_path / "cut.hdf5").read_bytes()[:3000])
    broken = dataset()
    broken.obs[3, 1] = np.nan
    npz.write(broken, tmp_path / "nan.npz")
    (tmp_path / "curves.csv").write_text("step,score,seed\n0,0.25,0\n500,0.5,0\n")
    (tmp_path / "half.csv").write_text("step,score,seed\n0,0.25,0\n500,")
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "manifest.json").write_text(json.dumps({"experiment": "e"}))
    return tmp_path


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*") if "__pycache__" not in p.parts}


def refused(line, capsys, place):
    """The one line on stderr with which the command ends; nothing is written."""
    before = tree(place)
    with pytest.raises(SystemExit) as exit:
        cli.main(line.split())
    error = capsys.readouterr().err.splitlines()
    assert exit.value.code == 2
    own = [text for text in error if not text.startswith("warning: ")]
    assert len(own) == 1 and own[0].startswith("expo-bench: error: "), error
    assert tree(place) == before, "something was written"
    return own[0]


def run(code, *args):
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)


def children_seconds():
    """The processor time of all ended children: unlike the wall clock's, it does not depend on what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("command", HELP)
def test_help_answers_within_a_second_and_imports_nothing_heavy(command):
    code = f"""
import sys
from expo_bench.cli import main
try:
    main([*sys.argv[1:], "--help"])
except SystemExit as end:
    assert end.code == 0, end.code
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
"""
    seconds = []
    for _ in range(3):
        began = children_seconds()
        done = run(code, *command.split())
        seconds.append(children_seconds() - began)
        assert done.returncode == 0, done.stderr
        assert f"usage: expo-bench {command}".strip() in done.stdout
        if seconds[-1] < 1:
            break
    assert min(seconds) < 1, seconds


def test_the_plain_list_imports_nothing_heavy():
    done = run(f"import sys\nfrom expo_bench.cli import main\nmain(['list'])\nassert not [n for n in {HEAVY} if n in sys.modules]")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name, expected",
    [
        (
            "",
            [
                "tasks:",
                "brax:NAME",
                "playground:NAME",
                "gym:ID",
                "point-umaze",
                "point-medium",
                "push-disc",
                "door",
                "agents:",
                "expo",
                "idql_online",
                "rlpd",
                "fql",
                "bc",
            ],
        ),
        (
            "expo",
            [
                "--set expo.FIELD=VALUE",
                "n_samples",
                "edit_scale",
                "256x256x256",
                "static",
                "traced",
                "offline_steps",
                "on adroit: edit_scale=0.7",
            ],
        ),
        ("door", ["observations 39, actions 28, horizon 200", "score: solved", "engines: mjx, mujoco", "data: a trained DAPG policy"]),
        ("protocol", ["online_steps", "environment steps of the online phase", "eval_episodes", "sampling"]),
    ],
)
def test_list_says_what_there_is(name, expected, capsys):
    cli.main(["list", *name.split()])
    out = capsys.readouterr().out
    assert [text for text in expected if text not in out] == []


IMPORT = "--task door --agent sac --source cleanrl --out new"
SWEEP = "sweep --tasks point-umaze --agents expo --engine mujoco --out new"


@pytest.mark.parametrize(
    "line, message",
    [
        ("list exppo", "unknown name 'exppo'; did you mean 'expo'"),
        ("sweep", "give an experiment file, or --tasks and --agents"),
        ("sweep --tasks point-umaze", "give an experiment file, or --tasks and --agents"),
        ("sweep --tasks point-umaz --agents expo --out new", "unknown task 'point-umaz'; did you mean 'point-umaze'"),
        ("sweep --tasks point-umaze --agents exppo --out new", "unknown agent 'exppo'; did you mean 'expo'"),
        ("sweep missing.py --out new", "missing.py: does not exist"),
        ("sweep full --out new", "full: does not exist"),
        ("sweep full/notes.txt --out new", "expected a Python file (.py)"),
        ("sweep syntax.py --out new", "syntax.py: cannot be run: SyntaxError"),
        ("sweep raises.py --out new", "raises.py: cannot be run: RuntimeError: two lines"),
        ("sweep none.py --out new", "expected EXPERIMENT = Experiment(...), found NoneType"),
        ("sweep wrong.py --out new", "unknown task 'point-umaz'"),
        (f"{SWEEP} --name ../up", "the name must be that of a folder"),
        (f"{SWEEP} --seeds 0", "seeds must be at least 1, got 0"),
        (f"{SWEEP} --seeds -3", "seeds must be at least 1, got -3"),
        (f"{SWEEP} --first-seed 2147483648", "seeds must stay below 2**31"),
        (f"{SWEEP} --block-rows 0", "block_rows must be at least 1"),
        (f"{SWEEP} --episodes 0", "episodes must be at least 1"),
        (f"{SWEEP} --set n_samples", "--set 'n_samples': expected name=value"),
        (f"{SWEEP} --set n_sample=4", "'n_sample'; did you mean 'n_samples'"),
        (f"{SWEEP} --set expo.n_sample=4", "'n_sample'; did you mean 'n_samples'"),
        (f"{SWEEP} --set rlpd.critics=4", "agent 'rlpd' does not run (running: expo)"),
        (f"{SWEEP} --set expectile=0.8", "(no agent that runs has it) 'expectile'"),
        (f"{SWEEP} --set critics=2 critics=3", "--set critics: given twice"),
        (f"{SWEEP} --set expo.n_samples=-1", "n_samples must be at least 1, got -1"),
        (f"{SWEEP} --set expo.n_samples=1e999", "n_samples: expected int, got '1e999'"),
        (f"{SWEEP} --set expo.critics=0", "critics must be at least 1, got 0"),
        (f"{SWEEP} --set expo.hidden=0x8", "hidden: expected widths of at least 1 such as 256x256, got '0x8'"),
        (f"{SWEEP} --set expo.hidden=x", "hidden: expected widths of at least 1 such as 256x256, got 'x'"),
        (f"{SWEEP} --set expo.hidden=big", "hidden: expected widths such as 256x256, got 'big'"),
        (f"{SWEEP} --set expo.discount=nan", "discount: expected a finite number, got 'nan'"),
        (f"{SWEEP} --set expo.critic_lr=-1e-3", "critic_lr must be at least 0, got -0.001"),
        (f"{SWEEP} --vary edit_scale=0.1", "an axis is written agent.field"),
        (f"{SWEEP} --vary expo.edit_scale", "--vary 'expo.edit_scale': expected name=value"),
        (f"{SWEEP} --vary expo.edit_scale=0.1,", "edit_scale: expected float, got ''"),
        (f"{SWEEP} --vary expo.edit_scale=0.1,0.10", "two cells of vary are the same"),
        (f"{SWEEP} --vary expo.edit_scale=log(0.01,1)", "is a range: name a search (--search sobol --samples 64)"),
        (f"{SWEEP} --vary expo.edit_scale=log(0.01,1 --search sobol", "expected values such as 0.1,0.2 or a range"),
        (f"{SWEEP} --vary expo.edit_scale=exp(0.01,1) --search sobol", "expected values such as 0.1,0.2 or a range"),
        (f"{SWEEP} --samples 8", "--samples and --search-seeds belong to a search"),
        (f"{SWEEP} --search sobol", "a search needs a range"),
        (f"{SWEEP} --vary bc.base_lr=1,2", "names an agent that does not run (running: expo)"),
        (f"{SWEEP} --protocol online_step=1", "'online_step'; did you mean 'online_steps'"),
        (f"{SWEEP} --protocol eval_every=0", "eval_every must be at least 1, got 0"),
        (f"{SWEEP} --protocol reward_shift=inf", "reward_shift: expected a finite number, got 'inf'"),
        (f"{SWEEP} --online-steps -1", "online_steps must be at least 0, got -1"),
        (f"{SWEEP} --dataset none", "offline_steps need a dataset"),
        (f"{SWEEP} --offline-steps 0 --dataset none --rewards recorded", "recorded rewards need a dataset, got dataset 'none'"),
        (f"{SWEEP} --dataset missing.npz", "missing.npz: no such file"),
        (f"{SWEEP} --dataset full", "full: found the suffix ''"),
        (f"{SWEEP} --dataset empty.npz", "empty.npz: the file is empty"),
        (f"{SWEEP} --dataset text.npz", "text.npz: found unknown content"),
        (f"{SWEEP} --dataset cut.npz", "cut.npz: truncated or damaged"),
        (f"{SWEEP} --dataset nan.npz", "nan.npz"),
        (f"{SWEEP} --dataset maze.npz --episodes 9", "maze.npz: 9 episodes asked for, expected 1 to 1"),
        ("sweep --tasks push-disc --agents expo --engine mujoco --dataset maze.npz --out new", "maze.npz"),
        ("sweep --tasks door --agents expo --engine mujoco --out new", "the task door has no default offline data"),
        ("sweep --tasks point-umaze --agents ./missing.py --out new", "agent file missing.py: does not exist"),
        ("sweep --tasks point-umaze --agents ./none.py --out new", "agent file none.py: defines no Config"),
        (
            "sweep --tasks point-umaze --agents syntax.py expo --out new",
            "syntax.py: cannot be run: SyntaxError: '(' was never closed (line 1",
        ),
        ("sweep --tasks point-umaze --agents ./full/notes.txt --out new", "notes.txt: expected a Python file (.py)"),
        ("list ./none.py", "agent file none.py: defines no Config"),
        ("list ./missing.py", "agent file missing.py: does not exist"),
        ("check exppo", "unknown agent 'exppo'; did you mean 'expo'"),
        ("check ./missing.py", "agent file missing.py: does not exist"),
        ("check raises.py", "raises.py: cannot be run: RuntimeError: two lines (line 1: `raise RuntimeError"),
        ("new-agent none.py", "agent file none.py: exists; name a new file"),
        ("new-agent new", "agent file new: expected a Python file (.py)"),
        ("new-agent expo.py", "'expo' is the name of a shipped agent"),
        ("new-agent 1.py", "expected letters, digits, _ and -, got '1'"),
        ("new-agent new/mine.py", "agent file new/mine.py: cannot be written: No such file or directory"),
        ("sweep --tasks point-umaze --agents expo --out full", "--out full: already holds something"),
        ("sweep --tasks point-umaze --agents expo --out none.py", "--out none.py: already holds something"),
        ("sweep --tasks point-umaze --agents expo --out none.py/a/b", "--out none.py/a/b: cannot be created"),
        ("report missing", "missing: no such folder"),
        ("report full", "full: not a run folder"),
        ("report manifest", "manifest: no results yet"),
        ("compare missing --candidate expo", "missing: no such folder"),
        ("compare manifest --candidate expo", "manifest: no results yet"),
        ("compare manifest --candidate expo --threshold nan", "threshold: found nan"),
        ("export missing --out new", "missing: no such folder"),
        ("export manifest --out new", "manifest: no results yet"),
        ("export --out new", "no run folder given"),
        (f"import missing.csv {IMPORT}", "missing.csv: no such file; expected a CSV file"),
        (f"import half.csv {IMPORT}", "half.csv: line 3 has 2 fields; expected 3 as in the header"),
        (f"import empty.npz {IMPORT}", "empty.npz: the file is empty"),
        (f"import cut.npz {IMPORT}", "cut.npz: not a CSV file"),
        (f"import curves.csv {IMPORT} --columns score=reward", "no column 'reward' (--columns score=...); it has: step, score, seed"),
        ("import curves.csv --agent sac --source cleanrl --out new", "has no column 'task'; give its name: --task NAME"),
        ("import curves.csv --task door --agent sac --source cleanrl --out full", "--out full: already holds something"),
        ("data inspect missing.npz", "missing.npz: no such file"),
        ("data inspect full", "found the suffix"),
        ("data inspect empty.npz", "the file is empty"),
        ("list brax:ants", "unknown task 'brax:ants'; did you mean 'brax:ant'"),
        ("list gym:Pendulm-v1", "unknown task 'gym:Pendulm-v1'; did you mean 'gym:Pendulum-v1'"),
        ("sweep --tasks gym:CartPole-v1 --agents expo --out new", "its actions space is Discrete, expected Box"),
        ("sweep --tasks gym:Pendulum-v1 --agents expo --out new", "gym:Pendulum-v1 is of another package and has no default offline data"),
        ("data generate gym:Pendulum-v1 --out new.npz", "task 'gym:Pendulum-v1' has no demonstrator"),
        ("watch --out a.gif", "give a run folder, or --task TASK"),
        ("watch full --policy p.npz --out a.gif", "--policy and --noise are of a task's demonstrator"),
        ("watch full --out a.gif", "full: not a run folder (no manifest.json)"),
        ("watch --task point-umaze", "give --out FILE.gif, --strip FILE.png, or both"),
        ("watch --task point-umaze --out full/a.mp4", "found the suffix '.mp4', expected .gif"),
        ("watch --task point-umaze --strip new/a.png", "the folder new does not exist"),
        ("watch --task point-umaz --out a.gif", "unknown task 'point-umaz'"),
        ("watch --task point-umaze --policy missing.npz --out a.gif", "has a scripted demonstrator, expected no policy file"),
        ("data inspect D4RL/door/human-v2", "D4RL/door/human-v2: not fetched yet"),
        ("data fetch D4RL/dor/human-v2", "unknown dataset 'D4RL/dor/human-v2'; did you mean 'D4RL/door/human-v2'"),
        (f"{SWEEP} --dataset D4RL/door/human-v2", "not fetched yet"),
        (f"{SWEEP} --dataset maze.npz#train", "maze.npz#train: found data of expo-bench, expected a robomimic file"),
        ("data check missing.npz --task point-umaze", "missing.npz: no such file"),
        ("data check maze.npz --task point-umaz", "unknown task 'point-umaz'; did you mean 'point-umaze'"),
        ("data check maze.npz --task push-disc", "maze.npz: obs: found 4 columns, expected 10: the task push-disc has"),
        ("data check nan.npz --task point-umaze", "nan.npz: obs: found nan in row 3, column 1 'y'"),
        ("data check cut.npz --task point-umaze", "cut.npz: truncated or damaged"),
        ("data check cut.hdf5 --task point-umaze", "cut.hdf5: the file is truncated"),
        (f"{SWEEP} --dataset cut.hdf5", "cut.hdf5: the file is truncated"),
        ("data check maze.npz --task point-umaze", "maze.npz: replaying 8 recorded transitions in point-umaze is off by"),
        ("data generate point-umaz", "unknown task 'point-umaz'; did you mean 'point-umaze'"),
        ("data generate point-umaze --out maze.npz", "--out maze.npz: exists"),
        ("data generate point-umaze --out new/maze.pickle", "found the suffix '.pickle', expected .npz"),
        ("data generate point-umaze --out none.py/maze.npz", "the folder none.py cannot be made"),
        ("data generate point-umaze --episodes 0", "episodes: found 0, expected at least 1"),
        ("data generate point-umaze --seed -1", "seed: found -1"),
        ("data generate point-umaze --noise nan", "noise: found nan"),
        ("data generate point-umaze --policy maze.npz", "has a scripted demonstrator, expected no policy file"),
        ("data generate door", "demonstrated by a trained policy, found none"),
        ("data generate door --policy missing.npz", "missing.npz"),
        ("data generate door --policy maze.npz", "maze.npz"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_code_2_and_writes_nothing(line, message, capsys, place):
    assert message in refused(line, capsys, place)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "swep",
        "sweep --bogus 3",
        "sweep --seeds many",
        "sweep --engine bullet",
        "report",
        "compare manifest",
        "data",
        "data generate",
        "import curves.csv",
    ],
)
def test_what_the_options_do_not_allow_is_exit_code_2_too(line, capsys, place):
    before = tree(place)
    with pytest.raises(SystemExit) as exit:
        cli.main(line.split())
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error and "Traceback" not in error
    assert tree(place) == before


def test_the_door_without_its_package_is_one_line(capsys, place, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gymnasium_robotics" else find(name, *rest))
    for line in ("sweep --tasks door --agents expo --engine mujoco --out new", "data generate door --policy maze.npz"):
        assert "pip install 'expo-bench[adroit]'" in refused(line, capsys, place)


def test_curves_come_in_and_go_out_again(capsys, place):
    cli.main(f"import curves.csv {IMPORT}".split())
    assert capsys.readouterr().out.splitlines() == [
        "door: sac [imported: cleanrl], 1 seed (0), 2 evaluations up to environment step 500, scores from 0.25 to 0.5",
        "run folder: new",
    ]
    assert json.loads((place / "new" / "manifest.json").read_text())["command"] == f"expo-bench import curves.csv {IMPORT}"
    cli.main("export new --out out.csv".split())
    assert capsys.readouterr().out == "written: out.csv\n"
    assert "door,sac [imported: cleanrl],sac," in (place / "out.csv").read_text()
    cli.main("report new --published --out shown".split())
    assert "sac [imported: cleanrl]" in capsys.readouterr().out and "EXPO Fig. 4" in (place / "shown" / "report.html").read_text()


def test_compare_prints_the_verdict_or_json_and_names_what_is_wrong(capsys, place):
    for agent, top in (("sac", 0.5), ("expo", 0.25)):
        scores = "".join(f"{step},{top * step / 500 + 0.01 * (seed + len(agent)) ** 2},{seed}\n" for seed in range(4) for step in (0, 500))
        (place / f"{agent}.csv").write_text("step,score,seed\n" + scores)
        cli.main(f"import {agent}.csv --task door --agent {agent} --source cleanrl --out {agent}".split())
    capsys.readouterr()
    cli.main("compare sac expo --candidate sac".split())
    said = capsys.readouterr().out
    assert said.startswith("sac [imported: cleanrl] against expo [imported: cleanrl]: ") and "4 seeds, unpaired" in said
    cli.main("compare sac expo --candidate sac --json".split())
    found = json.loads(capsys.readouterr().out)
    assert found["reference"] == "expo [imported: cleanrl]" and found["tasks"]["door"]["final_score"]["difference"]["n"] == 4
    assert "no method 'sca' in these results; did you mean" in refused("compare sac expo --candidate sca", capsys, place)
    assert "expected two methods" in refused("compare sac expo --candidate expo", capsys, place)


def test_an_export_without_its_package_is_one_line(capsys, place, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "pip install 'expo-bench[wandb]'" in refused("export manifest --format wandb --out new", capsys, place)


def test_an_out_that_cannot_be_is_refused_before_anything_is_built(capsys, place, monkeypatch):
    from expo_bench.sweeps import runner

    monkeypatch.setattr(runner, "prepare_task", lambda *_: pytest.fail("built"))
    refused("sweep --tasks point-umaze --agents expo --out full", capsys, place)


def test_an_error_of_the_program_itself_is_not_hidden(place, monkeypatch):
    from expo_bench.sweeps import runner

    monkeypatch.setattr(runner, "prepare_task", lambda *_: dataclasses.replace(Walk(), nonsense=1))
    with pytest.raises(TypeError):
        cli.main(["sweep", "--tasks", "point-umaze", "--agents", "expo", "--out", "new"])
    assert not (place / "new").exists()
