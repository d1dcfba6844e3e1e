"""Published numbers beside measured ones: what belongs into a figure of these results, and the table of everything on their tasks."""

from collections.abc import Sequence

import pandas as pd

from analysis import published
from analysis.load import Results
from analysis.statistics import mean_interval
from analysis.summary import Summary
from analysis.tables import show_interval

HEADER = ("task", "agent", "as published", "at step", "seeds", "source", "precision", "measured here", "what differs")


def drawn(results: Results, task: str, column: str = "score") -> pd.DataFrame:
    """The published rows for a figure of a task's column ("score" or "success"): of the agents that were run on it and of that column's
    metric; from offline-to-online experiments where a method had an offline phase here, otherwise from online ones."""
    rows = results.frame[results.frame["task"] == task]
    setting = "offline_to_online" if (rows["phase"] == "offline").any() else "online"
    everything = published.rows(task, published.metric_of(task, column))
    return everything[everything["agent"].isin(set(rows["agent"])) & (everything["setting"] == setting)]


def table(results: Results, summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, cells and notes on every published final number of these tasks in the metric of their score: the agents run here first.
    `notes`: one sentence per source on its protocol. Without published numbers the cells are empty lists."""
    cells, notes = [], {}
    for task in results.tasks:
        own = {s.method.agent: s for s in reversed(summaries) if s.task == task and not s.method.imported}  # an agent's first
        finals = published.finals(task, published.metric_of(task))
        order = finals.assign(absent=~finals["agent"].isin(own)).sort_values(["absent", "agent"], kind="stable")
        cells += [_cells(row, own.get(row.agent)) for row in order.itertuples()]
        notes |= {
            row.key: f"{row.label} ({_setting(row)}): {row.source}. {row.protocol[0].upper()}{row.protocol[1:]}."
            for row in finals.itertuples()
        }
    return list(HEADER), cells, list(notes.values())


def _cells(row, own: Summary | None) -> list[str]:
    name = row.agent if row.agent == row.method.lower().replace("-", "_") else f"{row.agent} ({row.method})"
    bounds = {"none": "", "standard deviation": f" \N{PLUS-MINUS SIGN} {(row.high - row.low) / 2:.2f} sd"}
    number = f"{row.score:.2f}{bounds.get(row.interval, f' [{row.low:.2f}, {row.high:.2f}]')}"
    step = f"{row.env_step:,}" if row.phase == "online" else "after the offline phase"
    seeds = "" if pd.isna(row.seeds) else str(row.seeds)
    return [row.task, name, number, step, seeds, f"{row.label}, {_setting(row)}", row.precision, _measured(own), row.differs]


def _measured(own: Summary | None) -> str:
    if own is None:
        return ""
    where = f"at {own.final_step:,}" if own.final_phase == "online" else "after the offline phase"
    return f"{show_interval(mean_interval(own.score))} {where}"


def _setting(row) -> str:
    return row.setting.replace("_", " ")
