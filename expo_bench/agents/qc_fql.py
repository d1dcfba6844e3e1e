"""QC-FQL: flow Q-learning on action chunks (Q. Li et al., arXiv 2507.07969), as released: FQL whose action is a chunk of C actions.

C is the protocol's `chunk`; with chunk 1 this is FQL.
"""

from __future__ import annotations

import dataclasses

from expo_bench.agents import fql, qc
from expo_bench.agents.base import Agent, Spec
from expo_bench.config import traced


@dataclasses.dataclass(frozen=True)
class Config(fql.Config):
    distill: float = traced(100.0, "alpha: weight of the distillation; tuned per task by the authors (100 cube-triple)")


PROTOCOL = qc.PROTOCOL
SUITES = qc.SUITES
validate = fql.validate


def make(config: Config, spec: Spec) -> Agent:
    return fql.make(config, spec)
