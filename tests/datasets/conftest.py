"""Fixtures of the dataset tests; their helpers lie in `small_files`, a name that no other test folder has."""

import os
from pathlib import Path

import pytest
from small_files import ROOT, Forward, LineEnv, make_dataset


@pytest.fixture
def line():
    return LineEnv()


@pytest.fixture
def forward():
    return Forward()


@pytest.fixture
def dataset():
    return make_dataset()


@pytest.fixture
def door_demos():
    folder = Path(os.environ.get("EXPO_BENCH_DATA", ROOT / ".." / "shared" / "data"))
    found = [p for p in (folder / "adroit" / "door-v0_demos.pickle", folder / "door-v0_demos.pickle") if p.is_file()]
    if not found:
        pytest.skip("door-v0_demos.pickle of hand_dapg is not here: set EXPO_BENCH_DATA to its folder")
    return found[0]
