"""Results for other tools: one tidy CSV, TensorBoard event files, or offline runs of Weights & Biases. Nothing is sent anywhere."""

import datetime
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pandas as pd

from analysis import ResultsError
from analysis.files import whole
from analysis.load import COLUMNS, TEXT, Results, load
from analysis.tables import file_names

DONE = {
    "csv": "written: {out}",
    "wandb": "written: {out}; to send it: wandb sync {out}/wandb/offline-run-*",
    "tensorboard": "written: {out}; to look at it: tensorboard --logdir {out}",
}
PACKAGES = {"wandb": "wandb", "tensorboard": "tensorboardX"}
KEYS = ("seed", "env_step", "grad_step")


def export(runs: Sequence[Path | str] | Path | str, out: Path | str, format: str = "csv") -> Path:
    """Write the results of run folders into the new file or folder `out` and return its path.

    csv: one row per evaluation, all that is on disk and the method's label; a path that does not end in .csv is a folder, in which the file
    is called curves.csv. tensorboard: TASK/METHOD/seed_N/, every number as a scalar under offline/ over gradient steps and under online/
    over environment steps. wandb: one offline run per task, method and seed, with the same names, to be sent by `wandb sync`.

    Raises ResultsError: whatever `load` raises, a package that is not installed, a path that holds something or cannot be written.
    """
    out = Path(out)
    if format == "csv":
        return _write_csv(load(runs), out if out.suffix == ".csv" else out / "curves.csv")
    if format not in PACKAGES:
        raise ResultsError(f"no export format {format!r}; expected one of: {', '.join(DONE)}")
    package = _package(format)
    results = load(runs)
    with whole(out) as folder:
        folder.mkdir()
        (_write_tensorboard if format == "tensorboard" else _write_wandb)(package, results, folder)
    return out


def _package(format: str) -> ModuleType:
    try:
        return importlib.import_module(PACKAGES[format])
    except ImportError:
        name = PACKAGES[format]
        raise ResultsError(
            f"--format {format} needs the package {name}: pip install 'expo-bench[{format}]' (or pip install {name})"
        ) from None


def _write_csv(results: Results, out: Path) -> Path:
    """Floats with the digits that give the same float back."""
    frame = results.frame.drop(columns="source")
    if not frame["imported"].any():
        frame = frame.drop(columns="imported")
    first = ["experiment", "task", "method", "agent", "variant", *(name for name in frame if "." in name)]
    first += [name for name in COLUMNS if name not in first]
    with whole(out) as temporary:
        frame[[*first, *(name for name in frame if name not in first)]].to_csv(temporary, index=False, lineterminator="\n")
    return out


def _series(results: Results) -> Iterator[tuple[str, str, int, pd.DataFrame]]:
    """(task, label, seed, rows) of every learning curve."""
    for (task, label, seed), rows in results.frame.groupby(["task", "method", "seed"], sort=False):
        yield task, label, int(seed), rows


def _numbers(results: Results) -> list[str]:
    """The columns that are measured numbers, not names, hyperparameters or counters."""
    names = results.frame.select_dtypes("number").columns
    return [name for name in names if name not in (*KEYS, *TEXT) and "." not in name]


def _scalars(rows: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[dict[str, float], pd.Series]]:
    """({"online/score": 0.5, ...}, row) of every evaluation; a number that is missing is left out."""
    for _, row in rows.iterrows():
        yield {f"{row['phase']}/{name}": float(row[name]) for name in names if pd.notna(row[name])}, row


def _write_tensorboard(package: ModuleType, results: Results, folder: Path) -> None:
    names = _numbers(results)
    tasks, labels = file_names(results.tasks), file_names(results.labels)
    began = {manifest.data["experiment"]: _seconds(manifest.get("created")) for manifest in results.manifests}
    for task, label, seed, rows in _series(results):
        with package.SummaryWriter(logdir=str(folder / tasks[task] / labels[label] / f"seed_{seed}")) as writer:
            for scalars, row in _scalars(rows, names):
                step = row["grad_step"] if row["phase"] == "offline" else row["env_step"]
                elapsed = row["wall_s"] if pd.notna(row["wall_s"]) else 0.0
                for name, value in scalars.items():
                    writer.add_scalar(name, value, int(step), walltime=began[row["experiment"]] + elapsed)


def _seconds(created: object) -> float:
    try:
        return datetime.datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return 0.0


def _write_wandb(package: ModuleType, results: Results, folder: Path) -> None:
    names = _numbers(results)
    projects = file_names([manifest.data["experiment"] for manifest in results.manifests])  # wandb refuses some characters
    for task, label, seed, rows in _series(results):
        method, first = results.catalogue[label], rows.iloc[0]
        config = {"experiment": first["experiment"], "task": task, "agent": method.agent, "variant": method.variant, "seed": seed}
        run = package.init(
            project=projects[first["experiment"]], group=task, job_type=label, name=f"{label}, seed {seed}", dir=str(folder), mode="offline",
            config=config | dict(method.hyperparameters), settings=package.Settings(silent=True, console="off", disable_git=True),
        )  # fmt: skip
        run.define_metric("offline/*", step_metric="grad_step")
        run.define_metric("online/*", step_metric="env_step")
        for scalars, row in _scalars(rows, names):
            run.log(scalars | {"env_step": int(row["env_step"]), "grad_step": int(row["grad_step"])})
        run.finish()
