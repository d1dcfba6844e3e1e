"""Where in an agent's own file to look: the line of a function, the last line of a traceback that lies in the file."""

from __future__ import annotations

from typing import Any

from expo_bench import userfile
from expo_bench.agents.base import Agent
from expo_bench.agents.files import Source
from expo_bench.conformance.stages import Problem

NEEDS_NUMBER = "a traced value stands where Python needs a number (a size, float(), numpy): use jax.numpy, or mark its field static()"
KEPT = "a value of one call was kept for the next (in a global, in a list outside): return it instead"
HINTS = {  # by the name of JAX's error
    "TracerBoolConversionError": "a traced value decides a Python `if`: use jnp.where, or mark its field static()",
    "ConcretizationTypeError": NEEDS_NUMBER,
    "TracerIntegerConversionError": NEEDS_NUMBER,
    "TracerArrayConversionError": f"{NEEDS_NUMBER}; or {KEPT}",
    "UnexpectedTracerError": KEPT,
}


class Guide:
    """Speaks of `source`; `agent`, once it is made, says which of its functions is which."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.agent: Agent | None = None

    def problem(self, problem: Problem) -> str:
        return f"{problem.text}; see {self.place(problem.function)}"

    def error(self, error: BaseException, function: str) -> str:
        """An exception in terms of the file; `function` is what ran, for one that never came by the file."""
        name = type(error).__name__
        text = HINTS.get(name) or userfile.one_line(str(error).strip().partition("\n\n")[0], 250)
        inside = [(line, who) for path, line, who in userfile.frames(error.__traceback__) if path == str(self.source.path)]
        place = self._at(*inside[-1]) if inside else self.place(function)
        return f"{name}: {text}; see {place}"

    def place(self, function: str) -> str:
        """The definition of one of the agent's functions, or where the file names it, or `make`."""
        for name in (function, *({"learn": ("pretrain",)}.get(function, ()))):  # `learn` is often made of `pretrain`
            code = getattr(_plain(getattr(self.agent, name, None)), "__code__", None)
            if code is not None and code.co_filename == str(self.source.path):
                return self._at(code.co_firstlineno, name)
        lines = self.source.lines()
        name = next((n for n in (function, f"make.{function}", "make") if n in lines), None)
        return self._at(lines[name], name.removeprefix("make.")) if name else self.source.path.name

    def _at(self, line: int, function: str) -> str:
        return f"{function} in {self.source.path.name}, line {line}{userfile.excerpt(self.source.content, line)}"


def _plain(function: Any) -> Any:
    """A function without functools.partial, jax.jit and the like around it."""
    while inner := getattr(function, "__wrapped__", None) or getattr(function, "func", None):
        function = inner
    return function
