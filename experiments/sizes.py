"""The quickstart's sizes: small networks, small batches, a thousandth of the authors' steps; the same for every agent.

Every experiment here that has to finish on a laptop's CPU uses them, so that their numbers can be laid side by side.
"""

CONFIG = {
    "n_samples": 4,
    "n_edits": 4,
    "n_samples_eval": 4,
    "train_samples": 8,
    "denoising_steps": 5,
    "flow_steps": 5,
    "base_hidden": 64,
    "base_blocks": 1,
    "time_features": 32,
    "hidden": (64, 64),
    "edit_hidden": (64, 64),
    "critics": 4,
    "edit_scale": 0.1,
    "progressive_steps": 500.0,  # Policy Decorator's, of 3,500 steps: in the authors' runs 1 to 80 % of the steps
    # A thousandth of the authors' steps wants larger ones: the same for every network of every agent.
    **dict.fromkeys(("lr", "critic_lr", "base_lr", "edit_lr", "actor_lr", "alpha_lr"), 1e-3),
}
PROTOCOL = {
    "offline_steps": 2_000,
    "warmup_steps": 200,  # of the agents that have a warm-up; the others have none
    "online_steps": 3_500,
    "updates": 4,
    "batch_size": 64,
    "eval_every": 500,
    "eval_episodes": 32,
}
