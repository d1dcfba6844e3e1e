"""An experiment is a value: which tasks, which methods, which seeds, what varies. Needs no jax."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expo_bench import agents, userfile
from expo_bench.errors import UserError

KIND = "experiment file"
REWARDS = ("task", "recorded")
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Method:
    """An agent under a name of its own: `variant` tells two settings of one agent apart in tables and plots."""

    agent: str  #         a name, or the path of an agent file, from the working directory
    variant: str = ""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #    fields of the agent's config
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #  fields of the protocol

    @property
    def name(self) -> str:
        """What the agent is called in results and axes."""
        return agents.name_of(self.agent)


@dataclasses.dataclass(frozen=True)
class Range:
    """An axis from which a search draws: uniform from low to high, or uniform in the logarithm."""

    low: float
    high: float
    log: bool = False


@dataclasses.dataclass(frozen=True)
class Search:
    """Choose the values of the ranges in `vary` first, on seeds of their own; then run the experiment with what was chosen on other seeds."""

    samples: int = 16  #        points per agent, the same for all tasks
    seeds: int = 3  #           to choose with: first_seed and the next; the experiment's own come after them
    method: str = "sobol"  #    a scrambled Sobol sequence


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a sweep runs: every task x method x cell of `vary` x seed."""

    name: str
    tasks: Sequence[str]
    methods: Sequence[Method | str]
    seeds: int = 5
    first_seed: int = 0
    vary: Mapping[str, Sequence[Any] | Range] = dataclasses.field(default_factory=dict)  # "expo.edit_scale": (0.05, 0.1); axes multiply
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #             overrides for every agent that has the field
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #           overrides for every agent
    comparison: str = "released"  #     each agent under its authors' protocol, or "equal": all under EXPO's
    dataset: str | None = None  #       a data file; None: the task's own demonstrations
    rewards: str = "task"  #            of the data: the task's own, or with ends and successes as "recorded"
    engine: str = "auto"  #             "mjx", "mujoco" or "auto"
    precision: str = "float32"  #       of the operands of matrix products, physics apart: float32, tensorfloat32 or bfloat16
    denoiser_precision: str | None = None  # of those of the base policy; None: as `precision`
    block_rows: int | None = None  #    rows per program and device; None: all rows spread evenly over the devices
    search: Search | None = None  #     where `vary` has ranges

    def all_methods(self) -> list[Method]:
        return [Method(m) if isinstance(m, str) else m for m in self.methods]

    def methods_of(self, names: Sequence[str]) -> list[Method]:
        """The methods of the named agents as this experiment sets them, all variants of each; as they are, where it has none of them."""
        own = self.all_methods()
        return [method for name in names for method in ([m for m in own if m.agent == name] or [Method(name)])]


def validate(experiment: Experiment) -> None:
    """One clear line for what can be seen to be wrong without building anything."""

    def need(condition: bool, message: str) -> None:
        if not condition:
            raise UserError(f"experiment {experiment.name!r}: {message}")

    need(experiment.name not in ("", ".", "..") and not set(experiment.name) & set("/\\\0"), "the name must be that of a folder")
    need(bool(experiment.tasks), "no tasks")
    need(bool(experiment.methods), "no agents")
    need(experiment.seeds >= 1, f"seeds must be at least 1, got {experiment.seeds}")
    need(experiment.first_seed >= 0, f"first_seed must not be negative, got {experiment.first_seed}")
    choosing = experiment.search.seeds if experiment.search else 0
    need(
        experiment.first_seed + choosing + experiment.seeds <= 2**31, f"seeds must stay below 2**31, got first_seed {experiment.first_seed}"
    )
    need(experiment.comparison in ("released", "equal"), f"comparison must be 'released' or 'equal', got {experiment.comparison!r}")
    need(experiment.rewards in REWARDS, f"rewards must be 'task' or 'recorded', got {experiment.rewards!r}")
    need(experiment.rewards == "task" or experiment.dataset != "none", "recorded rewards need a dataset, got dataset 'none'")
    need(experiment.engine in ("auto", "mjx", "mujoco"), f"engine must be 'auto', 'mjx' or 'mujoco', got {experiment.engine!r}")
    for name in ("precision", "denoiser_precision"):
        value = getattr(experiment, name) or experiment.precision
        need(value in PRECISIONS, f"{name} must be one of {', '.join(PRECISIONS)}, got {value!r}")
    need(experiment.block_rows is None or experiment.block_rows >= 1, f"block_rows must be at least 1, got {experiment.block_rows}")
    files: dict[str, str] = {}
    for method in experiment.all_methods():
        other = files.setdefault(method.name, method.agent)
        need(
            other == method.agent,
            f"the agents {other} and {method.agent} have one name, {method.name!r}; expected a name of its own for each",
        )
    labels = [(m.name, m.variant) for m in experiment.all_methods()]
    need(len(set(labels)) == len(labels), f"two methods have the same agent and variant: {labels}")
    need(len(set(experiment.tasks)) == len(experiment.tasks), f"a task is named twice: {list(experiment.tasks)}")
    names = {m.name for m in experiment.all_methods()}
    for axis, values in experiment.vary.items():
        agent, dot, field = axis.partition(".")
        need(bool(dot and field), f"an axis is written agent.field, got {axis!r}")
        need(agent in names, f"axis {axis!r} names an agent that does not run (running: {', '.join(sorted(names))})")
        if isinstance(values, Range):
            need(experiment.search is not None, f"axis {axis!r} is a range: name a search (--search sobol --samples 64)")
            need(values.low < values.high, f"axis {axis!r}: expected a range from low to high, got {values.low:g} to {values.high:g}")
            need(not values.log or values.low > 0, f"axis {axis!r}: a logarithmic range must begin above 0, got {values.low:g}")
            continue
        need(len(values) > 0, f"axis {axis!r} has no values")
        need(len(set(values)) == len(values), f"axis {axis!r} has a value twice: {list(values)}")

    if (search := experiment.search) is not None:
        need(search.method == "sobol", f"search must be 'sobol', got {search.method!r}")
        need(search.samples >= 2, f"samples must be at least 2, got {search.samples}")
        need(search.seeds >= 1, f"search_seeds must be at least 1, got {search.seeds}")
        need(any(isinstance(v, Range) for v in experiment.vary.values()), "a search needs a range: --vary expo.critic_lr=log(1e-5,1e-3)")


def load(path: str | Path) -> Experiment:
    """The `EXPERIMENT` that a Python file defines."""
    path = Path(path)
    module = userfile.run(path, userfile.read(path, KIND), KIND)
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{KIND} {path}: expected EXPERIMENT = Experiment(...), found {type(experiment).__name__}")
    return experiment
