"""Minari, OGBench and robomimic: what a row, an episode and an observation are there. Minari's own package writes its files."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from small_files import ROOT, write_hdf5

from expo_bench.datasets import describe, detect, load, npz, prepare
from expo_bench.errors import UserError

# --- Minari --------------------------------------------------------------------------------------------------------------------------

COLLECT = """
import gymnasium, minari, numpy as np
env = minari.DataCollector(gymnasium.make("Pendulum-v1", max_episode_steps=7), record_infos=True, data_format=FORMAT)
rng = np.random.default_rng(0)
for episode in range(3):
    env.reset(seed=episode)
    for _ in range(7):
        env.step(rng.uniform(-2, 2, 1).astype(np.float32))
env.create_dataset("test/pendulum-v0", algorithm_name="random", author="tests", code_permalink="none")
"""

BUFFERS = """
import gymnasium, minari, numpy as np
from minari.data_collector.episode_buffer import EpisodeBuffer
box = lambda n: gymnasium.spaces.Box(-np.inf, np.inf, (n,))
space = gymnasium.spaces.Dict({"observation": box(3), "achieved_goal": box(2), "desired_goal": box(2)})
rng = np.random.default_rng(0)
episodes = []
for k, steps in enumerate((5, 4)):
    n = steps + 1
    obs = {"observation": rng.normal(size=(n, 3)), "achieved_goal": rng.normal(size=(n, 2)), "desired_goal": np.full((n, 2), 7.0)}
    infos = {"qpos": rng.normal(size=(n, 3)), "qvel": np.zeros((n, 2)), "success": np.arange(n) == steps}
    ends = np.arange(steps) == steps - 1
    episodes.append(EpisodeBuffer(id=k, observations=obs, actions=list(np.zeros((steps, 1))), rewards=list(ends * 1.0),
        terminations=list(ends & (k == 0)), truncations=list(ends & (k == 1)), infos=infos))
