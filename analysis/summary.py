"""From rows to what a report says: one summary per task and method, paired differences, seeds that need a remark."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from analysis import comparisons, efficiency, statistics, survival
from analysis.load import Method, Results

THRESHOLD = 0.8
DEFAULT_REFERENCE = "expo"


@dataclass(frozen=True)
class Summary:
    """One method on one task. S: its seeds, in increasing order; NaN where a seed has no value."""

    task: str
    method: Method
    seeds: np.ndarray  # [S]
    final_phase: str  # "online", or "offline" for a method that never went online
    final_step: int  # environment steps online, gradient steps offline
    episodes: tuple[int, ...]  # the numbers of evaluation episodes that occur; 0: not known
    score: np.ndarray  # [S] the task's published metric at the final step
    success: np.ndarray  # [S]
    area: np.ndarray  # [S] mean score over `window`
    window: tuple[float, float]  # environment steps that every method of the task with an online curve covers
    times: survival.Times  # environment steps to the threshold
    drop: statistics.Interval  # first online evaluation minus the last offline one

    @property
    def label(self) -> str:
        """The method's label."""
        return self.method.label

    @cached_property
    def steps(self) -> survival.TimeSummary:
        """Mean and median of `times`."""
        return survival.summarise(self.times)

    @property
    def success_differs(self) -> bool:
        """Whether success says something that the score does not (Adroit's score is the share of the steps solved)."""
        return bool(np.isfinite(self.success).any()) and not np.allclose(self.score, self.success, atol=1e-6, equal_nan=True)

    @property
    def count(self) -> str:
        """`5`, or `4/5` where a seed has no finite final score."""
        finite = int(np.isfinite(self.score).sum())
        return f"{finite}" if finite == self.seeds.size else f"{finite}/{self.seeds.size}"


@dataclass(frozen=True)
class Paired:
    """Reference minus other on one task, seed by seed over the shared seeds."""

    task: str
    reference: Method
    other: Method
    metric: str  # "final score" or "area"
    differences: np.ndarray  # [shared seeds]
    interval: statistics.Interval

    @property
    def separable(self) -> bool:
        """Whether the paired 95 % interval excludes 0. Where all seeds differ equally, it is a point: see `interval.note`."""
        return bool(self.interval.n > 1 and self.interval.excludes_zero)


def summarise(results: Results, threshold: float = THRESHOLD) -> list[Summary]:
    """One `Summary` for every (task, method) that has rows, by task and then in the order of `results.methods`."""
    out = []
    for task in results.tasks:
        methods = [method for method in results.methods if not results.rows(task, method.label).empty]
        curves = [efficiency.online_curve(results.rows(task, method.label)) for method in methods]
        window = common_window(curves)
        out += [_summary(results.rows(task, m.label), task, m, c, window, threshold) for m, c in zip(methods, curves, strict=True)]
    return out


def common_window(curves: Sequence[efficiency.Curve]) -> tuple[float, float]:
    """The environment steps that every non-empty curve covers: areas over different stretches cannot be compared. NaN without a curve."""
    covered = [(float(curve.steps[0]), float(curve.steps[-1])) for curve in curves if curve.steps.size]
    return (max(first for first, _ in covered), min(last for _, last in covered)) if covered else (np.nan, np.nan)


def _summary(
    rows: pd.DataFrame, task: str, method: Method, online: efficiency.Curve, window: tuple[float, float], threshold: float
) -> Summary:
    curve = efficiency.final_curve(rows)
    return Summary(
        task=task,
        method=method,
        seeds=curve.seeds,
        final_phase="online" if online.steps.size else "offline",
        final_step=int(curve.steps[-1]),
        episodes=tuple(sorted(int(count) for count in rows["eval_episodes"].unique())),
        score=efficiency.final(curve),
        success=efficiency.final(efficiency.final_curve(rows, "success")),
        area=efficiency.area(online, *window),
        window=window,
        times=efficiency.times_to(online, threshold),
        drop=statistics.mean_interval(efficiency.switch_drop(rows)[0]),
    )


def reference_method(results: Results, reference: str) -> Method:
    """The method others are compared with. Results without EXPO, when nobody asked for another reference, take the first method.

    Raises ResultsError for a reference that was asked for and is not there.
    """
    if reference == DEFAULT_REFERENCE and all(m.agent != reference and m.label != reference for m in results.methods):
        return results.methods[0]
    return results.find(reference)


def compare(left: Summary, right: Summary, metric: str = "final score") -> Paired:
    """Left minus right over their shared seeds; metric "final score" or "area"."""
    a, b = (left.area, right.area) if metric == "area" else (left.score, right.score)
    gaps, _ = statistics.differences(a, left.seeds, b, right.seeds)
    return Paired(left.task, left.method, right.method, metric, gaps, statistics.mean_interval(gaps))


def paired(summaries: Sequence[Summary], reference: Method, metric: str = "final score") -> list[Paired]:
    """Reference minus every other method, task by task; a task without the reference has none."""
    anchors = {summary.task: summary for summary in summaries if summary.method == reference}
    return [compare(anchors[s.task], s, metric) for s in summaries if s.task in anchors and s.method != reference]


def by_task(summaries: Sequence[Summary], metric: str = "final score") -> dict[str, dict[str, np.ndarray]]:
    """{method's label: {task: values over seeds}}, as `analysis.aggregate` takes them; metric "final score" or "area"."""
    out: dict[str, dict[str, np.ndarray]] = {}
    for each in summaries:
        out.setdefault(each.label, {})[each.task] = each.area if metric == "area" else each.score
    return out


