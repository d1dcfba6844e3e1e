"""D4RL HDF5: where episodes end and what the next observation is."""

import h5py
import numpy as np
import pytest
from small_files import d4rl_fields, write_hdf5

from expo_bench.datasets import load
from expo_bench.errors import UserError


def x(observations):
    return observations[:, 0].astype(int).tolist()


@pytest.mark.parametrize("column", [False, True])
def test_terminal_rows_are_kept_and_timeout_rows_dropped(tmp_path, column):
    fields = d4rl_fields(10, terminals=[4], timeouts=[9])
    if column:  # (N, 1) occurs
        fields = {k: v[:, None] if v.ndim == 1 else v for k, v in fields.items()}
    data = load(write_hdf5(tmp_path / "a.hdf5", fields))
    assert x(data.obs) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert x(data.next_obs) == [1, 2, 3, 4, 4, 6, 7, 8, 9]  # row 4 is terminal: its own observation, never bootstrapped
    assert np.flatnonzero(data.terminated).tolist() == [4] and np.flatnonzero(data.truncated).tolist() == [8]
    assert data.meta["dropped_transitions"] == 1 and len(data.meta["notes"]) == 2 and not data.meta["warnings"]


def test_next_observations_are_used_and_nothing_is_dropped(tmp_path):
    fields = d4rl_fields(6, terminals=[2], timeouts=[5])
    fields["next_observations"] = fields["observations"] + [1, 0]
    data = load(write_hdf5(tmp_path / "a.h5", fields))
    assert x(data.next_obs) == [1, 2, 3, 4, 5, 6] and np.flatnonzero(data.truncated).tolist() == [5]


def test_a_recording_that_ends_in_the_middle_is_truncated(tmp_path):
    data = load(write_hdf5(tmp_path / "a.hdf5", d4rl_fields(5, terminals=[], timeouts=[])))
    assert x(data.next_obs) == [1, 2, 3, 4] and data.episode_ends.tolist() == [3]


def test_an_episode_of_one_timeout_row_leaves_nothing(tmp_path):
    data = load(write_hdf5(tmp_path / "a.hdf5", d4rl_fields(7, terminals=[6], timeouts=[2, 3])))
    assert x(data.obs) == [0, 1, 4, 5, 6] and data.episode_ends.tolist() == [1, 4]


def test_missing_timeouts(tmp_path):
    fields = d4rl_fields(10, terminals=[3])
    del fields["timeouts"]
    path = write_hdf5(tmp_path / "a.hdf5", fields)
    data = load(path)
    assert "'timeouts' is missing" in data.meta["warnings"][0] and data.episode_ends.tolist() == [3, 8]
    data = load(path, max_episode_length=3)  # ends after rows 2, 3 (terminal), 6 and 9
    assert x(data.obs) == [0, 1, 3, 4, 5, 7, 8] and np.flatnonzero(data.truncated).tolist() == [1, 4, 6]
    assert not data.meta["warnings"]
    with pytest.raises(UserError, match="max_episode_length: found 1"):
        load(path, max_episode_length=1)

    following = fields["observations"] + [1, 0]
    following[6] = [50, 100]  # a reset between rows 6 and 7
    data = load(write_hdf5(path, {**fields, "next_observations": following}))
    assert np.flatnonzero(data.truncated).tolist() == [6, 9] and data.size == 10


def test_metadata_becomes_provenance(tmp_path):
    extra = {"metadata/algorithm": "SAC", "metadata/policy/w": np.zeros(3), "infos/qpos": np.zeros((10, 2))}
    path = write_hdf5(tmp_path / "a.hdf5", {**d4rl_fields(), **extra})
    assert load(path).meta["provenance"] == {"algorithm": "SAC"}