minari.create_dataset_from_buffers("test/goals-v1", episodes, observation_space=space, action_space=box(1))
"""


@pytest.fixture(scope="module")
def minari_root(tmp_path_factory):
    """A folder of datasets that the minari package wrote, in a process of its own: the import costs seconds and changes warnings."""
    pytest.importorskip("minari", reason="the extra 'minari' is not installed")
    root = tmp_path_factory.mktemp("minari")
    code = COLLECT.replace("FORMAT", "'hdf5'") + BUFFERS
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=_environment(root))
    return root


def _environment(root):
    import os

    return {**os.environ, "MINARI_DATASETS_PATH": str(root)}


def test_minari_reads_what_the_data_collector_wrote(minari_root):
    folder = minari_root / "test" / "pendulum-v0"
    data = load(folder)
    assert data.size == 21 and data.episode_lengths.tolist() == [7, 7, 7] and data.truncated.sum() == 3 and not data.terminated.any()
    assert data.obs.shape == (21, 3) and data.action.shape == (21, 1) and (data.reward < 0).all()
    np.testing.assert_array_equal(data.next_obs[:6], data.obs[1:7])
    assert not np.array_equal(data.next_obs[6], data.obs[7])  # the last one is recorded too
    assert data.meta["provenance"]["dataset_id"] == "test/pendulum-v0" and not data.meta["success_recorded"]
    for path in (folder / "data", folder / "data" / "main_data.hdf5"):
        assert detect(path) == "minari"
        np.testing.assert_array_equal(load(path).obs, data.obs)
    assert "minari" in describe(folder) and "3 observations, 1 actions" in describe(folder)


def test_minari_dict_observations_become_what_the_task_observes(minari_root, line):
    data = load(minari_root / "test" / "goals-v1", with_state=True)
    assert data.meta["observation_keys"] == {"achieved_goal": 2, "desired_goal": 2, "observation": 3} and (data.obs[:, 2:4] == 7).all()
    assert np.flatnonzero(data.terminated).tolist() == [4] and np.flatnonzero(data.truncated).tolist() == [8]
    assert np.flatnonzero(data.success).tolist() == [4, 8] and data.meta["success_recorded"]
    assert data.state["qpos"].shape == (9, 3) and not np.isnan(data.state["qpos"]).any()
    from dataclasses import replace

    for size, columns in ((3, [4, 5, 6]), (5, [0, 1, 4, 5, 6]), (7, list(range(7)))):
        task = replace(line, obs_size=size, observation_names=(), obs_low=None)
        ready, _ = prepare(data, task, "goals", relabel=False)
        np.testing.assert_array_equal(ready.obs, data.obs[:, columns])
        np.testing.assert_array_equal(ready.next_obs, data.next_obs[:, columns])
    with pytest.raises(UserError, match="goals: obs: found 7 columns, expected 4"):
        prepare(data, replace(line, obs_size=4), "goals")


def test_minari_arrow_data_are_read_by_the_package(tmp_path):
    pytest.importorskip("minari", reason="the extra 'minari' is not installed")
    subprocess.run(
        [sys.executable, "-c", COLLECT.replace("FORMAT", "'arrow'")], check=True, capture_output=True, env=_environment(tmp_path)
    )
    data = load(tmp_path / "test" / "pendulum-v0")
    assert data.size == 21 and data.episode_lengths.tolist() == [7, 7, 7] and data.obs.shape == (21, 3)


def episode(steps=4, **changes):
    fields = {"observations": np.zeros((steps + 1, 2)), "actions": np.zeros((steps, 1)), "rewards": np.zeros(steps)}
    fields |= {"terminations": np.zeros(steps, bool), "truncations": np.arange(steps) == steps - 1}
    return {f"episode_0/{name}": value for name, value in {**fields, **changes}.items()}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (episode(observations=np.zeros((4, 2))), r"'episode_0/observations': found shape \(4, 2\), expected \(5, columns\)"),
        (episode(actions=np.zeros((3, 1))), r"'episode_0/actions': found shape \(3, 1\), expected \(4, columns\)"),
        (episode(terminations=np.full(4, 2)), "'episode_0/terminations': found 2 in row 0, expected 0 or 1"),
        (episode(observations=np.full((5, 2), b"text")), "'episode_0/observations': found values of type"),
        ({**episode(), "episode_1/rewards": np.zeros(0)}, "'episode_1/actions' is missing"),
    ],
)
def test_wrong_minari_content_is_named(tmp_path, fields, message):
    with pytest.raises(UserError, match="main_data.hdf5: .*" + message):
        load(write_hdf5(tmp_path / "main_data.hdf5", fields))


def test_minari_columns_of_one_shape_and_episodes_that_metadata_counts(tmp_path):
    fields = episode(terminations=np.zeros((4, 1)), rewards=np.zeros((4, 1)))  # (N, 1) occurs
    assert load(write_hdf5(tmp_path / "main_data.hdf5", fields)).size == 4
    (tmp_path / "metadata.json").write_text(json.dumps({"total_episodes": 2, "total_steps": 8}))
    with pytest.raises(UserError, match="found 1 episodes, expected 2 as metadata.json says"):
        load(tmp_path)
    (tmp_path / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="metadata.json: cannot be read as JSON"):
        load(tmp_path)


def test_truncated_minari(tmp_path):
    path = write_hdf5(tmp_path / "main_data.hdf5", episode(1000))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="main_data.hdf5: the file is truncated"):
        load(tmp_path)


# --- OGBench -------------------------------------------------------------------------------------------------------------------------


def ogbench(**changes):
    """Two trajectories of states (0..3) and (4..6); the last state of each is terminal."""
    obs = np.stack([np.arange(7), np.full(7, 100)], 1).astype(np.float32)
    fields = {"observations": obs, "actions": np.zeros((7, 1), np.float32), "terminals": np.isin(np.arange(7), [3, 6])}
    return {**fields, "qpos": obs, "qvel": np.zeros((7, 1)), **changes}


def test_ogbench_as_released_compact_and_regular(tmp_path):
    released = ogbench()
    compact = ogbench(terminals=np.isin(np.arange(7), [2, 3, 5, 6]) * 1.0, valids=~np.isin(np.arange(7), [3, 6]) * 1.0)
    keep = [0, 1, 2, 4, 5]
    regular = {k: v[keep] for k, v in released.items()}
    regular |= {"next_observations": released["observations"][[1, 2, 3, 5, 6]], "terminals": np.isin(keep, [2, 5]) * 1.0}
    for fields in (released, compact, regular):
        np.savez(tmp_path / "a.npz", **fields)
        assert detect(tmp_path / "a.npz") == "ogbench"
        data = load(tmp_path / "a.npz", with_state=True)
        assert data.obs[:, 0].tolist() == keep and data.next_obs[:, 0].tolist() == [1, 2, 3, 5, 6]
        assert np.flatnonzero(data.truncated).tolist() == [2, 4] and not data.terminated.any() and not data.reward.any()
        assert data.state["qpos"][:, 0].tolist() == keep
    assert "not recorded: zeros until a task relabels" in describe(tmp_path / "a.npz")


def test_ogbench_rewards_are_the_tasks_or_none(tmp_path, line):
    np.savez(tmp_path / "a.npz", **ogbench(observations=ogbench()["observations"] * [0.3, 1]))
    data = load(tmp_path / "a.npz")
    ready, _ = prepare(data, line, "play")
    assert ready.reward.tolist() == [-1, -1, -1, 0] and ready.terminated.tolist() == [0, 0, 0, 1]

    class Foreign(type(line)):
        relabels = False

    with pytest.raises(UserError, match="play: has no rewards, and the task line cannot say them"):
        prepare(data, Foreign(), "play")
    with pytest.raises(UserError, match="play: has no rewards, and they were to be kept as recorded; expected data with rewards"):
        prepare(data, line, "play", relabel=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros((6, 1))}, r"'actions': found shape \(6, 1\), expected \(7, columns\)"),
        ({"terminals": np.full(7, 3)}, "'terminals': found 3 in row 0"),
        ({"observations": np.zeros((1, 2))}, "expected at least two rows"),
        ({"terminals": np.ones(7)}, "no two rows of one trajectory"),
        ({"actions": np.array([{}] * 7)}, "truncated or damaged npz file"),
    ],
)
def test_wrong_ogbench_content_is_named(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **ogbench(**changes))
    with pytest.raises(UserError, match="a.npz: .*" + message):
        load(tmp_path / "a.npz")


# --- robomimic -----------------------------------------------------------------------------------------------------------------------

PARTS = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}


def demo(steps, k, with_next=True, solved=None):
    rng = np.random.default_rng(k)
    fields = {"actions": rng.uniform(-1, 1, (steps, 7)), "states": rng.normal(size=(steps, 32))}
    fields["rewards"] = np.arange(steps) >= (steps - 1 if solved is None else solved)
    fields["dones"] = fields["rewards"] * 1
    fields["rewards"] = fields["rewards"] * 1.0
    for where in ("obs", "next_obs")[: 1 + with_next]:
        fields |= {f"{where}/{name}": np.full((steps, n), i + (where == "next_obs") / 2) for i, (name, n) in enumerate(PARTS.items())}
        fields[f"{where}/robot0_eef_vel_lin"] = np.zeros((steps, 3))
    return {f"data/demo_{k}/{name}": value for name, value in fields.items()}


def robomimic(path, *demos, masks=None):
    write_hdf5(path, {name: value for one in demos for name, value in one.items()})
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift"})
        for name, chosen in (masks or {}).items():
            file[f"mask/{name}"] = np.array(chosen, dtype="S10")
    return path


def test_robomimic_parts_in_its_order_and_episodes_in_theirs(tmp_path):
    demos = [demo(5, k) for k in (0, 10, 2)]  # 10 comes after 2
    path = robomimic(tmp_path / "low_dim.hdf5", *demos, masks={"train": ["demo_0", "demo_10"]})
    assert detect(path) == "robomimic"
    data = load(path)
    assert data.size == 15 and data.obs_size == 19 and data.action_size == 7 and data.success.sum() == 3
    np.testing.assert_array_equal(data.obs[0], np.repeat(range(4), list(PARTS.values())))
    assert np.flatnonzero(data.terminated).tolist() == [4, 9, 14] and not data.truncated.any()
    np.testing.assert_allclose(data.next_obs[4], data.obs[0] + 0.5)
    np.testing.assert_allclose(data.action[5:10], demos[2]["data/demo_2/actions"], rtol=1e-6)
    train = load(f"{path}#train")
    assert train.size == 10 and "filter keys: train" in train.meta["notes"][1] and "env_name: Lift" in describe(path)
    np.testing.assert_allclose(train.action[5:], demos[1]["data/demo_10/actions"], rtol=1e-6)
    with pytest.raises(UserError, match="no filter key 'test', expected one of train"):
        load(f"{path}#test")


def test_robomimic_ends(tmp_path):
    path = robomimic(tmp_path / "a.hdf5", demo(6, 0, solved=3), demo(6, 1, solved=6), demo(6, 2, with_next=False))
    data = load(path)
    # Solved in row 3, after which nothing counts; never solved; solved in the last row, whose next observation was not recorded.
    assert data.episode_lengths.tolist() == [4, 6, 5]
    assert data.terminated[data.episode_ends].tolist() == [True, False, False] and data.truncated[data.episode_ends].tolist() == [
        False,
        True,
        True,
    ]


def test_wrong_robomimic_content_is_named(tmp_path, line, dataset):
    raw = {k: v for k, v in demo(5, 0).items() if "obs" not in k}
    for fields, message in (
        (raw, "'demo_0/obs' is missing: a raw recording without observations"),
        ({k: v for k, v in demo(5, 0).items() if not k.endswith("/object")}, "'demo_0/obs/object' is missing"),
        ({**demo(5, 0), "data/demo_0/actions": np.zeros((4, 7))}, r"'demo_0/actions': found shape \(4, 7\), expected \(5, columns\)"),
        ({**demo(5, 0), **demo(5, 1), "data/demo_1/obs/object": np.zeros((5, 14))}, "'demo_1/next_obs': found columns .*as in 'obs'"),
        ({**demo(5, 0), **demo(5, 1, False), "data/demo_1/obs/object": np.zeros((5, 14))}, "demo_1/obs: found columns .*as in demo_0"),
    ):
        with pytest.raises(UserError, match="a.hdf5: .*" + message):
            load(robomimic(tmp_path / "a.hdf5", fields))
    path = robomimic(tmp_path / "a.hdf5", demo(1000, 0))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match="a.hdf5: the file is truncated"):
        load(path)
    npz.write(dataset, tmp_path / "b.npz")
    with pytest.raises(UserError, match="found data of expo-bench, expected a robomimic file for the filter key 'train'"):
        load(f"{tmp_path / 'b.npz'}#train")


def test_reading_hdf5_needs_no_minari():
    code = "import sys; sys.modules['minari'] = None; import expo_bench.datasets.minari, expo_bench.datasets.robomimic"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
