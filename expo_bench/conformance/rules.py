"""Verdicts: what is wrong with what an agent's functions return, as a list of problems; an empty one is a pass.

Shape letters: B batch, A action.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from expo_bench.agents.base import Agent
from expo_bench.conformance.cases import Case
from expo_bench.conformance.life import Alone, Block
from expo_bench.conformance.stages import SPEC, Problem, Traced

TYPES = (np.dtype(np.float32), np.dtype(np.int32))


def agent(made: Any) -> list[Problem]:
    """`make` returns an Agent with what the loop calls."""
    if not isinstance(made, Agent):
        return [Problem("make", f"returns {_type(made)}; expected an Agent (expo_bench.agents.base)")]
    missing = [name for name in ("init", "draw_act", "act") if not callable(getattr(made, name))]
    found = [Problem("make", f"Agent.{name} is {_type(getattr(made, name))}; expected a function") for name in missing]
    for draw, step in (("draw_pretrain", "pretrain"), ("draw", "learn")):
        if (getattr(made, draw) is None) != (getattr(made, step) is None):
            found.append(Problem("make", f"of Agent.{draw} and Agent.{step} one is None; expected both or neither"))
    if made.pretrain is None and made.learn is None:
        found.append(Problem("make", "Agent.pretrain and Agent.learn are both None; expected a step that learns"))
    return found


# -- of shapes, traced or real -------------------------------------------------------------------------------------------------------------


def leaves(tree: Any) -> dict[str, Any]:
    """Every array of a pytree by its path."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def strong(state: Any, function: str) -> list[Problem]:
    """Arrays of float32 and int32, none weakly typed: a weakly typed scalar would compile everything twice."""
    found = [] if leaves(state) else [Problem(function, "returns a state without any array")]
    for path, leaf in leaves(state).items():
        if leaf.dtype not in TYPES:
            found.append(Problem(function, f"state{path} is {leaf.dtype}; expected float32 or int32"))
        elif leaf.weak_type:
            found.append(
                Problem(function, f"state{path} is a weakly typed {leaf.dtype} (made from a Python number); expected jnp.{leaf.dtype}(...)")
            )
    return found


def kept(start: Any, after: Any, function: str) -> list[Problem]:
    """The state keeps its structure, shapes and types."""
    before, now = leaves(start), leaves(after)
    for path in [p for p in (*before, *now) if p not in before or p not in now]:
        return [Problem(function, f"state{path} {'is gone' if path in before else 'is new'}; expected the structure that init returns")]
    if jax.tree.structure(start) != jax.tree.structure(after):
        return [Problem(function, f"the state is {_type(after)} with other parts; expected the structure that init returns")]
    show = lambda x: f"{x.dtype}{list(x.shape)}"
    changed = [p for p in before if show(before[p]) != show(now[p])]
    found = [Problem(function, f"state{p} becomes {show(now[p])}; expected {show(before[p])} as in init") for p in changed]
    return found or strong(after, function)


def scalars(metrics: Any, function: str, what: str) -> list[Problem]:
    """All of a dict are scalars of float32 or int32."""
    wrong = {name: x for name, x in metrics.items() if getattr(x, "shape", None) != () or x.dtype not in TYPES}
    return [Problem(function, f"{what} {name!r} is {_shape(x)}; expected a scalar of float32") for name, x in wrong.items()]


def returned(stage: str, traced: Traced, start: Any) -> list[Problem]:
    """What one stage returns has the right form. `start` is the state that init returns."""
    out = traced.out
    if stage == "init":
        return strong(out, stage)
    if stage in ("pretrain", "learn"):
        if not _is_pair(out):
            return [Problem(stage, f"returns {_type(out)}; expected (state, metrics), metrics a dict of scalars")]
        return kept(start, out[0], stage) or scalars(out[1], stage, "metric")
    if stage == "act":
        return next(filter(None, map(_acted, out)), [])
    shape = () if stage == "value" else (SPEC.action_size,)
    return [] if _is(out, shape) else [Problem(stage, f"returns {_shape(out)}; expected float32{list(shape)} for one observation")]


