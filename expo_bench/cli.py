"""The command line. Heavy parts are imported by the command that needs them, so that help answers at once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import tyro

from expo_bench.errors import Interrupted, UserError
from expo_bench.options import (
    Check,
    CheckData,
    Command,
    Compare,
    DataCommand,
    Eval,
    Export,
    ExportPolicy,
    Fetch,
    Generate,
    Import,
    Inspect,
    List,
    NewAgent,
    Report,
    Status,
    Sweep,
    Table,
    TrainDemonstrator,
    Watch,
)


def pairs(items: Sequence[str], option: str, *, empty: bool = False) -> dict[str, str]:
    """["a=1"] as {"a": "1"}; with `empty` also ["a="] as {"a": ""}."""
    result = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (equals and name and (value or empty)):
            raise UserError(f"{option} {item!r}: expected name=value")
        if name in result:
            raise UserError(f"{option} {name}: given twice")
        result[name] = value
    return result


PLAN_OPTIONS = ("engine", "precision", "denoiser_precision", "block_rows")  # of a sweep that goes on: --resume-anyway takes others
OF_SLURM = ("gpus_per_node", "nodes", "partition", "account", "time", "slurm")
OF_CLUSTER = ("jobs", "cpus_per_task", *OF_SLURM)
OF_HOSTS = ("coordinator", "processes", "process")
OTHER_OPTIONS = ("resume", "resume_anyway", "checkpoint_minutes", "policies", "memory", "report", "cluster", *OF_CLUSTER, *OF_HOSTS)


def resumed_experiment(args: Sweep):
    """The experiment of the run folder --resume, under another plan where one is asked for."""
    from expo_bench.sweeps import manifest as manifests
    from expo_bench.sweeps.folder import read_manifest

    for field in dataclasses.fields(Sweep):
        if field.name not in (*OTHER_OPTIONS, *(() if args.cluster else PLAN_OPTIONS)) and getattr(args, field.name) != field.default:
            named = "an experiment file" if field.name == "file" else f"--{field.name.replace('_', '-')}"
            raise UserError(f"--resume {args.resume}: what to run is in its manifest; leave out {named}")
    experiment = manifests.experiment_of(read_manifest(args.resume), args.resume)
    return dataclasses.replace(experiment, **{name: value for name in PLAN_OPTIONS if (value := getattr(args, name)) is not None})


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
        for name in ("tasks", "seeds", "first_seed", "comparison", "dataset", "rewards", "name", *PLAN_OPTIONS)
        if getattr(args, name) is not None
    }
    of_agent: dict[str, dict[str, str]] = {}
    shared: dict[str, str] = {}
    for name, value in pairs(args.set, "--set").items():
        agent, dot, field = name.partition(".")
        (of_agent.setdefault(agent, {}) if dot else shared)[field if dot else agent] = value
    methods = base.methods_of(args.agents) if args.agents else base.all_methods()
    missing = set(of_agent) - {m.name for m in methods}
    if missing:
        running = ", ".join(sorted({m.name for m in methods}))
        raise UserError(f"--set {sorted(missing)[0]}.FIELD: agent {sorted(missing)[0]!r} does not run (running: {running})")
    known = {field for m in methods for field in fields(agents.load(m.agent).Config)}
    for name in shared:
        if name not in known:
            raise unknown("field in --set (no agent that runs has it)", name, known)
    methods = [dataclasses.replace(m, config={**m.config, **of_agent.get(m.name, {})}) for m in methods]
    protocol = {**base.protocol, **pairs(args.protocol, "--protocol")}
    if args.episodes is not None and args.episodes < 1:  # in a protocol 0 means all
        raise UserError(f"--episodes: episodes must be at least 1, got {args.episodes}")
    protocol |= {n: getattr(args, n) for n in ("online_steps", "offline_steps", "episodes") if getattr(args, n) is not None}
    vary = {**base.vary, **{axis: axis_of(axis, values) for axis, values in pairs(args.vary, "--vary").items()}}
    search = search_of(args, base)
    return dataclasses.replace(
        base, methods=methods, protocol=protocol, vary=vary, config={**base.config, **shared}, search=search, **given
    )


def axis_of(name: str, text: str):
    """ "0.1,0.2" as its values, "log(1e-5,1e-3)" and "uniform(0,1)" as ranges."""
    from expo_bench.sweeps.experiment import Range

    scale, bracket, inside = text.partition("(")
    if not bracket:
        return tuple(text.split(","))
    try:
        low, high = (float(number) for number in inside.removesuffix(")").split(","))
    except ValueError:
        low = high = float("nan")
    if scale not in ("log", "uniform") or not text.endswith(")") or not abs(low) + abs(high) < float("inf"):
        raise UserError(f"--vary {name}: expected values such as 0.1,0.2 or a range, log(1e-5,1e-3) or uniform(0,1), got {text!r}")
    return Range(low, high, log=scale == "log")


def search_of(args: Sweep, base):
    """The search of the options over that of the experiment; None for neither."""
    from expo_bench.sweeps.experiment import Search

    given = {"method": args.search, "samples": args.samples, "seeds": args.search_seeds}
    given = {name: value for name, value in given.items() if value is not None}
    if given and args.search is None and base.search is None:
        raise UserError("--samples and --search-seeds belong to a search: --search sobol")
    return dataclasses.replace(base.search or Search(), **given) if given else base.search


def where(args: Sweep):
    """What runs an experiment: this process, alone or with others, or jobs."""
    import functools

    from expo_bench.sweeps import cluster, distributed, runner

    default = {field.name: field.default for field in dataclasses.fields(Sweep)}
    given = [name for name in (*OF_CLUSTER, *OF_HOSTS) if getattr(args, name) != default[name]]
    wrong = [name for name in given if name in (OF_CLUSTER if args.cluster is None else OF_HOSTS)]
    wrong += [name for name in given if name in OF_SLURM and args.cluster == "local"]
    if wrong:
        expected = "no --cluster" if wrong[0] in OF_HOSTS else "--cluster slurm" if wrong[0] in OF_SLURM else "--cluster local or slurm"
        raise UserError(f"--{wrong[0].replace('_', '-')}: expected {expected} beside it")
    if args.cluster is None:
        distributed.start(args.coordinator, args.processes, args.process)
        return runner.run
    jobs = {name: getattr(args, name) for name in OF_CLUSTER if name != "slurm"}
    return functools.partial(cluster.run, cluster=cluster.Cluster(args.cluster, **jobs, more=pairs(args.slurm, "--slurm")))


def status(args: Status) -> None:
    from expo_bench.sweeps import status

    found = status.of(args.run)
    print(json.dumps(found, indent=2) if args.json else status.text(found))


def sweep(args: Sweep, command: str) -> None:
    import time

    from expo_bench.sweeps import distributed, search
    from expo_bench.sweeps.progress import duration

    began = time.perf_counter()
    if not args.checkpoint_minutes > 0:
        raise UserError(f"--checkpoint-minutes must be above 0, got {args.checkpoint_minutes}")
    options = {"command": command, "checkpoint_minutes": args.checkpoint_minutes, "resume_anyway": args.resume_anyway}
    options |= {"policies": args.policies, "memory": args.memory}
    run = where(args)
    if args.resume is None:
        frame = search.run(experiment_of(args), args.out, run=run, **options)
    else:
        frame = run(resumed_experiment(args), args.resume, **options)
    if frame is None or not distributed.first():  # it was submitted, or another process writes
        return
    folder = frame.attrs["folder"]
    if args.report:
        report(Report((Path(folder),)))
    else:
        print(f"results: {folder}")
    print(f"everything took {duration(time.perf_counter() - began)}")


def report(args: Report) -> None:
    from analysis.load import load
    from analysis.report import text_table, write_report

    options = {"out": args.out, "reference": args.reference, "published": args.published, "figures": args.figures}
    if args.watch:
        from analysis.watch import watch

        path = watch(args.runs, **options)
        if path is None:
            raise KeyboardInterrupt  # before there was anything to show
    else:
        path = write_report(args.runs, **options)
    results = load(args.runs, partial=True)
    for note in results.notes:
        print(note)
    print(text_table(results))
    print(f"report: {path}")
    if args.figures is not None:
        print(f"figures: {args.figures}")


def table(args: Table) -> None:
    from analysis.matrix import matrix
    from analysis.tables import markdown_table

    print(markdown_table(*matrix(args.runs, args.metrics)), end="")


def compare_methods(args: Compare) -> None:
    from analysis.compare import as_json, compare
    from analysis.compare_text import text

    found = compare(args.runs, args.candidate, args.reference, args.threshold)
    print(json.dumps(as_json(found), indent=2) if args.json else text(found).rstrip())


def export(args: Export) -> None:
    from analysis import exporting

    print(exporting.DONE[args.format].format(out=exporting.export(args.runs, args.out, args.format)))


def import_curves(args: Import, command: str) -> None:
    from analysis.importing import import_csv

    for line in import_csv(args.file, args.out, args.source, args.task, args.agent, args.columns, command):
        print(line)
    print(f"run folder: {args.out}")


def export_policy(args: ExportPolicy) -> None:
    from expo_bench.sweeps import policies

    if args.out is None:
        for _, _, row in policies.found(args.run):
            print("  ".join(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in row.items()))
        return
    known = policies.export(args.run, pairs(args.row, "--row", empty=True), args.which, args.out)
    print(f"the {args.which} agent of seed {known['seed']}: score {known['score']:.3g} after {known['env_step']:,} environment steps")
    print(f"written: {args.out}")


def evaluate(args: Eval) -> None:
    from expo_bench import policy as policies
    from expo_bench.sweeps import devices

    devices.start()
    policy = policies.load(args.policy, args.agent)
    measured = policies.evaluate(policy, args.task, episodes=args.episodes, seed=args.seed, engine=args.engine)
    if args.json:
        print(json.dumps({"task": args.task or policy.about["task"], "episodes": args.episodes, "seed": args.seed, **measured}))
        return
    about = policy.about
    print(
        f"{about['agent']}, seed {about['seed']}, after {about['env_step']:,} environment steps (score {about['score']:.3g} in its sweep)"
    )
    print(f"{args.episodes} new episodes on {args.task or about['task']}:")
    for name, value in measured.items():
        print(f"  {name:16} {value:.4g}")


def list_all(args: List) -> None:
    from envs import registry
    from expo_bench import agents
    from expo_bench.agents import AGENTS
    from expo_bench.errors import unknown

    if args.name is None:
        for title, lines in (("tasks", {n: t.summary for n, t in registry.TASKS.items()}), ("agents", AGENTS)):
            print(f"{title}:")
            width = max(map(len, lines))
            for name, line in lines.items():
                print(f"  {name:{width}}  {line}")
            if title == "tasks":
                print("  and of other packages:")
                for line in registry.ADAPTERS.values():
                    print(f"    {line}")
        return
    if args.name in registry.TASKS or args.name.partition(":")[0] in registry.ADAPTERS:
        info = registry.info(args.name)
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
    if args.name not in AGENTS and not agents.is_file(args.name):
        raise unknown("name", args.name, [*registry.TASKS, *AGENTS, "protocol"])
    module = agents.load(args.name)
    name = agents.name_of(args.name)
    print((module.__doc__ or "").strip())
    print(f"\nconfig (--set {name}.FIELD=VALUE, --vary {name}.FIELD=VALUE,VALUE):")
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


def new_agent(args: NewAgent) -> None:
    from expo_bench.agents import files

    files.write_template(args.file)
    print(f"written: {args.file}, an agent that learns as it is. Next:")
    print(f"  expo-bench check {args.file}")
    print(f"  expo-bench sweep experiments/quickstart.py --agents {args.file} expo rlpd")


def check(args: Check) -> bool:
    """Whether every test passed that could run."""
    import time

    from expo_bench.conformance.check import FAILED, check
    from expo_bench.sweeps import devices
    from expo_bench.sweeps.progress import duration

    began, results = time.perf_counter(), []
    devices.start()
    for result in check(args.agent):
        print(f"{result.status:7}  {result.name:18}  {result.text}", flush=True)
        results.append(result)
    failed = sum(r.status == FAILED for r in results)
    print(f"{failed or 'none'} of {len(results)} tests failed, {duration(time.perf_counter() - began)}")
    return not failed


def watched(args: Watch):
    """(the environment, who acts in it)."""
    from envs import registry
    from expo_bench.datasets import generate as generation

    if args.run is None:
        env = registry.make(args.task, args.engine)
        path = None if args.policy == "demonstrator" else Path(args.policy)
        return env, generation.make_demonstrator(env, path, args.noise, {})
    if args.policy != "demonstrator" or args.noise is not None:
        raise UserError(f"watch {args.run}: --policy and --noise are of a task's demonstrator; leave them out")
    from expo_bench import policy as policies

    wanted = pairs(args.row, "--row", empty=True)
    policy = policies.load(args.run) if args.run.suffix == ".npz" else policies.of_run(args.run, wanted, args.which)
    env = registry.make(args.task or policy.about["task"], args.engine)
    policies.check_sizes(policy, env)
    return env, policies.following(policy)


def watch_episode(args: Watch) -> None:
    from expo_bench import watching

    watching.check_paths(args.out, args.strip)
    from envs import opengl, registry

    if args.run is None and args.task is None:
        raise UserError("watch: give a run folder, or --task TASK for a task's demonstrator")
    if args.task is not None:
        registry.info(args.task)
    opengl.choose_backend()  # before MuJoCo is imported
    env, demonstrator = watched(args)
    states = watching.episode(env, demonstrator, args.seed)
    solved = "fulfils the task" if states.success.any() else "does not fulfil the task"
    print(f"{env.name}: an episode of {len(states.t) - 1} steps that {solved}, return {states.reward.sum():.4g}")
    watching.draw(env, states, args.out, args.strip, print)


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


def run_command(command: object, line: str) -> None:
    if isinstance(command, DataCommand):
        command = command.command
    match command:
        case Sweep():
            sweep(command, line)
        case Status():
            status(command)
        case Report():
            report(command)
        case Table():
            table(command)
        case Compare():
            compare_methods(command)
        case Export():
            export(command)
        case Import():
            import_curves(command, line)
        case ExportPolicy():
            export_policy(command)
        case Eval():
            evaluate(command)
        case List():
            list_all(command)
        case NewAgent():
            new_agent(command)
        case Check():
            if not check(command):
                sys.exit(1)
        case Watch():
            watch_episode(command)
        case Inspect():
            inspect(command)
        case CheckData():
            check_data(command)
        case Fetch():
            fetch(command)
        case Generate():
            generate(command)
        case TrainDemonstrator():
            train_demonstrator(command)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. A wrong input is one line on stderr and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        command = tyro.cli(Command, prog="expo-bench", description="A JAX benchmark suite for RL with expressive policies.", args=argv)
        run_command(command, shlex.join(["expo-bench", *argv]))
    except BrokenPipeError:  # `expo-bench list | head`
        with contextlib.suppress(OSError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    except Interrupted as interrupted:
        print(f"\ninterrupted; {interrupted}", file=sys.stderr)
        sys.exit(128 + interrupted.signal)
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
