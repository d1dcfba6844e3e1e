"""The command line. Heavy parts are imported by the command that needs them, so that help answers at once."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Sequence

import tyro

from expo_bench import options
from expo_bench.commands import agents, data, policies, results, sweep
from expo_bench.errors import Interrupted, UserError


def run_command(command: object, line: str) -> None:
    """Run one command; `line` is how it was given."""
    if isinstance(command, options.DataCommand):
        command = command.command
    match command:
        case options.Sweep():
            sweep.sweep(command, line)
        case options.Status():
            sweep.status(command)
        case options.Report():
            results.report(command)
        case options.Table():
            results.table(command)
        case options.Compare():
            results.compare_methods(command)
        case options.Export():
            results.export(command)
        case options.Import():
            results.import_curves(command, line)
        case options.ExportPolicy():
            policies.export_policy(command)
        case options.Eval():
            policies.evaluate(command)
        case options.Watch():
            policies.watch_episode(command)
        case options.List():
            agents.list_all(command)
        case options.NewAgent():
            agents.new_agent(command)
        case options.Check():
            if not agents.check(command):
                sys.exit(1)
        case options.Inspect():
            data.inspect(command)
        case options.CheckData():
            data.check_data(command)
        case options.Fetch():
            data.fetch(command)
        case options.Generate():
            data.generate(command)
        case options.TrainDemonstrator():
            data.train_demonstrator(command)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. A wrong input is one line on stderr and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        command = tyro.cli(
            options.Command, prog="expo-bench", description="A JAX benchmark suite for RL with expressive policies.", args=argv
        )
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
