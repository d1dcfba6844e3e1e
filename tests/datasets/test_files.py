"""The project's own npz, and how formats are told apart."""

import dataclasses
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from small_files import ROOT, d4rl_fields, dapg_episodes, make_dataset, write_hdf5, write_pickle

from expo_bench.datasets import describe, detect, load, npz
from expo_bench.datasets.dataset import ROW_FIELDS
from expo_bench.errors import UserError


def same(a, b):
    for name in ROW_FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    assert a.meta == b.meta


def test_round_trip_and_equal_bytes(tmp_path):
    data = make_dataset(success=np.arange(7) % 2 == 0)
    data = dataclasses.replace(data, meta={**data.meta, "provenance": {"policy": {"file": "ä.npz"}, "seed": 3}, "notes": ["one"]})
    npz.write(data, tmp_path / "a.npz")
    npz.write(data, tmp_path / "b.npz")
    same(load(tmp_path / "a.npz"), data)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_what_was_read_from_other_formats_can_be_kept(tmp_path):
    for path in (write_pickle(tmp_path / "a.pickle", dapg_episodes()), write_hdf5(tmp_path / "a.hdf5", d4rl_fields())):
        npz.write(load(path), tmp_path / "a.npz")
        same(load(tmp_path / "a.npz"), load(path))


def test_nothing_is_left_behind_when_writing_fails(tmp_path, dataset, monkeypatch):
    with pytest.raises(UserError, match="no/a.npz: cannot be written: No such file"):
        npz.write(dataset, tmp_path / "no" / "a.npz")

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "a.npz").write_bytes(b"old")
    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(UserError, match="a.npz: cannot be written: No space left"):
        npz.write(dataset, tmp_path / "a.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"] and (tmp_path / "a.npz").read_bytes() == b"old"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
def test_truncated_npz(tmp_path, dataset, share):
    path = tmp_path / "a.npz"
    npz.write(dataset, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match="a.npz: truncated or damaged"):
        load(path)


def test_damaged_npz(tmp_path):
    path = tmp_path / "a.npz"
    npz.write(make_dataset((50, 50)), path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 30] = bytes(30)
    path.write_bytes(raw)
    with pytest.raises(UserError, match="a.npz: truncated or damaged"):
        load(path)


def _arrays(**changes):
    data = make_dataset()
    meta = '{"format": "expo-bench", "version": 1, "meta": {}}'
    return {**{name: getattr(data, name) for name in ROW_FIELDS}, "meta": np.array(meta), **changes}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w0": np.zeros(3)}, "'obs' is missing, found 'w0'"),
        (_arrays(meta=np.array('{"version": 99, "meta": {}}')), "format version 99, expected 1"),
        (_arrays(meta=np.array("nonsense")), "truncated or damaged"),
        (_arrays(meta=np.array([{"a": 1}], dtype=object)), "truncated or damaged.*allow_pickle"),
        (_arrays(reward=np.zeros(6, np.float32)), "'reward': found 6 rows, expected 7"),
        (_arrays(reward=np.zeros((7, 1), np.float32)), r"'reward': found shape \(7, 1\)"),
        (_arrays(terminated=np.zeros(7)), "'terminated': found .* expected 1 dimensions of bool"),
        (_arrays(next_obs=np.zeros((7, 5))), r"'next_obs': found shape \(7, 5\), expected \(7, 2\)"),
    ],
)
def test_foreign_or_inconsistent_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match="a.npz: .*" + message):
        load(tmp_path / "a.npz")


def test_an_npz_with_a_pickle_inside_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    np.savez(tmp_path / "a.npz", **_arrays(obs=np.array([Evil()], dtype=object)))
    with pytest.raises(UserError, match="a.npz"):
        load(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="b.npz: found a pickle"):
        load(tmp_path / "b.npz")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.hdf5", b"", "the file is empty, expected an HDF5 file of D4RL, Minari or robomimic"),
        ("a.npz", b"", "the file is empty"),
        ("a.pickle", b"", "the file is empty"),
        ("a.hdf5", b"\n<!DOCTYPE html><html>404</html>", "a web page.*error page"),
        ("a.pickle", b"<html>", "a web page"),
        ("a.h5", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        ("a.hdf5", b"PK\x03\x04zip", "found a zip archive"),
        ("a.npz", b"\x93NUMPY", "a single numpy array"),
        ("a.pkl", b"hello", "unknown content"),
        ("a.csv", b"1,2", "the suffix '.csv', expected one of .pickle, .pkl, .hdf5, .h5, .npz"),
    ],
)
def test_content_and_suffix_have_to_agree(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    for read in (load, describe):
        with pytest.raises(UserError, match=message) as error:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [".pickle", ".hdf5", ".npz"])
def test_random_damage_is_a_user_error_of_one_line_or_harmless(tmp_path, kind):
    path = tmp_path / f"a{kind}"
    if kind == ".npz":
        npz.write(make_dataset(), path)
    else:
        write_pickle(path, dapg_episodes()) if kind == ".pickle" else write_hdf5(path, d4rl_fields())
    sound, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        raw = bytearray(sound)
        for position in rng.integers(len(raw), size=3):
            raw[position] = rng.integers(256)
        path.write_bytes(raw)
        try:
            assert max(map(len, describe(path).splitlines()[1:])) < 100
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 400 and str(path) in str(error)
    assert refused


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "a.npz")
    (tmp_path / "b.npz").mkdir()
    with pytest.raises(UserError, match="a folder"):
        detect(tmp_path / "b.npz")


def test_describe(tmp_path):
    data = make_dataset((4, 3), reward=np.array([-1, -1, -1, 0, -1, -1, -1.0]), success=np.arange(7) == 3, action=np.full((7, 1), 1.5))
    meta = {**data.meta, "success_recorded": True, "provenance": {"seed": 3, "policy": {"file": "x"}}}
    npz.write(dataclasses.replace(data, meta=meta), tmp_path / "a.npz")
    text = describe(tmp_path / "a.npz")
    assert max(map(len, text.splitlines())) < 100
    for part in ("expo-bench (recorded as test)", "3 / 3.5 / 4", "2 observations, 1 actions", "100.0% of the rows"):
        assert part in text, text
    assert "1 of 2 episodes" in text and "policy.file: x" in text
    lines = [line.split()[:2] for line in text.splitlines()]
    assert ["-1", "6"] in lines and ["0", "1"] in lines  # few distinct rewards are listed

    text = describe(write_pickle(tmp_path / "b.pickle", dapg_episodes((60, 50), 39, 28)))
    assert "not recorded" in text and max(map(len, text.splitlines())) < 100 and " to " in text


def test_describe_shows_broken_data_too(tmp_path):
    npz.write(make_dataset(reward=np.full(7, np.nan)), tmp_path / "a.npz")
    assert "NOT FINITE" in describe(tmp_path / "a.npz")
    npz.write(make_dataset((1,), truncated=np.zeros(1, bool)), tmp_path / "a.npz")
    assert "episodes                0" in describe(tmp_path / "a.npz")


def test_import_is_light():
    code = "import sys, expo_bench.datasets as d; print([m for m in ('jax', 'h5py', 'mujoco', 'envs') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
