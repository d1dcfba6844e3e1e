"""How much does EXPO owe to its data? Fewer demonstrations, other shares of offline data, and none kept.

"nothing kept" is the paper's Fig. 9: the pretrained policy fills the replay with as many steps as there are demonstrations of 25 episodes or so,
then no batch holds offline data.
"""

from experiments import sizes
from expo_bench import Experiment, Method


def of(variant: str, **protocol: object) -> Method:
    return Method("expo", variant, protocol=protocol)


EXPERIMENT = Experiment(
    name="data",
    tasks=["push-disc"],
    methods=[
        "expo",
        *(of(f"{n} demonstrations", episodes=n) for n in (5, 10, 25)),
        *(of(f"{share:.0%} offline", offline_fraction=share) for share in (0.25, 0.75)),
        of("nothing kept", offline_fraction=0.0, warmup="policy", warmup_steps=1_500, online_steps=5_000),
    ],
    seeds=10,
    config=sizes.CONFIG,
    protocol=sizes.PROTOCOL,
)
