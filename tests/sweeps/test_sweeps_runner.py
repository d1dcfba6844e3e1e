"""A whole sweep on a toy environment: what it writes, that it repeats, and what blocks and devices change."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tyro
from killed_sweep import AGENT
from shared_programs import Shared
from toy import SMALL, Walk, dataset

import expo_bench
from expo_bench import Experiment, Method, UserError
from expo_bench.agents import AGENTS
from expo_bench.commands.sweep import experiment_of
from expo_bench.options import Sweep
from expo_bench.sweeps import compiled, runner
from expo_bench.sweeps import manifest as manifests

TINY = Experiment(
    "tiny",
    tasks=["point-umaze"],
    methods=["expo", Method(AGENT), Method(AGENT, "large", {"scale": 2}), "bc", "rlpd"],
    seeds=3,
    config=SMALL,
    protocol={
        "offline_steps": 6,
        "warmup_steps": 10,
        "online_steps": 40,
        "updates": 2,
        "batch_size": 8,
        "eval_every": 20,
        "eval_episodes": 4,
    },
)


SHARED = Shared()


def use_the_toy(patch):
    """`point-umaze` is the toy walk, with the toy's data, and programs are compiled once, as quickly as can be."""
    patch.setattr(runner.envs, "make", lambda name, engine="auto": Walk())
    patch.setattr(runner.datasets, "default_dataset", lambda name, env, cache: dataset())
    patch.setitem(compiled.CPU_OPTIONS, "xla_backend_optimization_level", 0)
    SHARED.use(patch)


@pytest.fixture()
def toy(monkeypatch):
    use_the_toy(monkeypatch)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        use_the_toy(patch)
        folder = tmp_path_factory.mktemp("runs") / "tiny"
        return expo_bench.run(dataclasses.replace(TINY, vary={"rlpd.discount": (0.9, 0.99)}), folder), folder


def test_one_row_per_method_cell_seed_and_evaluation(tiny):
    frame, folder = tiny
    keys = ["task", "agent", "variant", "rlpd.discount", "seed", "phase", "env_step"]
    assert not frame.duplicated(keys).any()
    counts = frame.groupby(["agent", "variant"]).size()
    assert counts[("expo", "")] == counts[("tiny_agent", "")] == counts[("tiny_agent", "large")] == counts[("bc", "")] == 3 * 3
    assert counts[("rlpd", "")] == 2 * 3 * 3
    assert frame[frame.agent == "expo"].groupby("env_step").phase.unique().map(list).to_dict() == {
        0: ["offline"],
        20: ["online"],
        40: ["online"],
    }
    assert set(frame[frame.agent == "rlpd"].phase) == {"online"}
    assert frame.attrs["folder"] == str(folder)


def test_counted_steps_and_values(tiny):
    frame, _ = tiny
    last = frame[frame.env_step == 40].groupby("agent").grad_step.first()
    assert last["expo"] == 6 + 40 * 2 and last["rlpd"] == (40 - 10) * 2 and last["bc"] == 6
    assert frame.success.between(0, 1).all() and (frame.score == frame.success).all()
    assert (frame.eval_episodes == 4).all() and not frame.diverged.any() and (frame.blowups == 0).all()
    assert (
        frame[(frame.agent == "expo") & (frame.env_step > 0)][["critic_loss", "q_mean", "entropy", "alpha", "imitation_loss"]]
        .notna()
        .all()
        .all()
    )


def test_what_is_on_disk_is_what_was_returned(tiny):
    frame, folder = tiny
    disk = pd.concat([pd.read_parquet(p) for p in sorted((folder / "results").glob("*.parquet"))], ignore_index=True)
    pd.testing.assert_frame_equal(disk[frame.columns], frame, check_dtype=False)
    assert not list(folder.rglob("*.tmp"))


def test_the_manifest_says_how_to_repeat_it(tiny):
    _, folder = tiny
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["experiment"] == "tiny" and manifest["finished"] and manifest["precision"] == "float32"
    assert manifest["seeds"] == [0, 1, 2] and {"jax", "mujoco", "expo-bench"} <= set(manifest["versions"])
    assert manifest["protocols"]["point-umaze/rlpd/"]["warmup_steps"] == 10
    program = manifest["programs"][0]
    assert program["config"]["n_samples"] == 2 and program["block_rows"] >= 1
    assert all(program["timings"][k] > 0 for k in ("compile_s", "offline_s", "online_s", "evaluation_s"))


