"""Fetching by name: what is got is checked and lies where it is found by name; what fails is one line and leaves nothing."""

import json
import socket
import sys
import types

import numpy as np
import pytest
from small_files import write_hdf5

from expo_bench.datasets import catalogue, load
from expo_bench.errors import UserError

NAME = "D4RL/door/human-v2"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A stand-in for minari's downloader: it writes one episode, or what `server.does` does."""
    import os

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "home" / "datasets"))

    def download_dataset(name):
        folder = os.path.join(os.environ["MINARI_DATASETS_PATH"], name, "data")
        os.makedirs(folder)
        steps = 4
        fields = {"observations": np.ones((steps + 1, 2)), "actions": np.zeros((steps, 1)), "rewards": np.zeros(steps)}
        fields |= {"terminations": np.zeros(steps, bool), "truncations": np.arange(steps) == steps - 1}
        path = os.path.join(folder, "main_data.hdf5")
        write_hdf5(path, {f"episode_0/{k}": v for k, v in fields.items()})
        with open(os.path.join(folder, "metadata.json"), "w") as file:
            json.dump({"dataset_id": name, "total_episodes": 1, "total_steps": steps}, file)
        server.does(folder)

    server = types.SimpleNamespace(does=lambda folder: None, download_dataset=download_dataset)
    monkeypatch.setitem(sys.modules, "minari", server)
    return server


def test_what_was_fetched_is_found_by_name(server, tmp_path):
    with pytest.raises(UserError, match=f"{NAME}: not fetched yet .*`expo-bench data fetch {NAME}`"):
        load(NAME)
    said = []
    place = catalogue.fetch(NAME, said.append)
    assert place == tmp_path / "home" / "datasets" / NAME and said[-1] == "1 episodes, 4 transitions, lengths 4 / 4 / 4"
    assert load(NAME).size == 4 and [p.name for p in (tmp_path / "home" / "datasets").iterdir()] == ["D4RL"]
    server.does = lambda folder: pytest.fail("fetched again")
    assert catalogue.fetch(NAME, said.append) == place and "fetched before" in said[-2]
    assert "[fetched]" in next(line for line in catalogue.listing(lambda task: task == "door") if NAME in line)


def _no_network(folder):
    try:
        raise socket.gaierror(-2, "Name or service not known")
    except socket.gaierror as error:
        raise RuntimeError("a long story\nof a client") from error


def _refuse(folder):
    raise ValueError("Couldn't find any version for dataset")


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (_no_network, r"Minari's server cannot be reached \(gaierror\)"),
        (_refuse, "the download failed: Couldn't find any version"),
        (
            lambda folder: open(f"{folder}/metadata.json", "w").write('{"total_steps": 5}'),
            "found 4 steps, expected 5 as metadata.json says",
        ),
        (lambda folder: open(f"{folder}/main_data.hdf5", "r+b").truncate(500), "main_data.hdf5: the file is truncated"),
    ],
)
def test_what_fails_leaves_nothing(server, tmp_path, does, message):
    server.does = does
    with pytest.raises(UserError, match=message) as error:
        catalogue.fetch(NAME, lambda line: None)
    assert "\n" not in str(error.value) and not (tmp_path / "home").exists()


def test_unknown_names_and_a_missing_package(server, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="unknown dataset 'D4RL/dor/human-v2'; did you mean 'D4RL/door/human-v2'"):
        catalogue.fetch("D4RL/dor/human-v2", print)
    with pytest.raises(UserError, match="unknown dataset '../up-v1'"):
        catalogue.fetch("../up-v1", print, unlisted=True)
    assert load(catalogue.fetch("mujoco/hopper/expert-v0", lambda line: None, unlisted=True)).size == 4
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(UserError, match=r"pip install 'expo-bench\[minari\]'"):
        catalogue.fetch(NAME, lambda line: None)


def test_every_entry_is_a_name_of_minaris():
    assert all(catalogue._ID.fullmatch(name) for name in catalogue.CATALOGUE) and len(catalogue.CATALOGUE) == 18