def _without(name):
    return {k: v for k, v in d4rl_fields().items() if k != name}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (_without("rewards"), "'rewards' is missing"),
        ({**d4rl_fields(), "actions": np.zeros((9, 1))}, r"'actions': found shape \(9, 1\), expected \(10, columns\)"),
        ({**d4rl_fields(), "rewards": np.zeros((10, 2))}, r"'rewards': found shape \(10, 2\)"),
        ({**d4rl_fields(), "terminals": np.full(10, 0.5)}, "'terminals': found 0.5 in row 0, expected 0 or 1"),
        ({**d4rl_fields(), "next_observations": np.zeros((10, 3))}, r"'next_observations': found shape \(10, 3\), expected \(10, 2\)"),
        ({**d4rl_fields(), "actions": np.full((10, 1), b"a")}, "'actions': found values of type"),
        ({**_without("observations"), "observations/image": np.zeros(3)}, "'observations' is a group"),
        (d4rl_fields(0), "found no rows"),
        (d4rl_fields(1, terminals=[]), "no two rows"),
        ({"episode_0/actions": np.zeros(3)}, "'episode_0/rewards' is missing, expected Minari's"),
        ({"data/demo_0/actions": np.zeros(3)}, "'demo_0/rewards' is missing, expected robomimic's"),
    ],
)
def test_wrong_content_is_named(tmp_path, fields, message):
    with pytest.raises(UserError, match="a.hdf5: .*" + message):
        load(write_hdf5(tmp_path / "a.hdf5", fields))


def test_the_world_goes_on_after_the_terminals_of_an_ant_maze(tmp_path):
    """Every row near the goal is terminal there: the following row is the next observation, but not across a reset."""
    fields = d4rl_fields(300, terminals=[150, 151, 299], timeouts=[199])
    fields["observations"] = (fields["observations"] % 200).astype(np.float32)  # a reset after row 199
    fields["rewards"] = fields["terminals"].astype(np.float32)
    data = load(write_hdf5(tmp_path / "a.hdf5", {k: v[:, None] if k == "terminals" else v for k, v in fields.items()}))
    assert x(data.next_obs[[149, 150, 151, 152]]) == [150, 151, 152, 153] and data.size == 299
    assert np.flatnonzero(data.terminated).tolist() == [150, 151, 298] and np.flatnonzero(data.truncated).tolist() == [198]
    assert x(data.next_obs[[298]]) == [99]  # nothing follows: its own
    fields["timeouts"][199], fields["terminals"][199] = False, True  # now the reset follows a terminal
    data = load(write_hdf5(tmp_path / "a.hdf5", fields))
    assert x(data.next_obs[[151, 199]]) == [152, 199]
    assert data.meta["notes"] == [
        "2 terminal rows have no next observation: kept with their own, never bootstrapped",
        "2 terminal rows are followed by the same world: the following row is the next one",
    ]


def test_recorded_physics_are_read_where_asked_for(tmp_path):
    physics = {"infos/qpos": np.arange(20.0).reshape(10, 2), "infos/qvel": np.zeros((10, 2)), "infos/door_body_pos": np.ones((10, 3))}
    path = write_hdf5(tmp_path / "a.hdf5", {**d4rl_fields(), **physics, "infos/goal": np.zeros((10, 2))})
    assert load(path).state is None
    data = load(path, with_state=True)
    assert sorted(data.state) == ["door_body_pos", "qpos", "qvel"] and len(data.state["qpos"]) == data.size == 9
    np.testing.assert_array_equal(data.state["qpos"], physics["infos/qpos"][:9])
    with pytest.raises(UserError, match=r"'infos/qpos': found shape \(10,\), expected \(10, columns\)"):
        load(write_hdf5(path, {**d4rl_fields(), **physics, "infos/qpos": np.zeros(10)}), with_state=True)


def test_truncated(tmp_path):
    path = write_hdf5(tmp_path / "a.hdf5", d4rl_fields(1000))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="a.hdf5: the file is truncated"):
        load(path)


def test_damaged_inside(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for name, value in d4rl_fields(1000).items():
            file.create_dataset(name, data=value, compression="gzip", fletcher32=True)
        offset = file["observations"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset : offset + 40] = bytes(40)
    path.write_bytes(raw)
    with pytest.raises(UserError, match="a.hdf5: "):
        load(path)
