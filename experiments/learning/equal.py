"""As released.py, all algorithms under EXPO's protocol: an offline phase for those that can use one, no warm-up, 4 updates per environment step,
half of every batch offline data, and chunks of 5 for the algorithms that are made of them."""

from experiments import sizes
from experiments.learning.released import SEEDS, TASKS
from expo_bench import Experiment, Method, agents

METHODS = [Method(name, protocol={"chunk": agents.load(name).PROTOCOL.chunk}) for name in agents.AGENTS]
EXPERIMENT = Experiment(
    name="equal",
    tasks=TASKS,
    methods=METHODS,
    seeds=SEEDS,
    engine="mujoco",
    config=sizes.CONFIG,
    protocol={**sizes.PROTOCOL, "warmup_steps": 0},
    comparison="equal",
)
