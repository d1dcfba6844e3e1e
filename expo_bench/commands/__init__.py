"""What the commands of `expo-bench` do, a module for each kind; each imports its heavy parts when it runs."""

from __future__ import annotations

from collections.abc import Sequence

from expo_bench.errors import UserError


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
