"""Every method on a bandit whose tilted density is known: `python -m benchmarks.bandit` rewrites docs/bandit.csv, the tables of docs/bandit.md
and their pictures.

The prose of docs/bandit.md stays; what lies between its two marks is written anew.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from analysis import intervals
from benchmarks.bandit import densities, figures, methods, minimisers
from benchmarks.bandit.methods import CLAIMS, Method

ROOT = Path(__file__).resolve().parents[2]
SEEDS, COUNT = 5, 4_000
BEGIN, END = "<!-- tables: python -m benchmarks.bandit -->", "<!-- end of the tables -->"
LEARNT, EXACT, NOTHING = "learnt", "exact Q", "nothing learnt"
STEPS = (5, 20, 200)  # of what is sampled without learning


@dataclass(frozen=True)
class Row:
    """What one seed of a method came to."""

    group: str  #       sampling, maximising, minima
    method: str
    critic: str  #      LEARNT, EXACT or NOTHING
    claim: str
    steps: int  #       of the sampler, in the group minima
    seed: int
    distance: float  #  total variation from the claimed density; NaN: claims none
    share: float  #     of samples nearer to the better mode
    reward: float  #    mean
    height: float  #    of the samples there: mean and standard deviation of the second coordinate
    width: float


def row(group: str, method: str, critic: str, claim: str | None, steps: int, seed: int, samples: np.ndarray) -> Row:
    """The row of samples [count, D]."""
    drawn = np.asarray(samples, np.float64)
    there = drawn[densities.at_better(drawn)][:, 1]
    distance = densities.total_variation(densities.histogram(drawn), CLAIMS[claim].cells) if claim else np.nan
    place = (there.mean(), there.std()) if len(there) else (np.nan, np.nan)
    numbers = distance, len(there) / len(drawn), densities.reward(drawn).mean(), *place
    return Row(group, method, critic, claim or "", steps, seed, *(float(x) for x in numbers))


def learnt(group: str, method: Method, samples: np.ndarray) -> Iterator[Row]:
    """The rows of a method's samples [seeds, count, D], and of its loss's minimum where that is known."""
    critic = EXACT if method.exact else LEARNT
    steps = methods.STEPS["denoising_steps"] if method.claim else 0
    for seed, drawn in enumerate(samples):
        yield row(group, method.label, critic, method.claim, steps, seed, drawn)
        if method.minimum and not method.exact:
            exact = minimisers.samples(method.minimum, steps, len(drawn), seed)
            yield row(group, method.label, NOTHING, method.claim, steps, seed, exact)


def minima(seeds: int, count: int) -> Iterator[Row]:
    """The rows of what the objectives' minima sample with few and many steps."""
    for name in (*minimisers.EPSILONS, minimisers.FLOW):
        claim = minimisers.EPSILONS[name].claim if name in minimisers.EPSILONS else "tilted"
        for steps in STEPS:
            for seed in range(seeds):
                yield row("minima", name, NOTHING, claim, steps, seed, minimisers.samples(name, steps, count, seed))


# -- tables --------------------------------------------------------------------------------------------------------------------------------


def moments(claim: str) -> tuple[float, float, float]:
    """(share at the better mode, height, width) of a claimed density, from its cells."""
    at, p = densities.middles(), CLAIMS[claim].cells
    there = p * densities.at_better(at)
    height = np.sum(there * at[..., 1]) / there.sum()
    return float(there.sum()), float(height), float(np.sqrt(np.sum(there * (at[..., 1] - height) ** 2) / there.sum()))


def spread(values: Sequence[float]) -> str:
    """mean [t interval] over seeds."""
    mean = f"{np.mean(values):.2f}"
    if len(values) < 2:
        return mean
    found = intervals.interval(values, "mean")
    return f"{mean} [{found.low:.2f}, {found.high:.2f}]"


def of(rows: Sequence[Row], **known: object) -> list[Row]:
    return [row for row in rows if all(getattr(row, name) == value for name, value in known.items())]


def mean(rows: Sequence[Row], name: str) -> str:
    return f"{np.mean([getattr(row, name) for row in rows]):.2f}" if rows else ""


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)) + "\n"


