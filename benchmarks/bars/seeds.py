"""What training more seeds together costs: EXPO at quickstart size with 1, 2, 4, 8 and 16 seeds, the whole loop with MJX physics.

The bar is a GPU's: 16 seeds cost at most twice one seed. The curve is measured everywhere. Adding seeds pays while doubling their number takes
at least a tenth off the time per seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import bars
from benchmarks.bars import GPU, Bar, Loop
from benchmarks.case import Size
from experiments import sizes

COUNTS, REPEATS, SECONDS = (1, 2, 4, 8, 16), 20, 0.3
LIMIT = 2.0  # time of 16 seeds over that of one
PAYS = 0.10  # the share of the time per seed that doubling the seeds has to save
QUICKSTART = Size("push-disc", sizes.CONFIG, {**sizes.PROTOCOL, "offline_steps": 0, "online_steps": 20_000, "eval_every": 20_000})


def measure(precision: str, size: Size = QUICKSTART, counts: Sequence[int] = COUNTS, aim: float = SECONDS) -> list[Bar]:
    from expo_bench.sweeps import devices as device_rows

    devices = device_rows.start()
    points = [point(count, size, precision, aim) for count in counts]
    stops = stops_paying(points)
    last = points[-1]["seeds"]
    ratio = points[-1]["s_per_env_step"]["min"] / points[0]["s_per_env_step"]["min"]
    details = {"points": points, "stops_paying_beyond": stops, "ratio": ratio}
    what = f"time of an environment step of {last} seeds over that of one, quickstart size, on a GPU"
    measured, needs = (ratio, None) if bars.on_gpu() else (None, GPU)
    return [Bar("seeds", what, LIMIT, True, measured, bars.gemm(devices, precision), needs, details)]


def point(seeds: int, size: Size, precision: str, aim: float) -> dict[str, Any]:
    """Seconds of an environment step of all seeds, and of each."""
    loop = Loop(size, seeds, precision, "quickstart")
    steps = bars.steps_for(loop.seconds, aim)
    timings = loop.repeat(steps, REPEATS)
    per_seed = {name: value / seeds for name, value in timings["s_per_env_step"].items()}
    return {"seeds": seeds, **timings, "s_per_env_step_and_seed": per_seed, "devices_used": loop.devices_used}


def stops_paying(points: Sequence[dict[str, Any]]) -> int | None:
    """The number of seeds beyond which the next point saves less than PAYS of the time per seed; None: it still pays at the last one."""
    for now, more in zip(points, points[1:], strict=False):
        if more["s_per_env_step_and_seed"]["min"] > (1 - PAYS) * now["s_per_env_step_and_seed"]["min"]:
            return now["seeds"]
    return None


if __name__ == "__main__":
    bars.report(measure(bars.command_line().parse_args().precision))
