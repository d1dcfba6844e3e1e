"""The command line. Heavy parts are imported by the command that needs them, so that help answers at once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from expo_bench.errors import UserError

Positional = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Run an experiment: every task x agent x value of --vary x seed, each agent's rows in one jitted program.

    With a file: `expo-bench sweep experiments/quickstart.py`. Without: `expo-bench sweep --tasks point-umaze --agents expo rlpd`.
    Options given beside a file override it.
    """

    file: Positional[Path | None] = None
    """an experiment file that defines EXPERIMENT"""
    tasks: tuple[str, ...] | None = None
    """tasks by name (`expo-bench list`)"""
    agents: tuple[str, ...] | None = None
    """agents by name (`expo-bench list`)"""
    seeds: int | None = None
    """seeds per agent and cell (default 5)"""
    first_seed: int | None = None
    """number of the first seed (default 0)"""
    vary: tuple[str, ...] = ()
    """axes, agent.field=value,value: those of traced fields join the seeds in one program, those of static fields make programs of their own"""
    set: tuple[str, ...] = ()
    """config fields, field=value for all agents that have the field, or agent.field=value for one (`expo-bench list AGENT` shows them)"""
    protocol: tuple[str, ...] = ()
    """protocol fields, field=value (`expo-bench list protocol` shows them)"""
    online_steps: int | None = None
    """environment steps of the online phase; short for --protocol online_steps=..."""
    offline_steps: int | None = None
    """gradient steps of the offline phase, for the agents that have one"""
    comparison: Literal["released", "equal"] | None = None
    """each agent under its authors' protocol (released), or all under EXPO's (equal)"""
    dataset: str | None = None
    """offline data: a file (.pickle, .hdf5, .npz), or 'none'; default: the task's own demonstrations"""
    episodes: int | None = None
    """use only the first episodes of the data"""
    engine: Literal["auto", "mjx", "mujoco"] | None = None
    """physics: MJX inside the program, C MuJoCo through a callback, or what suits the device"""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] | None = None
    """of matrix products"""
    block_rows: int | None = None
    """rows per program and device (default: all rows spread evenly over the devices)"""
    name: str | None = None
    """name of the experiment"""
    out: Path | None = None
    """a new folder for the results (default: the next free one under runs/)"""
    report: bool = True
    """write the report at the end"""


@dataclasses.dataclass(frozen=True)
class Report:
    """Draw learning curves with intervals and the table from run folders, as PNG and one self-contained HTML file."""

    runs: Positional[tuple[Path, ...]]
    """run folders"""
    out: Path | None = None
    """the folder of the report (default: the first run folder)"""
    reference: str = "expo"
    """the method that the others are compared with"""
    published: bool = False
    """draw and list the published numbers of the same tasks beside the measured ones"""


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the results of run folders for other tools. Nothing is sent anywhere."""

    runs: Positional[tuple[Path, ...]]
    """run folders"""
    out: Path
    """a new folder; for csv also a new file that ends in .csv"""
    format: Literal["csv", "wandb", "tensorboard"] = "csv"
    """one tidy table, offline runs for `wandb sync`, or TensorBoard event files"""


@dataclasses.dataclass(frozen=True)
class Import:
    """Make a run folder of learning curves from elsewhere, marked as imported in every table and plot.

    The file has columns step, score and seed, or step and one column per seed (0, seed_0), or was written by `expo-bench export`. Scores
    are the task's own metric (`expo-bench list TASK`), as shares."""

    file: Positional[Path]
    """the CSV file"""
    out: Path
    """a new run folder"""
    source: str
    """where the numbers come from, as it stands beside the agent's name: cleanrl"""
    task: str | None = None
    """the task's name (unless the file has a column task)"""
    agent: str | None = None
    """the agent's name (unless the file has a column agent)"""
    columns: str = ""
    """what the columns are called: step=NAME,score=NAME,seed=NAME; seed=3 for the file of one seed; score="* - eval" for a column per seed"""