def _acted(out: Any) -> list[Problem]:
    if not _is_pair(out):
        return [Problem("act", f"returns {_type(out)}; expected (action, scalars), scalars a dict")]
    if not _is(out[0], (SPEC.action_size,)):
        return [
            Problem("act", f"the action is {_shape(out[0])}; expected float32[{SPEC.action_size}] for one observation [{SPEC.obs_size}]")
        ]
    return scalars(out[1], "act", "scalar")


def _is_pair(out: Any) -> bool:
    return type(out) is tuple and len(out) == 2 and isinstance(out[1], dict)


def _is(x: Any, shape: tuple[int, ...]) -> bool:
    return getattr(x, "shape", None) == shape and x.dtype == np.float32


def _shape(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else _type(x)


def _type(x: Any) -> str:
    return f"({', '.join(type(part).__name__ for part in x)})" if type(x) is tuple else f"a {type(x).__name__}"


def same_program(stage: str, one: Traced, other: Traced) -> list[Problem]:
    """Traced twice, a pure function is the same program: no Python or numpy randomness, clock, or state kept in a global."""
    equal = one.program == other.program and len(one.constants) == len(other.constants)
    if equal and all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(one.constants, other.constants, strict=True)):
        return []
    why = "a number from random, numpy.random or the clock, or something kept in a global, is in it"
    return [Problem(stage, f"is another program when it is traced again: {why}; expected a function of its arguments")]


# -- of lives ------------------------------------------------------------------------------------------------------------------------------


def steps(first: tuple) -> dict[str, Any]:
    """What the stages of a life returned, in the order in which they ran."""
    state, out = first
    learnt = {"learn": (state, out["learn"])} if "learn" in out else {}
    pretrained = {"pretrain": (out["pretrained"], out["pretrain"])} if "pretrain" in out else {}
    acted = {"act": {name: x for name, x in out.items() if name.startswith(("act", "estimates"))}}
    return {**pretrained, **learnt, **acted, **({"value": out["value"]} if "value" in out else {})}


def finite(start: Any, *lives: tuple) -> list[Problem]:
    """Nothing is NaN or infinite; the first stage that returned such a number is named."""
    for stage, tree in [("init", start), *(item for life in lives for item in steps(life).items())]:
        wrong = [path for path, x in leaves(tree).items() if not np.all(np.isfinite(x))]
        if wrong:
            return [Problem(stage, f"returns NaN or infinity in {_some(wrong)}")]
    return []


def types(alone: Alone) -> list[Problem]:
    """The state of a life, before and after every step."""
    after = (alone.first[1].get("pretrained", alone.start), alone.first[0], alone.second[0])
    return strong(alone.start, "init") + [p for state in after for p in kept(alone.start, state, "learn")]


def one_trace(traces: list[int]) -> list[Problem]:
    """The same program ran at every call."""
    return [] if len(traces) == 1 else [Problem("learn", f"{len(traces)} programs for calls with the same shapes and types; expected 1")]


def outputs(alone: Alone, case: Case) -> list[Problem]:
    """Actions [B, A] in float32, within [-1, 1] or what the agent may add to it; metrics, estimates and values are scalars."""
    out, reach = alone.first[1], 1 + (getattr(alone.config, case.exceeds) if case.exceeds else 0.0)
    found = []
    for explore in (True, False):
        action = out.get(f"act {explore}")
        if action is None:
            continue
        if action.shape != (SPEC.batch_size, SPEC.action_size) or action.dtype != np.float32:
            found.append(Problem("act", f"actions are {_shape(action)}"))
        elif np.max(np.abs(action)) > reach + 1e-6:
            worst = float(action.ravel()[np.argmax(np.abs(action))])
            found.append(
                Problem("act", f"an action of {worst:.3g} with explore={explore}; expected at most {reach:g} (jnp.clip or jnp.tanh)")
            )
        per_state = {name: x[0] for name, x in out[f"estimates {explore}"].items()}
        found += scalars(per_state, "act", "scalar")
    for stage in ("pretrain", "learn"):
        found += scalars(out.get(stage, {}), stage, "metric")
    return found + scalars({"value": out.get("value", np.float32(0))}, "value", "estimate")


