"""What may be wrong with a D4RL file of the door, as a user meets it: one line and exit code 2 of `data check` and of a sweep, nothing written."""

import numpy as np
import pytest
from small_files import door, door_episode, recorded_door

import envs
from expo_bench import cli


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    door()  # or skip
    monkeypatch.chdir(tmp_path)
    make = envs.make
    monkeypatch.setattr(envs, "make", lambda name, engine="auto": door() if name == "door" else make(name, engine))


def exchanged(*pairs):
    """The door's observations with columns exchanged."""
    order = np.arange(39)
    for a, b in pairs:
        order[[a, b]] = order[[b, a]]
    return lambda fields: {"observations": fields["observations"][:, order]}


def with_nan(name, *place):
    def changed(fields):
        value = fields[name].copy()
        value[place] = np.nan
        return {name: value}

    return changed


WRONG = {
    "observations of another size": (lambda f: {"observations": f["observations"][:, :38]}, "a.hdf5: obs: found 38 columns, expected 39: the task door has 39 "),
    "actions of another size": (lambda f: {"actions": f["actions"][:, :27]}, "a.hdf5: action: found 27 columns, expected 28: the task door has 39 "),
    "an order that leaves the ranges": (exchanged((6, 38)), "observations out of range in component "),
    "an order at odds with itself": (exchanged((29, 32), (30, 33), (31, 34)), "component 35 'palm_to_handle_x' is not 'palm_x' - 'handle_x' (off by "),
    "an observation that is not finite": (with_nan("observations", 7, 3), "a.hdf5: obs: found nan in row 7, column 3 "),
    "an action that is not finite": (with_nan("actions", 7, 3), "a.hdf5: action: found nan in row 7, column 3"),
    "a reward that is not finite": (with_nan("rewards", 7), "a.hdf5: reward: found nan in row 7"),
    "a whole row that is not finite": (with_nan("observations", 7), "a.hdf5: obs: found nan in row 7, column 0 "),
    "no terminals": (lambda f: {"terminals": None}, "a.hdf5: 'terminals' is missing"),
    "terminals of two columns": (lambda f: {"terminals": np.zeros((40, 2))}, "a.hdf5: 'terminals': found shape (40, 2), expected (40,)"),
    "terminals of other values": (lambda f: {"terminals": np.full(40, 0.5)}, "a.hdf5: 'terminals': found 0.5 in row 0, expected 0 or 1"),
}  # fmt: skip


def refused(line, capsys, folder):
    """The one line with which a command ends; only a.hdf5 lies there before and after."""
    with pytest.raises(SystemExit) as exit:
        cli.main(line.split())
    lines = capsys.readouterr().err.splitlines()
    error = [text for text in lines if not text.startswith("warning: ")]
    assert exit.value.code == 2 and len(error) == 1 and error[0].startswith("expo-bench: error: "), lines
    assert [p.name for p in folder.rglob("*")] == ["a.hdf5"]
    return error[0]


CHECK = "data check a.hdf5 --task door"
SWEEP = "sweep --tasks door --engine mujoco --agents rlpd --dataset a.hdf5 --out new"


@pytest.mark.parametrize("command", [CHECK, SWEEP])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_line(wrong, command, capsys, tmp_path):
    change, message = WRONG[wrong]
    recorded_door(tmp_path / "a.hdf5", **change(door_episode()))
    assert message in refused(command, capsys, tmp_path)


@pytest.mark.parametrize("task, sizes", [("relocate", "39 observations and 30 actions"), ("pen", "45 observations and 24 actions"), ("antmaze-umaze", "29 observations and 8 actions")])  # fmt: skip
def test_another_task(task, sizes, capsys, tmp_path):
    recorded_door(tmp_path / "a.hdf5")
    for command in (CHECK, SWEEP):
        assert f"the task {task} has {sizes}" in refused(command.replace("door", task), capsys, tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_file(share, capsys, tmp_path):
    path = recorded_door(tmp_path / "a.hdf5")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for command in (CHECK, SWEEP, "data inspect a.hdf5"):
        assert "a.hdf5: the file is truncated" in refused(command, capsys, tmp_path)


def test_two_fingers_exchanged_are_found_by_the_physics(capsys, tmp_path):
    """In range, and at odds with nothing that the observations say of each other."""
    recorded_door(tmp_path / "a.hdf5", **exchanged((5, 9))(door_episode()))
    assert "component 5 'FFJ3' moves as component 9 'MFJ3' should, and the other way round" in refused(CHECK, capsys, tmp_path)


def checked(capsys):
    cli.main(CHECK.split())
    return capsys.readouterr().out.splitlines()


def test_other_rewards_are_counted_and_flags_in_a_column_are_flags(capsys, tmp_path):
    recorded_door(tmp_path / "a.hdf5")
    sound = checked(capsys)
    assert "39 transitions from recorded qpos and qvel, each one step in door (mujoco): error" in sound[1]
    assert sound[-1].startswith("rewards: 0.00% of the transitions have another reward than the task gives")
    column = {name: door_episode()[name][:, None] for name in ("terminals", "timeouts", "rewards")}
    recorded_door(tmp_path / "a.hdf5", **column)
    assert checked(capsys) == sound
    recorded_door(tmp_path / "a.hdf5", rewards=np.zeros((40, 1)))
    assert checked(capsys)[-1].startswith(
        "rewards: 100.00% of the transitions have another reward than the task gives, 0.00% if +1 is added"
    )


def test_missing_timeouts_are_a_warning(capsys, tmp_path):
    recorded_door(tmp_path / "a.hdf5", timeouts=None)
    warning, *rest = checked(capsys)
    assert warning.startswith("warning: a.hdf5: 'timeouts' is missing: episode ends are unknown except at the 0 terminals")
    assert "39 transitions in 1 episodes have the task's 39 observations" in rest[0]
