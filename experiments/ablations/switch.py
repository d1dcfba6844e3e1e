"""The drop at the switch to the online phase: an untrained critic chooses worse than chance among good candidates.

"fading in" lets selection in gradually, in acting and in the backup: a softmax over the candidates whose temperature falls from 1 (in units of Q:
close to a coin) by a factor of e every 150 steps. "fading in (acting)" does so in acting alone. Evaluations are close together.
"""

from experiments import sizes
from experiments.ablations.selection import rule
from expo_bench import Experiment

FADING = {"temperature": 1.0, "temperature_decay": 150.0}
EXPERIMENT = Experiment(
    name="switch",
    tasks=["push-disc"],
    methods=[
        "expo",
        rule("fading in", "softmax", "softmax", **FADING),
        rule("fading in (acting)", act="softmax", **FADING),
        rule("random selection", "random", "random"),
        "bc",
    ],
    seeds=10,
    config=sizes.CONFIG,
    protocol={**sizes.PROTOCOL, "online_steps": 2_000, "eval_every": 125},
)
