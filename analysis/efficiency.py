"""Learning curves as arrays, and what is read off them: final performance, area, regret, steps to a threshold, drop and recovery at the switch.

Nothing is smoothed and nothing is read between evaluations, except where a function says so; `axes` does both, and notes it in the curve.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.survival import Times


@dataclass(frozen=True)
class Curve:
    """One metric of one method on one task. Letters: S seeds, E distinct steps.

    A seed that was not evaluated at a step has `evaluated` False there; one that was, with a non-finite result, has True and NaN.
    """

    seeds: np.ndarray  # [S]
    steps: np.ndarray  # [E] environment steps, or gradient steps of the offline phase; increasing
    values: np.ndarray  # [S, E]
    evaluated: np.ndarray  # [S, E] bool
    notes: tuple[str, ...] = ()  # what was done to the evaluations, for captions

    @property
    def statement(self) -> str:
        """What was done to the evaluations, or that nothing was."""
        return "; ".join(self.notes) or "evaluations as they are, not smoothed"

    @property
    def unfinished(self) -> np.ndarray:
        """The seeds whose last evaluation is earlier than the method's last step."""
        return self.seeds[~self.evaluated[:, -1]] if self.steps.size else self.seeds

    def interval(self) -> statistics.Interval:
        """Mean and 95 % t interval over seeds at every step: arrays [E]."""
        return statistics.mean_interval(self.values, axis=0)


def offline_curve(rows: pd.DataFrame, metric: str = "score") -> Curve:
    """The evaluations of the offline phase over gradient steps. `rows`: one method on one task."""
    rows = rows[rows["phase"] == "offline"]
    return tabulate(rows["seed"], rows["grad_step"], rows[metric], rows["seed"].unique())


def online_curve(rows: pd.DataFrame, metric: str = "score") -> Curve:
    """The evaluations over online environment steps; a seed's last offline evaluation is its step 0, unless it has an online one there.

    Without an online evaluation the curve is empty (E = 0): a method that never went online has no online curve.
    """
    online = rows[rows["phase"] == "online"]
    seeds = np.sort(rows["seed"].unique())
    if online.empty:
        return tabulate(online["seed"], online["env_step"], online[metric], seeds)
    start = _last_offline(rows)
    start = start[~start["seed"].isin(online.loc[online["env_step"] == 0, "seed"])].assign(env_step=0)
    both = pd.concat([start, online], ignore_index=True)
    return tabulate(both["seed"], both["env_step"], both[metric], seeds)


def _last_offline(rows: pd.DataFrame) -> pd.DataFrame:
    offline = rows[rows["phase"] == "offline"]
    return offline.sort_values("grad_step").drop_duplicates("seed", keep="last")


def tabulate(seed: pd.Series, step: pd.Series, value: pd.Series, seeds: np.ndarray) -> Curve:
    """One row per evaluation -> the curve of these seeds, some of which may have no row."""
    seeds = np.sort(np.asarray(seeds))
    steps, column = np.unique(step.to_numpy(), return_inverse=True)
    row = np.searchsorted(seeds, seed.to_numpy())
    values = np.full((seeds.size, steps.size), np.nan)
    evaluated = np.zeros(values.shape, dtype=bool)
    values[row, column] = value.to_numpy(dtype=np.float64)
    evaluated[row, column] = True
    return Curve(seeds, steps, np.where(np.isfinite(values), values, np.nan), evaluated)


def final_curve(rows: pd.DataFrame, metric: str = "score") -> Curve:
    """The curve that final performance is read off: the online one, or the offline one of a method that never went online."""
    online = online_curve(rows, metric)
    return online if online.steps.size else offline_curve(rows, metric)


def final(curve: Curve) -> np.ndarray:
    """The last evaluation of the method, [S]: NaN for a seed that did not get there, so that no early result passes for a final one."""
    return curve.values[:, -1] if curve.steps.size else np.full(curve.seeds.size, np.nan)


