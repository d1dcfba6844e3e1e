"""How a run is laid out in time: the part of an experiment that is not the algorithm. Needs no jax."""

from __future__ import annotations

import dataclasses
from typing import Any

from expo_bench.config import static
from expo_bench.errors import UserError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Each agent declares its authors' protocol; an experiment overrides fields of it."""

    offline_steps: int = static(0, "gradient steps of the offline phase", least=0)
    warmup_steps: int = static(0, "environment steps before any online update", least=0)
    warmup: str = static("uniform", "who acts in the warm-up: 'uniform' random actions, or the pretrained 'policy'")
    online_steps: int = static(100_000, "environment steps of the online phase, warm-up included", least=0)
    updates: int = static(1, "U: batches learnt from per environment step (update-to-data ratio)")
    batch_size: int = static(256, "B: transitions per batch")
    sampling: str = static(
        "mixed", "'mixed': offline_fraction of every batch is offline data; 'union': uniform over offline and online data together"
    )
    offline_fraction: float = static(0.5, "share of offline rows in a batch when sampling is 'mixed'")
    episodes: int = static(0, "use only the first episodes of the offline data (0: all)", least=0)
    chunk: int = static(1, "C: action-chunk length; an algorithm proposes, values and imitates C actions at once, executed open loop")
    num_envs: int = static(1, "environments stepped together by each row of the sweep")
    reward_scale: float = static(1.0, "factor of every reward that is learnt from, before reward_shift (Cal-QL: 10)")
    reward_shift: float = static(0.0, "added to every reward that is learnt from (AntMaze: -1)")
    eval_every: int = static(5_000, "environment steps between evaluations")
    eval_episodes: int = static(100, "E: episodes per evaluation")
    offline_evals: int = static(1, "evaluations during the offline phase, evenly spaced, the last one at its end")

    @property
    def offline_rows(self) -> int:
        """Offline rows of a mixed batch."""
        return round(self.offline_fraction * self.batch_size)

    def learnt_reward(self, reward: Any) -> Any:
        """The reward that is learnt from: the task's own, scaled and shifted; any shape."""
        return reward * self.reward_scale + self.reward_shift


def validate(protocol: Protocol, where: str, *, has_dataset: bool) -> None:
    """Raise one clear line where the numbers cannot be run. `where` names the task and agent."""

    def need(condition: bool, message: str) -> None:
        if not condition:
            raise UserError(f"{where}: {message}")

    for name in ("offline_steps", "warmup_steps", "online_steps"):
        need(getattr(protocol, name) >= 0, f"{name} must not be negative, got {getattr(protocol, name)}")
    for name in ("updates", "batch_size", "num_envs", "eval_every", "eval_episodes", "offline_evals"):
        need(getattr(protocol, name) >= 1, f"{name} must be at least 1, got {getattr(protocol, name)}")
    need(protocol.sampling in ("mixed", "union"), f"sampling must be 'mixed' or 'union', got {protocol.sampling!r}")
    need(protocol.warmup in ("uniform", "policy"), f"warmup must be 'uniform' or 'policy', got {protocol.warmup!r}")
    need(protocol.chunk >= 1, f"chunk must be at least 1, got {protocol.chunk}")
    need(protocol.episodes >= 0, f"episodes must not be negative, got {protocol.episodes}")
    need(protocol.reward_scale > 0, f"reward_scale must be above 0, got {protocol.reward_scale}")
    need(0.0 <= protocol.offline_fraction <= 1.0, f"offline_fraction must lie in [0, 1], got {protocol.offline_fraction}")
    need(
        protocol.warmup_steps <= protocol.online_steps,
        f"warmup_steps ({protocol.warmup_steps}) exceed online_steps ({protocol.online_steps})",
    )
    for name in ("warmup_steps", "online_steps", "eval_every"):
        value = getattr(protocol, name)
        need(value % protocol.num_envs == 0, f"{name} ({value}) must be a multiple of num_envs ({protocol.num_envs})")
    need(protocol.offline_steps + protocol.online_steps > 0, "nothing to do: offline_steps and online_steps are both 0")
    need(
        protocol.offline_steps == 0 or protocol.offline_steps >= protocol.offline_evals,
        f"offline_evals ({protocol.offline_evals}) exceed offline_steps ({protocol.offline_steps})",
    )
    if not has_dataset:
        need(protocol.offline_steps == 0, "offline_steps need a dataset")
        need(protocol.episodes == 0, "episodes need a dataset")
        need(protocol.sampling == "union" or protocol.offline_rows == 0, "offline_fraction > 0 needs a dataset")
