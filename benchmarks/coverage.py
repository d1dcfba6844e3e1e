"""Coverage and width of every interval of `analysis`, by simulation: `python -m benchmarks.coverage` rewrites docs/coverage.csv and .md.

A simulation draws the seeds of an experiment from a distribution whose true value is known and asks whether the interval contains it. The
prose of docs/coverage.md stays; what lies between its two marks is written anew.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from analysis import aggregate, comparisons, intervals, survival
from analysis.statistics import CONFIDENCE, shortfall
from benchmarks import coverage_designs as designs

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (3, 4, 5, 10, 30)
SIMULATIONS = 4_000
SLOW = 1_000  # simulations of quantities that have to be sorted or iterated one by one
BLOCK = 250  # simulations that share one set of resamples
UNBOUNDED = 0.01  # a kind whose interval is infinite more often than this, somewhere, is no default
SLACK = 0.005  # averages closer than this are equal: about the error of one simulated coverage
TARGET = 0.8  # of the optimality gap, amid the scores: above them all it would be a mean and nothing else
BEGIN, END = "<!-- tables: python -m benchmarks.coverage -->", "<!-- end of the tables -->"

Sample = Callable[[np.random.Generator, int, int], object]  # (rng, simulations, seeds) -> data
Kind = Callable[[object, np.random.Generator], tuple[np.ndarray, np.ndarray]]  # data -> (low, high)


@dataclass(frozen=True)
class Case:
    """One quantity on one design: how to draw data, the true value, and the kinds of interval for it."""

    quantity: str
    design: str
    sample: Sample
    truth: float
    kinds: dict[str, Kind]
    simulations: int = SIMULATIONS  # at most
    fewest: int = 2  # seeds that it has an interval for


@dataclass(frozen=True)
class Row:
    """What came out for one kind with n seeds."""

    quantity: str
    design: str
    kind: str
    n: int
    coverage: float
    width: float  # mean of the bounded ones
    zero_width: float  # share
    unbounded: float  # share
    simulations: int


def cases() -> Iterator[Case]:
    """Everything that is measured."""
    yield from _one_sample()
    yield from _two_samples()
    yield from _times()
    yield from _over_tasks()


def _limits(function: Callable, data, rng: np.random.Generator, **options) -> tuple[np.ndarray, np.ndarray]:
    """Limits of a function that returns an `Interval` of samples [simulations, seeds]."""
    found = function(*data, axis=1, rng=rng, **options)
    return found.low, found.high


def _one_sample() -> Iterator[Case]:
    names = [name for name in intervals.KINDS if name != "order"]
    for quantity in intervals.DEFAULT:
        # A mean's bootstrap standard error is s / sqrt(n) itself: "scaled" would be "t".
        known = {"mean": [name for name in names if name != "scaled"], "median": [*names, "order"]}.get(quantity, names)
        kinds = {kind: partial(_limits, intervals.interval, quantity=quantity, kind=kind) for kind in known}
        for design, source in designs.ONE.items():
            yield Case(quantity, design, lambda rng, count, n, s=source: (s.sample(rng, (count, n)),), source.quantity(quantity), kinds)
    gaps = {kind: partial(_limits, intervals.interval, kind=kind) for kind in ("t", "percentile", "expanded")}
    for design, source in designs.ONE.items():
        gap = lambda rng, count, n, s=source: (shortfall(s.sample(rng, (count, n)), TARGET),)
        yield Case("optimality gap", design, gap, source.lack(TARGET), gaps)


def _two_samples() -> Iterator[Case]:
    means = {kind: partial(_limits, comparisons.difference, kind=kind) for kind in comparisons.KINDS}
    chances = {kind: partial(_limits, comparisons.improvement, kind=kind) for kind in comparisons.IMPROVEMENT_KINDS}
    paired = {kind: partial(_limits, intervals.interval, kind=kind) for kind in ("t", "percentile", "studentised")}
    for design, (x, y) in designs.TWO.items():
        both = lambda rng, count, n, x=x, y=y: (x.sample(rng, (count, n)), y.sample(rng, (count, n)))
        gap = designs.gap(x, y)
        yield Case("difference", design, both, gap.quantity("mean"), means)
        alone = lambda rng, count, n, s=gap: (s.sample(rng, (count, n)),)
        yield Case("paired difference", design, alone, gap.quantity("mean"), paired)
        yield Case("improvement", design, both, designs.better(x, y), chances)


def _times() -> Iterator[Case]:
    def clipped(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        # With one grid and no run ending early, the pseudo-values of `survival` are the clipped ends themselves.
        return np.minimum(pair[0], designs.HORIZON), np.minimum(pair[1], designs.HORIZON)

    mean = {kind: lambda data, rng, k=kind: _ends(survival.outer_mean(*clipped(data), k, axis=1)) for kind in ("log t", "t")}
    outer = {
        f"outer {kind}": lambda data, rng, k=kind: _ends(survival.outer_ratio(clipped(data[0]), clipped(data[1]), k, axis=1, rng=rng))
        for kind in ("log t", "log percentile", "log studentised")
    }
    even = lambda data, rng: _ends(comparisons.ratio(sum(clipped(data[0])), sum(clipped(data[1])), "log t", axis=1))
    for design, (slow, fast) in designs.TIMES.items():
        one = lambda rng, count, n, s=slow: s.sample(rng, (count, n))
        two = lambda rng, count, n, s=slow, f=fast: (s.sample(rng, (count, n)), f.sample(rng, (count, n)))
        yield Case("time", design, one, slow.mean(), mean)
        yield Case("median time", design, one, slow.middle(), {"percentile": _median_times}, SLOW, intervals.FEW)
        yield Case("time ratio", design, two, slow.mean() / fast.mean(), {**outer, "even log t": even})


def _ends(found) -> tuple[np.ndarray, np.ndarray]:
    return found.low, found.high


def _median_times(data: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    found = [survival.summarise(survival.Times(*ends, designs.HORIZON), rng=rng).median_limits for ends in zip(*data, strict=True)]
    low, high = np.array(found).T
    return low, high


def _over_tasks() -> Iterator[Case]:
    for count in (2, 5):
        for design in designs.TWO:
            parts = designs.tasks(design, count)
            sample = lambda rng, many, n, parts=parts: [part.sample(rng, (many, n)) for part in parts]
            truths = {"mean": 0.6, "median": 0.6, "iqm": designs.mixture(parts).quantity("iqm")}
            for quantity, truth in truths.items():
                known = [kind for kind in aggregate.KINDS if kind != "t" or quantity == "mean"]
                kinds = {kind: partial(_aggregated, quantity=quantity, kind=kind) for kind in known}
                yield Case(f"{quantity} of {count} tasks", design, sample, truth, kinds, SLOW)
            if count == 5:
                share = {kind: partial(_share, kind=kind) for kind in aggregate.PROFILE_KINDS}
                chances = [part.above(0.5) for part in parts]
                yield Case("profile of 5 tasks", design, sample, float(np.mean(chances)), share)
                yield _improvement_over_tasks(design, parts)


def _aggregated(data: list[np.ndarray], rng: np.random.Generator, quantity: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    few = 25  # data sets at once: each is thousands of resamples of all tasks
    pieces = [aggregate.KINDS[kind]([task[i : i + few] for task in data], quantity, CONFIDENCE, rng) for i in range(0, len(data[0]), few)]
    low, high = np.concatenate(pieces, axis=1)
    return low, high


def _share(data: list[np.ndarray], rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    parts = [aggregate.PROFILE_KINDS[kind]((task > 0.5).sum(axis=1), task.shape[1], CONFIDENCE) for task in data]
    return aggregate.mover(*zip(*parts, strict=True))[1:]


def _improvement_over_tasks(design: str, parts: Sequence[designs.Normal | designs.Discrete]) -> Case:
    others = designs.tasks(design, 2 * len(parts))[: len(parts)]  # the same ladder of tasks, half as high

    def sample(rng: np.random.Generator, many: int, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(x.sample(rng, (many, n)), y.sample(rng, (many, n))) for x, y in zip(parts, others, strict=True)]

    def limits(data: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
        found = [comparisons.improvement(x, y, kind, axis=1, rng=rng) for x, y in data]
        return aggregate.mover(*zip(*((one.estimate, one.low, one.high) for one in found), strict=True))[1:]

    truth = float(np.mean([designs.better(x, y) for x, y in zip(parts, others, strict=True)]))
    kinds = {kind: partial(limits, kind=kind) for kind in ("score", "score t", "t")}
    return Case("improvement over 5 tasks", design, sample, truth, kinds)


def measure(case: Case, n: int, simulations: int, kinds: Sequence[str] | None = None, seed: int = 0) -> list[Row]:
    """Every kind of one case (or `kinds` of it) with n seeds, all on the same simulated data."""
    count = min(simulations, case.simulations)
    limits: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds or case.kinds}
    for block, start in enumerate(range(0, count, BLOCK)):
        data = case.sample(np.random.default_rng([seed, n, block]), min(BLOCK, count - start), n)
        for kind, pieces in limits.items():
            pieces.append(np.array(case.kinds[kind](data, np.random.default_rng([seed, n, block, 1]))))
    rows = []
    for kind, pieces in limits.items():
        low, high = np.concatenate(pieces, axis=1)
        with np.errstate(invalid="ignore"):
            width = high - low
        bounded = np.isfinite(width)
        covered = (low <= case.truth + 1e-9) & (high >= case.truth - 1e-9)
        wide = float(width[bounded].mean()) if bounded.any() else np.inf
        shares = (float((width[bounded] <= 1e-12).sum() / count), float(1 - bounded.mean()))
        rows.append(Row(case.quantity, case.design, kind, n, float(covered.mean()), wide, *shares, count))
    return rows


def choose(rows: Iterable[Row]) -> str:
    """The kind nearest 95 % from above: of those that are bounded everywhere, the ones that fall short of 95 % least on average; of these,
    the ones that exceed it least; and of these, the first, which is the simplest. Averages within `SLACK` are equal."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
    # Where every kind is unbounded now and then, as a median time that was not seen, that is no reason against one of them.
    bounded = {kind: of for kind, of in kinds.items() if max(row.unbounded for row in of) <= UNBOUNDED} or kinds
    short = {kind: np.mean([max(CONFIDENCE - row.coverage, 0.0) for row in of]) for kind, of in bounded.items()}
    over = {kind: np.mean([max(row.coverage - CONFIDENCE, 0.0) for row in of]) for kind, of in bounded.items()}
    enough = [kind for kind in bounded if short[kind] <= min(short.values()) + SLACK]
    return next(kind for kind in enough if over[kind] <= min(over[other] for other in enough) + SLACK)


