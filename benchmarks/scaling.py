"""What the paper's 12 tasks cost on a device: `python -m benchmarks.scaling [--write]` prints the tables of docs/scaling.md [and puts them there].

The arithmetic is counted from every agent's own program (benchmarks/flops.py); the time is a model of it, a roofline with a price per product:

    seconds(work of R rows) = max(R FLOP / (utilisation * peak), R bytes / bandwidth) + products * seconds per product

of which a device has two ends: the best (high utilisation, every operand in a cache, cheap launches) and the worst (low utilisation, every operand of every
product from memory, dear launches). Rows of one program share its launches. Physics runs in C MuJoCo on the host's cores while the device waits.
The H100's numbers are those of its data sheet and assumptions: no GPU has been measured. The update times of docs/update_times.md, of a CPU, say how far the
model is off there.
"""

from __future__ import annotations

import argparse
import functools
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import flops
from benchmarks.case import SIZES, known_fields
from benchmarks.flops import Work
from benchmarks.parity.table import into_page
from expo_bench import Experiment, agents
from expo_bench.agents.base import Spec
from expo_bench.config import fields, replace
from expo_bench.sweeps import grid
from expo_bench.sweeps.compiled import state_bytes

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, MEASURED = DOCS / "scaling.md", DOCS / "update_times.md"
FLOAT = 4  # bytes


class End(NamedTuple):
    """One end of what is assumed of a device."""

    utilisation: float  #   of the peak that products reach
    from_memory: bool  #    operands and results of every product move
    per_product: float  #   seconds that a product and what follows it take at least: launches


class Device(NamedTuple):
    name: str
    peak: dict[str, float]  # FLOP/s of dense products by precision
    bandwidth: float  #       bytes/s of its memory
    memory: float  #          bytes
    best: End
    worst: End


# NVIDIA's data sheet of the H100 SXM, without sparsity. The ends are assumptions: three kernels of 1 to 7 microseconds follow from a product.
H100 = Device(
    "H100 SXM",
    {"bfloat16": 989.4e12, "tensorfloat32": 494.7e12, "float32": 66.9e12},
    3.35e12,
    80e9,
    best=End(0.5, False, 3e-6),
    worst=End(0.1, True, 20e-6),
)


def seconds(work: Work, device: Device, end: End, precision: str, rows: int = 1) -> float:
    """The model. `work` is that of one row."""
    computing = rows * work.flop / (end.utilisation * device.peak[precision])
    moving = rows * work.bytes / device.bandwidth if end.from_memory else 0.0
    return max(computing, moving) + work.products * end.per_product


# -- the paper's tasks -----------------------------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    obs: int
    action: int
    horizon: int
    suite: str | None
    steps: int  #       environment steps that the paper plots
    eval_every: int
    episodes: int  #    per evaluation
    rate: float  #      control steps per second of one CPU core


_ANT, _ROBOSUITE = (
    3_393.0,
    2_000.0,
)  # docs/antmaze.md (U maze, all contacts, 64 environments); robosuite's Lift without robot meshes, C alone
TASKS = {
    **{f"antmaze-large-{data}": Task(29, 8, 1000, "antmaze", 200_000, 5_000, 100, _ANT) for data in ("play", "diverse")},
    **{f"antmaze-medium-{data}": Task(29, 8, 1000, "antmaze", 100_000, 5_000, 100, _ANT) for data in ("play", "diverse")},
    "pen": Task(45, 24, 100, "adroit", 200_000, 5_000, 100, 3_459.0),  # rates of docs/parity.md, 64 environments
    "door": Task(39, 28, 200, "adroit", 200_000, 5_000, 100, 3_885.0),
    "relocate": Task(39, 30, 200, "adroit", 775_000, 5_000, 100, 3_742.0),
    # Not tasks of the suite: sizes and horizons of the paper's, those of the last two taken to be square's.
    "lift": Task(19, 7, 400, None, 120_000, 10_000, 50, _ROBOSUITE),
    "can": Task(23, 7, 400, None, 120_000, 10_000, 50, _ROBOSUITE),
    "square": Task(23, 7, 400, None, 150_000, 10_000, 50, _ROBOSUITE),
    "stack": Task(23, 7, 200, None, 200_000, 10_000, 50, _ROBOSUITE),
    "threading": Task(23, 7, 400, None, 200_000, 10_000, 50, _ROBOSUITE),
}
AGENTS = ("expo", "rlpd", "idql", "dac", "qsm", "cal_ql", "idql_online", "faster", "fql", "dsrl")  # the paper's six, and four more
CALLBACK = 1.4e-4  # seconds of a call from the program to C MuJoCo and back
CORES = 16  # of the host, for physics, per GPU
SEEDS = 10
CHAINS = 65_536  # denoised at a time: 2,048, the agents' own, is a CPU's choice


