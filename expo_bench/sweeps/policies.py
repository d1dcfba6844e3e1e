"""Trained agents: of every training run of a sweep the last one and the best so far, and one of them in a file of its own.

    RUN/policies/000-push-disc-expo-00000.npz   the first wave of a program: arrays [rows, ...], the last ones and the best ones
    policy.npz                                  what `expo-bench export-policy` makes of one row of it

Only those arrays of an agent's state are kept that acting and its Q estimates depend on: no optimisers, and of a base policy whose EMA acts, the EMA
alone. Both files are plain numpy archives; what they are is said in the JSON object `about`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from expo_bench.agents import files
from expo_bench.agents.base import Spec
from expo_bench.config import fields
from expo_bench.errors import UserError
from expo_bench.sweeps import distributed, results
from expo_bench.sweeps.grid import Program
from expo_bench.sweeps.schedule import Evaluation

FOLDER = "policies"
WHICH = ("best", "last")


def acting_leaves(program: Program, spec: Spec) -> list[bool]:
    """Which leaves of the agent's state its evaluation depends on."""

    def estimates(state: Any, obs: jax.Array, key: jax.Array) -> Any:
        agent = program.module.make(program.config, spec)
        action, extras = agent.act(state, obs, agent.draw_act(key, False), explore=False)
        return action, extras, agent.value(state, obs, action) if agent.value else ()

    key = jax.random.key(0)
    state = jax.eval_shape(program.module.make(program.config, spec).init, key)
    jaxpr = jax.make_jaxpr(estimates)(state, jax.ShapeDtypeStruct((spec.obs_size,), np.float32), key).jaxpr
    used = {id(v) for equation in jaxpr.eqns for v in equation.invars} | {id(v) for v in jaxpr.outvars}
    return [id(v) in used for v in jaxpr.invars[: len(jax.tree.leaves(state))]]


def about(program: Program, spec: Spec, engine: str, code: str) -> dict[str, Any]:
    """What is known of a program's agents, as JSON values. `code` is the manifest's digest of the code that trained them."""
    own = files.own(program.module)
    return {
        "format": 1,
        "task": program.task,
        "engine": engine,
        "agent": program.agent,
        "agent_sha256": own.digest if own else None,
        "variant": program.variant,
        "config": {name: getattr(program.config, name) for name in fields(program.config)},
        "obs_size": spec.obs_size,
        "action_size": spec.action_size // program.protocol.chunk,
        "chunk": program.protocol.chunk,
        "reward_scale": program.protocol.reward_scale,
        "reward_shift": program.protocol.reward_shift,
        "versions": results.versions(),
        "code_sha256": code,
    }


class Keeper:
    """Of every row of a wave the last agent and the best one so far: of highest score, the first of equals. A diverged agent is not kept."""

    def __init__(self, folder: Path, name: str, known: Mapping[str, Any], used: Sequence[bool]) -> None:
        self.folder, self.name, self.known, self.used = folder / FOLDER, name, dict(known), list(used)

    def begin(self, first: int, rows: Sequence[Any]) -> None:
        """Rows `first` and following become the wave; what a process that was killed kept of them is gone on with."""
        self.path = self.folder / f"{self.name}-{first:05}.npz"
        wave = [{"seed": row.seed, "labels": row.labels, "hyper": row.hyper} for row in rows]
        self.about = {**self.known, "rows": wave}
        self.kept: dict[str, np.ndarray] = {}
        if self.path.exists():
            old, arrays = read(self.path)
            if old.get("rows") == json.loads(json.dumps(wave)):
                self.kept = arrays

    def see(self, agent: Any, at: Evaluation, score: np.ndarray, diverged: np.ndarray) -> None:
        """The agents [size, ...] of an evaluation, `score` [size] and `diverged` [size] with them; written at once."""
        count = len(self.about["rows"])
        leaves = enumerate(zip(jax.tree.leaves(agent), self.used, strict=True))
        arrays = {f"{i:05}": distributed.whole(x)[:count] for i, (x, used) in leaves if used}
        arrays |= {
            "score": np.asarray(score[:count], np.float64),
            "env_step": np.full(count, at.env_step),
            "grad_step": np.full(count, at.grad_step),
            "evaluation": np.full(count, at.number),
        }
        sound = ~diverged[:count]
        if not self.kept:
            sound = np.ones(count, bool)  # something has to be there
            self.kept = {f"{which}/{name}": x.copy() for which in WHICH for name, x in arrays.items()}
        better = sound & (arrays["score"] > self.kept["best/score"])
        for name, x in arrays.items():
            for which, taken in (("last", sound), ("best", better)):
                self.kept[f"{which}/{name}"][taken] = x[taken]
        if not distributed.first():
            return
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be created: {error.strerror}") from error
        write(self.path, self.about, self.kept)