def defaults(rows: Sequence[Row]) -> dict[str, str]:
    """The chosen kind of every quantity; of mean, median and IQM of one agent on one task for few seeds and for more."""
    chosen = {}
    for quantity in dict.fromkeys(row.quantity for row in rows):
        of = [row for row in rows if row.quantity == quantity]
        if quantity in intervals.DEFAULT:
            chosen[f"{quantity}, fewer than {intervals.FEW} seeds"] = choose(row for row in of if row.n < intervals.FEW)
            chosen[f"{quantity}, {intervals.FEW} seeds or more"] = choose(row for row in of if row.n >= intervals.FEW)
        else:
            chosen[quantity] = choose(of)
    return chosen


def tables(rows: Sequence[Row]) -> str:
    """Markdown: the defaults, then one table per quantity, coverage and mean width by number of seeds."""
    lines = ["### Defaults by these measurements", "", "| quantity | kind |", "|---|---|"]
    lines += [f"| {quantity} | {kind} |" for quantity, kind in defaults(rows).items()]
    for quantity in dict.fromkeys(row.quantity for row in rows):
        of = [row for row in rows if row.quantity == quantity]
        counts = sorted({row.n for row in of})
        lines += ["", f"### {quantity[0].upper()}{quantity[1:]} ({of[0].simulations:,} simulations)", ""]
        lines += ["| design | kind | " + " | ".join(f"n = {n}" for n in counts) + " |", "|---|---|" + "---|" * len(counts)]
        cells: dict[tuple[str, str], dict[int, str]] = {}
        for row in of:
            cells.setdefault((row.design, row.kind), {})[row.n] = _cell(row)
        lines += [f"| {design} | {kind} | " + " | ".join(by[n] for n in counts) + " |" for (design, kind), by in cells.items()]
    return "\n".join(lines) + "\n"


