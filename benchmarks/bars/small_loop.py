"""The whole loop with small networks: acting, MJX physics of push-disc, replay and updates, 8 seeds over all devices.

Networks of 64, one residual block, batch 64, N 4 + 4, T 5, U 2, 2 critics. The limit, 600 seed-steps per second, is that of a machine whose
matrix products reach 380 GFLOP/s, and moves in proportion.
"""

from __future__ import annotations

from benchmarks import bars
from benchmarks.bars import Bar, Loop
from benchmarks.case import Size
from experiments import sizes

SEEDS, REPEATS, SECONDS = 8, 40, 0.5
STEPS_PER_S, AT = 600.0, 380e9  # seed-steps per second where the matrix products reach so many FLOP/s
SMALL = Size(
    "push-disc",
    {**sizes.CONFIG, "critics": 2},
    {**sizes.PROTOCOL, "offline_steps": 0, "online_steps": 20_000, "eval_every": 20_000, "updates": 2},
)


def measure(precision: str, size: Size = SMALL, seeds: int = SEEDS, repeats: int = REPEATS, aim: float = SECONDS) -> list[Bar]:
    from expo_bench.sweeps import devices as device_rows

    devices = device_rows.start()
    before = bars.gemm(devices, precision)
    loop = Loop(size, seeds, precision, "quickstart")
    steps = bars.steps_for(loop.seconds, aim)
    timings = loop.repeat(steps, repeats)
    gemms = [before, bars.gemm(devices, precision)]
    limit = STEPS_PER_S * max(gemms) / AT
    per_s = {name: seeds / timings["s_per_env_step"][other] for name, other in (("median", "median"), ("min", "max"), ("max", "min"))}
    details = {
        **timings,
        "seed_steps_per_s": per_s,
        "flop_per_s": per_s["max"] * loop.flop(),
        "gemm_before_and_after": gemms,
        "devices_used": loop.devices_used,
    }
    what = f"seed-steps per second of the small loop with MJX physics, {seeds} seeds"
    return [Bar("small_loop", what, limit, False, per_s["max"], max(gemms), details=details)]


if __name__ == "__main__":
    bars.report(measure(bars.command_line().parse_args().precision))
