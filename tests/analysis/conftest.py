"""A run folder for the tests; the helpers lie in `synthetic_runs`, a name that no other test folder has."""

from pathlib import Path

import pytest
from synthetic_runs import comparison, write_run


@pytest.fixture
def run(tmp_path) -> Path:
    """One folder with the comparison on two tasks."""
    return write_run(tmp_path / "run", comparison(("maze", "door")), files=3)
