"""`sweep` and `status`: from options to an experiment, and who runs it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from expo_bench.commands import pairs
from expo_bench.commands.results import report
from expo_bench.errors import UserError
from expo_bench.options import Report, Status, Sweep

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


def status(args: Status) -> None:
    from expo_bench.sweeps import status

    found = status.of(args.run)
    print(json.dumps(found, indent=2) if args.json else status.text(found))
