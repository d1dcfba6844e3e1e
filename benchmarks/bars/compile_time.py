"""How long EXPO's program at the paper's size takes to compile, and to start once the persistent cache holds it.

Two processes after one another with nothing but $EXPO_BENCH_CACHE set: the first finds an empty cache, the second what the first has left, which
is what the cache's being on by default means. "Starts" counts from the process's beginning to the initialised state of the run, imports included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import bars
from benchmarks.bars import Bar

COLD, WARM = 60.0, 10.0  # seconds


def start(precision: str, cache: Path) -> dict[str, Any]:
    """What a fresh process with this cache says, and the seconds until it said so."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    command = [sys.executable, "-m", "benchmarks.bars.compile_time", "--precision", precision, "--start"]
    began = time.perf_counter()
    done = subprocess.run(command, env={**own, "EXPO_BENCH_CACHE": str(cache)}, check=True, stdout=subprocess.PIPE, text=True)
    return {"start_s": time.perf_counter() - began, **json.loads(done.stdout)}


def started(precision: str) -> dict[str, Any]:
    """In the fresh process: compile every phase of the run, and initialise its state."""
    from benchmarks.bars import Loop
    from benchmarks.case import SIZES
    from expo_bench.sweeps import devices as device_rows

    device_rows.start()
    return {"compile_s": Loop(SIZES["paper"], 1, precision).compile_s}


def measure(precision: str) -> list[Bar]:
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = (start(precision, Path(cache)) for _ in range(2))
        programs = list(Path(cache).rglob("*-cache"))
    details = {"cold": cold, "warm": warm, "programs": len(programs)}
    what = "seconds to compile EXPO's programs at the paper's size, cache empty"
    again = "seconds from the process's beginning to the run's first state, cache filled"
    return [
        Bar("compile_time", what, COLD, True, cold["compile_s"], details=details),
        Bar("compile_time", again, WARM, True, warm["start_s"], details=details),
    ]


if __name__ == "__main__":
    parser = bars.command_line()
    parser.add_argument("--start", action="store_true", help="be the process that is timed")
    args = parser.parse_args()
    if args.start:
        print(json.dumps(started(args.precision)))
    else:
        bars.report(measure(args.precision))