@dataclasses.dataclass(frozen=True)
class List:
    """Show tasks and agents with one line each, or one of them with all its fields."""

    name: Positional[str | None] = None
    """a task, an agent, or 'protocol'"""


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Say what a dataset holds: episodes, dimensions, ranges, rewards, ends."""

    file: Positional[Path]
    """.pickle (hand_dapg), .hdf5 (D4RL) or .npz"""


@dataclasses.dataclass(frozen=True)
class Generate:
    """Make the offline data of a task with its demonstrator."""

    task: Positional[str]
    """task by name"""
    out: Path | None = None
    """the .npz file (default: data/TASK.npz)"""
    episodes: int | None = None
    """episodes (default: the task's standard number)"""
    seed: int = 0
    """seed of everything random"""
    policy: Path | None = None
    """door: a trained policy (.npz) as demonstrator"""
    noise: float | None = None
    """noise of the demonstrator's actions (default: the demonstrator's own)"""
    engine: Literal["mujoco", "mjx"] = "mujoco"
    """physics engine"""


Data = Annotated[Inspect, tyro.conf.subcommand("inspect")] | Annotated[Generate, tyro.conf.subcommand("generate")]


@dataclasses.dataclass(frozen=True)
class DataCommand:
    """Offline data: look at a file, or make one."""

    command: tyro.conf.OmitSubcommandPrefixes[Data]


Command = (
    Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[DataCommand, tyro.conf.subcommand("data")]
)


def pairs(items: Sequence[str], option: str) -> dict[str, str]:
    """["a=1"] as {"a": "1"}."""
    result = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (equals and name and value):
            raise UserError(f"{option} {item!r}: expected name=value")
        if name in result:
            raise UserError(f"{option} {name}: given twice")
        result[name] = value
    return result


def experiment_of(args: Sweep):
    """The experiment that the options describe: a file's, overridden, or a new one."""
    from expo_bench import agents
    from expo_bench.config import fields
    from expo_bench.errors import unknown
    from expo_bench.sweeps import experiment as experiments

    if args.file is not None:
        base = experiments.load(args.file)
    elif args.tasks and args.agents:
        base = experiments.Experiment("sweep", args.tasks, args.agents)
    else:
        raise UserError("sweep: give an experiment file, or --tasks and --agents (`expo-bench list` shows them)")
    given = {
        name: getattr(args, name)
        for name in ("tasks", "seeds", "first_seed", "comparison", "dataset", "episodes", "engine", "precision", "block_rows", "name")
        if getattr(args, name) is not None
    }
    of_agent: dict[str, dict[str, str]] = {}
    shared: dict[str, str] = {}
    for name, value in pairs(args.set, "--set").items():
        agent, dot, field = name.partition(".")
        (of_agent.setdefault(agent, {}) if dot else shared)[field if dot else agent] = value
    methods = [experiments.Method(a) for a in args.agents] if args.agents else base.all_methods()
    missing = set(of_agent) - {m.agent for m in methods}
    if missing:
        running = ", ".join(sorted({m.agent for m in methods}))
        raise UserError(f"--set {sorted(missing)[0]}.FIELD: agent {sorted(missing)[0]!r} does not run (running: {running})")
    known = {field for m in methods for field in fields(agents.load(m.agent).Config)}
    for name in shared:
        if name not in known:
            raise unknown("field in --set (no agent that runs has it)", name, known)
    methods = [dataclasses.replace(m, config={**m.config, **of_agent.get(m.agent, {})}) for m in methods]
    protocol = {**base.protocol, **pairs(args.protocol, "--protocol")}
    protocol |= {n: getattr(args, n) for n in ("online_steps", "offline_steps") if getattr(args, n) is not None}
    vary = {**base.vary, **{axis: tuple(values.split(",")) for axis, values in pairs(args.vary, "--vary").items()}}
    return dataclasses.replace(base, methods=methods, protocol=protocol, vary=vary, config={**base.config, **shared}, **given)


def sweep(args: Sweep, command: str) -> None:
    import time

    from expo_bench.sweeps import runner
    from expo_bench.sweeps.progress import duration

    began = time.perf_counter()
    frame = runner.run(experiment_of(args), args.out, command=command)
    folder = frame.attrs["folder"]
    if args.report:
        report(Report((Path(folder),)))
    else:
        print(f"results: {folder}")
    print(f"everything took {duration(time.perf_counter() - began)}")


def report(args: Report) -> None:
    from analysis.load import load
    from analysis.report import text_table, write_report

    path = write_report(args.runs, args.out, reference=args.reference, published=args.published)
    print(text_table(load(args.runs)))
    print(f"report: {path}")


def export(args: Export) -> None:
    from analysis import exporting

    print(exporting.DONE[args.format].format(out=exporting.export(args.runs, args.out, args.format)))


def import_curves(args: Import, command: str) -> None:
    from analysis.importing import import_csv

    for line in import_csv(args.file, args.out, args.source, args.task, args.agent, args.columns, command):
        print(line)
    print(f"run folder: {args.out}")


def list_all(args: List) -> None:
    from envs.registry import TASKS
    from expo_bench.agents import AGENTS
    from expo_bench.errors import unknown

    if args.name is None:
        for title, lines in (("tasks", {n: t.summary for n, t in TASKS.items()}), ("agents", AGENTS)):
            print(f"{title}:")
            width = max(map(len, lines))
            for name, line in lines.items():
                print(f"  {name:{width}}  {line}")
        return
    if args.name in TASKS:
        info = TASKS[args.name]
        print(f"{info.name}: {info.summary}")
        print(f"  observations {info.obs_size}, actions {info.action_size}, horizon {info.horizon} steps, score: {info.score}")
        print(f"  engines: {', '.join(info.engines)} (on a CPU: {info.default_engine_cpu})")
        print(f"  data: {info.demonstrator}")
        return
    if args.name == "protocol":
        from expo_bench.protocol import Protocol

        print("protocol (defaults of the class; each agent has its authors'):")
        _print_fields(Protocol())
        return
    if args.name not in AGENTS:
        raise unknown("name", args.name, [*TASKS, *AGENTS, "protocol"])
    from expo_bench import agents

    module = agents.load(args.name)
    print((module.__doc__ or "").strip())
    print(f"\nconfig (--set {args.name}.FIELD=VALUE, --vary {args.name}.FIELD=VALUE,VALUE):")
    _print_fields(module.Config())
    print("\nprotocol as released (--protocol FIELD=VALUE):")
    _print_fields(module.PROTOCOL)
    for suite, preset in module.SUITES.items():
        print(f"\non {suite}: {', '.join(f'{k}={v}' for part in preset.values() for k, v in part.items())}")


def _print_fields(config: object) -> None:
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        print(f"  {field.name:26} {text:14} {field.metadata['kind']:7} {field.metadata['help']}")


def inspect(args: Inspect) -> None:
    from expo_bench import datasets

    print(datasets.describe(args.file))


def generate(args: Generate) -> None:
    from envs.registry import TASKS
    from expo_bench.datasets import generate as generation
    from expo_bench.datasets.inspect import summary
    from expo_bench.errors import unknown

    if args.task not in TASKS:
        raise unknown("task", args.task, TASKS)
    out = args.out or Path("data") / f"{args.task}.npz"
    if out.exists():
        raise UserError(f"--out {out}: exists; name a new file (nothing is ever overwritten)")
    with _folder_for(out):
        data = generation.generate(
            args.task, out, episodes=args.episodes, seed=args.seed, engine=args.engine, policy=args.policy, noise=args.noise
        )
    print(summary(data))
    print(f"written: {out}")


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


def run_command(command: object, line: str) -> None:
    if isinstance(command, DataCommand):
        command = command.command
    match command:
        case Sweep():
            sweep(command, line)
        case Report():
            report(command)
        case Export():
            export(command)
        case Import():
            import_curves(command, line)
        case List():
            list_all(command)
        case Inspect():
            inspect(command)
        case Generate():
            generate(command)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. A wrong input is one line on stderr and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = tyro.cli(Command, prog="expo-bench", description="A JAX benchmark suite for RL with expressive policies.", args=argv)
    try:
        run_command(command, shlex.join(["expo-bench", *argv]))
    except BrokenPipeError:  # `expo-bench list | head`
        with contextlib.suppress(OSError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    except KeyboardInterrupt:
        print("\ninterrupted; the evaluations so far are in the run folder", file=sys.stderr)
        sys.exit(130)
    except ValueError as error:
        if not _is_user_error(error):
            raise
        print(f"expo-bench: error: {error}", file=sys.stderr)
        sys.exit(2)


def _is_user_error(error: ValueError) -> bool:
    """The errors of the three packages, which do not know each other; those not imported cannot have been raised."""
    kinds = [UserError]
    for module, name in (("envs.core", "TaskError"), ("analysis", "ResultsError")):
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return isinstance(error, tuple(kinds))


if __name__ == "__main__":
    main()
