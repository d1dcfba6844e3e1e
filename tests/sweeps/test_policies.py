"""Trained agents: what a sweep keeps of them, what is exported, and that it evaluates as it did in its sweep."""

import dataclasses
import json
import shutil
import types

import jax
import jax.numpy as jnp
import killed_sweep
import numpy as np
import pandas as pd
import pytest
from killed_sweep import AGENT, LINEAR, RLPD, run, signal_at
from shared_programs import Shared
from toy import Walk

import expo_bench
from expo_bench import Method, UserError, cli, policy, watching
from expo_bench.errors import Interrupted
from expo_bench.sweeps import policies, program
from expo_bench.sweeps.schedule import Evaluation

BOTH = dataclasses.replace(LINEAR, methods=[Method(AGENT), "rlpd"], vary={"tiny_agent.rate": (0.01, 0.05)})
MEASURED = ("score", "episode_return", "success", "episode_length", "q_value", "q_bias")

SHARED = Shared()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        killed_sweep.use_the_toy(patch.setattr)
        SHARED.use(patch)
        patch.setattr(program, "CHUNK_SECONDS", 2.0)
        path = tmp_path_factory.mktemp("runs") / "both"
        run(path, BOTH, checkpoint_minutes=10)
    return path


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    killed_sweep.use_the_toy(monkeypatch.setattr)
    SHARED.use(monkeypatch)


def rows(folder):
    return pd.concat([pd.read_parquet(p) for p in sorted((folder / "results").glob("*.parquet"))], ignore_index=True)


def archives(folder):
    return {path.name: policies.read(path) for path in sorted((folder / "policies").glob("*.npz"))}


@pytest.mark.parametrize("which", ["best", "last"])
@pytest.mark.parametrize("agent", ["rlpd", "tiny_agent"])
def test_an_exported_agent_evaluates_as_it_did_in_its_sweep(folder, tmp_path, agent, which):
    wanted = {"agent": agent, "seed": "1", **({"tiny_agent.rate": "0.050"} if agent == "tiny_agent" else {})}
    policies.export(folder, wanted, which, tmp_path / "policy.npz")
    loaded = expo_bench.load_policy(tmp_path / "policy.npz", AGENT if agent == "tiny_agent" else None)
    of = rows(folder).query(f"agent == '{agent}' and seed == 1")
    if agent == "tiny_agent":
        of = of[of["tiny_agent.rate"] == 0.05]
    of = of.reset_index(drop=True)
    number = of.score.idxmax() if which == "best" else len(of) - 1  # idxmax: the first of equals
    assert (loaded.about["env_step"], loaded.about["grad_step"]) == (of.env_step[number], of.grad_step[number])
    again = policy.evaluate(loaded, episodes=4, seed=1, number=loaded.about["evaluation"])
    assert {name: again[name] for name in MEASURED} == {name: pytest.approx(of[name][number], rel=1e-6) for name in MEASURED}


def test_the_agents_differ_where_their_training_did(folder):
    """Each row is its own: no row's arrays stand for another's."""
    for _, arrays in archives(folder).values():
        last = next(x for name, x in arrays.items() if name.startswith("last/0") and x.ndim > 1)
        assert len({row.tobytes() for row in last}) == len(last)


def test_optimisers_are_left_out(folder, tmp_path):
    policies.export(folder, {"agent": "rlpd", "seed": "0"}, "last", tmp_path / "policy.npz")
    loaded = expo_bench.load_policy(tmp_path / "policy.npz")
    kept = {path for path, x in jax.tree_util.tree_leaves_with_path(loaded.state) if np.any(x != 0)}
    said = {jax.tree_util.keystr(path) for path in kept}
    assert said and not any(".mu" in name or ".nu" in name for name in said), said
    everything = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(loaded.state)}
    assert any(".mu" in name for name in everything)


def test_a_policy_acts_under_jit_and_vmap(folder, tmp_path):
    policies.export(folder, {"agent": "rlpd", "seed": "0"}, "best", tmp_path / "policy.npz")
    loaded = expo_bench.load_policy(tmp_path / "policy.npz")
    obs, keys = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32), jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(loaded.act))(obs, keys)
    assert together.shape == (3, 1) and np.all(np.abs(together) <= 1)
    np.testing.assert_allclose(together[1], loaded.act(obs[1], keys[1]), rtol=1e-5)


def test_an_agent_of_a_run_acts_in_an_episode(folder):
    """As `expo-bench watch RUN` shows it; an agent that comes as a file is the run's copy."""
    for wanted in ({"agent": "rlpd", "seed": "0"}, {"agent": "tiny_agent", "seed": "0", "tiny_agent.rate": "0.01"}):
        states = watching.episode(Walk(), policy.following(policy.of_run(folder, wanted, "last")), 0)
        steps = np.diff(states.obs[:, 0])
        assert len(steps) >= 1 and np.all(np.abs(steps) <= 0.1 + 1e-6) and np.any(steps != 0)


def test_chunks_are_executed_open_loop():
    chunked = types.SimpleNamespace(about={"chunk": 2, "action_size": 1}, act=lambda obs, key: jnp.array([[0.5], [-0.25]]))
    states = watching.episode(Walk(), policy.following(chunked), 0)
    np.testing.assert_allclose(np.diff(states.obs[:, 0])[:6], [0.05, -0.025] * 3, atol=1e-6)