def program(agent: str, task: str) -> grid.Program:
    """As `expo-bench sweep` plans it, under the agent's released protocol with the paper's steps and evaluations."""
    of = TASKS[task]
    protocol = {"online_steps": of.steps, "eval_every": of.eval_every, "eval_episodes": of.episodes}
    rows = {"sample_rows": CHAINS} if "sample_rows" in fields(agents.load(agent).Config) else {}
    return grid.programs(Experiment("plan", [task], [agent], 1, config=rows, protocol=protocol), {task: of.suite})[0]


def work_of(agent: str, task: str, what: str) -> Work:
    """Of one row: an environment step ("online": acting and learning), a gradient step of the offline phase ("pretrain"), or one decision of
    all episodes of an evaluation ("decision")."""
    made, of = program(agent, task), TASKS[task]
    p, episodes = made.protocol, of.episodes if what == "decision" else 1
    return _counted(agent, made.config, p.batch_size, p.updates, p.num_envs, p.chunk, of.obs, of.action, what, episodes)


@functools.cache
def _counted(
    agent: str, config: Any, batch: int, updates: int, envs: int, chunk: int, obs: int, action: int, what: str, episodes: int
) -> Work:
    """Tasks of the same sizes have the same work."""
    spec = Spec(obs, action * chunk, batch, updates * envs)
    if what == "pretrain":
        return flops.pretraining(agent, config, spec, chunk)
    if what == "decision":
        return flops.evaluating(agent, config, spec, episodes)
    protocol = replace(agents.load(agent).PROTOCOL, agent, batch_size=batch, updates=updates, num_envs=envs, chunk=chunk)
    return flops.per_env_step(agent, config, protocol, obs, action)


class Time(NamedTuple):
    """Seconds of one program of some rows."""

    learning: float  #  offline phase and online steps
    evaluation: float  # decisions of the evaluations
    physics: float  #   in C MuJoCo on the host, evaluations included, with the calls there

    @property
    def total(self) -> float:
        return sum(self)


