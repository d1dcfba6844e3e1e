"""Hybrid sampling as in Hy-Q (Song et al., arXiv 2210.06718): how offline and online data share a batch, for one actor-critic.

    expo-bench sweep experiments/hy_q.py --out runs/hy_q
    expo-bench sweep experiments/hy_q.py --agents sac expo --protocol sampling=union      # any other agent the same way

Hy-Q is fitted Q-iteration without pessimism on offline and online data together: a way to draw batches, so a protocol here, not an agent. Its
backup is a maximum over discrete actions; the soft actor-critic that stands for it is RLPD's.
- "hy_q": uniform over the union of both, as its Algorithm 1 regresses: the offline share falls as online data come in.
- "hy_q 20% offline": the share of the release on Montezuma's Revenge (yudasong/HyQ: one batch in five is offline, a share that it
  anneals to 0.01 in 15,000,000 steps; here a fifth of every batch, not annealed).
- "half offline": RLPD's own, and EXPO's; Hy-Q's release adds as many offline as online transitions on its combination lock.
- "no offline data": what is left without them.
Half and none are controls. The first temperature lies below the reward in all four, since RLPD's own learns nothing in so few steps
(docs/learning.md). Not checked against the official code.
"""

from experiments import sizes
from expo_bench import Experiment, Method


def of(variant: str, **protocol: object) -> Method:
    return Method("rlpd", variant, protocol=protocol)


EXPERIMENT = Experiment(
    name="hy_q",
    tasks=["point-umaze", "push-disc"],
    methods=[
        of("hy_q", sampling="union"),
        of("hy_q 20% offline", offline_fraction=0.2),
        of("half offline"),
        of("no offline data", offline_fraction=0.0),
    ],
    seeds=10,
    engine="mujoco",
    config={**sizes.CONFIG, "init_alpha": 0.01},
    protocol=sizes.PROTOCOL,
)
