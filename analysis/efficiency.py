"""Learning curves as arrays, and what is read off them: final performance, area, steps to a threshold, the drop at the switch."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import statistics


@dataclass(frozen=True)
class Curve:
    """One metric of one method on one task. Letters: S seeds, E distinct steps.

    A seed that was not evaluated at a step has `evaluated` False there; one that was, with a non-finite result, has True and NaN.
    """

    seeds: np.ndarray  # [S]
    steps: np.ndarray  # [E] environment steps, or gradient steps of the offline phase; increasing
    values: np.ndarray  # [S, E]
    evaluated: np.ndarray  # [S, E] bool

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
    return _curve(rows["seed"], rows["grad_step"], rows[metric], rows["seed"].unique())


def online_curve(rows: pd.DataFrame, metric: str = "score") -> Curve:
    """The evaluations over online environment steps; a seed's last offline evaluation is its step 0, unless it has an online one there.

    Without an online evaluation the curve is empty (E = 0): a method that never went online has no online curve.
    """
    online = rows[rows["phase"] == "online"]
    seeds = np.sort(rows["seed"].unique())
    if online.empty:
        return _curve(online["seed"], online["env_step"], online[metric], seeds)
    start = _last_offline(rows)
    start = start[~start["seed"].isin(online.loc[online["env_step"] == 0, "seed"])].assign(env_step=0)
    both = pd.concat([start, online], ignore_index=True)
    return _curve(both["seed"], both["env_step"], both[metric], seeds)


def _last_offline(rows: pd.DataFrame) -> pd.DataFrame:
    offline = rows[rows["phase"] == "offline"]
    return offline.sort_values("grad_step").drop_duplicates("seed", keep="last")


def _curve(seed: pd.Series, step: pd.Series, value: pd.Series, seeds: np.ndarray) -> Curve:
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


def steps_to(curve: Curve, threshold: float) -> np.ndarray:
    """Environment steps until two consecutive evaluations of a seed are at or above `threshold` (the first of the two). [S].

    inf where that never happens: the run ended first, so all that is known is that it takes longer. Two, because a single evaluation of
    a few episodes passes any threshold by luck. A non-finite evaluation is not at or above anything.
    """
    out = np.full(curve.seeds.size, np.inf)
    for row in range(curve.seeds.size):
        steps = curve.steps[curve.evaluated[row]]
        above = curve.values[row, curve.evaluated[row]] >= threshold  # NaN compares False
        hits = np.flatnonzero(above[:-1] & above[1:])
        if hits.size:
            out[row] = steps[hits[0]]
    return out


@dataclass(frozen=True)
class StepsSummary:
    """Environment steps to a threshold over n seeds, right-censored at `limit` (the method's last evaluation) where it was not reached."""

    n: int
    reached: int
    median: float  # inf unless more than half of the seeds got there
    interval: statistics.Interval | None  # only if all seeds got there: a mean over some of them would flatter
    limit: float

    @property
    def text(self) -> str:
        """`12,000 [9,000, 15,000]`, `median 12,000 (4 of 5)`, `>20,000 (2 of 5)`, or `-` without a curve."""
        if not self.n or not np.isfinite(self.limit):
            return "-"
        if self.interval is not None:
            bounds = f"{self.interval.low:,.0f}, {self.interval.high:,.0f}"
            bounds = "one seed" if self.n == 1 else "all equal" if self.interval.zero_width else bounds
            return f"{self.interval.mean:,.0f} [{bounds}]"
        if np.isfinite(self.median):
            return f"median {self.median:,.0f} ({self.reached} of {self.n})"
        return f">{self.limit:,.0f} ({self.reached} of {self.n})"


def summarise_steps(curve: Curve, threshold: float) -> StepsSummary:
    """`steps_to` over seeds, censoring kept in sight."""
    steps = steps_to(curve, threshold)
    reached = int(np.isfinite(steps).sum())
    limit = float(curve.steps[-1]) if curve.steps.size else np.nan
    everyone = reached == steps.size and reached > 0
    # np.median would average inf with a number: an even split then reads inf, which is what is known
    return StepsSummary(
        n=steps.size,
        reached=reached,
        median=float(np.median(steps)) if steps.size else np.nan,
        interval=statistics.mean_interval(steps) if everyone else None,
        limit=limit,
    )


def switch_drop(rows: pd.DataFrame, metric: str = "score") -> tuple[np.ndarray, np.ndarray]:
    """First evaluation after the online phase began minus the last offline one, per seed: (drops[S], seeds[S]); negative is a loss.

    An online evaluation at environment step 0 is still the offline policy, so it is not the first one after. A seed without both is
    left out.
    """
    before = _last_offline(rows).set_index("seed")[metric]
    online = rows[(rows["phase"] == "online") & (rows["env_step"] > 0)]
    after = online.sort_values("env_step").drop_duplicates("seed", keep="first").set_index("seed")[metric]
    drop = (after - before).dropna().sort_index()
    return drop.to_numpy(dtype=np.float64), drop.index.to_numpy()
