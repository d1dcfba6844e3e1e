"""Does every algorithm learn? Both quickstart tasks, 10 seeds, the quickstart's sizes; each algorithm under its authors' protocol.

    expo-bench sweep experiments/learning/released.py --out runs/released
    expo-bench sweep experiments/learning/equal.py --out runs/equal
    expo-bench table runs/released runs/equal

Theirs are: whether there is an offline phase or a warm-up, how batches are mixed, action chunks. The quickstart's are the numbers of steps. Agents
that their authors update 20 times per environment step are updated 4 times, the others once.
"""

from experiments import sizes
from expo_bench import Experiment, Method, agents

TASKS = ["point-umaze", "push-disc"]
SEEDS = 10
METHODS = [Method(name, protocol={"updates": min(4, agents.load(name).PROTOCOL.updates)}) for name in agents.AGENTS]
EXPERIMENT = Experiment(
    name="released",
    tasks=TASKS,
    methods=METHODS,
    seeds=SEEDS,
    engine="mujoco",
    config=sizes.CONFIG,
    protocol={name: value for name, value in sizes.PROTOCOL.items() if name != "updates"},
)
