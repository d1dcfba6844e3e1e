"""An algorithm in a file of one's own, and what such a file has to define. Needs no jax (the file itself imports it)."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from expo_bench import agents, userfile
from expo_bench.config import fields, replace
from expo_bench.errors import UserError
from expo_bench.protocol import Protocol
from expo_bench.protocol import validate as validate_protocol

KIND = "agent file"
KINDS = {  # of fields: the types of their defaults
    "static": ((bool, int, float, str, tuple), "a bool, int, float, str or tuple of widths"),
    "traced": ((int, float), "a number"),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """The file of an algorithm as it was read."""

    path: Path
    content: bytes

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def lines(self) -> dict[str, int]:
        """Where the names of the file are defined: "Config", "Config.lr", "make.init", of one definition or assignment each."""
        return dict(_definitions(ast.parse(self.content), ""))

    def at(self, name: str) -> str:
        """ "line 12: `class Config:`: " of a name in the file; "" where it has none."""
        line = self.lines().get(name)
        return "" if line is None else f"line {line}{userfile.excerpt(self.content, line)}: "


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield prefix + child.name, child.lineno
            yield from _definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            yield from ((prefix + target.id, child.lineno) for target in targets if isinstance(target, ast.Name))


def load(agent: str) -> ModuleType:
    """The module that an agent file defines, or UserError with one line: the file, its line, what was found and what was expected."""
    module = read(agent)
    for problem in problems(module):
        raise UserError(f"{KIND} {Path(agent)}: {problem}")
    return module


def read(agent: str) -> ModuleType:
    """The module that the file defines, whatever it holds."""
    path = Path(agent)
    content = userfile.read(path, KIND)
    check_name(path)
    module = userfile.run_once(path, content, KIND)
    module.__dict__.setdefault("SUITES", {})
    module.__dict__["__source__"] = Source(path, content)
    return module


def check_name(path: Path) -> None:
    """Refuse a file whose stem cannot be an agent's name."""
    if path.suffix != ".py":
        raise UserError(f"{KIND} {path}: expected a Python file (.py)")
    if not re.fullmatch(r"[A-Za-z_][\w-]*", path.stem, re.ASCII):
        raise UserError(f"{KIND} {path}: its name becomes the agent's; expected letters, digits, _ and -, got {path.stem!r}")
    if path.stem in agents.AGENTS:
        raise UserError(f"{KIND} {path}: {path.stem!r} is the name of a shipped agent; expected a name of its own")


def write_template(path: Path) -> None:
    """Write an algorithm to start from (template.py in this folder). Raises UserError where there is a file already, or no folder for it."""
    check_name(path)
    content = Path(__file__).with_name("template.py").read_bytes()
    try:
        with open(path, "xb") as file:
            file.write(content)
    except FileExistsError:
        raise UserError(f"{KIND} {path}: exists; name a new file (nothing is ever overwritten)") from None
    except OSError as error:
        raise UserError(f"{KIND} {path}: cannot be written: {error.strerror}") from None


def own(module: ModuleType) -> Source | None:
    """The source of an agent file; None for a shipped agent."""
    return module.__dict__.get("__source__")


def source(module: ModuleType) -> Source:
    """The source of any agent."""
    path = Path(module.__file__)
    return own(module) or Source(path, path.read_bytes())


def problems(module: ModuleType) -> Iterator[str]:
    """What the module of an algorithm lacks, each on one line with the line of the file, the most basic first."""
    of = source(module)
    if not hasattr(module, "Config"):
        yield "defines no Config; expected a frozen dataclass of static() and traced() fields (expo_bench.config)"
    else:
        yield from _config_problems(module, of)
    if not hasattr(module, "make"):
        yield "defines no make; expected make(config, spec) -> Agent (expo_bench.agents.base)"
    elif not _takes_two(module.make):
        yield f"{of.at('make')}expected a function make(config, spec)"
    if not hasattr(module, "PROTOCOL"):
        yield "defines no PROTOCOL; expected PROTOCOL = Protocol(...) (expo_bench.protocol)"
    elif not isinstance(module.PROTOCOL, Protocol):
        yield f"{of.at('PROTOCOL')}expected a Protocol(...) (expo_bench.protocol), found {type(module.PROTOCOL).__name__}"
    else:
        yield from _refusals(of, "PROTOCOL", lambda: validate_protocol(module.PROTOCOL, "PROTOCOL", has_dataset=True))


def _config_problems(module: ModuleType, of: Source) -> Iterator[str]:
    config = module.Config
    if not (isinstance(config, type) and dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen):
        yield f"{of.at('Config')}expected a frozen dataclass: @dataclasses.dataclass(frozen=True)"
        return
    unmarked = [name for name, field in fields(config).items() if field.metadata.get("kind") not in KINDS]
    for name in unmarked:
        yield f'{of.at(f"Config.{name}")}the field {name} is not marked; expected static(VALUE, "help") or traced(VALUE, "help")'
    if unmarked:
        return
    for name, field in fields(config).items():
        types, expected = KINDS[field.metadata["kind"]]
        if type(field.default) not in types:
            yield f"{of.at(f'Config.{name}')}expected {expected} as default of {name}, found {field.default!r}"
        else:
            yield from _refusals(of, f"Config.{name}", lambda n=name, v=field.default: replace(config(), "Config", **{n: v}))
    if hasattr(module, "validate"):
        yield from _refusals(of, "validate", lambda: module.validate(config(), "Config()"))
    for suite, preset in module.SUITES.items():
        where = f"SUITES[{suite!r}]"
        yield from _refusals(of, "SUITES", lambda p=preset, w=where: replace(config(), w, **p.get("config", {})))
        yield from _refusals(of, "SUITES", lambda p=preset, w=where: replace(Protocol(), w, **p.get("protocol", {})))


def _refusals(of: Source, name: str, attempt: Callable[[], object]) -> Iterator[str]:
    """The refusal of what the file itself gives, at the line of `name`."""
    try:
        attempt()
    except Exception as error:
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        yield f"{of.at(name)}{userfile.one_line(text)}"


def _takes_two(function: object) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True
