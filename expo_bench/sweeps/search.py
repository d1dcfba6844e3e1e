"""Hyperparameter search: points of a Sobol sequence are cells of an ordinary sweep, vmapped like a grid; the best is run again on other seeds.

The seeds that choose are none of those that report: the best of many noisy scores is an overestimate, its score on new seeds is not.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expo_bench.sweeps.experiment import Experiment, Method, Range, validate

if TYPE_CHECKING:
    import pandas as pd


def points(ranges: Mapping[str, Range], samples: int) -> list[dict[str, float]]:
    """`samples` points of a scrambled Sobol sequence over the ranges, to four digits; the same ones at every call."""
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The balance properties")  # of a number of samples that is no power of two
        unit = qmc.Sobol(len(ranges), rng=0).random(samples)
    return [{axis: _value(within, u) for (axis, within), u in zip(ranges.items(), row, strict=True)} for row in unit]


def _value(within: Range, u: float) -> float:
    scale, back = (math.log, math.exp) if within.log else (float, float)
    return float(f"{back(scale(within.low) + u * (scale(within.high) - scale(within.low))):.4g}")


def run(experiment: Experiment, out: str | Path | None = None, *, run: Callable | None = None, **options: Any) -> pd.DataFrame | None:
    """`run` (by default `runner.run`); where the experiment searches, first the search, in a folder of its own beside `out` (NAME-search),
    then what it chose."""
    from expo_bench.sweeps import runner
    from expo_bench.sweeps.folder import RunFolder

    run = run or runner.run
    if experiment.search is None:
        return run(experiment, out, **options)
    validate(experiment)
    RunFolder(out).close()  # an `out` that cannot be is refused before the search, not after it
    beside = None if out is None else Path(out).with_name(f"{Path(out).name}-search")
    frame = run(choosing(experiment), beside, **options)
    if frame is None:
        print("these were the jobs of the search; the same command again, when they are done, submits what they found")
        return None
    table = scores(frame, axes_of(experiment))
    record = {
        **dataclasses.asdict(experiment.search),
        "ranges": {axis: dataclasses.asdict(v) for axis, v in experiment.vary.items() if isinstance(v, Range)},
        "seeds": list(range(experiment.first_seed, experiment.first_seed + experiment.search.seeds)),
        "folder": frame.attrs["folder"],
        "tried": table,
    }
    return run(chosen(experiment, table), out, search=record, **options)


def choosing(experiment: Experiment) -> Experiment:
    """The sweep that chooses: the methods with ranges, at every point, on the search's seeds."""
    searched = {axis.partition(".")[0] for axis, values in experiment.vary.items() if isinstance(values, Range)}
    methods = [m for m in experiment.all_methods() if m.name in searched]
    vary = {axis: values for axis, values in experiment.vary.items() if axis.partition(".")[0] in searched}
    return dataclasses.replace(experiment, name=f"{experiment.name}-search", methods=methods, vary=vary, seeds=experiment.search.seeds)


def axes_of(experiment: Experiment) -> dict[str, list[str]]:
    """The searched axes by the name of their agent."""
    axes: dict[str, list[str]] = {}
    for axis, values in experiment.vary.items():
        if isinstance(values, Range):
            axes.setdefault(axis.partition(".")[0], []).append(axis)
    return axes


def scores(frame: pd.DataFrame, axes: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Every point of every method with its score, best first: the last evaluation's, mean over seeds (and listed cells), then over tasks.

    A point at which a seed diverged, or ended without a finite score, comes last and has none (None).
    """
    table = []
    for agent, names in axes.items():
        own = frame[(frame["agent"] == agent) & (frame["env_step"] == frame["env_step"].max())]
        for (variant, *values), rows in own.groupby(["variant", *names], sort=False):
            sound = rows["score"].notna().all() and not rows["diverged"].astype(bool).any()
            score = float(rows.groupby("task")["score"].mean().mean()) if sound else None
            table.append({"agent": agent, "variant": variant, "values": dict(zip(names, map(float, values), strict=True)), "score": score})
    return sorted(table, key=lambda point: -math.inf if point["score"] is None else point["score"], reverse=True)


def chosen(experiment: Experiment, table: Sequence[Mapping[str, Any]]) -> Experiment:
    """The experiment with the best point of each method, on seeds that come after the search's."""

    def settle(method: Method) -> Method:
        best = next((p for p in table if (p["agent"], p["variant"]) == (method.name, method.variant)), {"values": {}})
        return dataclasses.replace(method, config={**method.config, **{axis.partition(".")[2]: v for axis, v in best["values"].items()}})

    return dataclasses.replace(
        experiment,
        methods=[settle(m) for m in experiment.all_methods()],
        vary={axis: values for axis, values in experiment.vary.items() if not isinstance(values, Range)},
        first_seed=experiment.first_seed + experiment.search.seeds,
        search=None,
    )
