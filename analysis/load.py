"""Run folders -> one tidy frame. A run folder holds `manifest.json` and `results/*.parquet`, as the sweeps write them."""

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis import ResultsError

TEXT = ("experiment", "task", "agent", "variant", "phase")
INTEGERS = ("seed", "env_step", "grad_step", "eval_episodes", "blowups")
NUMBERS = ("wall_s", "score", "episode_return", "success", "episode_length")
COLUMNS = (*TEXT, *INTEGERS, *NUMBERS, "diverged")
PHASES = ("offline", "online")
# The experiment is the one key a manifest must have. Of the others, those with an inside are checked, so that a broken one is named here.
NESTED = {"versions": dict, "protocols": dict, "programs": list, "notes": list, "imported": dict}


@dataclass(frozen=True)
class Method:
    """What is compared: an agent, its variant ("" = as it comes), and those hyperparameters that set it apart from its siblings."""

    agent: str
    variant: str = ""
    hyperparameters: tuple[tuple[str, Any], ...] = ()  # (column, value), such as ("expo.edit_scale", 0.1)
    experiment: str = ""  # only where two experiments hold the same method on one task
    imported: str = ""  # where the numbers come from, if they were measured elsewhere

    @property
    def label(self) -> str:
        """`expo`, `expo (random selection)`, `expo edit_scale=0.1`, `sac [imported: cleanrl]`: unique among the methods of one `Results`."""
        cells = "".join(f" {name.removeprefix(self.agent + '.')}={show_value(value)}" for name, value in self.hyperparameters)
        origins = (f"imported: {self.imported}" if self.imported else "", self.experiment)
        return self.agent + (f" ({self.variant})" if self.variant else "") + cells + "".join(f" [{name}]" for name in origins if name)