def time_of(agent: str, task: str, device: Device, end: End, precision: str, rows: int, cores: int) -> Time:
    """The run of an agent on a task with `rows` seeds in one program."""
    of, made = TASKS[task], program(agent, task).protocol
    cost = lambda what: seconds(work_of(agent, task, what), device, end, precision, rows)
    evaluations = of.steps // of.eval_every + 1
    offline = made.offline_steps * cost("pretrain") if made.offline_steps else 0.0
    decisions = evaluations * -(-of.horizon // made.chunk)
    steps = of.steps + evaluations * of.horizon * of.episodes
    calls = of.steps / made.num_envs + evaluations * of.horizon
    physics = rows * steps / (of.rate * cores) + calls * CALLBACK
    return Time(offline + of.steps * cost("online"), decisions * cost("decision"), physics)


def row_bytes(agent: str, task: str) -> tuple[int, int]:
    """(bytes of the agent, of the replay) that a row carries from step to step."""
    of, made = TASKS[task], program(agent, task)
    spec = Spec(of.obs, of.action * made.protocol.chunk, made.protocol.batch_size, made.protocol.updates * made.protocol.num_envs)
    state = jax.eval_shape(made.module.make(made.config, spec).init, jax.random.key(0))
    return state_bytes(state), FLOAT * of.steps * (2 * of.obs + of.action + 3)


# -- against what was measured ---------------------------------------------------------------------------------------------------------------


class Point(NamedTuple):
    """A line of docs/update_times.md."""

    size: str
    agent: str
    seconds: float


def measured(page: Path = MEASURED) -> list[Point]:
    lines = re.findall(r"^\| (\w+) \| `(\w+)` \| [^|]+ \| [^|]+ \| ([^|]+) \|", page.read_text(), re.MULTILINE)
    return [Point(size, agent, float(ms) / 1e3) for size, agent, ms in lines]


def update_work(agent: str, size: str) -> Work:
    """Of what benchmarks/updates.py times: `learn` with its draws, observations 19, actions 7."""
    module = agents.load(agent)
    config = replace(module.Config(), agent, **known_fields(agent, SIZES[size].config))
    own = {key: value for key, value in SIZES[size].protocol.items() if key in ("updates", "batch_size")}
    protocol = replace(module.PROTOCOL, agent, **own)
    return flops.learning(agent, config, Spec(19, 7 * protocol.chunk, protocol.batch_size, protocol.updates), protocol.chunk)


def fitted(points: Sequence[tuple[Work, float]]) -> Device:
    """The machine that predicts measured seconds best, by its FLOP/s and seconds per product: least squares of log(predicted / measured) on a grid."""
    flop, count, took = (np.array(x) for x in zip(*((work.flop, work.products, s) for work, s in points), strict=True))
    rate, price = np.meshgrid(np.geomspace(1e10, 1e13, 301), np.geomspace(1e-7, 1e-4, 301))
    predicted = flop / rate[..., None] + count * price[..., None]
    at = np.unravel_index(np.argmin(np.mean(np.log(predicted / took) ** 2, axis=-1)), rate.shape)
    end = End(1.0, False, float(price[at]))
    return Device("fitted", {"float32": float(rate[at])}, np.inf, np.inf, end, end)


# -- the tables ------------------------------------------------------------------------------------------------------------------------------


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    line = lambda cells: f"| {' | '.join(cells)} |"
    return "\n".join([line(head), "|---" * len(head) + "|", *map(line, rows)]) + "\n"


def number(value: float) -> str:
    """Three digits, and no powers of ten."""
    return f"{value:,.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def hours(*values: float) -> str:
    """ "3.1 to 52", of seconds."""
    shown = [f"{h:,.0f}" if h >= 9.95 else f"{h:.2g}" if h >= 0.01 else "0.00" for h in (value / 3600 for value in values)]
    return " to ".join(dict.fromkeys(shown))


def work_table(names: Sequence[str]) -> str:
    """Per agent and environment step: FLOP on small and large tasks, bytes, products, and FLOP per byte on `lift`."""
    rows = []
    for name in names:
        work = {task: work_of(name, task, "online") for task in ("lift", "antmaze-large-play", "relocate")}
        lift = work["lift"]
        rows.append(
            [
                f"`{name}`",
                *(number(w.flop / 1e9) for w in work.values()),
                number(lift.bytes / 1e9),
                number(lift.flop / lift.bytes),
                f"{lift.products:,.0f}",
                number(work_of(name, "lift", "pretrain").flop / 1e9),
            ]
        )
    head = ["agent", "GFLOP: lift", "antmaze", "relocate", "GB (lift)", "FLOP per byte", "products", "GFLOP per offline step"]
    return markdown(head, rows)


def check_table() -> str:
    """Predicted and measured milliseconds of an update, by the two constants that are fitted to all of these points."""
    points = measured()
    work = {p: update_work(p.agent, p.size) for p in points}
    cpu = fitted([(work[p], p.seconds) for p in points])
    predicted = {p: seconds(work[p], cpu, cpu.best, "float32") for p in points}
    by_agent: dict[str, dict[str, Point]] = {}
    for point in points:
        by_agent.setdefault(point.agent, {})[point.size] = point

    def cell(p: Point | None) -> list[str]:
        if p is None:
            return ["-"] * 4
        return [
            number(1e3 * p.seconds),
            number(1e3 * predicted[p]),
            f"{predicted[p] / p.seconds:.2f}",
            f"{work[p].flop / p.seconds / 1e9:,.0f}",
        ]

    lines = [[f"`{name}`", *cell(own.get("paper")), *cell(own.get("quickstart"))] for name, own in sorted(by_agent.items())]
    each = ["predicted", "ratio", "GFLOP/s"]
    spread = [abs(np.log(predicted[p] / p.seconds)) for p in points]
    text = markdown(["agent", "paper: ms", *each, "quickstart: ms", *each], lines)
    return text + (
        f"\nFitted to these points: {cpu.peak['float32'] / 1e9:,.0f} GFLOP/s and {1e6 * cpu.best.per_product:.2g} microseconds per product. "
        f"Half of the {len(points)} points are predicted within a factor of {np.exp(statistics.median(spread)):.2f}, all within "
        f"{np.exp(max(spread)):.2f}.\n"
    )


def seed_table(device: Device, names: Sequence[str], precisions: Sequence[str], cores: int, task: str = "antmaze-large-play") -> str:
    """Hours of one seed alone, and of each of SEEDS in one program."""
    rows = []
    for name in names:
        cells = []
        for count, precision in [*((1, p) for p in precisions), (SEEDS, precisions[-1])]:
            ends = [time_of(name, task, device, end, precision, count, cores).total / count for end in (device.best, device.worst)]
            cells.append(hours(*ends))
        physics = time_of(name, task, device, device.best, precisions[-1], 1, cores).physics
        rows.append([f"`{name}`", *cells, hours(physics)])
    return markdown(
        ["agent", *(f"1 seed, {p}" for p in precisions), f"of {SEEDS} seeds, {precisions[-1]}", "of which physics (1 seed)"], rows
    )


def plan_tables(device: Device, names: Sequence[str], precision: str, cores: int) -> tuple[str, str]:
    """Device hours of SEEDS seeds of every agent on every task, (per agent, per task) with the sums."""
    ends = (device.best, device.worst)
    times = {(n, t): [time_of(n, t, device, end, precision, SEEDS, cores) for end in ends] for n in names for t in TASKS}

    def line(label: str, keys: list[tuple[str, str]]) -> list[str]:
        total = [sum(times[key][i].total for key in keys) for i in range(2)]
        part = [[sum(getattr(times[key][i], what) for key in keys) for i in range(2)] for what in ("learning", "evaluation")]
        return [label, hours(*total), hours(*part[0]), hours(*part[1]), hours(sum(times[key][0].physics for key in keys))]

    whole = line("all", list(times))
    head = ["", "device hours", "learning", "deciding in evaluations", f"physics on {cores} cores"]
    of_agents = [line(f"`{n}`", [(n, t) for t in TASKS]) for n in names]
    of_tasks = [line(f"`{t}`", [(n, t) for n in names]) for t in TASKS]
    return markdown(["agent", *head[1:]], [*of_agents, whole]), markdown(["task", *head[1:]], [*of_tasks, whole])


def memory_table(device: Device, names: Sequence[str]) -> str:
    """State that a row carries, and how many rows fit beside nothing else."""
    rows = []
    for name in names:
        cells = []
        for task in ("lift", "antmaze-large-play", "relocate"):
            agent, replay = row_bytes(name, task)
            cells += [f"{agent / 2**20:,.0f} + {replay / 2**20:,.0f}", f"{device.memory / (agent + replay):,.0f}"]
        rows.append([f"`{name}`", *cells])
    fit = f"rows per {device.memory / 1e9:.0f} GB"
    return markdown(["agent", "lift: MiB", fit, "antmaze-large: MiB", fit, "relocate: MiB", fit], rows)


def tables(device: Device, names: Sequence[str], counted: Sequence[str], precision: str, cores: int) -> dict[str, str]:
    of_agents, of_tasks = plan_tables(device, names, precision, cores)
    return {
        "work": work_table(counted),
        "check": check_table(),
        "seed": seed_table(device, names, tuple(reversed(device.peak)), cores),
        "plan by agent": of_agents,
        "plan by task": of_tasks,
        "memory": memory_table(device, names),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", nargs="+", choices=agents.AGENTS, default=AGENTS, help="of the plan")
    parser.add_argument("--counted", nargs="+", choices=agents.AGENTS, default=tuple(agents.AGENTS), help="whose arithmetic is listed")
    parser.add_argument("--precision", choices=tuple(H100.peak), default="bfloat16", help="of the plan")
    parser.add_argument("--peak", type=float, help="another device: TFLOP/s of dense products in that precision")
    parser.add_argument("--bandwidth", type=float, default=H100.bandwidth / 1e12, help="TB/s of its memory")
    parser.add_argument("--memory", type=float, default=H100.memory / 1e9, help="GB")
    parser.add_argument(
        "--utilisation", nargs=2, type=float, default=(H100.worst.utilisation, H100.best.utilisation), help="worst and best"
    )
    parser.add_argument(
        "--per-product", nargs=2, type=float, default=(1e6 * H100.worst.per_product, 1e6 * H100.best.per_product), help="microseconds"
    )
    parser.add_argument("--cores", type=int, default=CORES, help="of the host, for physics, per device")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    args = parser.parse_args(argv)
    peak = {args.precision: args.peak * 1e12} if args.peak else H100.peak
    ends = [End(u, memory, 1e-6 * p) for u, p, memory in zip(args.utilisation, args.per_product, (True, False), strict=True)]
    device = Device("given" if args.peak else H100.name, peak, args.bandwidth * 1e12, args.memory * 1e9, ends[1], ends[0])
    for name, table in tables(device, args.agents, args.counted, args.precision, args.cores).items():
        print(f"{name}\n\n{table}")
        if args.write:
            into_page(PAGE, "scaling", name, table)


if __name__ == "__main__":
    main()
