"""Does the precision of matrix products cost learning? EXPO on push-disc at the quickstart's sizes, 10 seeds, in four precisions.

    for p in float32 tensorfloat32 bfloat16 bfloat16_denoiser; do expo-bench sweep experiments/precision/$p.py --out runs/precision-$p; done
    expo-bench compare runs/precision-* --candidate "expo (bfloat16)" --reference "expo (float32)"

The same seeds and evaluation episodes in all four. On a CPU the operands are rounded before every product (`expo_bench/precision.py`).
"""

from experiments import sizes
from expo_bench import Experiment, Method


def of(variant: str, precision: str, denoiser: str | None = None) -> Experiment:
    return Experiment(
        name="precision",
        tasks=["push-disc"],
        methods=[Method("expo", variant)],
        seeds=10,
        engine="mujoco",
        config=sizes.CONFIG,
        protocol=sizes.PROTOCOL,
        precision=precision,
        denoiser_precision=denoiser,
    )
