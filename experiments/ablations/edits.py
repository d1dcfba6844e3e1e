"""Is it the edits? EXPO without them, with nothing else, learnt elsewhere, less often, by a wider network, or with a target entropy in reach.

As released the target entropy counts the edit's scale in, which no edit below beta = 0.303 can reach, so that the temperature grows.
"""

from experiments import sizes
from expo_bench import Experiment, Method

EXPERIMENT = Experiment(
    name="edits",
    tasks=["push-disc"],
    methods=[
        "expo",
        Method("expo", "no edits", config={"n_edits": 0}),
        Method("expo", "edits only", config={"base_candidates": False}),
        Method("expo", "edits on base samples", config={"edit_on": "base"}),
        Method("expo", "an edit update every 4 steps", config={"edit_every": 4}),
        Method("expo", "wide edit policy", config={"edit_hidden": (256, 256)}),
        Method("expo", "reachable entropy", config={"reachable_target_entropy": True}),
    ],
    seeds=10,
    config=sizes.CONFIG,
    protocol=sizes.PROTOCOL,
)
