"""Of the algorithms that do not learn under released.py or equal.py: the one setting that their mechanism blames, changed.

    expo-bench sweep experiments/learning/remedies.py --out runs/remedies

Everything else is as released.py has it; docs/learning.md lays the two beside each other.
"""

import dataclasses

from experiments.learning import released
from expo_bench import Method

NO_ENTROPY = {"backup_entropy": False}
EMA_AT_ONCE = {"ema_start": 0, "ema_every": 1}


def remedy(agent: str, variant: str, config: dict, **protocol: float) -> Method:
    (method,) = released.EXPERIMENT.methods_of([agent])
    return dataclasses.replace(method, variant=variant, config=config, protocol={**method.protocol, **protocol})


EXPERIMENT = dataclasses.replace(
    released.EXPERIMENT,
    name="remedies",
    methods=[
        remedy("sac", "no entropy in the backup", NO_ENTROPY),
        remedy("sac", "no entropy in the backup, first alpha 0.01", {**NO_ENTROPY, "init_alpha": 0.01}),
        remedy("redq", "no entropy in the backup", NO_ENTROPY),
        remedy("dsrl", "no entropy in the backup", NO_ENTROPY),
        remedy("cal_ql", "multiplier", {"lagrange": True}),
        remedy("cal_ql", "weight 0.5", {"cql_weight": 0.5}),
        remedy("cql", "weight 0.5", {"cql_weight": 0.5}),
        remedy("rebrac", "beta_1 0.1", {"actor_bc": 0.1}),
        remedy("rebrac", "beta_1 1", {"actor_bc": 1.0}),
        remedy("rlpd", "20 updates", {}, updates=20),
        remedy("rlpd", "first alpha 0.01", {"init_alpha": 0.01}),
        remedy("idql", "4 updates, imitates online", {"train_base_online": True}, updates=4),
        remedy("diffusion_ql", "EMA from the start", EMA_AT_ONCE),
        remedy("diffusion_ql", "eta 0.1", {"eta": 0.1}),
        remedy("dac", "EMA from the start", EMA_AT_ONCE),
        remedy("dac", "eta 10", {"eta": 10.0}),
        remedy("dac", "eta 10, N 1", {"eta": 10.0, "n_samples": 1}),
        remedy("dac", "eta 10, 4 updates", {"eta": 10.0}, updates=4),
        remedy("dipo", "half offline data", {}, offline_fraction=0.5),
        remedy("qvpo", "half offline data", {}, offline_fraction=0.5),
        remedy("qsm", "half offline data", {}, offline_fraction=0.5),
        remedy("qsm", "half offline data, bc_weight 10", {"bc_weight": 10.0}, offline_fraction=0.5),
        remedy("dipo", "half offline data, 4 updates", {}, offline_fraction=0.5, updates=4),
        remedy("qvpo", "half offline data, 4 updates", {}, offline_fraction=0.5, updates=4),
        remedy("qsm", "half offline data, 4 updates, M_q 50", {"inverse_temperature": 50.0}, offline_fraction=0.5, updates=4),
        remedy("residual", "first alpha 0.01", {"init_alpha": 0.01}),
        remedy("policy_decorator", "first alpha 0.01", {"init_alpha": 0.01}),
    ],
)
