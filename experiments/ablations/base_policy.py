"""Does it take diffusion? EXPO on a flow, and on fewer and more denoising steps."""

from experiments import sizes
from expo_bench import Experiment

EXPERIMENT = Experiment(
    name="base-policy",
    tasks=["push-disc"],
    methods=["expo"],
    seeds=10,
    vary={"expo.base": ("diffusion", "flow"), "expo.denoising_steps": (2, 5, 10)},
    config={name: value for name, value in sizes.CONFIG.items() if name != "denoising_steps"},
    protocol=sizes.PROTOCOL,
)