def test_the_report_reads_it(tiny):
    from analysis.load import load
    from analysis.report import text_table, write_report

    _, folder = tiny
    text = text_table(load([folder]))
    assert "tiny_agent (large)" in text and "rlpd discount=0.9" in text
    page = write_report([folder]).read_text()
    assert "tiny_agent (large)" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_each_method_sees_the_data_with_its_own_rewards(toy):
    """Methods of different reward_scale and reward_shift run side by side; those of the same share one array."""
    other = Method("rlpd", "scaled", protocol={"reward_scale": 10, "reward_shift": -5})
    programs = runner.plan(dataclasses.replace(TINY, methods=["rlpd", other, "expo"]))
    task = runner.prepare_task("point-umaze", TINY, programs, lambda line: None)
    rlpd, scaled, expo = (task.offline_data(p) for p in programs)
    assert rlpd is expo is task.dataset and task.offline_data(programs[1]) is scaled
    reward = lambda rows: np.asarray(runner.replay.unpack(rows, 2, 1).reward)
    assert set(reward(rlpd)) == {0.0, 1.0}
    np.testing.assert_array_equal(reward(scaled), 10 * reward(rlpd) - 5)
    np.testing.assert_array_equal(np.delete(scaled, 3, axis=1), np.delete(rlpd, 3, axis=1))


def test_recorded_rewards_are_kept_where_asked_for_and_are_another_experiment(toy, tmp_path, monkeypatch):
    recorded = dataclasses.replace(dataset(), reward=np.full(60, 7.0, np.float32))
    monkeypatch.setattr(runner.datasets, "default_dataset", lambda name, env, cache: recorded)
    own, kept = (dataclasses.replace(TINY, methods=["rlpd"], rewards=rewards) for rewards in ("task", "recorded"))
    said = []
    seen = [runner.prepare_task("point-umaze", e, runner.plan(e), said.append).dataset for e in (own, kept)]
    own_rewards, kept_rewards = (np.asarray(runner.replay.unpack(rows, 2, 1).reward) for rows in seen)
    assert set(own_rewards) == {0, 1} and set(kept_rewards) == {7}
    assert sum("rewards kept as recorded: 100.00% of the transitions have another reward" in line for line in said) == 1
    line = "--tasks point-umaze --agents rlpd --rewards recorded"
    assert experiment_of(tyro.cli(Sweep, args=line.split())).rewards == "recorded"
    first, second = (manifests.begun(e, runner.plan(e)) for e in (own, kept))
    assert manifests.difference(first, second, manifests.IDENTITY) == ("rewards", '"task"', '"recorded"')
    assert manifests.experiment_of({**second, "agent_files": {}}, tmp_path).rewards == "recorded"
    first.pop("rewards")  # as manifests were before there was a choice
    assert manifests.difference(first, manifests.begun(own, runner.plan(own)), manifests.IDENTITY) is None


