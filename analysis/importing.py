"""Learning curves of other code bases, as CSV, made into a run folder that `load` reads like any other and that is marked as imported."""

import csv
import datetime
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import ResultsError
from analysis.files import whole
from analysis.load import COLUMNS, INTEGERS, PHASES, clean

NAMES = {"step": ("env_step", "step"), "score": ("score",), "seed": ("seed",)}  # what the columns are called unless --columns says so
HOW = "name them: --columns step=NAME,score=NAME,seed=NAME"
OPTIONAL = ("grad_step", "wall_s", "episode_return", "success", "episode_length", "eval_episodes", "blowups")


@dataclass(frozen=True)
class Table:
    """A CSV file as text. `lines`: where each row ends in the file, counted from 1."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """The cells of a column, without spaces around them."""
        at = self.header.index(name)
        return [row[at].strip() for row in self.rows]


def import_csv(
    file: Path | str, out: Path | str, source: str, task: str | None = None, agent: str | None = None, columns: str = "", command: str = ""
) -> list[str]:
    """Read learning curves from a CSV file into the new run folder `out`; returns what to tell the user, line by line.

    Long: columns `env_step` (or `step`), `score` and `seed`, in any order; what an export wrote comes back whole. Wide: a step column and
    one column per seed, called by the seed's number (`0`, `seed_0`), in which an empty cell is a seed that was not evaluated there.
    `columns`: other names, as "step=Step,score=Value,seed=3"; a number for `seed` is that of the only seed, and a pattern with `*` for
    `score` (wandb's "score=* - eval/score") means one column per seed. `source`: where the numbers come from. `task`, `agent`: their names,
    needed unless the file has columns of these names.

    Raises ResultsError, and then writes nothing: a file that is no CSV, is empty or lacks a column; a cell that is no number; two scores for
    one seed and step; a folder that holds something.
    """
    if not source.strip() or not source.isprintable():
        raise ResultsError(f"--source {source!r}: expected where the numbers come from, such as 'cleanrl'")
    table = read_table(Path(file))
    names = _names(table, columns)
    score = names["score"]
    if score is None or "*" in score:
        frame, notes = _wide(table, names["step"], _matching(table, score) if score else [])
    else:
        frame, notes = _long(table, names["step"], score, names["seed"]), []
    frame = _named(table, frame, task=task, agent=agent)
    _refuse_repeats(table, frame)
    with whole(Path(out)) as folder:
        _write(folder, frame.drop(columns="line").assign(experiment=source.strip()), source.strip(), table.path, command)
    return [*notes, *_summary(frame, source.strip())]


def read_table(path: Path) -> Table:
    """A CSV file: UTF-8, commas, a header with distinct names, as many fields in every line. Raises ResultsError."""
    if not path.is_file():
        raise ResultsError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; expected a CSV file")
    rows, lines = [], []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append(row)
                    lines.append(reader.line_num)
    except UnicodeDecodeError:
        raise ResultsError(f"{path}: not a CSV file (it is not text in UTF-8)") from None
    except (OSError, csv.Error) as error:
        raise ResultsError(f"{path}: cannot be read as CSV ({error})") from None
    if not rows:
        raise ResultsError(f"{path}: the file is empty; expected a header line and a line per evaluation")
    header = [clean(name.strip()) for name in rows[0]]
    if len(header) == 1:
        raise ResultsError(f"{path}: not a CSV file: its first line is {header[0][:60]!r}; expected names with commas between them")
    repeated = [name for i, name in enumerate(header) if name in header[:i]]
    if repeated:
        raise ResultsError(f"{path}: column {repeated[0]!r} is there twice")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise ResultsError(f"{path}: line {line} has {len(row)} fields; expected {len(header)} as in the header")
    if len(rows) == 1:
        raise ResultsError(f"{path}: holds a header but no rows; expected a line per evaluation")
    return Table(path, header, rows[1:], lines[1:])


def _names(table: Table, columns: str) -> dict[str, str | None]:
    """{"step": column, "score": column, pattern or None where there is a column per seed, "seed": column, number or None}."""
    given: dict[str, str] = {}
    for part in re.split(r",(?=[a-z]+=)", columns) if columns else []:
        key, equals, name = part.partition("=")
        if key not in NAMES or not (equals and name.strip()) or key in given:
            raise ResultsError(f"--columns {part!r}: expected step=NAME, score=NAME or seed=NAME, each once")
        given[key] = name.strip()
    names = {key: given.get(key) or next((n for n in usual if n in table.header), None) for key, usual in NAMES.items()}
    for key, name in given.items():
        several = key == "score" and "*" in name and _matching(table, name)
        if name not in table.header and not several and not (key == "seed" and name.isdecimal()):
            raise ResultsError(f"{table.path}: no column {name!r} (--columns {key}=...); it has: {_list(table.header)}")
    if names["step"] is None:
        raise ResultsError(f"{table.path}: no column 'env_step' or 'step'; it has: {_list(table.header)}; {HOW}")
    return names


def _matching(table: Table, pattern: str) -> list[str]:
    """The columns that a pattern with `*` stands for."""
    return [name for name in table.header if re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name)]


def _long(table: Table, step: str, score: str, seed: str | None) -> pd.DataFrame:
    """One row per evaluation [E x S], with whatever else of a run's columns the file has."""
    if seed is None:
        raise ResultsError(f"{table.path}: no column 'seed'; it has: {_list(table.header)}; {HOW}, or seed=0 if it is one seed's")
    diverged = [text.lower() in ("true", "1") for text in table.column("diverged")] if "diverged" in table.header else False
    frame = pd.DataFrame({"line": table.lines, "diverged": diverged})
    frame["seed"] = _numbers(table, seed, whole=True) if seed in table.header else float(seed)
    frame["phase"] = _phases(table) if "phase" in table.header else "online"
    frame["env_step"] = _numbers(table, step, whole=True)
    frame["score"] = _numbers(table, score, missing=frame["diverged"].to_numpy())
    for name in OPTIONAL:
        if name in table.header and name not in (step, score, seed):
            frame[name] = _numbers(table, name, whole=name in INTEGERS, missing=np.full(len(frame), name not in INTEGERS))
    offline = frame["phase"] == "offline"
    if offline.any() and "grad_step" not in frame:  # then the one step column counts gradient steps there
        frame["grad_step"] = frame["env_step"].where(offline, 0)
        frame["env_step"] = frame["env_step"].where(~offline, 0)
    for name in ("task", "agent", "variant"):
        if name in table.header:
            frame[name] = table.column(name)
    agents = set(frame.get("agent", []))
    for name in table.header:  # hyperparameters, as an export names them
        if any(name.startswith(f"{agent}.") for agent in agents):
            frame[name] = [(text or None) if math.isnan(_number(text)) else _number(text) for text in table.column(name)]
    return frame


def _wide(table: Table, step: str, several: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """One column per seed -> one row per evaluation, and what each column was taken for."""
    named = {name: re.fullmatch(r"(?i:seed)?[ _=-]*(\d+)", name) for name in table.header if name != step}
    chosen = list(several) or [name for name, match in named.items() if match]
    if not chosen:
        raise ResultsError(f"{table.path}: no column 'score' and no column per seed (0, seed_0); it has: {_list(table.header)}; {HOW}")
    own = [int(named[name].group(1)) if named.get(name) else None for name in chosen]
    seeds = own if None not in own and len(set(own)) == len(own) else range(len(chosen))
    steps = _numbers(table, step, whole=True)
    parts = []
    for name, seed in zip(chosen, seeds, strict=True):
        empty = np.array([not text for text in table.column(name)])
        if empty.all():
            raise ResultsError(f"{table.path}: column {name!r} is empty; expected the scores of a seed")
        values = _numbers(table, name, missing=empty, hint="leave a cell empty where a seed was not evaluated")
        part = pd.DataFrame({"line": table.lines, "diverged": False, "seed": seed, "phase": "online", "env_step": steps, "score": values})
        parts.append(part[~empty])
    return pd.concat(parts, ignore_index=True), [f"seed {seed}: column {name!r}" for name, seed in zip(chosen, seeds, strict=True)]


def _numbers(table: Table, name: str, whole: bool = False, missing: np.ndarray | None = None, hint: str = "") -> np.ndarray:
    """The finite numbers of a column; NaN where there is none and the row is one that may be `missing` it. A whole number is at least 0."""
    values = np.empty(len(table.rows))
    kind = "a whole number of at least 0" if whole else "a number"
    for i, text in enumerate(table.column(name)):
        values[i] = _number(text)
        if missing is not None and missing[i] and text.lower() in ("", "nan", "inf", "-inf"):
            values[i] = math.nan
        elif not math.isfinite(values[i]) or (whole and (values[i] < 0 or values[i] % 1 or values[i] >= 2**53)):
            what = f"holds {text[:60]!r}" if text else "is empty"
            raise ResultsError(
                f"{table.path}: line {table.lines[i]}, column {name!r} {what}; expected {kind}{f' ({hint})' if hint else ''}"
            )
    return values


def _number(text: str) -> float:
    """NaN for what is no number; Python's own digit separators are nobody else's."""
    try:
        return float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan


def _phases(table: Table) -> list[str]:
    phases = table.column("phase")
    for line, phase in zip(table.lines, phases, strict=True):
        if phase not in PHASES:
            raise ResultsError(f"{table.path}: line {line}, column 'phase' holds {phase[:60]!r}; expected 'offline' or 'online'")
    return phases


def _named(table: Table, frame: pd.DataFrame, **given: str | None) -> pd.DataFrame:
    """With the task and the agent: those given, or else the file's."""
    for key, name in given.items():
        if name is not None:
            if not name.strip() or not name.isprintable():
                raise ResultsError(f"--{key} {name!r}: expected a name")
            frame = frame.assign(**{key: name})
        elif key not in frame:
            raise ResultsError(f"{table.path}: has no column {key!r}; give its name: --{key} NAME")
        elif (frame[key] == "").any():
            line = frame.loc[frame[key] == "", "line"].iloc[0]
            raise ResultsError(f"{table.path}: line {line}, column {key!r} is empty; expected a name")
    return frame


def _refuse_repeats(table: Table, frame: pd.DataFrame) -> None:
    cells = [name for name in frame if "." in name]
    step = frame["grad_step"].where(frame["phase"] == "offline", frame["env_step"]) if "grad_step" in frame else frame["env_step"]
    keyed = frame.assign(_step=step)
    key = [name for name in ("task", "agent", "variant", *cells, "seed", "phase", "_step") if name in keyed]
    repeated = keyed.duplicated(key)
    if repeated.any():
        second = keyed[repeated].iloc[0]
        same = (keyed[key].astype(object).fillna("") == second[key].astype(object).fillna("")).all(axis=1)
        first = keyed[same].iloc[0]
        where = f"seed {second['seed']:.0f} at {second['phase']} step {second['_step']:,.0f}"
        raise ResultsError(
            f"{table.path}: lines {first['line']} and {second['line']}: two scores of {where}; expected one per seed and step"
        )


def _write(folder: Path, frame: pd.DataFrame, source: str, path: Path, command: str) -> None:
    """The run folder: every column that a run has, NaN or 0 where the file does not say."""
    defaults = {"variant": "", "grad_step": 0, "eval_episodes": 0, "blowups": 0}
    for name in COLUMNS:
        frame[name] = frame[name] if name in frame else defaults.get(name, math.nan)
    frame = frame.astype(dict.fromkeys(INTEGERS, np.int64))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    manifest = {
        "experiment": source,
        "command": command or None,
        "created": now,
        "finished": now,
        "imported": {"source": source, "file": path.name, "date": now[:10]},
        "seeds": sorted(map(int, frame["seed"].unique())),
    }
    (folder / "results").mkdir(parents=True)
    frame[[*COLUMNS, *(name for name in frame if name not in COLUMNS)]].to_parquet(folder / "results" / "imported.parquet", index=False)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _summary(frame: pd.DataFrame, source: str) -> list[str]:
    lines = []
    for (task, agent), rows in frame.groupby(["task", "agent"]):
        seeds, scores = sorted(map(int, rows["seed"].unique())), rows["score"]
        counts = f"{_count(len(seeds), 'seed')} ({', '.join(map(str, seeds))}), {_count(len(rows), 'evaluation')}"
        steps = f"up to environment step {rows['env_step'].max():,.0f}"
        lines.append(f"{task}: {agent} [imported: {source}], {counts} {steps}, scores from {scores.min():.4g} to {scores.max():.4g}")
    if (frame["score"] < 0).any() or (frame["score"] > 1).any():
        lines.append("warning: these scores leave [0, 1]; scores here are shares, so divide percentages by 100")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
