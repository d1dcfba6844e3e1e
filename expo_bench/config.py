"""How a hyperparameter says whether it is structure or a number. Needs no jax.

A `static` field shapes the program (sizes, counts, rules): another value is another program. A `traced` field is a number that the program
takes as an argument: its values join the seeds in one program. The one-line help of each becomes the command line's. A `fixed` field is what
makes an algorithm this one and not the one that it is a setting of: nothing overrides it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

from expo_bench.errors import UserError, unknown

C = TypeVar("C")


def static(default: Any, help: str, *, least: float | None = None, below: float | None = None) -> Any:
    """A field of structure: part of the program's identity. Numbers lie in [least, below); a whole number is at least 1 unless it says else."""
    least = 1 if least is None and type(default) is int else least
    return dataclasses.field(default=default, metadata={"kind": "static", "help": help, "least": least, "below": below})


def traced(default: float | None, help: str) -> Any:
    """A field of number, never negative: an argument of the program, stacked over the rows of a sweep as strong float32."""
    return dataclasses.field(default=default, metadata={"kind": "traced", "help": help, "least": 0})


def fixed(default: Any, help: str) -> Any:
    """A field of the parent algorithm whose value defines this one."""
    return dataclasses.field(default=default, metadata={"kind": "fixed", "help": help})


def fields(config: Any) -> dict[str, dataclasses.Field]:
    """The fields that can be set, by name."""
    return {f.name: f for f in dataclasses.fields(config) if f.metadata.get("kind") != "fixed"}


def traced_values(config: Any) -> dict[str, float]:
    """The traced fields of a config by name."""
    return {n: getattr(config, n) for n, f in fields(config).items() if f.metadata.get("kind") == "traced"}


def replace(config: C, where: str, **values: Any) -> C:
    """`config` with other values; each is parsed to its field's type. `where` names the config in an error, e.g. "agent 'expo'"."""
    known = fields(config)
    parsed = {}
    for name, value in values.items():
        if name not in known:
            raise unknown(f"field of {where}", name, known)
        parsed[name] = _in_range(
            _parse(value, getattr(config, name), known[name], f"{where}: {name}"), known[name], f"{where}: {name}", value
        )
    return dataclasses.replace(config, **parsed)


def _parse(value: Any, default: Any, field: dataclasses.Field, where: str) -> Any:
    """Parse a command-line string (or check a Python value) against the type of the field's default."""
    kind = float if field.metadata.get("kind") == "traced" else type(default)
    expected = "widths such as 256x256" if kind is tuple else kind.__name__
    if isinstance(value, str) and kind is not str:
        try:
            if kind is bool:
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
            if kind is tuple:
                return tuple(int(v) for v in value.replace("x", " ").split())
            if kind is int:
                return int(float(value)) if float(value).is_integer() else int(value)
            return kind(value)
        except (ValueError, KeyError):
            raise UserError(f"{where}: expected {expected}, got {value!r}") from None
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise UserError(f"{where}: expected {expected}, got {value!r}")
    return float(value) if kind is float else value


def _in_range(value: Any, field: dataclasses.Field, where: str, given: Any) -> Any:
    """`value` if a program can be built of it: widths of layers at least 1, numbers finite and no less than the field allows."""
    if isinstance(value, tuple) and not (value and all(type(v) is int and v >= 1 for v in value)):
        raise UserError(f"{where}: expected widths of at least 1 such as 256x256, got {given!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: expected a finite number, got {given!r}")
    least, below = field.metadata.get("least"), field.metadata.get("below")
    if below is not None and value >= below:
        raise UserError(f"{where} must be below {below}, got {value}")
    if least is not None and value < least:
        raise UserError(f"{where} must be at least {least}, got {value}")
    return value