def moved(alone: Alone) -> list[Problem]:
    """Nearly every array of the state: one that comes out as it went in means that a step was dropped."""
    before, after = leaves(alone.start), leaves(alone.first[0])
    still = [path for path in before if np.array_equal(before[path], after[path])]
    if len(still) < 0.1 * len(before):
        return []
    which = "learn" if "learn" in alone.first[1] else "pretrain"
    return [
        Problem(
            which, f"{len(still)} of {len(before)} arrays of the state come out as they went in: {_some(still)}; expected most to be learnt"
        )
    ]


def repeats(block: Block) -> list[Problem]:
    """The same call gives the same bits."""
    for stage, tree in steps(block.first).items():
        other = leaves(steps(block.again)[stage])
        wrong = [path for path, x in leaves(tree).items() if not np.array_equal(x, other[path])]
        if wrong:
            return [
                Problem(stage, f"the same arguments give another result in {_some(wrong)} (a callback to Python?); expected the same bits")
            ]
    return []


def neighbours(block: Block) -> list[Problem]:
    """Row 0 is bitwise the same whatever the other rows are, and the other rows do change."""
    for stage, tree in steps(block.first).items():
        other = leaves(steps(block.elsewhere)[stage])
        wrong = [path for path, x in leaves(tree).items() if not np.array_equal(x[0], other[path][0])]
        if wrong:
            return [Problem(stage, f"a row changes with the rows beside it in {_some(wrong)}; expected rows that do not see each other")]
    pairs = list(zip(jax.tree.leaves(block.first), jax.tree.leaves(block.elsewhere), strict=True))
    same = [i for i in range(1, len(block.names) + 1) if all(np.array_equal(a[i], b[i]) for a, b in pairs)]
    return [Problem("draw", f"row {i} does not change with its key and hyperparameters") for i in same]


def equals_alone(block: Block, alone: Alone) -> list[Problem]:
    """A row is the run alone to float tolerance, its hyperparameters as arguments, not constants: the order of sums changes with the shape."""
    for stage, tree in steps(block.first).items():
        other = leaves(steps(alone.first)[stage])
        pairs = {path: (np.asarray(x)[0], np.asarray(other[path])) for path, x in leaves(tree).items()}
        wrong = [path for path, (a, b) in pairs.items() if not np.allclose(a, b, rtol=1e-3, atol=2e-5)]
        if wrong:
            a, b = pairs[wrong[0]]
            text = f"a row of a vmapped block is not the run alone: {_some(wrong)} differ by up to {np.max(np.abs(a - b)):.2g}"
            return [Problem(stage, text)]
    return []


def effects(block: Block, case: Case) -> list[Problem]:
    """Every traced field changes something that comes out, but for those that do nothing by design, which do not change what is learnt."""

    def without(tree: Any) -> set[str]:
        arrays = [np.asarray(x) for x in jax.tree.leaves(tree)]
        return {name for i, name in enumerate(block.names) if all(np.array_equal(x[0], x[i + 1]) for x in arrays)}

    idle = sorted(without(block.first) - case.inert)
    awake = sorted(case.inert - without(block.first[0]))
    found = [
        Problem(f"Config.{n}", f"the traced field {n} has no effect; expected one, or CHECK = Case(inert=frozenset({{{n!r}}}))")
        for n in idle
    ]
    return found + [Problem(f"Config.{n}", f"the field {n} is said to be inert, but changes what is learnt") for n in awake]


def _some(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