def test_a_sweep_computes_the_denoiser_and_the_rest_in_their_own_precision(toy, tmp_path):
    """`bc` is the denoiser alone: what the rest's precision is does not matter to it."""
    only_bc = dataclasses.replace(TINY, methods=["bc"], seeds=1)

    def losses(precision, denoiser):
        folder = tmp_path / f"{precision}-{denoiser}"
        frame = expo_bench.run(dataclasses.replace(only_bc, precision=precision, denoiser_precision=denoiser), folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (manifest["precision"], manifest["denoiser_precision"]) == (precision, denoiser or precision)
        return frame.imitation_loss.tolist()[:1]

    exact, rounded = losses("float32", None), losses("float32", "bfloat16")
    assert losses("bfloat16", "float32") == exact != rounded
    np.testing.assert_allclose(rounded, exact, rtol=0.02)


def strip(frame):
    return frame.drop(columns="wall_s")


def test_the_same_experiment_gives_the_same_numbers_and_blocks_do_not_matter(toy, tmp_path):
    one = dataclasses.replace(TINY, methods=["rlpd"], block_rows=2)
    first, second = (expo_bench.run(one, tmp_path / name) for name in ("a", "b"))
    pd.testing.assert_frame_equal(strip(first), strip(second))
    more = expo_bench.run(dataclasses.replace(one, seeds=4), tmp_path / "c")
    order = ["seed", "env_step"]
    fewer = strip(more[more.seed < 3]).sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(fewer, strip(first).sort_values(order, ignore_index=True))


ON_SEVERAL_DEVICES = """
import sys, jax
sys.path.insert(0, "tests")
from toy import SMALL, Walk, dataset
from expo_bench import Experiment, run
from expo_bench.agents import AGENTS, load
from expo_bench.config import fields
from expo_bench.sweeps import devices, runner
runner.envs.make = lambda name, engine="auto": Walk()
runner.datasets.default_dataset = lambda name, env, cache: dataset()
agent, folder, *numbers = sys.argv[1:]
config = {name: value for name, value in SMALL.items() if name in fields(load(agent).Config)}
protocol = dict(offline_steps=4, warmup_steps=2, online_steps=8, updates=2, batch_size=8, eval_every=8, eval_episodes=2)
experiment = Experiment("d", ["point-umaze"], [agent], seeds=15, config=config, protocol=protocol, block_rows=2)
devices.cores = lambda: max(map(int, numbers))
start = devices.start
for n in map(int, numbers):
    devices.start = lambda: start()[:n]
    frame = run(experiment, f"{folder}/{n}")
    frame.drop(columns="wall_s").sort_values(["seed", "phase", "env_step"]).to_pickle(f"{folder}/{n}.pickle")
"""


def on_devices(agent, folder, *numbers):
    """The results of 15 rows in blocks of 2 on so many virtual CPU devices, in a process of its own."""
    command = [sys.executable, "-c", ON_SEVERAL_DEVICES, agent, str(folder), *map(str, numbers)]
    as_users_run_it = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run(command, check=True, capture_output=True, timeout=600, env=as_users_run_it)
    assert [json.loads((folder / str(n) / "manifest.json").read_text())["devices"] for n in numbers] == list(numbers)
    return [pd.read_pickle(folder / f"{n}.pickle").reset_index(drop=True) for n in numbers]


def test_results_do_not_depend_on_the_number_of_devices(tmp_path):
    """The same block shape on one and four devices, unevenly filled: equal bit for bit."""
    one, four = on_devices("rlpd", tmp_path, 1, 4)
    assert len(one) == 15 * 2 and one.critic_loss.notna().sum() == 15
    pd.testing.assert_frame_equal(one, four, check_exact=True)


@pytest.mark.soak
@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_no_agents_results_depend_on_the_number_of_devices(agent, tmp_path):
    """One device is compiled otherwise than several: XLA's partitioner comes between, and what follows it may round otherwise."""
    one, *several = on_devices(agent, tmp_path, 1, 2, *([8] if agent == "rlpd" else []))
    for other in several:
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_q_chunking_runs_on_chunks(toy, tmp_path):
    """Q-chunking with C = 2; its warm-up is the pretrained policy's."""
    method = Method("qc", protocol={"chunk": 2})
    frame = expo_bench.run(dataclasses.replace(TINY, methods=[method], seeds=2), tmp_path / "x")
    learnt = frame[frame.env_step == 40]
    assert len(frame) == 2 * 3 and (learnt.grad_step == 6 + (40 - 10) * 2).all()
    assert not frame.diverged.any() and frame.success.between(0, 1).all() and (learnt.max_gain > 0).all()
    assert np.isfinite(learnt[["critic_loss", "imitation_loss", "q_mean", "q_value", "q_bias"]]).all().all()
    protocol = json.loads((tmp_path / "x" / "manifest.json").read_text())["protocols"]["point-umaze/qc/"]
    assert (protocol["chunk"], protocol["warmup"], protocol["sampling"]) == (2, "policy", "union")


def test_uneven_rows_are_padded_and_the_padding_is_not_reported(toy, tmp_path):
    frame = expo_bench.run(dataclasses.replace(TINY, methods=["bc"], seeds=3, block_rows=2), tmp_path / "x")
    assert sorted(frame.seed.unique()) == [0, 1, 2] and len(frame) == 9


def test_a_folder_that_holds_something_is_refused_and_left_alone(toy, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds something"):
        expo_bench.run(TINY, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_without_data_an_online_agent_runs_and_others_are_refused(toy, tmp_path):
    protocol = {**TINY.protocol, "offline_steps": 0, "sampling": "union"}
    frame = expo_bench.run(dataclasses.replace(TINY, methods=["rlpd"], dataset="none", protocol=protocol), tmp_path / "x")
    assert np.isfinite(frame.success).all()