def test_an_interrupted_sweep_keeps_the_same_agents(folder, tmp_path, monkeypatch):
    import signal

    with monkeypatch.context() as patch:
        signal_at("chunk", 40, signal.SIGTERM, patch.setattr)
        with pytest.raises(Interrupted):
            run(tmp_path / "run", LINEAR)
    assert 1 <= len(archives(tmp_path / "run")) < 4
    run(tmp_path / "run", LINEAR)
    whole = {name: part for name, part in archives(folder).items() if "tiny" in name}
    again = archives(tmp_path / "run")
    assert list(again) == list(whole)
    for name, (about, arrays) in whole.items():
        assert again[name][0] == about
        for key, array in arrays.items():
            np.testing.assert_array_equal(again[name][1][key], array, err_msg=f"{name} {key}")


def test_a_diverged_agent_is_not_kept(tmp_path):
    row = type("Row", (), {"seed": 0, "labels": {}, "hyper": {}})
    keeper = policies.Keeper(tmp_path, "x", {"format": 1}, [True])
    keeper.begin(0, [row, row])
    seen = lambda values, score, step, diverged: keeper.see(
        {"w": np.array(values)}, Evaluation("online", 0, step, step), np.array(score), np.array(diverged)
    )
    seen([[1.0], [2.0]], [0.5, 0.1], 10, [False, False])
    seen([[3.0], [np.nan]], [0.4, 0.9], 20, [False, True])
    seen([[4.0], [np.nan]], [0.5, np.nan], 30, [False, True])
    _, arrays = policies.read(tmp_path / "policies" / "x-00000.npz")
    np.testing.assert_array_equal(arrays["last/00000"], [[4.0], [2.0]])
    np.testing.assert_array_equal(arrays["best/00000"], [[1.0], [2.0]])
    np.testing.assert_array_equal(arrays["last/env_step"], [30, 10])


def test_nothing_is_kept_where_nothing_is_wanted(tmp_path):
    run(tmp_path / "run", dataclasses.replace(RLPD, seeds=1), policies=False)
    assert not (tmp_path / "run" / "policies").exists()
    with pytest.raises(UserError, match="keeps no agents yet.*--no-policies"):
        policies.found(tmp_path / "run")


def test_the_command_line(folder, tmp_path, capsys):
    out = tmp_path / "p.npz"
    cli.main(["export-policy", str(folder)])
    assert len(capsys.readouterr().out.splitlines()) == 6
    cli.main(["export-policy", str(folder), "--row", "agent=rlpd", "variant=", "seed=1", "--which", "last", "--out", str(out)])
    assert "the last agent of seed 1" in capsys.readouterr().out
    cli.main(["eval", str(out), "--episodes", "5", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["episodes"] == 5 and 0 <= said["success"] <= 1
    cli.main(["eval", str(out), "--episodes", "5", "--seed", "3"])
    assert "5 new episodes on point-umaze" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], "6 agents of .* match, expected one; they differ in agent, seed"),
        (["agent=rlpd"], "2 agents .* differ in seed"),
        (["agent=rldp"], r"agent=rldp: no such agent in .* \(rlpd, tiny_agent\)"),
        (["sed=1"], "nothing is called that; expected task, agent, variant, seed"),
        (["agent=rlpd", "tiny_agent.rate=0.01"], "none is all of that"),
    ],
)
def test_which_row_is_said_clearly(folder, tmp_path, capsys, row, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export-policy", str(folder), "--out", str(tmp_path / "p.npz"), *(["--row", *row] if row else [])])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert pd.Series([error]).str.contains(said).all(), error
    assert not list(tmp_path.iterdir())


def test_wrong_files_are_refused_in_one_line(folder, tmp_path, monkeypatch):
    rlpd, tiny = tmp_path / "rlpd.npz", tmp_path / "tiny.npz"
    policies.export(folder, {"agent": "rlpd", "seed": "0"}, "last", rlpd)
    policies.export(folder, {"agent": "tiny_agent", "seed": "0", "tiny_agent.rate": "0.01"}, "last", tiny)
    changed = tmp_path / "tiny_agent.py"
    changed.write_text(open(AGENT).read() + "# another\n")
    part = next((folder / "policies").glob("*rlpd*"))
    cut = tmp_path / "cut.npz"
    cut.write_bytes(rlpd.read_bytes()[:-500])
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    for path, agent, said in (
        (tmp_path / "none.npz", None, "no such file"),
        (text, None, "is no policy"),
        (cut, None, "is no policy"),
        (part, None, "holds all agents of a part of a run"),
        (tiny, None, "give its file too"),
        (tiny, changed, "another checksum"),
        (rlpd, AGENT, "leave out the file"),
    ):
        with pytest.raises(UserError, match=said):
            policy.load(path, agent)
    with pytest.raises(UserError, match="exists; name a new file"):
        policies.export(folder, {"agent": "rlpd", "seed": "0"}, "last", rlpd)
    with pytest.raises(UserError, match="ends in .npz"):
        policies.export(folder, {"agent": "rlpd", "seed": "0"}, "last", tmp_path / "p")
    with pytest.raises(UserError, match="not a run folder"):
        policies.found(tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="has 4 observations and 2 actions, the policy 2 and 1"):
        policy.evaluate(policy.load(rlpd), "point-umaze")


def test_a_foreign_agents_copy_in_the_run_loads_it(folder, tmp_path):
    policies.export(folder, {"agent": "tiny_agent", "seed": "1", "tiny_agent.rate": "0.01"}, "best", tmp_path / "p.npz")
    shutil.copytree(folder / "agents", tmp_path / "agents")
    assert policy.load(tmp_path / "p.npz", tmp_path / "agents" / "tiny_agent.py").about["seed"] == 1
