"""Checks against a task, clipping and relabelling."""

import dataclasses
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from small_files import LineEnv, d4rl_fields, make_dataset, write_hdf5

from expo_bench.datasets import load, prepare
from expo_bench.datasets.checks import ACTION_LIMIT, check, clip_actions
from expo_bench.datasets.relabel import relabel, task_outcome
from expo_bench.errors import UserError


def test_sound_data_pass_without_a_word(dataset, line):
    assert check(dataset, line, "file") == []


def _with(array, index, value):
    array = array.copy()
    array[index] = value
    return array


DATA = make_dataset()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make_dataset(obs_size=3), "obs: found 3 columns, expected 2: the task line has 2 observations and 1 actions"),
        (make_dataset(action_size=4), "action: found 4 columns, expected 1: the task line"),
        (replace(DATA, next_obs=DATA.next_obs[:, :1]), "next_obs: found 1 columns, expected 2"),
        (replace(DATA, reward=DATA.reward[:-1]), r"reward: found shape \(6,\), expected 7 rows"),
        (replace(DATA, success=DATA.success[:, None]), "success: found shape"),
        (replace(DATA, obs=_with(DATA.obs, (5, 1), np.nan)), r"obs: found nan in row 5, column 1 'altitude' \(the first of 1\)"),
        (replace(DATA, action=_with(DATA.action, slice(2, 4), np.inf)), r"action: found inf in row 2, column 0 \(the first of 2\)"),
        (replace(DATA, reward=_with(DATA.reward, 6, -np.inf)), r"reward: found -inf in row 6 \(the first of 1\)"),
        (make_dataset((0,)), "found no transitions"),
        (make_dataset(truncated=np.zeros(7, bool)), r"the last row \(6\) is neither terminated nor truncated"),
        (replace(DATA, obs=DATA.obs[:, ::-1]), "out of range in component 0 'x': 100.0% of the rows.*observation order that of the task"),
    ],
)
def test_wrong_data_are_refused_in_one_line(data, message, line):
    with pytest.raises(UserError, match="^some/file: .*" + message) as error:
        check(data, line, "some/file")
    assert "\n" not in str(error.value)


def test_a_float64_beyond_float32_is_reported_as_infinite(line):
    with pytest.raises(UserError, match="reward: found inf in row 0"):
        check(make_dataset(reward=np.full(7, 1e300)), line, "file")


def test_implausible_values_and_actions_outside_are_warned_of(line):
    data = make_dataset((50, 50))
    data.obs[:3, 0] = 2.5
    data.action[:25, 0] = -1.3
    ranges, actions = check(data, line, "file")
    assert "1 of 2 leave" in ranges and "component 0 'x': 3.0% of the rows" in ranges
    assert actions == "file: actions: 25 of 100 rows (25.0%; 25.0% of the entries, to 1.3) are outside [-1, 1]: clipped to +-(1 - 1e-5)"
    assert np.abs(clip_actions(data).action).max() == ACTION_LIMIT < 1 and np.abs(data.action).max() > 1
    assert check(data, dataclasses.replace(line, obs_low=None), "file") == [actions]  # a task that does not know its ranges


@dataclasses.dataclass(frozen=True)
class Plane:
    """A task whose ranges are too alike to show a wrong order."""

    name: str = "plane"
    obs_size: int = 5
    action_size: int = 1
    observation_names: tuple[str, ...] = ("hand_x", "cup_x", "hand_vx", "cup_vx", "hand_from_cup_x")
    obs_low = np.full(5, -5.0)
    obs_high = np.full(5, 5.0)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 1, 2, 3, 4], None),
        ([2, 3, 0, 1, 4], "component 0 'hand_x' does not move as component 2 'hand_vx' says .*order that of the task plane"),
        ([1, 0, 2, 3, 4], "component 0 'hand_x' does not move as"),
        ([1, 0, 3, 2, 4], "component 4 'hand_from_cup_x' is not 'hand_x' - 'cup_x' .*is the observation order that of the task plane"),
    ],
)
def test_a_wrong_order_is_found_by_what_the_names_promise(order, message):
    t = np.arange(41)[:, None]
    velocity = np.cos(t * [0.4, 0.7] + [0.0, 1.0])
    position = np.sin(t * [0.4, 0.7] + [0.0, 1.0]) / [0.4, 0.7]
    obs = np.concatenate([position, velocity, position[:, :1] - position[:, 1:]], 1)[:, order]
    data = make_dataset((40,), obs=obs[:-1], next_obs=obs[1:])
    if message is None:
        assert check(data, Plane(), "file") == []
    else:
        with pytest.raises(UserError, match=message):
            check(data, Plane(), "file")


