"""The update alone, of every agent beside RLPD's: `python -m benchmarks.updates` writes JSON and the table of docs/update_times.md.

What is timed is `learn` with its draws on random batches: all the learning that one environment step causes, without physics, replay and acting.
RLPD is timed again before every other agent, so that a ratio compares neighbours in time. At paper size every agent has its authors' networks,
batch size and number of updates per environment step (observations 19, actions 7, the sizes of robomimic's square); at quickstart size those of
experiments/sizes.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import flops
from benchmarks.__main__ import write
from benchmarks.case import SIZES, Size, known_fields
from expo_bench import agents
from expo_bench.agents.base import Spec
from expo_bench.config import replace
from expo_bench.parts.replay import Batch
from expo_bench.protocol import Protocol
from expo_bench.sweeps.compiled import CPU_OPTIONS
from expo_bench.sweeps.results import git_commit

OBS, ACTION = 19, 7
REFERENCE = "rlpd"
REPEATS, SECONDS = 5, 0.5  # timings per agent; what one aims at


def prepare(name: str, size: Size) -> tuple[Callable[[], None], Any, Protocol]:
    """A function that runs one compiled `learn` of an agent and waits for it; the agent's config, and the protocol that it follows."""
    module = agents.load(name)
    config = replace(module.Config(), name, **known_fields(name, size.config))
    override = {key: value for key, value in size.protocol.items() if key in ("updates", "batch_size")}
    protocol = replace(module.PROTOCOL, name, **override)
    spec = Spec(OBS, ACTION * protocol.chunk, protocol.batch_size, protocol.updates)
    agent = module.make(config, spec)
    state = jax.jit(agent.init)(jax.random.key(0))
    batches = random_batches(jax.random.key(1), spec, protocol.chunk, agent.mc_return)

    def learn(state: Any, batches: Batch, key: jax.Array) -> Any:
        return agent.learn(state, batches, agent.draw(key))[0]

    options = CPU_OPTIONS if jax.devices()[0].platform == "cpu" else None
    call = jax.jit(learn).lower(state, batches, jax.random.key(2)).compile(compiler_options=options)
    return lambda: jax.block_until_ready(call(state, batches, jax.random.key(2))), config, protocol


def random_batches(key: jax.Array, spec: Spec, chunk: int, mc_return: bool) -> Batch:
    """[U, B] transitions of normal numbers, all valid."""
    lead = (spec.updates, spec.batch_size)
    obs, next_obs, action, reward = (
        jax.random.normal(k, (*lead, n))
        for k, n in zip(jax.random.split(key, 4), (spec.obs_size, spec.obs_size, spec.action_size, 1), strict=True)
    )
    valid = jnp.ones((*lead, chunk)) if chunk > 1 else None
    return Batch(obs, jnp.tanh(action), reward[..., 0], jnp.zeros(lead), next_obs, valid, jnp.zeros(lead) if mc_return else None)


def seconds(run: Callable[[], None]) -> float:
    """Median seconds of one call over REPEATS timings of about SECONDS each."""
    count = max(1, int(SECONDS / max(timed(run, 1), 1e-6)))
    return statistics.median(timed(run, count) / count for _ in range(REPEATS))


def timed(run: Callable[[], None], count: int) -> float:
    """Seconds of `count` calls."""
    began = time.perf_counter()
    for _ in range(count):
        run()
    return time.perf_counter() - began


def measure(names: list[str], size: str) -> list[dict[str, Any]]:
    reference, *_ = prepare(REFERENCE, SIZES[size])
    rows = []
    for name in names:
        print(f"{size}: {name} ...", file=sys.stderr, flush=True)
        began = time.perf_counter()
        run, config, protocol = prepare(name, SIZES[size])
        run()
        compile_s = time.perf_counter() - began
        base, own = seconds(reference), seconds(run)
        sizes = Spec(OBS, ACTION * protocol.chunk, protocol.batch_size, protocol.updates)
        flop = flops.learning(name, config, sizes, protocol.chunk).flop
        row = {"agent": name, "flop": flop, "updates": protocol.updates, "batch_size": protocol.batch_size, "chunk": protocol.chunk}
        rows.append({**row, "compile_s": compile_s, "seconds_per_env_step": own, "relative_to_rlpd": own / base})
    return rows


def table(sizes: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: per size and agent the updates and batch per environment step, what they cost, and relative to RLPD."""
    head = ["size", "agent", "updates x batch", "GFLOP per environment step", "ms", "relative to RLPD", "compile s"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for size, rows in sizes.items():
        for row in rows:
            batch = f"{row['updates']} x {row['batch_size']}" + (f", chunks of {row['chunk']}" if row["chunk"] > 1 else "")
            own = (
                f"{row['flop'] / 1e9:.3g}",
                f"{1e3 * row['seconds_per_env_step']:.3g}",
                f"{row['relative_to_rlpd']:.3g}",
                f"{row['compile_s']:.1f}",
            )
            lines.append(f"| {size} | `{row['agent']}` | {batch} | {' | '.join(own)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.updates", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    learning = [name for name in agents.AGENTS if name != "bc"]  # bc is frozen online
    parser.add_argument("--size", nargs="+", choices=sorted(SIZES), default=["paper", "quickstart"])
    parser.add_argument("--agents", nargs="+", choices=learning, default=learning)
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON")
    args = parser.parse_args(argv)
    sizes = {size: measure(args.agents, size) for size in args.size}
    device = f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
    if args.out:
        write(args.out, {"device": device, "jax": jax.__version__, "git_commit": git_commit(), "sizes": sizes})
    print(f"{device}, jax {jax.__version__}, float32\n\n{table(sizes)}")


if __name__ == "__main__":
    main()
