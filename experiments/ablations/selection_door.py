"""The selection question on the Adroit door, smaller: from 25 rollouts of a trained policy, which imitation of this size can learn from.

    expo-bench data generate door --policy dapg_policy_door.npz --noise 0.1 --episodes 25 --out door.npz
    expo-bench sweep experiments/ablations/selection_door.py --dataset door.npz

Edit scale 0.1 instead of the 0.7 released for Adroit, with which the success of imitation is lost at the switch and not regained in so few
steps (docs/door.md); "released edit scale" shows that beside the others.
"""

from experiments import sizes
from experiments.ablations.selection import rule
from expo_bench import Experiment, Method

EXPERIMENT = Experiment(
    name="selection-door",
    tasks=["door"],
    methods=[
        "expo",
        rule("random selection", "random", "random"),
        rule("random acting", act="random"),
        rule("random backup", backup="random"),
        rule("double", backup="double"),
        rule("no edits", n_edits=0),
        Method("expo", "released edit scale", config={"edit_scale": 0.7}),
        "bc",
    ],
    seeds=5,
    config={**sizes.CONFIG, "edit_dropout": 0.0},
    protocol={**sizes.PROTOCOL, "offline_steps": 10_000, "online_steps": 3_000, "eval_episodes": 10},
)
