"""What the fused loop (acting, environment, replay, sampling of U batches) adds to its bare updates: EXPO at the paper's size, one row.

The two are timed in turn; the loop's task has no physics, so that what is left is the loop's own.
"""

from __future__ import annotations

from benchmarks import bars
from benchmarks.bars import Bar, Loop
from benchmarks.case import SIZES, Size

TURNS, SECONDS = 4, 6.0  # timings of each; what one aims at


def measure(precision: str, size: Size = SIZES["paper"], turns: int = TURNS, aim: float = SECONDS) -> list[Bar]:
    from benchmarks import updates
    from expo_bench.precision import products
    from expo_bench.sweeps import devices as device_rows

    devices = device_rows.start()
    with products(precision, platform=devices[0].platform):
        bare, *_ = updates.prepare("expo", size)
    loop = Loop(size, 1, precision)
    bare()
    steps = bars.steps_for(loop.seconds, aim)
    fused, alone = [], []
    for _ in range(turns):
        fused.append(loop.seconds(steps) / steps)
        alone.append(updates.timed(bare, steps) / steps)
    seconds = {"loop_s_per_env_step": bars.spread(fused), "bare_s_per_env_step": bars.spread(alone)}
    what = "overhead of the fused loop over its bare updates, paper size, one row"
    over = min(fused) / min(alone) - 1
    return [Bar("overhead", what, 0.10, True, over, bars.gemm(devices, precision), details={**seconds, "steps": steps, "turns": turns})]


if __name__ == "__main__":
    bars.report(measure(bars.command_line().parse_args().precision))
