"""From an experiment to programs: expand the axes, group by static structure, stack the traced part.

A program is one compiled structure with its rows. Seeds and traced axes are rows of one program; another value of a static field is another
program. S rows.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from expo_bench import agents
from expo_bench.agents import expo
from expo_bench.config import fields, replace, traced_values
from expo_bench.errors import UserError, unknown
from expo_bench.protocol import Protocol
from expo_bench.protocol import validate as validate_protocol
from expo_bench.sweeps import search
from expo_bench.sweeps.experiment import Experiment, Method, Range


@dataclasses.dataclass(frozen=True)
class Row:
    """One training run: a seed under one set of traced values."""

    seed: int
    hyper: dict[str, float]  #    every traced field of the config
    labels: dict[str, Any]  #     the varied hyperparameters, "agent.field": value


@dataclasses.dataclass(frozen=True)
class Program:
    task: str
    agent: str  #  its name
    module: ModuleType  # its code, loaded once: a file that is edited meanwhile changes nothing
    variant: str
    config: Any
    protocol: Protocol
    rows: tuple[Row, ...]

    @property
    def label(self) -> str:
        cell = {k: v for k, v in self.rows[0].labels.items() if all(r.labels[k] == v for r in self.rows)} if len(self.rows) else {}
        varied = " ".join(f"{k.partition('.')[2]}={v}" for k, v in cell.items())
        return " ".join(filter(None, (self.agent, f"({self.variant})" if self.variant else "", varied)))


def programs(experiment: Experiment, suites: dict[str, str | None], has_dataset: bool = True) -> list[Program]:
    """The programs of an experiment, in the order task, method, static cell. `suites` names the suite of each task (its presets)."""
    modules = {agent: agents.load(agent) for agent in {*agents.AGENTS, *(m.agent for m in experiment.all_methods())}}
    every_field = {name for module in modules.values() for name in fields(module.Config)}
    for name in experiment.config:
        if name not in every_field:
            raise unknown(f"config field of experiment {experiment.name!r} (no agent has it)", name, every_field)
    result = []
    for task in experiment.tasks:
        for method in experiment.all_methods():
            result += _of_method(experiment, task, method, modules[method.agent], suites.get(task), has_dataset)
    return result


def _of_method(
    experiment: Experiment, task: str, method: Method, module: ModuleType, suite: str | None, has_dataset: bool
) -> list[Program]:
    where = f"{task}, agent {method.name!r}"
    preset = module.SUITES.get(suite, {}) if suite else {}
    config = replace(module.Config(), where, **preset.get("config", {}))
    shared = {name: value for name, value in experiment.config.items() if name in fields(config)}
    config = replace(config, where, **{**shared, **method.config})
    protocol = _protocol(experiment, method, module, suite, where)
    validate_protocol(protocol, where, has_dataset=has_dataset)

    axes = {axis: values for axis, values in experiment.vary.items() if axis.partition(".")[0] == method.name}
    by_structure: dict[Any, list[Row]] = {}
    seen: list[dict[str, Any]] = []
    for cell in _cells(axes, experiment, fields(config), where):
        values = {axis.partition(".")[2]: value for axis, value in cell.items()}
        varied = replace(config, where, **values)
        if hasattr(module, "validate"):
            module.validate(varied, where)
        if hasattr(module, "validate_batch"):
            module.validate_batch(varied, protocol, where)
        labels = {axis: getattr(varied, axis.partition(".")[2]) for axis in axes}
        if labels in seen:  # "0.1" and "0.10"
            raise UserError(f"{where}: two cells of vary are the same: {labels}")
        seen.append(labels)
        hyper = {name: float(value) for name, value in traced_values(varied).items()}
        structure = dataclasses.replace(varied, **traced_values(config))
        rows = [Row(experiment.first_seed + s, hyper, labels) for s in range(experiment.seeds)]
        by_structure.setdefault(structure, []).extend(rows)
    return [
        Program(task, method.name, module, method.variant, structure, protocol, tuple(rows)) for structure, rows in by_structure.items()
    ]


def _cells(axes: Mapping[str, Any], experiment: Experiment, known: Mapping[str, dataclasses.Field], where: str) -> Iterator[dict[str, Any]]:
    """The cells of a method: lists of values multiply, with each other and with the points that a search draws from the ranges together."""
    ranges = {axis: values for axis, values in axes.items() if isinstance(values, Range)}
    for axis in ranges:
        field = known.get(axis.partition(".")[2])
        if field is not None and field.metadata["kind"] != "traced":
            raise UserError(f"{where}: {field.name} shapes the program; expected values such as {axis}=8,16 instead of a range")
    points = search.points(ranges, experiment.search.samples) if ranges else [{}]
    lists = {axis: values for axis, values in axes.items() if axis not in ranges}
    for values in itertools.product(*lists.values()):
        for point in points:
            chosen = {**dict(zip(lists, values, strict=True)), **point}
            yield {axis: chosen[axis] for axis in axes}


def _protocol(experiment: Experiment, method: Method, own: ModuleType, suite: str | None, where: str) -> Protocol:
    """The agent's own protocol, or EXPO's for all under "equal"; then the experiment's overrides, then the method's."""
    of = own if experiment.comparison == "released" else expo
    preset = of.SUITES.get(suite, {}) if suite else {}
    protocol = replace(of.PROTOCOL, f"{where}, protocol", **preset.get("protocol", {}))
    overrides = {**experiment.protocol, **method.protocol}
    if own.PROTOCOL.offline_steps == 0 and "offline_steps" not in method.protocol:
        overrides["offline_steps"] = 0  # an agent without an offline phase has none under any protocol
    if own.PROTOCOL.warmup_steps == 0 and experiment.comparison == "released" and "warmup_steps" not in method.protocol:
        overrides["warmup_steps"] = 0  # a shared override shortens a warm-up, it gives nobody one
    return replace(protocol, f"{where}, protocol", **overrides)


def differences(all_programs: list[Program]) -> dict[str, dict[str, Any]]:
    """The protocol of every method as a flat dict, keyed task/agent/variant."""
    return {f"{p.task}/{p.agent}/{p.variant}": dataclasses.asdict(p.protocol) for p in all_programs}
