"""Trained agents: `export-policy`, `eval`, `watch`."""

from __future__ import annotations

import json
from pathlib import Path

from expo_bench.commands import pairs
from expo_bench.errors import UserError
from expo_bench.options import Eval, ExportPolicy, Watch


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
