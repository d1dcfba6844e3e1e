"""REDQ: randomized ensembled double Q-learning (Chen et al., arXiv 2101.05982), as RLPD's code runs it without offline data.

SAC with ten critics, the minimum of a random subset of two of them in the backup, and 20 critic steps per environment step. Deviation from
the authors' code, as in RLPD's: the target entropy is -A/2 for every task, where theirs is a table by task.
"""

from __future__ import annotations

import dataclasses

from expo_bench.agents import sac
from expo_bench.config import static


@dataclasses.dataclass(frozen=True)
class Config(sac.Config):
    critics: int = static(10, "K: critics")


PROTOCOL = dataclasses.replace(sac.PROTOCOL, updates=20)
SUITES = sac.SUITES
validate = sac.validate
make = sac.make
