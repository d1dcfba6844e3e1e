"""The paper's one tuned hyperparameter, beta, with the target entropy as released and in reach.

`edit_scale` is traced: its four values are rows of one program; the entropy is structure: two programs.
"""

from experiments import sizes
from expo_bench import Experiment

EXPERIMENT = Experiment(
    name="edit-scale",
    tasks=["push-disc"],
    methods=["expo"],
    seeds=10,
    vary={"expo.edit_scale": (0.05, 0.1, 0.3, 0.7), "expo.reachable_target_entropy": (False, True)},
    config=sizes.CONFIG,
    protocol=sizes.PROTOCOL,
)
