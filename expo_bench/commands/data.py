"""Offline data: `data inspect`, `fetch`, `check`, `generate`, `train-demonstrator`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from expo_bench.errors import Interrupted, UserError
from expo_bench.options import CheckData, Fetch, Generate, Inspect, TrainDemonstrator


def inspect(args: Inspect) -> None:
    from expo_bench import datasets

    print(datasets.describe(args.file))


def fetch(args: Fetch) -> None:
    from envs.registry import TASKS
    from expo_bench.datasets import catalogue

    if args.name is None:
        print("datasets (expo-bench data fetch NAME):")
        for line in catalogue.listing(TASKS.__contains__):
            print(line)
        return
    catalogue.fetch(args.name, print, unlisted=args.unlisted)
    entry = catalogue.CATALOGUE.get(args.name)
    task = next((t for t in entry.tasks if t in TASKS), "TASK") if entry else "TASK"
    print(f"to train on it: expo-bench sweep --tasks {task} --dataset {args.name} --agents expo rlpd")


def check_data(args: CheckData) -> None:
    import envs
    from expo_bench.datasets import find, replayed
    from expo_bench.sweeps import devices

    find(args.file)  # a wrong name is said before anything is built
    devices.start()
    for line in replayed.check(args.file, envs.make(args.task, args.engine)):
        print(line, flush=True)


def generate(args: Generate) -> None:
    from envs import registry
    from expo_bench.datasets import generate as generation
    from expo_bench.datasets.inspect import summary

    registry.info(args.task)
    out = args.out or Path("data") / f"{args.task}.npz"
    if out.exists():
        raise UserError(f"--out {out}: exists; name a new file (nothing is ever overwritten)")
    with _folder_for(out):
        options = {name: getattr(args, name) for name in ("episodes", "seed", "engine", "policy", "noise", "mix")}
        try:
            data = generation.generate(args.task, out, **options)
        except KeyboardInterrupt:
            raise Interrupted(signal.SIGINT, "the same command goes on with the episodes made so far") from None
    print(summary(data))
    print(f"written: {out}")


def train_demonstrator(args: TrainDemonstrator) -> None:
    from expo_bench.datasets.train_demonstrator import train
    from expo_bench.sweeps import devices

    if args.out.exists():
        raise UserError(f"--out {args.out}: exists; name a new file (nothing is ever overwritten)")
    devices.start()
    with _folder_for(args.out):
        found = train(args.out, minutes=args.minutes, seed=args.seed, engine=args.engine, say=lambda line: print(line, flush=True))
    shown = ("steps", "minutes", "final_return", "waypoints_per_episode", "episodes_with_a_fall")
    print(", ".join(f"{name} {found[name]}" for name in shown))
    print(f"written: {args.out}")


@contextlib.contextmanager
def _folder_for(file: Path) -> Iterator[None]:
    """The folder of `file`, made if need be; what was made is removed again if nothing comes to lie in it."""
    made = [p for p in (file.parent, *file.parent.parents) if not p.exists()]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {file}: the folder {file.parent} cannot be made: {error.strerror}") from None
    try:
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
