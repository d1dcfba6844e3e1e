"""How many base samples N? 1 to 32, with as many edits, and (second program) none.

`active_samples` is traced: one program holds 32 samples and masks those beyond N, so every N costs what 32 cost; its values are no timing.
"""

from experiments import sizes
from expo_bench import Experiment, Method

EXPERIMENT = Experiment(
    name="samples",
    tasks=["push-disc"],
    methods=[
        Method("expo", config={"n_samples": 32, "n_edits": 32}),
        Method("idql_online", config={"n_samples": 32}),
    ],
    seeds=10,
    vary={f"{agent}.active_samples": (1, 2, 4, 8, 16, 32) for agent in ("expo", "idql_online")},
    config={name: value for name, value in sizes.CONFIG.items() if name not in ("n_samples", "n_edits")},
    protocol=sizes.PROTOCOL,
)
