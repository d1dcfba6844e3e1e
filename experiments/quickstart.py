"""The quickstart: EXPO, RLPD, IDQL and FQL beside EXPO's two controls, on one sparse-reward MJX task, in minutes on a laptop's CPU.

Small networks, nothing else small: every agent has the same sizes, the same data and the same steps, and no setting was chosen per agent.
The controls are the base policy alone (`bc`: what imitation gives) and EXPO with random instead of max-Q selection in acting and backup
(what is left when the selection says nothing).
"""

from experiments import sizes
from expo_bench import Experiment, Method

RANDOM = Method("expo", "random selection", config={"select_act": "random", "select_backup": "random"})

EXPERIMENT = Experiment(
    name="quickstart",
    tasks=["push-disc"],
    methods=["expo", RANDOM, "bc", "rlpd", "idql", "fql"],
    seeds=6,
    config=sizes.CONFIG,
    protocol=sizes.PROTOCOL,
)
