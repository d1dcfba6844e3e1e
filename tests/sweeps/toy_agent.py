"""`tiny_agent` as the jobs of a test run it, in processes of their own: where this file is loaded, `point-umaze` is the toy walk.

TOY_TROUBLE="1:kill 2:slow" (with TOY_MARKS, a folder): what happens to a job by its number, the first time that it runs. TOY_CALLS=12: at
which call of its program, and TOY_SECONDS=0.5: how long a call is.
"""

import os
import signal
import sys
import time
from pathlib import Path

import killed_sweep
from tiny_agent import PROTOCOL, Config, make  # noqa: F401

from expo_bench.sweeps import program

killed_sweep.use_the_toy()
program.CHUNK_SECONDS = float(os.environ.get("TOY_SECONDS", 0))


def first_time(name: str) -> bool:
    try:
        (Path(os.environ["TOY_MARKS"]) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def slow_down(seconds: float) -> None:
    call = program.ProgramRun._call
    program.ProgramRun._call = lambda *arguments: time.sleep(seconds) or call(*arguments)


if "TOY_TROUBLE" in os.environ:
    own = os.environ.get("TOY_NUMBER") or os.environ.get("SLURM_ARRAY_TASK_ID") or "".join(sys.argv[2:3])
    trouble = dict(each.split(":") for each in os.environ["TOY_TROUBLE"].split()).get(own)
    if trouble in ("kill", "stop") and first_time(own):
        killed_sweep.signal_at("chunk", int(os.environ.get("TOY_CALLS", 60)), signal.SIGKILL if trouble == "kill" else signal.SIGTERM)
    elif trouble == "slow" and first_time(own):
        slow_down(0.5)
