"""What the steps of a run report, added up in such a way that a run may be cut into calls anywhere: the mean depends on the steps alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from expo_bench.agents.base import Metrics


class Tally(NamedTuple):
    """The metrics of one row since they were last reported."""

    steps: jax.Array  #     [] int32
    total: Metrics  #       float32 sums, each []
    lost: Metrics  #        what rounding has added to each sum so far: compensated summation (Kahan 1965), since runs have 200,000 steps
    diverged: jax.Array  #  [] int32, the first step of the run with a metric that was not finite (counted within its phase); -1: none yet


def empty(metrics: Any, diverged: jax.Array | int = -1) -> Tally:
    """Nothing added up yet. `metrics`: arrays or their shapes."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), metrics)
    return Tally(jnp.zeros((), jnp.int32), zeros, zeros, jnp.asarray(diverged, jnp.int32))


def add(tally: Tally, metrics: Metrics, step: jax.Array) -> Tally:
    """The tally with the metrics of `step` [] int32."""
    values = {name: value.astype(jnp.float32) for name, value in metrics.items()}
    due = {name: value - tally.lost[name] for name, value in values.items()}
    total = {name: tally.total[name] + value for name, value in due.items()}
    lost = {name: (total[name] - tally.total[name]) - value for name, value in due.items()}
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(v)) for v in values.values()])) if values else jnp.array(True)
    diverged = jnp.where((tally.diverged < 0) & ~finite, step, tally.diverged)
    return Tally(tally.steps + 1, total, lost, diverged)


def means(tally: Tally) -> Metrics:
    """The mean of every metric; of no step: zeros. Of NumPy arrays as well, in their precision."""
    return {name: (total - tally.lost[name]) / (tally.steps + (tally.steps == 0)) for name, total in tally.total.items()}
