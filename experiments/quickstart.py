"""The quickstart: EXPO, RLPD, IDQL and FQL beside EXPO's two controls, on one sparse-reward MJX task, in minutes on a laptop's CPU.

Small networks, nothing else small: every agent has the same sizes, the same data and the same steps, and no setting was chosen per agent.
The controls are the base policy alone (`bc`: what imitation gives) and EXPO with random instead of max-Q selection in acting and backup
(what is left when the selection says nothing).
"""

from expo_bench import Experiment, Method

RANDOM = Method("expo", "random selection", config={"select_act": "random", "select_backup": "random"})

EXPERIMENT = Experiment(
    name="quickstart",
    tasks=["push-disc"],
    methods=["expo", RANDOM, "bc", "rlpd", "idql", "fql"],
    seeds=6,
    config={
        "n_samples": 4,
        "n_edits": 4,
        "n_samples_eval": 4,
        "denoising_steps": 5,
        "flow_steps": 5,
        "base_hidden": 64,
        "base_blocks": 1,
        "time_features": 32,
        "hidden": (64, 64),
        "critics": 4,
        "edit_scale": 0.1,
        # A thousandth of the authors' steps wants larger ones: the same for every network of every agent.
        **dict.fromkeys(("lr", "critic_lr", "base_lr", "edit_lr", "actor_lr", "alpha_lr"), 1e-3),
    },
    protocol={
        "offline_steps": 2_000,
        "warmup_steps": 200,  # RLPD's; the others have none
        "online_steps": 3_500,
        "updates": 4,
        "batch_size": 64,
        "eval_every": 500,
        "eval_episodes": 32,
    },
)
