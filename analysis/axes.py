"""The x axis of a curve: aligned grids, smoothing, seconds, FLOP. Whatever is done to a curve is written into its `notes`."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis import ResultsError
from analysis.efficiency import Curve, online_curve, tabulate
from analysis.load import Method, Results

RULES = {
    "shared": "steps at which every seed was evaluated",
    "linear": "straight lines between a seed's own evaluations, nothing beyond its last",
    "last": "a seed's last evaluation so far, nothing beyond its last",
}
FLOP = "flop_per_env_step"  # of a program in a manifest, as `python -m benchmarks` counts it


def align(source: Curve, rule: str = "shared", steps: Sequence[float] | None = None) -> Curve:
    """The curve with every seed on one grid, by one of `RULES`.

    `steps`: the grid; by default all steps at which some seed was evaluated. NaN where the rule gives a seed no value: before its first
    evaluation and after its last. A step that is not in the curve has no value under "shared". Raises ResultsError for an unknown rule.
    """
    if rule not in RULES:
        raise ResultsError(f"rule {rule!r} to align grids by; expected one of {', '.join(RULES)}")
    grid = np.unique(source.steps if steps is None else np.asarray(steps))
    if rule == "shared":
        everyone = source.steps[source.evaluated.all(axis=0)]
        grid = grid[np.isin(grid, everyone)]
    values = np.full((source.seeds.size, grid.size), np.nan)
    inside = np.zeros(values.shape, dtype=bool)
    for row, evaluated in enumerate(source.evaluated):
        own, scores = source.steps[evaluated].astype(np.float64), source.values[row, evaluated]
        if not own.size:
            continue
        inside[row] = (grid >= own[0]) & (grid <= own[-1])
        before = np.searchsorted(own, grid, side="right") - 1
        held = scores[np.maximum(before, 0)]
        exact = own[np.maximum(before, 0)] == grid  # a neighbour that is not finite leaves the evaluation itself alone
        read = np.where(exact, held, np.interp(grid, own, scores)) if rule == "linear" else held
        values[row] = np.where(inside[row], read, np.nan)
    return replace(source, steps=grid, values=values, evaluated=inside, notes=(*source.notes, f"grids aligned: {RULES[rule]}"))


def common_steps(curves: Sequence[Curve]) -> np.ndarray:
    """The grid to compare curves on: every step at which any of them was evaluated, inside the stretch that all of them cover."""
    covered = [c.steps for c in curves if c.steps.size]
    if not covered:
        return np.array([])
    first, last = max(steps[0] for steps in covered), min(steps[-1] for steps in covered)
    steps = np.unique(np.concatenate(covered))
    return steps[(steps >= first) & (steps <= last)]


def smooth(source: Curve, window: int) -> Curve:
    """Each evaluation replaced by the mean of a seed's last `window` ones, fewer at its start; NaN where one of those is not finite.

    Nothing in this package smooths by itself. Raises ResultsError for a window below 1.
    """
    if window < 1:
        raise ResultsError(f"a window of {window} evaluations to smooth over; expected at least 1")
    if window == 1:
        return source
    values = source.values.copy()
    for row, evaluated in enumerate(source.evaluated):
        own = source.values[row, evaluated]
        values[row, evaluated] = [own[max(0, i + 1 - window) : i + 1].mean() for i in range(own.size)]
    return replace(source, values=values, notes=(*source.notes, f"smoothed: mean of a seed's last {window} evaluations"))


def wall_clock_curve(rows: pd.DataFrame, metric: str = "score") -> Curve:
    """All evaluations of one method on one task, of both phases, over seconds since its program started.

    A program runs its seeds together, so these are seconds of all of them at once, evaluations included and compilation not: comparable
    between methods only for equal numbers of seeds on one machine. Seeds of different programs have different grids: see `align`.
    Raises ResultsError where a row has no time.
    """
    if rows["wall_s"].isna().any():
        where = rows[rows["wall_s"].isna()].iloc[0]
        raise ResultsError(
            f"{where['task']}/{where['method']}: seed {where['seed']} has rows without wall_s, so there is no wall-clock axis"
        )
    drawn = tabulate(rows["seed"], rows["wall_s"], rows[metric], rows["seed"].unique())
    return replace(drawn, notes=(f"seconds of {drawn.seeds.size} seeds together, evaluations included, compilation not",))


def flop_per_env_step(results: Results, task: str, method: Method) -> float:
    """FLOP of one environment step of one seed, acting and learning, from the manifest's programs ("flop_per_env_step").

    Raises ResultsError where no program of the method has the number, or programs of the method differ in it.
    """
    found = set()
    for manifest in results.manifests:
        if method.experiment not in ("", manifest.data["experiment"]):
            continue
        for program in manifest.get("programs", []):
            if isinstance(program.get(FLOP), int | float) and _runs(program, task, method):
                found.add(float(program[FLOP]))
    if len(found) == 1:
        return found.pop()
    what = f"{len(found)} different numbers" if found else "no number"
    raise ResultsError(f"{task}/{method.label}: {what} of FLOP per environment step; expected one {FLOP!r} in its program in manifest.json")


def _runs(program: dict, task: str, method: Method) -> bool:
    """Whether a manifest's program has rows of the method on the task."""
    if (program.get("task"), program.get("agent"), program.get("variant", "")) != (task, method.agent, method.variant):
        return False
    shown = lambda value: f"{value:.6g}" if isinstance(value, float) else str(value)  # float32 0.1 in a file is 0.1 in the manifest
    wanted = {name: shown(value) for name, value in method.hyperparameters}
    cells = program.get("cells") or [{}]
    return any(all(name in cell and shown(cell[name]) == value for name, value in wanted.items()) for cell in cells)


def flop_curve(results: Results, task: str, method: Method, metric: str = "score") -> Curve:
    """The online curve over FLOP of one seed since the switch; the offline phase is not in the count. Raises as `flop_per_env_step`."""
    flop = flop_per_env_step(results, task, method)
    drawn = online_curve(results.rows(task, method.label), metric)
    return replace(drawn, steps=drawn.steps * flop, notes=(f"{flop:.3g} FLOP per environment step; the offline phase is not counted",))
