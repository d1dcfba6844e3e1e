"""manifest.json: everything needed to repeat a run, to go on with it, and to see whether another one is the same."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expo_bench.agents import files
from expo_bench.errors import UserError
from expo_bench.sweeps import grid, results
from expo_bench.sweeps.compiled import legs_of
from expo_bench.sweeps.experiment import Experiment, Method, Range, Search

# What an experiment is. A run folder of another one is never written into.
IDENTITY = ("experiment", "comparison", "rewards", "seeds", "protocols", "programs", "agent_files", "tasks")
# How it is computed. Under another plan the same seed gives other bits, and after some thousand updates other curves.
PLAN = (
    "versions",
    "code_sha256",
    "platform",
    "device",
    "processor",
    "devices",
    "precision",
    "denoiser_precision",
    "xla_flags",
    "blocks",
    "engines",
)
# The code that the numbers come from, in the order of the package.
CODE = (
    "agents",
    "parts",
    "training",
    "config.py",
    "distributions.py",
    "networks.py",
    "precision.py",
    "sweeps/compiled.py",
    "sweeps/devices.py",
)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def begun(experiment: Experiment, programs: Sequence[grid.Program]) -> dict[str, Any]:
    """The part of a manifest that needs no device and no data."""
    sources = {own.name: own for own in map(files.own, (p.module for p in programs)) if own}
    return {
        "experiment": experiment.name,
        "definition": definition(experiment),
        "comparison": experiment.comparison,
        "rewards": experiment.rewards,
        "seeds": list(range(experiment.first_seed, experiment.first_seed + experiment.seeds)),
        "protocols": grid.differences(list(programs)),
        "programs": [
            {
                "task": p.task,
                "agent": p.agent,
                "variant": p.variant,
                "rows": len(p.rows),
                "config": dataclasses.asdict(p.config),
                "cells": [r.labels for r in p.rows if r.labels],
            }
            for p in programs
        ],
        "agent_files": {n: {"file": str(s.path), "sha256": s.digest, "copy": f"agents/{n}.py"} for n, s in sources.items()},
    }


def described(
    manifest: dict[str, Any],
    experiment: Experiment,
    programs: Sequence[grid.Program],
    tasks: Mapping[str, Any],
    blocks: Sequence[int | None],
    command: str | None,
) -> dict[str, Any]:
    """What is known where nothing has been computed yet (but JAX has its devices: making an agent may need one). `tasks` are the runner's,
    `blocks` the rows per program and device, None where they wait for the plan of the memory."""
    own = {name: {"data": t.source, "transitions": len(t.dataset), "data_sha256": _sha256(t.dataset)} for name, t in tasks.items()}
    return {
        **manifest,
        "command": command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "created": now(),
        "finished": None,
        "git_commit": results.git_commit(),
        "precision": experiment.precision,
        "denoiser_precision": experiment.denoiser_precision or experiment.precision,
        "bits_depend_on": [*PLAN[:-2], "programs.block_rows", "tasks.engine"],
        "tasks": own,
        "programs": [
            {**entry, "block_rows": block, "evaluations": sum(leg.evaluation is not None for leg in legs_of(p))}  # evaluations of each row
            for entry, p, block in zip(manifest["programs"], programs, blocks, strict=True)
        ],
    }


def complete(manifest: dict[str, Any], tasks: Mapping[str, Any], devices: Sequence[Any]) -> dict[str, Any]:
    """The whole manifest, from what `described` said and where it is run."""
    return {
        **manifest,
        "versions": results.versions(),
        "code_sha256": code_digest(),
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "processor": processor() if devices[0].platform == "cpu" else None,
        "devices": len(devices),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "tasks": {name: {**own, **_placed(tasks[name].env)} for name, own in manifest["tasks"].items()},
    }


def _placed(env: Any) -> dict[str, Any]:
    """What a task is run on, and what becomes of its episodes where that is not a matter of course."""
    return {"engine": env.engine, **({"on_resume": env.resumes} if hasattr(env, "resumes") else {})}


def definition(experiment: Experiment) -> dict[str, Any]:
    """The experiment as JSON values, from which `experiment_of` makes it again."""
    return {**dataclasses.asdict(experiment), "methods": [dataclasses.asdict(m) for m in experiment.all_methods()]}


def experiment_of(manifest: Mapping[str, Any], folder: Path) -> Experiment:
    """The experiment of a run folder; agents that came as files are the copies in the folder."""
    try:
        stored = _tuples(manifest["definition"])
        copies = {name: str(folder / kept["copy"]) for name, kept in manifest["agent_files"].items()}
        methods = [Method(**m) for m in stored["methods"]]
        vary = {axis: Range(**values) if isinstance(values, dict) else values for axis, values in stored["vary"].items()}
        search = Search(**stored["search"]) if stored.get("search") else None
        methods = [dataclasses.replace(m, agent=copies.get(m.name, m.agent)) for m in methods]
        return Experiment(**{**stored, "methods": methods, "vary": vary, "search": search})
    except (KeyError, TypeError, AttributeError) as error:
        text = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{folder}/manifest.json: says not enough to go on from ({text}); give the command again with --out {folder}"
        ) from None


def difference(old: Mapping[str, Any], new: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, str, str] | None:
    """(where, what is there, what is here) of the first difference in these parts of two manifests."""
    for key in keys:
        if key not in _COMPARED and key not in new:
            continue
        there, here = (dict(_leaves(key, _json(_COMPARED.get(key, lambda m, k=key: m.get(k))(m)))) for m in (old, new))
        for where in [*here, *(w for w in there if w not in here)]:
            if there.get(where) != here.get(where):
                return where, there.get(where, "nothing"), here.get(where, "nothing")
    return None


def differences_of_plan(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[str]]:
    """{where: [there, here]}, the first difference in every part of the plan."""
    found = (difference(old, new, [key]) for key in PLAN)
    return {where: [there, here] for where, there, here in filter(None, found)}


def code_digest() -> str:
    """SHA-256 of the code that the numbers come from: agents, parts, loop, networks, environments."""
    import envs

    package = Path(__file__).resolve().parent.parent
    places = [package / name for name in CODE] + [Path(envs.__file__).resolve().parent]
    sources = [p for place in places for p in ([place] if place.is_file() else sorted(place.rglob("*"))) if p.suffix in (".py", ".xml")]
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def processor() -> str:
    """The CPU's name: which instructions a program for the CPU is made of depends on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# Parts of a manifest of which not everything counts.
