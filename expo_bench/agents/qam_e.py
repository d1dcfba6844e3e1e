"""QAM-E: Q-learning with adjoint matching and an edit policy (Qiyang Li and Levine, arXiv 2601.14234), as released: QAM with EXPO's edits.

The edit takes up what the temperature of the tilt leaves: the authors tune both, and edit by 0.1 nearly everywhere (puzzle-4x4: 0.9).
Not checked against the official code.
"""

from __future__ import annotations

import dataclasses

from expo_bench.agents import qam
from expo_bench.agents.base import Agent, Spec
from expo_bench.config import fixed


@dataclasses.dataclass(frozen=True)
class Config(qam.Config):
    edit: bool = fixed(True, "the flow's actions are edited")


PROTOCOL = qam.PROTOCOL
SUITES = {"antmaze": {"config": {"inverse_temperature": 1.0}, "protocol": {"reward_shift": -1.0}}}  # as on antmaze-large-navigate


def make(config: Config, spec: Spec) -> Agent:
    return qam.make(config, spec)
