"""A tiny sweep, as a value and as a process that sends itself a signal: `python killed_sweep.py NAME OUT KIND COUNT DEVICES`.

A linear agent that learns offline and online, in two waves, and RLPD with its optimisers and targets. Its calls are as short as can be.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    tests = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(tests), str(tests.parent)]  # the checkout itself: its `envs` is not the folder of that name in tests

from toy import SMALL, Walk, dataset

import expo_bench
from expo_bench import Experiment, Method
from expo_bench.sweeps import checkpoints, devices, program, runner

AGENT = str(Path(__file__).resolve().parent.parent / "tiny_agent.py")
EXPERIMENT = Experiment(
    "killed",
    tasks=["point-umaze"],
    methods=[Method(AGENT), "rlpd"],
    seeds=2,
    vary={"tiny_agent.rate": (0.01, 0.05)},
    config=SMALL,
    protocol={
        "offline_steps": 120,
        "warmup_steps": 30,
        "online_steps": 160,
        "batch_size": 8,
        "eval_every": 40,
        "eval_episodes": 4,
        "offline_evals": 3,
    },
    block_rows=1,
)
SECONDS_BETWEEN_CHECKPOINTS = 0.15


LINEAR = dataclasses.replace(EXPERIMENT, methods=[Method(AGENT)])
TWO = dataclasses.replace(EXPERIMENT, methods=[Method(AGENT), Method(AGENT, "large", {"scale": 2})])
RLPD = dataclasses.replace(EXPERIMENT, methods=["rlpd"], vary={})


def use_the_toy(patch=setattr):
    """`point-umaze` is the toy walk, with the toy's data, and after its first call a program does one step per call, however fast the machine is."""
    patch(runner.envs, "make", lambda name, engine="auto": Walk())
    patch(runner.datasets, "default_dataset", lambda name, env, cache: dataset())
    patch(program, "CHUNK_SECONDS", 0.0)


def run(out, experiment=EXPERIMENT, **options):
    return expo_bench.run(experiment, out, **{"checkpoint_minutes": SECONDS_BETWEEN_CHECKPOINTS / 60, **options})


def signal_at(kind: str, count: int, number: int = signal.SIGKILL, patch=setattr) -> None:
    """Send this process a signal at the count-th call of a program ("chunk"), while the count-th checkpoint is written ("checkpoint": its
    arrays are there, its checksums are not), or when the count-th file of results is written but not in its place ("results")."""
    left = [count]

    def now(matches: bool) -> None:
        left[0] -= matches
        if matches and left[0] == 0:
            os.kill(os.getpid(), number)

    def before(owner, name, matches):
        original = getattr(owner, name)

        def call(*arguments, **options):
            now(matches(*arguments))
            return original(*arguments, **options)

        patch(owner, name, call)

    if kind == "chunk":
        before(program.ProgramRun, "_call", lambda *_: True)
    elif kind == "checkpoint":
        before(checkpoints, "checksums", lambda path: path.name.endswith(".tmp"))
    elif kind == "results":
        before(os, "replace", lambda source, target: str(target).endswith(".parquet"))


if __name__ == "__main__":
    name, folder, kind, count, virtual = sys.argv[1:]
    devices.cores = lambda: int(virtual)
    use_the_toy()
    signal_at(kind, int(count))
    run(folder, globals()[name])
