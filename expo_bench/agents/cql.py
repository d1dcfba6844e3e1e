"""CQL: conservative Q-learning (Kumar et al., arXiv 2006.04779), as Cal-QL's release runs it beside Cal-QL: the same without the calibration.

Settings and deviations are Cal-QL's, so that the two differ by the calibration alone.
"""

from __future__ import annotations

import dataclasses

from expo_bench.agents import cal_ql
from expo_bench.agents.base import Agent, Spec
from expo_bench.config import fixed


@dataclasses.dataclass(frozen=True)
class Config(cal_ql.Config):
    calibrate: bool = fixed(False, "Q at the policy's actions is penalised as it is")


PROTOCOL = cal_ql.PROTOCOL
SUITES = cal_ql.SUITES


def make(config: Config, spec: Spec) -> Agent:
    return cal_ql.make(config, spec)
