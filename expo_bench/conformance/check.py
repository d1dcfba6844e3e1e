"""`expo-bench check`: every conformance test of one agent, in order of their cost, in terms of its own file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from types import ModuleType
from typing import Any, NamedTuple

import jax

from expo_bench import agents
from expo_bench.agents import files
from expo_bench.config import fields, traced_values
from expo_bench.conformance import life, probes, rules, speed
from expo_bench.conformance.cases import SMALL, Case, case_of, config_of
from expo_bench.conformance.explain import Guide
from expo_bench.conformance.stages import STAGES, Problem, Stages, Traced
from expo_bench.errors import UserError

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"
REFERENCE = "expo"  # whose update is timed beside the agent's


class Result(NamedTuple):
    name: str
    status: str  # OK, FAILED or SKIPPED
    text: str  #   what was seen; what is wrong and where to look; what is missing


class Test(NamedTuple):
    name: str
    needs: tuple[str, ...]  # tests that have to have passed
    run: Callable[[], str | list[Problem]]  # what was seen, or what is wrong
    function: str  # that is on trial


def check(agent: str) -> Iterator[Result]:
    """Test an agent, by name or by its file. Raises UserError for a name that is unknown and a file that cannot be run."""
    module = files.read(agent) if agents.is_file(agent) else agents.load(agent)
    checks = Checks(agents.name_of(agent), module)
    passed = set()
    for test in checks.tests():
        result = checks.result(test, passed)
        if result.status == OK:
            passed.add(test.name)
        yield result


class Checks:
    """The tests of one agent, and what they share."""

    def __init__(self, name: str, module: ModuleType) -> None:
        self.name, self.module = name, module
        self.guide = Guide(files.source(module))
        self.traced: dict[str, Traced] = {}  # by stage, those that could be traced

    def tests(self) -> Iterator[Test]:
        yield Test("config", (), self.config, "Config")
        yield Test("make", ("config",), self.make, "make")
        yield Test("init", ("make",), partial(self.stage, "init"), "init")
        for stage in STAGES[1:]:
            if stage != "base_act" or getattr(self.guide.agent, stage, None) is not None:
                yield Test(stage, ("init",), partial(self.stage, stage), stage)
        shaped = tuple(s for s in STAGES if s != "base_act")
        yield Test("pure", shaped, self.pure, "learn")
        yield Test("finite", shaped, self.finite, "learn")
        yield Test("actions", ("finite",), self.actions, "act")
        yield Test("learning", ("finite",), self.learning, "learn")
        yield Test("one program", ("finite",), self.one_program, "learn")
        yield Test("repeatable", ("finite",), self.repeatable, "learn")
        yield Test("rows", ("repeatable",), self.rows, "learn")
        yield Test("traced fields", ("repeatable",), self.traced_fields, "Config")
        if getattr(self.guide.agent, "value", None) is not None:
            yield from (Test(f"probe {p}", ("finite",), partial(self.probe, p), "learn") for p in probes.PROBES)
        else:
            yield Test("imitation", ("finite",), self.imitation, "pretrain")
        yield Test("time", ("finite",), self.time, "learn")

    def result(self, test: Test, passed: set[str]) -> Result:
        missing = [name for name in test.needs if name not in passed]
        if missing:
            return Result(test.name, SKIPPED, f"comes after {missing[0]}")
        try:
            seen = test.run()
        except UserError as error:
            return Result(test.name, FAILED, str(error))
        except Exception as error:
            return Result(test.name, FAILED, self.guide.error(error, test.function))
        if isinstance(seen, str):
            return Result(test.name, OK, seen)
        more = f" (and {len(seen) - 1} more)" if len(seen) > 1 else ""
        return Result(test.name, FAILED, self.guide.problem(seen[0]) + more)

    # -- of the file: nothing runs -----------------------------------------------------------------------------------------------------

    def config(self) -> str | list[Problem]:
        for problem in files.problems(self.module):
            raise UserError(problem)
        case = getattr(self.module, "CHECK", Case())
        if not isinstance(case, Case):
            raise UserError(f"{self.guide.source.at('CHECK')}expected CHECK = Case(...) (expo_bench.conformance.cases)")
        config = self.module.Config()
        count = len(traced_values(config))
        return f"{len(fields(config)) - count} static and {count} traced fields, PROTOCOL, make"

    def make(self) -> str | list[Problem]:
        made = self.module.make(self.small, life.SPEC)
        found = rules.agent(made)
        if not found:
            self.guide.agent = made
        return found or f"an Agent with {', '.join(s for s in STAGES if getattr(made, s) is not None)}"

    def stage(self, stage: str) -> str | list[Problem]:
        if getattr(self.guide.agent, stage) is None:
            return "none"
        traced = self.traced[stage] = self.stages.trace(stage)
        if stage == "init":
            self.stages.state = traced.out
        return rules.returned(stage, traced, self.stages.state) or _seen(stage, traced.out)

    def pure(self) -> str | list[Problem]:
        found = [p for stage, traced in self.traced.items() for p in rules.same_program(stage, traced, self.stages.trace(stage))]
        return found or "traced twice, every function is the same program"

    # -- a step of each kind -----------------------------------------------------------------------------------------------------------

    def finite(self) -> str | list[Problem]:
        alone = self.alone
        return rules.finite(alone.start, alone.first, alone.second) or "after two steps of each kind"

    def actions(self) -> str | list[Problem]:
        reach = f"[-1, 1] and {self.case.exceeds} beyond" if self.case.exceeds else "[-1, 1]"
        return rules.outputs(self.alone, self.case) or f"within {reach}, also at large observations"

    def learning(self) -> str | list[Problem]:
        return rules.moved(self.alone) or "the arrays of the state change"

    def one_program(self) -> str | list[Problem]:
        return rules.types(self.alone) or rules.one_trace(self.alone.traces) or "a second call compiles nothing"

    # -- a block of rows ---------------------------------------------------------------------------------------------------------------

    def repeatable(self) -> str | list[Problem]:
        return rules.repeats(self.block) or rules.one_trace(self.block.traces) or "the same key gives the same bits"

    def rows(self) -> str | list[Problem]:
        found = rules.neighbours(self.block) + rules.equals_alone(self.block, self.alone)
        return found or f"each of {len(self.block.names) + 1} rows is the run alone, whatever the others are"

    def traced_fields(self) -> str | list[Problem]:
        return rules.effects(self.block, self.case) or f"{', '.join(self.block.names) or 'none'}: each has its effect"

    # -- learning ----------------------------------------------------------------------------------------------------------------------

    def probe(self, name: str) -> str | list[Problem]:
        if name in self.case.exempt:
            return f"exempt: {self.case.exempt[name]}"
        answer = self.answers[name]
        found = probes.wrong_values(answer) + probes.wrong_actions(answer.actions)
        if found:
            return [found[0]._replace(text=f"{found[0].text} ({probes.MEANING[name]})"), *found[1:]]
        error = max(abs(a[3] - a[2]).max() for a in answer.values)
        actions = f", actions {max(a[2].max() for a in answer.actions):.2f} from the best" if answer.actions else ""
        return f"Q within {error:.3f} of the known values{actions}"

    def imitation(self) -> str | list[Problem]:
        actions = probes.imitation(self.module, self.case)
        return probes.wrong_actions(actions, probes.IMITATION_ERROR) or f"actions {max(a[2].max() for a in actions):.2f} from the data's"

    def time(self) -> str:
        t = speed.measure(self.module, agents.load(REFERENCE))
        rest = ", ".join(f"{name} {value}" for name, value in t.at_default.items())
        sizes = f"networks of 64, U {speed.SPEC.updates}, B {speed.SPEC.batch_size}{f'; as they are: {rest}' if rest else ''}"
        return f"{t.step} takes {t.own:.2f} ms, {t.own / t.reference:.2f} x EXPO's {t.reference:.2f} ms ({sizes})"

    # -- shared ------------------------------------------------------------------------------------------------------------------------

    @cached_property
    def case(self) -> Case:
        return case_of(self.name, self.module)

    @cached_property
    def small(self) -> Any:
        return config_of(self.module, SMALL, self.case.small)

    @cached_property
    def stages(self) -> Stages:
        return Stages(self.module, self.small)

    @cached_property
    def alone(self) -> life.Alone:
        return life.alone(self.module, self.small)

    @cached_property
    def block(self) -> life.Block:
        return life.block(self.module, self.small)

    @cached_property
    def answers(self) -> dict[str, probes.Answer]:
        return probes.answers(self.module, self.case)


def _seen(stage: str, out: Any) -> str:
    """What a stage returns, in a few words."""
    arrays = jax.tree.leaves(out)
    if stage == "init":
        return f"{len(arrays)} arrays of {sum(x.size for x in arrays):,} numbers, float32 and int32"
    if stage in ("pretrain", "learn"):
        return f"the state as it was; {', '.join(out[1]) or 'no metrics'}"
    return "a scalar" if stage == "value" else f"an action {list(arrays[0].shape)} of float32"