def sampling_table(rows: Sequence[Row], count: int) -> str:
    head = ("method", "claims", "distance [95 %]", "exact Q", "nothing learnt", "exact samples", "share", "height", "width")
    lines, rng = [], np.random.default_rng(0)
    for label in dict.fromkeys(row.method for row in rows):
        by_critic = {critic: of(rows, method=label, critic=critic) for critic in (LEARNT, EXACT, NOTHING)}
        own = by_critic[LEARNT]
        claim = own[0].claim
        floor = densities.noise_floor(CLAIMS[claim].cells, count, rng)
        known = zip(("share", "height", "width"), moments(claim), strict=True)
        distances = spread([row.distance for row in own]), *(mean(by_critic[critic], "distance") for critic in (EXACT, NOTHING))
        lines.append((label, f"`{CLAIMS[claim].said}`", *distances, f"{floor:.2f}", *(f"{mean(own, name)} ({x:.2f})" for name, x in known)))
    return markdown(head, lines)


def maximising_table(rows: Sequence[Row]) -> str:
    lines = []
    for label in dict.fromkeys(row.method for row in rows):
        own = of(rows, method=label)
        lines.append(
            (label, *(spread([getattr(row, name) for row in own]) for name in ("share", "reward")), mean(own, "height"), mean(own, "width"))
        )
    return markdown(("method", "share [95 %]", "mean reward [95 %]", "height", "width"), lines)


def minima_table(rows: Sequence[Row]) -> str:
    lines = []
    for name in dict.fromkeys(row.method for row in rows):
        own = of(rows, method=name)
        cells = [f"{mean(of(own, steps=steps), 'distance')}, {mean(of(own, steps=steps), 'share')}" for steps in STEPS]
        lines.append((name, f"`{CLAIMS[own[0].claim].said}`", f"{moments(own[0].claim)[0]:.2f}", *cells))
    return markdown(("what is sampled", "claims", "claimed share", *(f"{steps} steps: distance, share" for steps in STEPS)), lines)


def write(rows: Sequence[Row], text: str, folder: Path) -> None:
    """bandit.csv, and what lies between the marks of bandit.md."""
    with (folder / "bandit.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{x:.4g}" if isinstance(x, float) else x for name, x in asdict(row).items()} for row in rows)
    page = folder / "bandit.md"
    old = page.read_text(encoding="utf-8") if page.exists() else f"# A bandit with two modes\n\n{BEGIN}\n{END}\n"
    head, _, rest = old.partition(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def pictures(drawn: Sequence[tuple[Method, np.ndarray]], rows: Sequence[Row], folder: Path) -> None:
    """bandit-sampling.png and bandit-maximising.png."""
    sampling, maximising = [], []
    for method, samples in drawn:
        own = of(rows, method=method.label, critic=LEARNT, group="sampling" if method.claim else "maximising")
        if method.claim and not method.exact:
            claim = CLAIMS[method.claim]
            sampling.append((method.label, f"{claim.said}: {mean(own, 'distance')}", samples, claim.density))
        elif not method.claim:
            maximising.append((method.label, f"share {mean(own, 'share')}, reward {mean(own, 'reward')}", samples, None))
    figures.draw(folder / "bandit-sampling", sampling, columns=5)
    figures.draw(folder / "bandit-maximising", maximising, columns=6)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.bandit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--seeds", type=int, default=SEEDS, help="per method (default: %(default)s)")
    p.add_argument("--samples", type=int, default=COUNT, help="actions per seed (default: %(default)s)")
    p.add_argument("--methods", nargs="+", help="only these: their tables are printed, no file is written")
    p.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of bandit.csv, bandit.md and images/ (default: docs)")
    args = p.parse_args(argv)
    known = methods.SAMPLING + methods.MAXIMISING
    labels = list(dict.fromkeys(method.label for method in known))
    if unknown := sorted(set(args.methods or ()) - set(labels)):
        print(f"no such method: {', '.join(unknown)}; expected some of: {', '.join(labels)}", file=sys.stderr)
        return 2
    drawn, rows = [], []
    for method in known:
        if not args.methods or method.label in args.methods:
            began = time.process_time()
            samples = method.run(args.seeds, args.samples)
            drawn.append((method, samples))
            rows += learnt("sampling" if method.claim else "maximising", method, samples)
            critic = " with exact Q" if method.exact else ""
            print(f"{time.process_time() - began:4.0f} s of CPU  {method.label}{critic}", file=sys.stderr, flush=True)
    if not args.methods:
        rows += minima(args.seeds, args.samples)
    parts = {"sampling": lambda own: sampling_table(own, args.samples), "maximising": maximising_table, "minima": minima_table}
    tables = {group: make(of(rows, group=group)) for group, make in parts.items() if of(rows, group=group)}
    text = "\n".join(f"### {group.capitalize()}\n\n{table}" for group, table in tables.items())
    print(text)
    if not args.methods:
        pictures(drawn, rows, args.out / "images")
        write(rows, text, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
