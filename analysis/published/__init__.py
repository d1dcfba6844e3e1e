"""What others published: the curves and tables of EXPO, FQL, CORL, QC and QAM, each number with its source, protocol and precision.

    from analysis import published

    published.curves("antmaze-large-play", "success")   # the rows of every published curve
    published.finals("door", "solved")                  # the last number of every published method

Tasks have our names where they mean the same (D4RL's AntMaze -v2, the binary Adroit); OGBench has its own, `cube-double-play` without a
task number being the mean over that environment's five tasks. Means over a whole suite are left out. A number belongs to a metric:

    success      share of the evaluation episodes that reach the goal
    solved       share of the steps in which the task is solved: the score of the binary Adroit tasks
    normalised   D4RL's normalised return / 100, of Adroit's dense -v1 rewards: another quantity than `solved`, and not inside [0, 1]

On disk: `sources.csv` (what a table or figure is), `methods.csv` (what a method is called here, and how it differs) and one file per paper.
"""

import functools
from importlib import resources

import pandas as pd

from analysis import ResultsError

PAPERS = ("expo", "fql", "corl", "qc", "qam")
METRICS = ("success", "solved", "normalised")
SETTINGS = ("online", "offline_to_online", "offline")
INTERVALS = ("none", "standard deviation", "95 % confidence interval")
COLUMNS = (
    "key", "label", "source", "setting", "task", "metric", "agent", "method", "differs", "phase", "env_step", "score", "interval", "low",
    "high", "seeds", "precision", "protocol",
)  # fmt: skip
ADROIT = ("pen", "door", "relocate", "hammer")
SERIES = ["key", "method"]  # what tells one published method in one figure or table from another


def load() -> pd.DataFrame:
    """All published numbers, one row each, in the order of the files. Columns:

    key, label, source: the table or figure: its name here, a short name for legends, and paper, arXiv number, repository and place.
    setting: "online", "offline_to_online" or "offline". task, metric: see the module. agent: our name; method: the source's own;
    differs: how the published method differs from the agent, "" where nothing is known to. phase: "offline" for the end of an offline
    phase, otherwise "online". env_step: environment steps since the online phase began, 0 for "offline". score: in [0, 1] unless
    `normalised`. interval, low, high: what the bounds are over seeds; NaN with "none". seeds: NA where not stated. precision: of the number
    itself, as it was obtained. protocol: what to know before comparing.
    """
    return _load().copy()


def rows(task: str, metric: str = "success") -> pd.DataFrame:
    """All published rows of a task and metric, series by series in the order of steps; empty if there is none.

    Raises ResultsError: a metric that is not one of `METRICS`.
    """
    if metric not in METRICS:
        raise ResultsError(f"no metric {metric!r} among the published numbers; expected one of: {', '.join(METRICS)}")
    frame = _load()
    chosen = frame[(frame["task"] == task) & (frame["metric"] == metric)]
    return chosen.sort_values([*SERIES, "phase", "env_step"], kind="stable", ignore_index=True)  # "offline" < "online"


def curves(task: str, metric: str = "success") -> pd.DataFrame:
    """The `rows` that make curves: series of at least three points."""
    series = rows(task, metric)
    return series[series.groupby(SERIES)["score"].transform("size") >= 3].reset_index(drop=True)


def finals(task: str, metric: str = "success") -> pd.DataFrame:
    """The last of the `rows` of every published method, for its offline and its online phase."""
    return rows(task, metric).drop_duplicates([*SERIES, "phase"], keep="last").reset_index(drop=True)


def metric_of(task: str, column: str = "score") -> str:
    """The metric that a column of our results ("score" or "success") holds on a task: only published rows of that metric compare."""
    return "solved" if column == "score" and task in ADROIT else "success"


@functools.cache
def _load() -> pd.DataFrame:
    numbers = pd.concat([_read(paper) for paper in PAPERS], ignore_index=True).rename(columns={"source": "key"})
    frame = numbers.merge(_read("sources"), on="key", how="left", validate="many_to_one")
    frame = frame.merge(_read("methods"), on=["paper", "method"], how="left", validate="many_to_one")
    frame["differs"] = frame["differs"].fillna("")
    frame["interval"] = frame["interval"].where(frame["low"].notna(), "none")
    frame["seeds"] = frame["seeds"].astype("Int64")
    return frame[list(COLUMNS)]


def _read(name: str) -> pd.DataFrame:
    with (resources.files(__name__) / f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)
