"""The Adroit hand tasks beside gymnasium-robotics' (see `benchmarks.parity`).

steps    the same start and the same 50 actions, uniformly random ones and the trained policy's: the greatest difference of an observation
policy   the trained DAPG policies (deterministic) in both from the same starts: success, and the share of steps solved
changes  the same in C MuJoCo alone, with each change made to the model for MJX
lengths  the same for the pen's length in MJX's model, from other starts
rates    control steps and compilation in CPU seconds, before and after each simplification
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity.intervals import difference_of_means, difference_of_rates
from benchmarks.parity.ours import Ours, rate
from benchmarks.parity.reference import Adroit as Reference
from benchmarks.parity.reference import Shadow
from benchmarks.parity.table import Row

NAME = "adroit"
PAGE = "parity.md"
TASKS = ("pen", "door", "relocate", "hammer")
BOTH = ("float32", "float64")
PARTS = {"steps": BOTH, "policy": ("float32",), "changes": ("float32",), "lengths": ("float32",), "rates": ("float32",)}
HALF_LENGTHS = (0.05, 0.06, 0.0605, 0.061, 0.065)  # metres between the caps: 0.05 is the pen's total length, 0.065 holds it all
ROWS = 20  # episodes side by side
EPISODES = {"pen": 600, "door": 100, "relocate": 100, "hammer": 100}  # the pen's policy fails often, and not from the same starts in both
STEPS, REPORTED = 50, (1, 10, 20, 50)
APART = {"float32": 1e-3, "float64": 1e-6}  #                     the difference from which on two trajectories count as parted


def trained(task: str, data: Path) -> Any:
    """obs [N, O] -> action [N, A] float32 of the trained policy, one program for all engines: its rounding is then the same in all."""
    from envs.demonstrators import mlp_policy

    policy = mlp_policy(data / "adroit" / f"dapg_policy_{task}.npz")
    batch = jax.jit(jax.vmap(lambda obs: jnp.clip(policy(obs), -1.0, 1.0).astype(jnp.float32)))
    return lambda obs: np.asarray(batch(np.asarray(obs, np.float32)))


class Run(NamedTuple):
    """Two rows under the same actions as others."""

    obs: np.ndarray  #     [T, 2, O]
    solved: np.ndarray  #  [T, 2] bool


# --- the same actions -------------------------------------------------------------------------------------------------------------------


def steps(env: Any, precision: str, data: Path, engines: dict[str, Ours]) -> list[Row]:
    """Differences of trajectories under the same actions. In float64 also MJX against C MuJoCo with the changes that MJX's model has: what
    is left then is the physics of the two engines."""
    keys = jax.random.split(jax.random.key(1), 2)
    params = np.asarray(jax.vmap(env.reset)(keys).params)
    actions, exact, contacts = _reference_run(env, Reference(env.name, 2), params.astype(np.float64), trained(env.name, data))
    runs = {name: _replay(ours, keys, actions) for name, ours in engines.items()}
    if precision == "float32":
        return _compared_steps(env.name, "MJX float32", runs["mjx"], exact, contacts, precision)
    rows = _compared_steps(env.name, "C MuJoCo", runs["mujoco"], exact, None, precision)
    rows += _compared_steps(env.name, "MJX x64", runs["mjx"], exact, contacts, precision)
    shadows = [Shadow.of(engines["changed"].physics.system, env.task.fields(row)) for row in params]
    contacts = [[shadow.step(action[i]) for action in actions] for i, shadow in enumerate(shadows)]
    return rows + _compared_steps(env.name, "MJX x64 beside C with its changes", runs["mjx"], runs["changed"], contacts, precision)


def _compared_steps(task: str, name: str, run: Run, other: Run, contacts: list | None, precision: str) -> list[Row]:
    rows = []
    for i, kind in enumerate(("random", "the policy's")):
        error = np.abs(run.obs[:, i] - other.obs[:, i]).max(axis=-1)
        metrics: dict[str, Any] = {f"difference at step {t}": error[t - 1] for t in REPORTED}
        metrics["rewards that differ"] = int(np.sum(run.solved[:, i] != other.solved[:, i]))
        if contacts is not None:
            metrics |= _parting(error > APART[precision], contacts[i])
        rows += [Row(task, "steps", f"{name}, {kind} actions", metric, value) for metric, value in metrics.items()]
    return rows


def _reference_run(env: Any, reference: Reference, params: np.ndarray, policy: Any) -> tuple[np.ndarray, Run, list[list[set[str]]]]:
    """(actions [T, 2, A], what came of them, per row the contacts of every step)."""
    random = np.random.default_rng(0).uniform(-1, 1, (STEPS, env.action_size)).astype(np.float32)
    reference.reset(params)
    shadows = [reference.shadow(i) for i in range(2)]
    actions, obs, solved, contacts = [], [], [], [[], []]
    for t in range(STEPS):
        action = np.stack([random[t], policy(reference.obs)[1]])
        solved.append(reference.step(action))
        obs.append(reference.obs.copy())
        actions.append(action)
        for i, shadow in enumerate(shadows):
            contacts[i].append(shadow.step(action[i]))
    return np.array(actions), Run(np.array(obs), np.array(solved)), contacts


def _replay(ours: Ours, keys: jax.Array, actions: np.ndarray) -> Run:
    """The first two rows of a batch under `actions` [T, 2, A]; the others repeat the second."""
    ours.reset(jnp.concatenate([keys, jnp.repeat(keys[1:], ours.rows - 2, axis=0)]))
    obs, solved = [], []
    for action in actions:
        padded = np.concatenate([action, np.repeat(action[1:], ours.rows - 2, axis=0)])
        solved.append(ours.step(padded)[:2])
        obs.append(ours.obs[:2])
    return Run(np.array(obs), np.array(solved))


def _parting(apart: np.ndarray, contacts: list[set[str]]) -> dict[str, Any]:
    """The step from which two trajectories are apart, and what had touched last before it."""
    if not apart.any():
        return {"apart from step": "never", "last new contact": ""}
    step = int(apart.argmax())
    seen: set[str] = set()
    last = "none"
    for t in range(step + 1):
        new = contacts[t] - seen
        if new:
            last = f"{', '.join(sorted(new)[:2])} (step {t + 1})"
        seen |= new
    return {"apart from step": step + 1, "last new contact": last}


# --- the trained policy -----------------------------------------------------------------------------------------------------------------


def episodes(env: Any, engine: Any, policy: Any, *, count: int | None = None, seed: int = 2) -> np.ndarray:
    """[count or the task's EPISODES, horizon] bool, solved, from the task's own starts, the same for every engine."""
    solved = []
    for batch in range((count or EPISODES[env.name]) // ROWS):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), batch), ROWS)
        engine.reset(np.asarray(jax.vmap(env.reset)(keys).params, np.float64) if isinstance(engine, Reference) else keys)
        solved.append(np.stack([engine.step(policy(engine.obs)) for _ in range(env.horizon)], axis=1))
    return np.concatenate(solved)


def compared(task: str, part: str, variant: str, solved: np.ndarray, reference: np.ndarray) -> list[Row]:
    """The rows of one variant: success (solved in any step) and the share of steps solved, and their differences from the reference's."""
    rows = [Row(task, part, variant, "episodes", len(solved)), Row(task, part, variant, "success", solved.any(axis=1).mean())]
    rows.append(Row(task, part, variant, "its difference", *difference_of_rates(solved.any(axis=1), reference.any(axis=1))))
    rows.append(Row(task, part, variant, "steps solved", solved.mean()))
    return [*rows, Row(task, part, variant, "their difference", *difference_of_means(solved.mean(axis=1), reference.mean(axis=1)))]


def policy(env: Any, data: Path, engines: dict[str, Ours]) -> list[Row]:
    """Both engines against gymnasium-robotics."""
    act = trained(env.name, data)
    reference = episodes(env, Reference(env.name, ROWS), act)
    rows = [Row(env.name, "policy", "gymnasium-robotics", "episodes", len(reference))]
    rows.append(Row(env.name, "policy", "gymnasium-robotics", "success", reference.any(axis=1).mean()))
    rows.append(Row(env.name, "policy", "gymnasium-robotics", "steps solved", reference.mean()))
    for engine, name in (("mujoco", "C MuJoCo"), ("mjx", "MJX float32")):
        rows += compared(env.name, "policy", name, episodes(env, engines[engine], act), reference)
    return rows


def changes(env: Any, data: Path) -> list[Row]:
    """What each change that MJX needs does, in C MuJoCo: alone, and all of them."""
    act = trained(env.name, data)
    run = lambda system: episodes(env, Ours(env, system, "mujoco", ROWS), act)
    released = run(_system(env, shapes=False))
    rows = compared(env.name, "changes", "released", released, released)
    shapes = {"relocate": "margins", "hammer": "shapes and margins, friction of the nail"}.get(env.name, "shapes and margins")
    variants: dict[str, dict[str, bool]] = {
        shapes: {},
        "no noslip solver": {"shapes": False, "noslip": False},
        f"{shapes}, no noslip solver": {"noslip": False},
    }
    variants["the same, 8 solver and 16 line-search iterations"] = {"noslip": False, "iterations": True}
    for name, options in variants.items():
        rows += compared(env.name, "changes", name, run(_system(env, **options)), released)
    return rows


def lengths(env: Any, data: Path) -> list[Row]:
    """What half length of the pen's capsule in MJX's model comes nearest to the released pen: in C MuJoCo."""
    from envs.adroit import pen

    if env.name != "pen":
        return []
    act = trained(env.name, data)
    run = lambda system: episodes(env, Ours(env, system, "mujoco", ROWS), act, count=600, seed=11)
    released = run(_system(env, shapes=False))
    rows = compared(env.name, "lengths", "released", released, released)
    for half in HALF_LENGTHS:
        with mock.patch.object(pen, "CAPSULE_HALF_LENGTH", half):
            system = _system(env, noslip=False, iterations=True)
        rows += compared(env.name, "lengths", f"{1000 * half:.4g} mm", run(system), released)
    return rows


def _system(env: Any, *, shapes: bool = True, noslip: bool = True, iterations: bool = False) -> Any:
    """The task's system with the shapes and joints of MJX's model, with or without the noslip solver and with MJX's iterations."""
    from envs.adroit import hand

    released = hand.MjxSettings(None, None, None)
    system = hand.system_of(type(env.task), released if shapes else None)
    if not noslip:
        system.model.opt.noslip_iterations = 0
    if iterations:
        system.model.opt.iterations, system.model.opt.ls_iterations = env.task.MJX.iterations, env.task.MJX.ls_iterations
    return system


# --- rates ------------------------------------------------------------------------------------------------------------------------------


def rates(env: Any) -> list[Row]:
    """Control steps per CPU second under random actions, each engine with 1, 16 and 64 rows; MJX before each simplification with 16."""
    from envs.adroit import hand

    settings = env.task.MJX
    stages = {
        "MJX, shapes alone": hand.MjxSettings(None, None, None),
        "MJX, fewer iterations": dataclasses.replace(settings, contacts=None),
        "MJX, deepest contacts": settings,
    }
    systems = [("C MuJoCo", "mujoco", env.physics.system, (1, 16, 64))]
    for name, stage in stages.items():
        systems.append((name, "mjx", hand.system_of(type(env.task), stage), (1, 16, 64) if stage is settings else (16,)))
    rows = []
    for name, engine, system, widths in systems:
        for width in widths:
            ours = Ours(env, system, engine, width)
            rows.append(Row(env.name, "rates", name, f"{width} env{'s' * (width > 1)}", rate(ours)))
        rows.append(Row(env.name, "rates", name, "compilation", ours.compile_s))
        if engine == "mjx":
            rows.append(Row(env.name, "rates", name, "constraint rows", ours.physics._blank._impl.efc_J.shape[0]))
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity.adroit", description=__doc__)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument(
        "--parts", type=lambda text: text.split(","), required=True, help=f"some of {', '.join(PARTS)}, with commas between"
    )
    parser.add_argument("--precision", choices=BOTH, default="float32")
    parser.add_argument("--data", type=Path, default=Path("data"))
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", args.precision == "float64")  # before any array is made
    warnings.simplefilter("ignore")
    import envs

    env = envs.make(args.task, "mujoco")
    rows: list[Row] = []
    if {"steps", "policy"} & set(args.parts):
        engines = _engines(env, args.precision)
        rows += steps(env, args.precision, args.data, engines) if "steps" in args.parts else []
        rows += policy(env, args.data, engines) if "policy" in args.parts else []
    rows += changes(env, args.data) if "changes" in args.parts else []
    rows += lengths(env, args.data) if "lengths" in args.parts else []
    rows += rates(env) if "rates" in args.parts else []
    print(json.dumps({"rows": [dataclasses.asdict(row) for row in rows]}, default=lambda x: x.item()))


def _engines(env: Any, precision: str) -> dict[str, Ours]:
    """Both engines; in float64 two rows for `steps` alone, and C MuJoCo with MJX's changes besides."""
    from envs.adroit import hand

    exact = precision == "float64"
    rows = 2 if exact else ROWS
    system = hand.system_of(type(env.task), env.task.MJX)
    found = {"mujoco": Ours(env, env.physics.system, "mujoco", rows), "mjx": Ours(env, system, "mjx", rows, quick=exact)}
    return found | {"changed": Ours(env, _system(env, noslip=False, iterations=True), "mujoco", rows)} if exact else found


if __name__ == "__main__":
    main()
