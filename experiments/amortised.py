"""Amortised proposals: what EXPO loses when the base samples of its backup are drawn anew only every k-th time. Both quickstart tasks, 10 seeds.

    expo-bench sweep experiments/amortised.py --out runs/amortised
    python -m benchmarks.amortised runs/amortised

k = 1 is the released algorithm. "from acting": the samples drawn to act in a state are the first that are kept of it.
"""

from experiments import sizes
from expo_bench import Experiment, Method


def of(k: int, **config: bool) -> Method:
    return Method("expo", f"k = {k}{', from acting' if config else ''}", config={"refresh_every": k, **config})


EXPERIMENT = Experiment(
    name="amortised",
    tasks=["push-disc", "point-umaze"],
    methods=[*(of(k) for k in (1, 4, 16, 64)), of(16, proposals_from_acting=True)],
    seeds=10,
    engine="mujoco",
    config=sizes.CONFIG,
    protocol=sizes.PROTOCOL,
)