def write(path: Path, described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """One archive, under a temporary name first."""
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(json.dumps(described).encode(), np.uint8), **arrays)
    results.write_atomically(path, buffer.getvalue())


def read(path: Path, needed: Callable[[str], bool] = lambda name: True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write` wrote, of the arrays those whose names are `needed`. Raises UserError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name == "about" or needed(name)}
        described = json.loads(arrays.pop("about").tobytes())
        if not isinstance(described, dict) or described.get("format") != 1:
            raise KeyError("format")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        text = " ".join(str(error).split())
        raise UserError(f"{path}: is no policy ({text}); expected what `expo-bench export-policy` writes") from None
    return described, arrays


# -- one of a run ------------------------------------------------------------------------------------------------------------------------


def found(run: Path) -> list[tuple[Path, int, dict[str, Any]]]:
    """(file, place in it, what it is) of all agents that a run folder keeps."""
    if not (run / "manifest.json").is_file():
        raise UserError(f"{run}: not a run folder (no manifest.json); expected the --out folder of a sweep")
    every = []
    for path in sorted((run / FOLDER).glob("*.npz")):
        described, arrays = read(path, lambda name: not _is_leaf(name))  # who they are: without their weights
        for i, row in enumerate(described["rows"]):
            scores = {f"{which}_{name}": arrays[f"{which}/{name}"][i].item() for which in WHICH for name in ("score", "env_step")}
            every.append(
                (path, i, {**{k: described[k] for k in ("task", "agent", "variant")}, "seed": row["seed"], **row["labels"], **scores})
            )
    if not every:
        raise UserError(f"{run}: keeps no agents yet; they are there after the first evaluation, unless it was begun with --no-policies")
    return every


def choose(run: Path, wanted: Mapping[str, str]) -> tuple[Path, int, dict[str, Any]]:
    """The only agent of a run that is as `wanted` says: task=push-disc, seed=3, expo.edit_scale=0.1."""
    every = found(run)
    for name, value in wanted.items():
        values = {_said(row.get(name)) for _, _, row in every if name in row}
        if _said(value) not in values:
            known = ", ".join(sorted(values)) if values else f"nothing is called that; expected {', '.join(_names(every))}"
            raise UserError(f"--row {name}={value}: no such agent in {run} ({known})")
    matching = [one for one in every if all(_said(one[2].get(name)) == _said(value) for name, value in wanted.items())]
    if len(matching) != 1:
        open_names = [name for name in _names(every) if len({_said(row.get(name)) for _, _, row in matching}) > 1]
        say = f"differ in {', '.join(open_names)}" if matching else "none is all of that"
        raise UserError(f"--row: {len(matching)} agents of {run} match, expected one; they {say}" if matching else f"--row: of {run} {say}")
    return matching[0]


def export(run: Path, wanted: Mapping[str, str], which: str, out: Path) -> dict[str, Any]:
    """Write one agent of a run to a new file -> what it is."""
    if out.exists():
        raise UserError(f"--out {out}: exists; name a new file (nothing is ever overwritten)")
    if out.suffix != ".npz":
        raise UserError(f"--out {out}: expected a name that ends in .npz")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}")
    described, arrays = one(run, wanted, which)
    write(out, described, arrays)
    return described


def one(run: Path, wanted: Mapping[str, str], which: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(what it is, its arrays): one agent of a run as a file of its own has it."""
    path, i, _ = choose(run, wanted)
    described, arrays = read(path, lambda name: name.startswith(f"{which}/"))
    row = described.pop("rows")[i]
    numbers = {name: arrays[f"{which}/{name}"][i].item() for name in ("score", "env_step", "grad_step", "evaluation")}
    described |= {**row, **numbers, "which": which, "run": run.name}
    return described, {name.partition("/")[2]: x[i] for name, x in arrays.items() if _is_leaf(name)}


def _is_leaf(name: str) -> bool:
    """Whether an array is one of the agents', and not their scores or steps."""
    return name[-5:].isdigit()


def _names(every: Sequence[tuple[Path, int, dict[str, Any]]]) -> list[str]:
    """What tells the agents of a run apart."""
    measured = {f"{which}_{name}" for which in WHICH for name in ("score", "env_step")}
    return [name for name in dict.fromkeys(name for _, _, row in every for name in row) if name not in measured]


def _said(value: Any) -> str:
    """A value as it may be typed: 0.10 is 0.1."""
    try:
        return repr(float(value))
    except (TypeError, ValueError):
        return str(value)
