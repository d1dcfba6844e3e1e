"""`data check`: recorded transitions replayed in the task's physics, and rewards beside the task's."""

import dataclasses
import functools

import numpy as np
import pytest
from small_files import door, recorded_door

import envs
from expo_bench.datasets import generate, load, npz, replayed
from expo_bench.errors import UserError


@functools.cache
def push():
    return envs.make("push-disc", "mujoco"), generate.generate("push-disc", None, episodes=4, seed=1)


def lines(tmp_path, data, env):
    npz.write(data, tmp_path / "a.npz")
    return list(replayed.check(tmp_path / "a.npz", env))


def test_a_tasks_own_data_are_its_own(tmp_path):
    env, data = push()
    size, replay, task, rewards, ends = lines(tmp_path, data, env)
    assert f"{data.size} transitions in 4 episodes have the task's 10 observations" in size
    assert (
        "from the observation alone" in replay and "error 1." in replay.replace("error 2.", "error 1.") and "e-07 in the median" in replay
    )
    assert "4 of 4 episodes fulfil it, 4 end it" in task and rewards.startswith("rewards: 0.00% ") and ends.startswith("ends: 0 ")


def test_other_rewards_are_counted(tmp_path):
    env, data = push()
    shifted = dataclasses.replace(data, reward=data.reward - 1)
    assert (
        "rewards: 100.00% of the transitions have another reward than the task gives, 0.00% if -1 is added"
        in lines(tmp_path, shifted, env)[3]
    )
    wrong = data.reward.copy()
    wrong[: data.size // 4] = 5
    assert "rewards: 25." in lines(tmp_path, dataclasses.replace(data, reward=wrong), env)[3].replace("24.9", "25.")


def test_axes_exchanged_throughout_are_found_by_the_replay(tmp_path):
    """x for y in positions and velocities alike: in range, and consistent with itself."""
    env, data = push()
    exchanged = np.array([1, 0, 3, 2, 5, 4, 7, 6, 9, 8])
    swapped = dataclasses.replace(data, obs=data.obs[:, exchanged] * 0.8, next_obs=data.next_obs[:, exchanged] * 0.8)
    with pytest.raises(UserError, match="a.npz: replaying .* recorded transitions in push-disc is off by .*observation order") as error:
        lines(tmp_path, swapped, env)
    assert "\n" not in str(error.value)


def test_other_actions_are_found_by_the_replay(tmp_path):
    env, data = push()
    with pytest.raises(UserError, match="are observation order, actions and dynamics those of the task"):
        lines(tmp_path, dataclasses.replace(data, action=-data.action), env)


def test_a_file_with_recorded_physics(tmp_path):
    path = recorded_door(tmp_path / "door.hdf5")
    found = list(replayed.check(path, door()))
    assert "39 transitions from recorded qpos and qvel, each one step in door (mujoco): error" in found[1]
    assert float(found[1].split("error ")[1].split()[0]) < 1e-4, found[1]
    assert found[2] == "task: 0.00% of the transitions and 0 of 1 episodes fulfil it, 0 end it"

    obs = load(path).obs
    fields = {name: load(path, with_state=True).state[name] for name in ("qpos", "qvel")}
    assert fields["qpos"].shape == (39, 30)
    swapped = np.concatenate([obs, obs[-1:]])[:, [*range(5), 9, 6, 7, 8, 5, *range(10, 39)]]
    with pytest.raises(UserError, match=r"component 5 'FFJ3' moves as component 9 '\w+' should, and the other way round"):
        list(replayed.check(recorded_door(tmp_path / "swapped.hdf5", observations=swapped), door()))


def test_what_cannot_be_replayed_is_said(tmp_path):
    short = recorded_door(tmp_path / "short.hdf5", **{"infos/qpos": np.zeros((40, 29))})
    assert "replay: not possible, the recorded qpos has 29 numbers; expected 30" in list(replayed.check(short, door()))[1]
    npz.write(load(short), tmp_path / "none.npz")
    assert (
        "replay: not possible, Adroit's observations do not hold the hand's velocities"
        in list(replayed.check(tmp_path / "none.npz", door()))[1]
    )


def test_the_human_demonstrations_of_the_door(door_demos, tmp_path):
    from small_files import write_pickle

    from expo_bench.datasets import restricted

    episodes = restricted.load(door_demos)
    for episode in episodes:
        episode["observations"] = episode["observations"][:, [*range(6), 14, *range(7, 14), 6, *range(15, 39)]]
    with pytest.raises(UserError, match="component 6 'FFJ2' moves as component 14 'RFJ2' should, and the other way round"):
        list(replayed.check(write_pickle(tmp_path / "swapped.pickle", episodes), door()))
    found = list(replayed.check(door_demos, door()))
    share = int(found[2].split("; ")[-1].split("%")[0])
    assert "25 episodes from their recorded start, open loop" in found[2] and share < 15, found[2]
    assert "7 of 25 episodes fulfil it" in found[3]
