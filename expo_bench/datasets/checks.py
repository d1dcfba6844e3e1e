"""What offline data has to fulfil before anything learns from it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from expo_bench.datasets.dataset import ROW_FIELDS, OfflineDataset
from expo_bench.errors import UserError

_ORDER = "is the observation order that of the task {}?"
ACTION_LIMIT = np.float32(1 - 1e-5)  # the released code clips dataset actions to +-(1 - 1e-5)
OUTSIDE_SHARE = 0.01  # warn from this share of rows outside the plausible range of a component
SLACK = 0.02  # of the range's width: joint limits and walls are soft
MOST = 0.5  # an error from this share of rows outside it, or of rows that break a relation between components
MOTION = 0.5  # least correlation between a position's change and its velocity; 0.99 in the suite's own data
ROWS_FOR_MOTION = 20  # too few rows say nothing about a correlation


def check(dataset: OfflineDataset, spec: Any, source: str) -> list[str]:
    """Whether `dataset` fits the task; returns warnings, one line each, for the caller to print once.

    `spec` is the environment, or anything with `name`, `obs_size`, `action_size` and, where known, `observation_names`, `obs_low` and
    `obs_high` ([O], the plausible range of each observation). `source` names the data in messages.
    Raises UserError for fields of the wrong size (naming the task's), fields of different length, no rows, NaN or infinite values (with the
    row and column of the first), a last row that ends no episode, and observations whose order cannot be the task's: out of its range in
    most rows, or at odds with each other.
    """
    _check_shapes(dataset, spec, source)
    for name in ("obs", "action", "reward", "next_obs"):
        _check_finite(dataset, name, spec, source)
    if not (dataset.terminated[-1] or dataset.truncated[-1]):
        raise UserError(f"{source}: the last row ({dataset.size - 1}) is neither terminated nor truncated, expected the end of an episode")
    warnings = list(dataset.meta.get("warnings", []))
    warnings += _check_ranges(dataset, spec, source)
    _check_motion(dataset, spec, source)
    _check_differences(dataset, spec, source)
    outside = np.abs(dataset.action) > 1
    rows = int(outside.any(1).sum())
    if rows:
        largest = float(np.abs(dataset.action).max())
        warnings.append(
            f"{source}: actions: {rows} of {dataset.size} rows ({rows / dataset.size:.1%}; {outside.mean():.1%} of the entries, "
            f"to {largest:.3g}) are outside [-1, 1]: clipped to +-(1 - 1e-5)"
        )
    return warnings


def clip_actions(dataset: OfflineDataset) -> OfflineDataset:
    """Actions clipped to +-(1 - 1e-5), as the released code does (a squashed Gaussian has no density at +-1)."""
    return dataclasses.replace(dataset, action=np.clip(dataset.action, -ACTION_LIMIT, ACTION_LIMIT))


def _check_shapes(dataset: OfflineDataset, spec: Any, source: str) -> None:
    for name, size in (("obs", spec.obs_size), ("next_obs", spec.obs_size), ("action", spec.action_size)):
        shape = getattr(dataset, name).shape
        if len(shape) != 2 or shape[1] != size:
            found = f"{shape[1]} columns" if len(shape) == 2 else f"shape {shape}"
            raise UserError(
                f"{source}: {name}: found {found}, expected {size}: the task {spec.name} has {spec.obs_size} observations and "
                f"{spec.action_size} actions"
            )
    for name in ROW_FIELDS:
        array = getattr(dataset, name)
        if array.ndim != (2 if name in ("obs", "next_obs", "action") else 1) or len(array) != len(dataset.obs):
            raise UserError(f"{source}: {name}: found shape {array.shape}, expected {len(dataset.obs)} rows, as many as obs")
    if dataset.size == 0:
        raise UserError(f"{source}: found no transitions, expected at least one")


def _check_finite(dataset: OfflineDataset, name: str, spec: Any, source: str) -> None:
    array = getattr(dataset, name)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = f"row {bad[0][0]}" + (f", column {_column(bad[0][1], spec if name != 'action' else None)}" if array.ndim == 2 else "")
        raise UserError(f"{source}: {name}: found {array[tuple(bad[0])]} in {place} (the first of {len(bad)}), expected finite numbers")


def _check_ranges(dataset: OfflineDataset, spec: Any, source: str) -> list[str]:
    """An error where the order of the observations cannot be the task's, a warning where single values are implausible."""
    low, high = getattr(spec, "obs_low", None), getattr(spec, "obs_high", None)
    if low is None or high is None:
        return []
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), dataset.obs_size) for bound in (low, high))
    slack = SLACK * (high - low)
    outside = ((dataset.obs < low - slack) | (dataset.obs > high + slack)).mean(0)
    worst = int(outside.argmax())
    place = f"component {_column(worst, spec)}: {outside[worst]:.1%} of the rows, {_span(dataset.obs[:, worst])}, expected about "
    place += f"[{low[worst]:.3g}, {high[worst]:.3g}]"
    if outside[worst] > MOST:
        raise UserError(f"{source}: observations out of range in {place}; {_ORDER.format(spec.name)}")
    columns = np.flatnonzero(outside > OUTSIDE_SHARE)
    if not len(columns):
        return []
    return [f"{source}: observations: {len(columns)} of {dataset.obs_size} leave the task's plausible range, most often {place}"]