def test_a_warning_of_the_reader_comes_first(tmp_path, line):
    fields = d4rl_fields(2, terminals=[])
    del fields["timeouts"]
    assert "'timeouts' is missing" in check(load(write_hdf5(tmp_path / "a.hdf5", fields)), line, "file")[0]


def walk(xs, ends, terminated=()):
    """Episodes along LineEnv's axis; `ends` are last rows, which reach xs + 0.4."""
    n = len(xs)
    obs = np.stack([xs, np.full(n, 100.0)], 1)
    following = np.append(obs[1:], obs[-1:] + [0.4, 0], 0)
    following[ends] = obs[ends] + [0.4, 0]
    flags = lambda rows: np.isin(np.arange(n), rows)
    return make_dataset((n,), obs=obs, next_obs=following, terminated=flags(terminated), truncated=flags(ends) & ~flags(terminated))


def test_relabel_ends_the_episode_where_the_task_does(line):
    data = walk([0.2, 0.6, 1.1, 1.3, 0.0, 0.4], ends=[3, 5])
    result = relabel(data, task_outcome(line))
    np.testing.assert_allclose(result.obs[:, 0], [0.2, 0.6, 0.0, 0.4])
    np.testing.assert_array_equal(result.reward, [-1, 0, -1, -1])
    np.testing.assert_array_equal(result.success, [0, 1, 0, 0])
    np.testing.assert_array_equal(result.terminated, [0, 1, 0, 0])
    np.testing.assert_array_equal(result.truncated, [0, 0, 0, 1])
    assert "2 rows after a termination" in result.meta["notes"][0] and result.meta["success_recorded"]


def test_relabel_keeps_everything_where_nothing_terminates():
    data = walk([0.2, 0.6, 1.1, 1.3, 0.0, 0.4], ends=[3, 5], terminated=[3])
    result = relabel(data, task_outcome(LineEnv(terminates=False)))
    np.testing.assert_array_equal(result.success, [0, 1, 1, 1, 0, 0])
    assert not result.terminated.any() and result.episode_ends.tolist() == [3, 5]  # a terminal that the task does not know is truncated


def test_relabel_drops_terminals_of_which_nobody_knows_the_next_observation(tmp_path, line):
    data = load(write_hdf5(tmp_path / "a.hdf5", d4rl_fields(6, terminals=[0, 2], timeouts=[5])))
    data = dataclasses.replace(data, obs=data.obs * [0.1, 1], next_obs=data.next_obs * [0.1, 1])
    result = relabel(data, task_outcome(line))
    np.testing.assert_allclose(result.obs[:, 0], [0.1, 0.3, 0.4], rtol=1e-6)
    assert result.episode_ends.tolist() == [0, 2] and "2 terminal rows without a next observation" in result.meta["warnings"][0]


def test_outcome_in_blocks_is_the_outcome(line):
    data = walk(np.linspace(-1, 2, 23), ends=[22])
    whole, blocks = (task_outcome(line, rows)(data.obs, data.action, data.next_obs) for rows in (100, 5))
    for a, b in zip(whole, blocks, strict=True):
        np.testing.assert_array_equal(a, b)


def test_prepare(line):
    data = dataclasses.replace(walk([0.2, 0.6, 1.1], ends=[2]), action=np.full((3, 1), 3.0, np.float32))
    ready, warnings = prepare(data, line, "file")
    assert ready.size == 2 and ready.success.any() and ready.action.max() == ACTION_LIMIT and len(warnings) == 1
    kept, warnings = prepare(data, line, "file", relabel=False)
    np.testing.assert_array_equal(kept.reward, data.reward)
    assert kept.size == 3 and not kept.terminated.any() and warnings[1].startswith("file: rewards kept as recorded: 100.00% of ")
    assert len(prepare(dataclasses.replace(data, reward=np.array([-1, 0, 0], np.float32)), line, "file", relabel=False)[1]) == 1
    _, warnings = prepare(walk([0.2], ends=[0]), line, "file")
    assert warnings == ["file: no transition fulfils the task line"]


def test_real_door_demonstrations_relabelled(door_demos):
    if importlib.util.find_spec("gymnasium_robotics") is None:  # importing it takes seconds
        pytest.skip("the door's model comes with gymnasium-robotics")
    from envs.registry import make

    env = make("door", "mujoco")
    ready, warnings = prepare(load(door_demos), env, "door")
    assert set(np.unique(ready.reward)) == {-1, 0} and not ready.terminated.any()
    opened = np.logical_or.reduceat(ready.success, ready.episode_ends - ready.episode_lengths + 1)
    assert len(opened) == 25 and opened.sum() == 7
    assert "actions: " in warnings[-1] and np.abs(ready.action).max() == ACTION_LIMIT
