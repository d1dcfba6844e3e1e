"""The Adroit door from human demonstrations at a size that a laptop's CPU finishes in minutes; bring the data with --dataset FILE.

Adroit's released presets (edit scale 0.7, edit dropout 0.1), small networks, UTD 4. What it shows is how far such a run gets, not what the
algorithms can do: the paper's settings are some thousand times more arithmetic per environment step.
"""

from expo_bench import Experiment

EXPERIMENT = Experiment(
    name="door-small",
    tasks=["door"],
    methods=["expo", "rlpd", "bc"],
    seeds=4,
    config={
        "n_samples": 4,
        "n_edits": 4,
        "denoising_steps": 5,
        "base_hidden": 64,
        "base_blocks": 1,
        "time_features": 32,
        "hidden": (128, 128),
        "edit_hidden": (128, 128),
        "critics": 4,
    },
    protocol={
        "offline_steps": 10_000,
        "warmup_steps": 0,
        "online_steps": 4_000,
        "updates": 4,
        "batch_size": 64,
        "eval_every": 500,
        "eval_episodes": 10,
    },
)
