"""Tasks and agents: `list`, `new-agent`, `check`."""

from __future__ import annotations

import dataclasses

from expo_bench.options import Check, List, NewAgent


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