@dataclass(frozen=True)
class Manifest:
    """`manifest.json` of one run folder: `data` is what it says, read through `get`."""

    folder: Path
    data: dict[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default where it is absent or null."""
        value = self.data.get(key)
        return default if value is None else value

    @property
    def imported(self) -> str:
        """The source of imported results; "" for a run of this code."""
        return clean(self.data["imported"].get("source") or "unknown source") if self.get("imported") is not None else ""


@dataclass(frozen=True)
class Results:
    """`frame`: one row per (task, method, seed, evaluation) with the column `method` (a label) added to those on disk, `source` (the file a
    row came from) and `imported` (see `Method`). `manifests`: one per folder, in the order given. `notes`: what loading did that a reader should know."""

    frame: pd.DataFrame
    manifests: tuple[Manifest, ...]
    catalogue: dict[str, Method] = field(default_factory=dict)  # label -> method
    notes: tuple[str, ...] = ()

    @cached_property
    def methods(self) -> list[Method]:
        """All methods: EXPO first, then by agent name; within an agent the default variant first, then by cell. Not by order of files."""
        return sorted(self.catalogue.values(), key=_rank)

    @property
    def labels(self) -> list[str]:
        """The labels of `methods`, in their order."""
        return [method.label for method in self.methods]

    @property
    def tasks(self) -> list[str]:
        """All tasks, by name."""
        return sorted(self.frame["task"].unique())

    def rows(self, task: str, label: str) -> pd.DataFrame:
        """The rows of one method on one task; empty if it was not run there."""
        return self._groups.get((task, label), self.frame.iloc[:0])

    @cached_property
    def _groups(self) -> dict[tuple[str, str], pd.DataFrame]:
        return dict(list(self.frame.groupby(["task", "method"], sort=False)))

    def find(self, reference: str) -> Method:
        """The method of this label, or else the first method of this agent. Raises ResultsError with the nearest labels if none."""
        by_agent = [method for method in self.methods if method.agent == reference]
        if reference in self.catalogue or by_agent:
            return self.catalogue.get(reference) or by_agent[0]
        # Agents too: a label may be long, and then no match for a short name.
        names = dict.fromkeys([*self.labels, *(method.agent for method in self.methods)])
        near = difflib.get_close_matches(reference, names, n=3, cutoff=0.4)
        guess = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected one of: {', '.join(self.labels)}"
        raise ResultsError(f"no method {reference!r} in these results; {guess}")


def load(runs: Sequence[Path | str] | Path | str, partial: bool = False) -> Results:
    """Read one or several run folders into one `Results`.

    Folders of one experiment are pooled: a sweep split over machines is one sweep. The same method in two experiments on one task stays
    two methods, told apart by the experiment's name. A row that is there twice with equal numbers (a resumed sweep) counts once.
    `partial`: read what can be read, and name in the notes what was left out: a folder or a file that cannot be read, and a folder whose
    rows contradict those of an earlier one.

    Raises ResultsError: a folder that does not exist, is no run folder or has no results yet; a manifest or parquet file that cannot be
    read, lacks a column or has a column of the wrong kind; rows of one experiment that contradict each other. With `partial`, the first of
    these only where nothing is left.
    """
    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    if not folders:
        raise ResultsError("no run folder given; expected at least one folder with manifest.json and results/")
    unique = list({folder.resolve(): folder for folder in folders}.values())
    notes = ["A run folder was given twice; it counts once."] if len(unique) < len(folders) else []
    read, dropped, left_out = _read_partly(unique) if partial else (*_joined(map(_read_run, unique)), [])
    manifests, frame = read
    if dropped:
        notes.append(f"{dropped} rows were stored twice with the same numbers; each counts once.")
    frame, catalogue = _name_methods(frame, _cells(frame))
    order = ["task", "method", "seed", "phase", "env_step", "grad_step"]  # "offline" < "online"
    frame = frame.sort_values(order, kind="stable", ignore_index=True)
    return Results(frame, manifests, catalogue, (*notes, *(f"Left out: {reason}." for reason in left_out)))


Run = tuple[Manifest, pd.DataFrame]


def _joined(runs: Iterable[Run]) -> tuple[tuple[tuple[Manifest, ...], pd.DataFrame], int]:
    """((manifests, all rows), number of repeated rows that were dropped). Raises ResultsError for rows that contradict each other."""
    manifests, frames = zip(*runs, strict=True)
    frame = pd.concat(frames, ignore_index=True)
    cells = _cells(frame)
    for name in cells:
        if frame[name].dtype == object:  # text, or a list such as layer widths, which no group key can be
            frame[name] = frame[name].map(lambda value: np.nan if np.ndim(value) == 0 and pd.isna(value) else clean(value)).astype(object)
    frame, dropped = _unique_rows(frame, cells)
    return (manifests, frame), dropped


def _cells(frame: pd.DataFrame) -> list[str]:
    """The columns of hyperparameters: those with a dot."""
    return sorted(name for name in frame.columns if "." in name)


def _read_partly(folders: Sequence[Path]) -> tuple[tuple[tuple[Manifest, ...], pd.DataFrame], int, list[str]]:
    """`_joined` of what can be read and fits together, and one line for each thing that does not. Raises the first of those where nothing can."""
    runs: list[Run] = []
    left_out: list[str] = []
    for folder in folders:
        try:
            run = _read_run(folder, left_out)
            _joined([*runs, run])
        except ResultsError as error:
            left_out.append(str(error))
        else:
            runs.append(run)
    if not runs:
        raise ResultsError(left_out[0])
    return *_joined(runs), left_out


def _read_run(folder: Path, left_out: list[str] | None = None) -> Run:
    manifest = _read_manifest(folder)
    return manifest, _read_folder(manifest, left_out)


def _read_manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder; expected a run folder with manifest.json and results/")
    path = folder / "manifest.json"
    if not path.is_file():
        raise ResultsError(f"{folder}: not a run folder (no manifest.json); expected the --out folder of a sweep")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read as JSON ({_line(error)})") from None
    if not isinstance(data, dict) or not isinstance(data.get("experiment"), str) or not data["experiment"]:
        raise ResultsError(f"{path}: has no 'experiment'; expected an object with the name of the experiment")
    for key, kind in NESTED.items():
        if data.get(key) is not None and not isinstance(data[key], kind):
            raise ResultsError(f"{path}: {key!r} is {type(data[key]).__name__}, expected {kind.__name__}")
    for key in ("protocols", "programs"):
        entries = data.get(key) or {}
        if not all(isinstance(entry, dict) for entry in (entries.values() if isinstance(entries, dict) else entries)):
            raise ResultsError(f"{path}: an entry of {key!r} is no object, expected field: value pairs")
    return Manifest(folder, {**data, "experiment": clean(data["experiment"])})


def _read_folder(manifest: Manifest, left_out: list[str] | None) -> pd.DataFrame:
    """All rows of a folder; files that cannot be read go into `left_out` where it is given, and are an error otherwise."""
    files = sorted(path for path in (manifest.folder / "results").glob("*.parquet") if not path.name.startswith("."))
    if not files:
        raise ResultsError(f"{manifest.folder}: no results yet (results/ holds no parquet file); expected at least one evaluation")
    frames = [frame for path in files if (frame := _read_or_leave(path, left_out)) is not None]
    if not frames:
        raise ResultsError(f"{manifest.folder}: none of its {len(files)} parquet files can be read; expected at least one evaluation")
    frame = _checked(pd.concat(frames, ignore_index=True))
    if frame.empty:
        raise ResultsError(f"{manifest.folder}: no results yet ({len(files)} parquet files, no row); expected at least one evaluation")
    expected = manifest.data["experiment"]
    _refuse(frame, frame["experiment"] != expected, "experiment", f"expected {expected!r} as in manifest.json")
    return frame.assign(imported=manifest.imported)


def _read_or_leave(path: Path, left_out: list[str] | None) -> pd.DataFrame | None:
    try:
        return _read_file(path)
    except ResultsError as error:
        if left_out is None:
            raise
        left_out.append(str(error))
        return None


def _read_file(path: Path) -> pd.DataFrame:
    try:
        with pq.ParquetFile(path) as file:
            frame = file.read().to_pandas()
    except (OSError, pa.ArrowException) as error:
        reason = f"cannot be read, half-written or not parquet ({_line(error)})"
        raise ResultsError(f"{path}: {reason}; delete it or run the sweep again") from None
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ResultsError(f"{path}: missing column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    return frame.assign(source=str(path))


def _checked(frame: pd.DataFrame) -> pd.DataFrame:
    """Every column of the kind it should be; done once for all files of a folder, of which there may be thousands."""
    for name in (*INTEGERS, *NUMBERS):
        values = pd.to_numeric(frame[name], errors="coerce")
        _refuse(frame, values.isna() & frame[name].notna(), name, "expected a number")
        if name in INTEGERS:
            _refuse(frame, values.isna() | (values % 1 != 0), name, "expected a whole number")
        frame[name] = values.astype(np.int64 if name in INTEGERS else np.float64)
    frame["variant"] = frame["variant"].astype(object).where(frame["variant"].notna(), "")
    for name in TEXT:
        _refuse(frame, frame[name].isna(), name, "expected a name")
        frame[name] = frame[name].map({value: clean(value) for value in frame[name].unique()}).astype(object)
    _refuse(frame, ~frame["phase"].isin(PHASES), "phase", "expected 'offline' or 'online'")
    frame["diverged"] = frame["diverged"].astype(object).where(frame["diverged"].notna(), False).astype(bool)
    return frame


def _refuse(frame: pd.DataFrame, bad: pd.Series, name: str, expected: str) -> None:
    """Raise ResultsError for the first row that is bad, by file, row of that file and column."""
    if bad.any():
        at = int(np.argmax(bad))
        source = frame["source"].iloc[at]
        row = int((frame["source"].iloc[:at] == source).sum())
        value = frame[name].iloc[at]
        shown = repr(value.item() if isinstance(value, np.generic) else value)[:60]
        raise ResultsError(f"{source}: row {row}, column {name!r} holds {shown}; {expected}")


def _unique_rows(frame: pd.DataFrame, cells: list[str]) -> tuple[pd.DataFrame, int]:
    """Drop exact repeats, refuse contradictions. Wall time may differ: it is what a repeated run changes."""
    # Offline evaluations all have env_step 0; what tells them apart is the number of gradient steps.
    step = np.where(frame["phase"] == "offline", frame["grad_step"], frame["env_step"])
    key = ["experiment", "imported", "task", "agent", "variant", *cells, "seed", "phase"]
    keyed = frame.assign(_step=step)
    repeated = keyed.duplicated([*key, "_step"], keep="first")
    if not repeated.any():
        return frame, 0
    values = [name for name in keyed.columns if name not in ("wall_s", "source")]
    clash = repeated & ~keyed.duplicated(values, keep="first")
    if clash.any():
        second = keyed[clash].iloc[0]
        same = keyed[[*key, "_step"]].apply(lambda column: (column == second[column.name]) | (column.isna() & pd.isna(second[column.name])))
        first = keyed[same.all(axis=1)].iloc[0]
        what = f"{second['task']}/{second['agent']}{'/' + second['variant'] if second['variant'] else ''} seed {second['seed']}"
        raise ResultsError(
            f"{first['source']} and {second['source']}: two different results of experiment {second['experiment']!r} for {what}, "
            f"{second['phase']} step {second['_step']}; expected each evaluation once"
        )
    return frame[~repeated].reset_index(drop=True), int(repeated.sum())


def _name_methods(frame: pd.DataFrame, cells: list[str]) -> tuple[pd.DataFrame, dict[str, Method]]:
    """Give every row its method's label. A hyperparameter is named only where it tells two cells of one task, agent and variant apart: one
    that is fixed, or that only differs between tasks, is no other method."""
    varies = {agent: [name for name in cells if _varies(rows, name)] for agent, rows in frame.groupby("agent")}
    identity = ["experiment", "imported", "agent", "variant", *cells]
    rows = frame[[*identity, "task"]].drop_duplicates()

    def method(row: dict[str, Any], experiment: str = "") -> Method:
        named = tuple((name, row[name]) for name in varies[row["agent"]] if not pd.isna(row[name]))
        return Method(row["agent"], row["variant"], named, experiment, row["imported"])

    records = rows.to_dict("records")
    experiments: dict[tuple[str, Method], set[str]] = {}
    for row in records:
        experiments.setdefault((row["task"], method(row)), set()).add(row["experiment"])
    shared = {named for (_, named), holders in experiments.items() if len(holders) > 1}
    methods = [method(row, row["experiment"] if method(row) in shared else "") for row in records]
    names = rows.assign(method=[each.label for each in methods])
    return frame.merge(names, on=[*identity, "task"], how="left"), {each.label: each for each in methods}


def _varies(rows: pd.DataFrame, name: str) -> bool:
    return bool((rows.groupby(["task", "variant"])[name].nunique(dropna=False) > 1).any())


def _rank(method: Method) -> tuple:
    cells = tuple((name, isinstance(value, str), value) for name, value in method.hyperparameters)
    name = (method.agent != "expo", method.agent, method.imported, method.variant != "", method.variant)
    return (*name, len(cells), cells, method.experiment)


def show_value(value: Any) -> str:
    """Six digits: parquet may hold a float32 0.1, which is no 0.10000000149 to a reader."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def clean(text: Any) -> str:
    """Names come from files: a control character in one would reach the terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