_COMPARED = {
    "rewards": lambda m: m.get("rewards", "task"),  # of manifests from before there was a choice
    "agent_files": lambda m: {name: kept.get("sha256") for name, kept in (m.get("agent_files") or {}).items()},
    "tasks": lambda m: {name: {k: t.get(k) for k in ("transitions", "data_sha256")} for name, t in (m.get("tasks") or {}).items()},
    "programs": lambda m: [{k: p.get(k) for k in ("task", "agent", "variant", "rows", "config", "cells")} for p in m.get("programs") or []],
    # One or several: XLA compiles a program for one otherwise, and an agent whose arithmetic leaves it a choice would not survive that.
    "devices": lambda m: min(m.get("devices") or 0, 2),
    "denoiser_precision": lambda m: m.get("denoiser_precision", m.get("precision")),  # older manifests have one for both
    "blocks": lambda m: [p.get("block_rows") for p in m.get("programs") or []],
    "engines": lambda m: {name: t.get("engine") for name, t in (m.get("tasks") or {}).items()},
}


def _sha256(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(np.asarray(array)).tobytes()).hexdigest()


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """("programs.0.config.lr", "0.001") of everything inside, in order; what is empty counts as a leaf."""
    if isinstance(value, dict | list) and value:
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(f"{path}.{name}", part)
    else:
        yield path, json.dumps(value)


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
