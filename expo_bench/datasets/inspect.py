"""What is in a file of offline data, as text of fewer than 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np

from expo_bench.datasets.dataset import OfflineDataset

WIDTH = 98
FEW = 12  # distinct rewards that are listed one by one
BAR = 40


def describe(dataset: OfflineDataset, title: str, file_format: str) -> str:
    """Format, sizes, ranges, rewards, ends, returns and provenance of `dataset`; no check is made, so that broken data can be looked at."""
    with np.errstate(all="ignore"):
        return _describe(dataset, title, file_format)


def _describe(dataset: OfflineDataset, title: str, file_format: str) -> str:
    lines = [title[: WIDTH - 1], "", *_summary(dataset, file_format), ""]
    lines += ["Observations: [min, max] by column", *_ranges(dataset.obs), ""]
    lines += ["Actions: [min, max] by column", *_ranges(dataset.action), ""]
    lines += ["Rewards", *_rewards(dataset.reward), "", *_returns(dataset)]
    lines += _provenance(dataset.meta)
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def summary(dataset: OfflineDataset) -> str:
    """One line: episodes, transitions, lengths and, where recorded, the share of episodes with a success."""
    lengths = dataset.episode_lengths
    text = f"{len(lengths)} episodes, {dataset.size:,} transitions, lengths {_spread(lengths)}"
    if dataset.meta.get("success_recorded"):
        text += f", success in {episode_success(dataset).mean():.0%} of the episodes"
    return text


def _summary(dataset: OfflineDataset, file_format: str) -> Iterator[str]:
    origin = dataset.meta.get("format", file_format)
    outside = np.abs(dataset.action) > 1
    rows: list[tuple[str, Any]] = [
        ("format", file_format + (f" (recorded as {origin})" if origin != file_format else "")),
        ("task", dataset.meta.get("task", "not recorded")),
        ("episodes", f"{len(dataset.episode_ends):,}"),
        ("transitions", f"{dataset.size:,}"),
        ("episode length", f"{_spread(dataset.episode_lengths)} (min / median / max)"),
        ("dimensions", f"{dataset.obs_size} observations, {dataset.action_size} actions"),
        ("episode ends", f"{dataset.terminated.sum():,} terminated, {dataset.truncated.sum():,} truncated"),
        ("actions outside [-1, 1]", f"{outside.any(1).mean():.1%} of the rows, {outside.mean():.1%} of the entries"),
        ("success", _success(dataset)),
    ]
    if not dataset.meta.get("rewards_recorded", True):
        rows.append(("rewards", "not recorded: zeros until a task relabels the transitions"))
    bad = sum(int((~np.isfinite(a)).sum()) for a in (dataset.obs, dataset.action, dataset.reward, dataset.next_obs))
    if bad:
        rows.append(("NOT FINITE", f"{bad:,} entries are NaN or infinite"))
    for name, value in rows:
        yield f"  {name:<24}{value}"[:WIDTH]


def _success(dataset: OfflineDataset) -> str:
    if not dataset.meta.get("success_recorded"):
        return "not recorded (a task relabels the transitions itself)"
    episodes = episode_success(dataset)
    return f"{episodes.sum()} of {len(episodes)} episodes ({episodes.mean():.0%}), {dataset.success.mean():.1%} of the transitions"


def episode_success(dataset: OfflineDataset) -> np.ndarray:
    """[episodes] bool, some transition of the episode fulfils the task."""
    return np.logical_or.reduceat(dataset.success, _starts(dataset))


def _starts(dataset: OfflineDataset) -> np.ndarray:
    return dataset.episode_ends - dataset.episode_lengths + 1


def _ranges(array: np.ndarray) -> Iterator[str]:
    low, high = array.min(0), array.max(0)
    cells = [f"{i:>3} [{_short(a)}, {_short(b)}]" for i, (a, b) in enumerate(zip(low, high, strict=True))]
    wide = max(map(len, cells), default=0) + 3
    per_line = (WIDTH - 2) // wide
    for start in range(0, len(cells), per_line):
        yield "  " + "".join(f"{cell:<{wide}}" for cell in cells[start : start + per_line]).rstrip()


def _rewards(reward: np.ndarray) -> Iterator[str]:
    """Every value where there are few, else a histogram of ten bins."""
    reward = reward[np.isfinite(reward)]
    values, counts = np.unique(reward, return_counts=True)
    if len(values) <= FEW:
        names = [_short(v) for v in values]
    else:
        counts, edges = np.histogram(reward.astype(np.float64), bins=10)
        names = [f"{_short(a)} to {_short(b)}" for a, b in zip(edges[:-1], edges[1:], strict=True)]
    for name, count in zip(names, counts, strict=True):
        bar = "#" * max(int(round(BAR * count / counts.max())), int(count > 0))
        yield f"  {name:<22}{count:>10,}  {bar}"


def _returns(dataset: OfflineDataset) -> Iterator[str]:
    if len(dataset.episode_ends):
        rows = dataset.episode_ends[-1] + 1
        returns = np.add.reduceat(dataset.reward[:rows].astype(np.float64), _starts(dataset))
        quartiles = " / ".join(f"{q:.4g}" for q in np.quantile(returns, [0, 0.25, 0.5, 0.75, 1]))
        yield "Returns of the episodes (undiscounted)"
        yield f"  {quartiles} (min / quartiles / max), mean {returns.mean():.4g}"
        yield ""


def _provenance(meta: dict[str, Any]) -> Iterator[str]:
    if meta.get("provenance"):
        yield "Provenance"
        for name, value in _items(meta["provenance"]):
            yield from _wrapped(f"  {name}: {value}")
        yield ""
    for kind in ("notes", "warnings"):
        for line in meta.get(kind, []):
            yield from _wrapped(f"{kind[:-1]}: {line}")


def _items(provenance: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in provenance.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in _items(value))
        else:
            yield name, value


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_long_words=True)


def _spread(values: np.ndarray) -> str:
    return " / ".join(f"{v:g}" for v in (values.min(), np.median(values), values.max())) if len(values) else "none"


def _short(value: float) -> str:
    return f"{value:.3g}"
