"""The arithmetic of EXPO's update at the paper's settings over the machine's matrix products: observation 19, action 7, batch 256, U 20, N 8 + 8,
T 10, 10 critics of three layers of 256.

Counted is what the program does (`benchmarks.flops`), 1,400 GFLOP per environment step, not the 1,536 of the released code, which computes the
shares of time and observation for every row. The rate of the matrix products is taken before and after; the better one counts.
"""

from __future__ import annotations

from benchmarks import bars
from benchmarks.bars import GPU, Bar, Loop
from benchmarks.case import SIZES, Size

REPEATS, SECONDS = 3, 6.0
SHARES = {1: 0.70, 2: 0.80}  # rows: the least share of the GEMM rate on a CPU
GPU_SHARE = 0.50  # with --precision bfloat16


def measure(precision: str, size: Size = SIZES["paper"], repeats: int = REPEATS, aim: float = SECONDS) -> list[Bar]:
    from expo_bench.sweeps import devices as device_rows

    devices = device_rows.start()
    what = "share of the GEMM rate that EXPO's update reaches at the paper's size, "
    on_gpu = "of the bfloat16 peak, on a GPU with --precision bfloat16"
    if bars.on_gpu() and precision == "bfloat16":
        share, peak, details = rate(1, devices, precision, size, repeats, aim)
        return [Bar("paper_update", what + on_gpu, GPU_SHARE, False, share, peak, details=details)]
    found = []
    for rows, least in SHARES.items():
        name = what + ("one row" if rows == 1 else f"{rows} rows, one per core")
        if len(devices) < rows or bars.on_gpu():
            found.append(Bar("paper_update", name, least, False, None, needs=f"a CPU of {rows} cores or more"))
            continue
        share, peak, details = rate(rows, devices, precision, size, repeats, aim)
        found.append(Bar("paper_update", name, least, False, share, peak, details=details))
    return [*found, Bar("paper_update", what + on_gpu, GPU_SHARE, False, None, needs=GPU)]


def rate(rows: int, devices: list, precision: str, size: Size, repeats: int, aim: float) -> tuple[float, float, dict]:
    """(share of the GEMM rate, the GEMM rate, what they come from)."""
    before = bars.gemm(devices, precision)
    loop = Loop(size, rows, precision)
    steps = bars.steps_for(loop.seconds, aim)
    timings = loop.repeat(steps, repeats)
    gemms = [before, bars.gemm(devices, precision)]
    achieved = rows * loop.flop() / timings["s_per_env_step"]["min"]
    details = {
        **timings,
        "flop_per_env_step_and_row": loop.flop(),
        "flop_per_s": achieved,
        "gemm_before_and_after": gemms,
        "devices_used": loop.devices_used,
    }
    return achieved / max(gemms), max(gemms), details


if __name__ == "__main__":
    bars.report(measure(bars.command_line().parse_args().precision))
