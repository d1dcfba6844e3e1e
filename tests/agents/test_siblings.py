"""Algorithms differ in what their files say: no two of them share 30 % of their lines."""

from itertools import combinations
from pathlib import Path

from expo_bench import agents

FOLDER = Path(agents.__file__).parent


def statements(name: str) -> list[str]:
    """The lines that say something: no blanks, imports or lone brackets."""
    lines = [line.strip() for line in (FOLDER / f"{name}.py").read_text().splitlines()]
    return [line for line in lines if any(char.isalnum() for char in line) and not line.startswith(("from ", "import ", '"""'))]


def shared(one: list[str], other: list[str]) -> float:
    """The share of the longer file's lines that stand in the other word for word (a repeated line as often as it stands there)."""
    longer, shorter = sorted((one, list(other)), key=len, reverse=True)
    rest, common = list(shorter), 0
    for line in longer:
        if line in rest:
            rest.remove(line)
            common += 1
    return common / len(longer)


def test_the_measure() -> None:
    assert shared(["a", "b", "b", "c"], ["b", "c", "d"]) == 0.5


def test_siblings_share_less_than_30_percent() -> None:
    lines = {name: statements(name) for name in agents.AGENTS}
    too_much = {(a, b): share for a, b in combinations(lines, 2) if (share := shared(lines[a], lines[b])) >= 0.3}
    assert not too_much


def test_each_file_names_its_source() -> None:
    for name in agents.AGENTS:
        text = (FOLDER / f"{name}.py").read_text()
        assert text.startswith('"""') and ("arXiv" in text or "et al." in text), name