def adjusted_p(pairs: Sequence[Paired]) -> np.ndarray:
    """p of every pair (Student's t on its differences), adjusted by Holm for all of these pairs; NaN where a pair has no p."""
    return comparisons.holm([comparisons.p_value(pair.differences) for pair in pairs])


def time_ratio(slow: Summary, fast: Summary) -> survival.Ratio:
    """How many times as many environment steps `slow` takes to the threshold as `fast`, on their task."""
    return survival.ratio(slow.times, fast.times)


def seed_remarks(results: Results) -> pd.DataFrame:
    """Every seed that diverged, had a physics blow-up, a score that is no number, or an early end: nothing of it is left out silently.

    Columns: task, method, seed, diverged_at (step, or ""), not_finite (evaluations), last_step, final_step,
    blowups (the largest count among its rows).
    """
    keys = ["task", "method", "seed"]
    frame = results.frame
    position = np.where(frame["phase"] == "online", frame["env_step"], -1)  # an offline evaluation is before every online one
    frame = frame.assign(_position=position, _finite=np.isfinite(frame["score"].to_numpy(dtype=np.float64)))
    seeds = frame.groupby(keys).agg(last=("_position", "max"), blowups=("blowups", "max"), finite=("_finite", "sum"), rows=("seed", "size"))
    seeds["final_step"] = seeds.groupby(["task", "method"])["last"].transform("max")
    diverged = frame[frame["diverged"]].drop_duplicates(keys, keep="first").set_index(keys)  # the frame is in order of evaluations
    where = pd.Series([f"{r.phase} {r.env_step if r.phase == 'online' else r.grad_step:,}" for r in diverged.itertuples()], diverged.index)
    seeds["diverged_at"] = where.reindex(seeds.index).fillna("") if len(where) else ""
    seeds["not_finite"] = seeds["rows"] - seeds["finite"]
    seeds["last_step"] = seeds["last"].clip(lower=0)
    remarkable = (seeds["diverged_at"] != "") | (seeds["not_finite"] > 0) | (seeds["blowups"] > 0) | (seeds["last"] < seeds["final_step"])
    columns = ["diverged_at", "not_finite", "last_step", "final_step", "blowups"]
    return seeds.loc[remarkable, columns].reset_index()


def remarks(results: Results, summaries: Sequence[Summary]) -> list[str]:
    """What limits the comparison: sentences, each about one task or one run folder."""
    out = list(results.notes)
    for manifest in results.manifests:
        if manifest.get("finished") is None:
            out.append(f"{manifest.folder.name}: the manifest has no end time; the run is not finished, or was stopped.")
        if manifest.imported:
            out.append(
                f"{manifest.folder.name}: imported ({manifest.imported}), not measured here; its seeds share no evaluation episodes."
            )
    for task in results.tasks:
        out += [f"{task}: {text}" for text in _task_remarks(results, [s for s in summaries if s.task == task])]
    return out


def _task_remarks(results: Results, summaries: list[Summary]) -> list[str]:
    out = []
    task = summaries[0].task
    ends = {s.label: s.final_step for s in summaries if s.final_phase == "online"}
    if len(set(ends.values())) > 1:
        out.append("the methods end at different environment steps (" + _listed(ends) + "); their final scores are not of one budget.")
    offline_only = [s.label for s in summaries if s.final_phase == "offline"]
    if offline_only and ends:
        out.append(f"{', '.join(offline_only)} never went online; the final score is that of the offline phase.")
    if len({s.seeds.tobytes() for s in summaries}) > 1:
        listed = _listed({s.label: show_seeds(s.seeds) for s in summaries})
        out.append(f"the methods have different seeds ({listed}); pairs share fewer.")
    if len({s.episodes for s in summaries}) > 1 or any(len(s.episodes) > 1 for s in summaries):
        counts = {s.label: show_episodes([s]) for s in summaries}
        out.append("the evaluations have different numbers of episodes (" + _listed(counts) + ").")
    absent = [f"{show_seeds(s.seeds[~np.isfinite(s.score)])} of {s.label}" for s in summaries if not np.isfinite(s.score).all()]
    if absent:
        out.append("no finite final score for seed " + ", ".join(absent) + "; means are over the others, which may flatter.")
    single = [s.label for s in summaries if s.seeds.size == 1]
    if single:
        out.append(f"one seed only for {', '.join(single)}: there is no interval, and nothing can be said about another seed.")
    equal = [s for s in summaries if statistics.mean_interval(s.score).zero_width]
    if equal:
        most = statistics.unseen_share(min(int(np.isfinite(s.score).sum()) for s in equal))
        listed = ", ".join(s.label for s in equal)
        out.append(
            f"all seeds of {listed} end with the same score: an interval without width is no certainty, as up to {most:.0%} of further seeds "
            "could end otherwise (95 %)."
        )
    scores = results.frame.loc[results.frame["task"] == task, "score"]
    if (scores < 0).any() or (scores > 1).any():
        out.append(f"scores from {scores.min():.3g} to {scores.max():.3g} leave [0, 1], where thresholds and areas are meant.")
    return out


def show_episodes(summaries: Sequence[Summary]) -> str:
    """The numbers of episodes per evaluation that occur: `20`, `10/50`, `10/?`."""
    return "/".join(str(count or "?") for count in sorted({count for s in summaries for count in s.episodes}, key=lambda n: n or np.inf))


def show_seeds(seeds: np.ndarray) -> str:
    """`0-4` for a run of consecutive seeds, otherwise all of them."""
    if seeds.size > 2 and np.all(np.diff(seeds) == 1):
        return f"{seeds[0]}-{seeds[-1]}"
    return " ".join(map(str, seeds))


def _listed(values: dict) -> str:
    return ", ".join(f"{label}: {value:,}" if isinstance(value, int) else f"{label}: {value}" for label, value in values.items())