def _check_motion(dataset: OfflineDataset, spec: Any, source: str) -> None:
    """A position changes as its velocity says: 'x' and 'vx', 'disc_x' and 'disc_vx'. Finds wrong orders that no range shows."""
    at = {name: i for i, name in enumerate(getattr(spec, "observation_names", None) or ())}
    for name, v in at.items():
        match = re.fullmatch(r"(.*_)?v([xyz])", name)
        p = at.get(f"{match[1] or ''}{match[2]}") if match else None
        if p is None or dataset.size < ROWS_FOR_MOTION:
            continue
        change = dataset.next_obs[:, p].astype(np.float64) - dataset.obs[:, p]
        velocity = (dataset.obs[:, v].astype(np.float64) + dataset.next_obs[:, v]) / 2
        scale = np.linalg.norm(change) * np.linalg.norm(velocity)
        if scale > 0 and change @ velocity < MOTION * scale:
            raise UserError(
                f"{source}: observations: component {_column(p, spec)} does not move as component {_column(v, spec)} says "
                f"(correlation {change @ velocity / scale:.2f}, expected above {MOTION}); {_ORDER.format(spec.name)}"
            )


def _check_differences(dataset: OfflineDataset, spec: Any, source: str) -> None:
    """'a_from_b_x' is 'a_x' - 'b_x', and so is Adroit's 'palm_to_handle_x': 'palm_x' - 'handle_x'."""
    names = list(getattr(spec, "observation_names", None) or ())
    at = {name: i for i, name in enumerate(names)}
    for name, d in at.items():
        match = re.fullmatch(r"(.+)_(?:to|from)_(.+)_([xyz])", name)
        a, b = (at.get(f"{point}_{match[3]}") for point in match.groups()[:2]) if match else (None, None)
        if a is None or b is None:
            continue
        error = np.abs(dataset.obs[:, a] - dataset.obs[:, b] - dataset.obs[:, d])
        if (error > 0.01 + 0.01 * np.abs(dataset.obs[:, d])).mean() > MOST:
            raise UserError(
                f"{source}: observations: component {_column(d, spec)} is not '{names[a]}' - '{names[b]}' (off by "
                f"{np.median(error):.3g} in the median, expected 0); {_ORDER.format(spec.name)}"
            )


def _column(index: int, spec: Any) -> str:
    names = getattr(spec, "observation_names", None) or ()
    return f"{index} '{names[index]}'" if len(names) > index else str(index)


def _span(values: np.ndarray) -> str:
    return f"in [{values.min():.3g}, {values.max():.3g}]"