def _cell(row: Row) -> str:
    """`0.95 (0.46)`: coverage and mean width, and the shares without width or without bounds where there are some."""
    marks = [f"{share:.0%} {name}" for share, name in ((row.zero_width, "zero"), (row.unbounded, "unbounded")) if share >= 0.005]
    width = f" ({row.width:.2g})" if np.isfinite(row.width) else ""
    return f"{row.coverage:.3f}{width}" + (f"; {', '.join(marks)}" if marks else "")


def read(path: Path) -> list[Row]:
    """The rows of a CSV that `write` wrote."""
    with path.open(newline="") as file:
        return [
            Row(r["quantity"], r["design"], r["kind"], int(r["n"]), *(float(r[name]) for name in NUMBERS), int(r["simulations"]))
            for r in csv.DictReader(file)
        ]


NUMBERS = ("coverage", "width", "zero_width", "unbounded")


def write(rows: Sequence[Row], folder: Path) -> None:
    """coverage.csv, and the tables of coverage.md between its marks."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "coverage.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(row), **{name: f"{getattr(row, name):.4g}" for name in NUMBERS}} for row in rows)
    page = folder / "coverage.md"
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Coverage of intervals\n\n{BEGIN}\n{END}\n"
    head, _, rest = text.partition(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{tables(rows)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--simulations", type=int, default=SIMULATIONS, help=f"per cell; at most {SLOW:,} where that takes long (default: %(default)s)"
    )
    p.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="numbers of seeds (default: 3 4 5 10 30)")
    p.add_argument("--quantities", nargs="+", help="only these, such as iqm 'time ratio'; the others keep their rows (default: all)")
    p.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of coverage.csv and coverage.md (default: docs)")
    args = p.parse_args(argv)
    known = list(dict.fromkeys(case.quantity for case in cases()))
    asked = args.quantities or known
    if unknown := sorted(set(asked) - set(known)):
        print(f"no such quantity: {', '.join(unknown)}; expected some of: {', '.join(known)}", file=sys.stderr)
        return 2
    began, rows = time.perf_counter(), []
    for case in cases():
        if case.quantity in asked:
            for n in args.seeds:
                rows += measure(case, n, args.simulations) if n >= case.fewest else []
            print(f"{time.perf_counter() - began:6.0f} s  {case.quantity}, {case.design}", file=sys.stderr, flush=True)
    if args.quantities and (args.out / "coverage.csv").exists():
        rows += [row for row in read(args.out / "coverage.csv") if row.quantity not in asked]
        rows.sort(key=lambda row: known.index(row.quantity))
    write(rows, args.out)
    print(tables(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