def area(curve: Curve, start: float | None = None, stop: float | None = None) -> np.ndarray:
    """Area under the curve over the environment steps [start, stop], divided by stop - start: the mean score of that stretch. [S].

    Trapezoid rule over the seed's own evaluations, linear between them. Defaults: the first and the last step of the curve. NaN for a
    seed whose evaluations do not span the stretch, or are not finite somewhere in it, and for a stretch of no length.
    """
    out = np.full(curve.seeds.size, np.nan)
    if not curve.steps.size:
        return out
    start = float(curve.steps[0] if start is None else start)
    stop = float(curve.steps[-1] if stop is None else stop)
    for row in range(curve.seeds.size):
        steps = curve.steps[curve.evaluated[row]].astype(np.float64)
        values = curve.values[row, curve.evaluated[row]]
        if stop <= start or not steps.size or steps[0] > start or steps[-1] < stop:
            continue
        inside = (steps > start) & (steps < stop)
        x = np.concatenate([[start], steps[inside], [stop]])
        y = np.concatenate([[np.interp(start, steps, values)], values[inside], [np.interp(stop, steps, values)]])
        out[row] = np.trapezoid(y, x) / (stop - start)
    return out


def regret(curve: Curve, ceiling: float = 1.0, start: float | None = None, stop: float | None = None) -> np.ndarray:
    """What a seed lost against a policy that scores `ceiling` all along, in score x environment steps, over [start, stop] as in `area`. [S]."""
    start = curve.steps[0] if start is None and curve.steps.size else start
    stop = curve.steps[-1] if stop is None and curve.steps.size else stop
    return (ceiling - area(curve, start, stop)) * (float(stop) - float(start)) if curve.steps.size else area(curve)


def times_to(curve: Curve, threshold: float) -> Times:
    """When each seed came to stay at or above `threshold`: at two consecutive evaluations, of which the first is the right end.

    Two, because a single evaluation of a few episodes passes any threshold by luck; the last evaluation can therefore confirm, not begin,
    and a seed that is above there alone counts as unknown since the one before. A non-finite evaluation is not at or above anything.
    """
    return _times(curve, np.full(curve.seeds.size, threshold))


def _times(curve: Curve, thresholds: np.ndarray) -> Times:
    left, right = np.zeros(curve.seeds.size), np.full(curve.seeds.size, np.inf)
    horizon = np.nan
    for row, threshold in enumerate(thresholds):
        steps = curve.steps[curve.evaluated[row]].astype(np.float64)
        if steps.size > 1:
            horizon = np.fmax(horizon, steps[-2])
        above = curve.values[row, curve.evaluated[row]] >= threshold  # NaN compares False
        hits = np.flatnonzero(above[:-1] & above[1:])
        if hits.size:
            right[row] = steps[hits[0]]
            left[row] = steps[hits[0] - 1] if hits[0] else 0.0  # (0, 0] is the time 0 itself
        elif steps.size:
            left[row] = steps[-1] if not above[-1] else steps[-2] if steps.size > 1 else 0.0
    return Times(left, right, float(horizon))


def switch_drop(rows: pd.DataFrame, metric: str = "score") -> tuple[np.ndarray, np.ndarray]:
    """First evaluation after the online phase began minus the last offline one, per seed: (drops[S], seeds[S]); negative is a loss.

    An online evaluation at environment step 0 is still the offline policy, so it is not the first one after. A seed without both is
    left out.
    """
    before, online = _around_switch(rows, metric)
    after = online.sort_values("env_step").drop_duplicates("seed", keep="first").set_index("seed")[metric]
    drop = (after - before).dropna().sort_index()
    return drop.to_numpy(dtype=np.float64), drop.index.to_numpy()


def _around_switch(rows: pd.DataFrame, metric: str) -> tuple[pd.Series, pd.DataFrame]:
    """(last offline value by seed, the online rows after step 0)."""
    online = rows[(rows["phase"] == "online") & (rows["env_step"] > 0)]
    return _last_offline(rows).set_index("seed")[metric], online


def recovery(rows: pd.DataFrame, metric: str = "score", tolerance: float = 0.0) -> tuple[Times, np.ndarray]:
    """Environment steps until a seed is back at its own last offline value less `tolerance`, at two consecutive evaluations:
    (times, seeds[S]).

    0 for a seed whose first online evaluations are not below it: there was nothing to recover from. A seed without a finite offline value
    or without an online evaluation after step 0 is left out.
    """
    before, online = _around_switch(rows, metric)
    before = before[np.isfinite(before) & before.index.isin(online["seed"])].sort_index()
    seeds = before.index.to_numpy()
    chosen = online[online["seed"].isin(seeds)]
    wanted = before.to_numpy() - tolerance - 1e-12  # 0.4 - 0.1 is a little more than 0.3
    times = _times(tabulate(chosen["seed"], chosen["env_step"], chosen[metric], seeds), wanted)
    first = chosen["env_step"].groupby(chosen["seed"]).min().reindex(seeds).to_numpy()
    return replace(times, right=np.where(times.right == first, 0.0, times.right)), seeds
