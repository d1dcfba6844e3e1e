"""SAC: soft actor-critic with a learnt temperature (Haarnoja et al., arXiv 1812.05905), as RLPD's code runs it without offline data.

Two critics without LayerNorm, the minimum of both and the entropy term in the backup, one critic, one actor and one temperature step per
environment step. No offline phase. Deviations from the paper, as in that code: the actor maximises the mean of the critics instead of their
minimum, and the target entropy is -A/2 instead of -A. The lengths of a run are RLPD's.
"""

from __future__ import annotations

import dataclasses

from expo_bench.agents import rlpd
from expo_bench.config import static


@dataclasses.dataclass(frozen=True)
class Config(rlpd.Config):
    hidden: tuple = static((256, 256), "widths of critics and actor")
    critics: int = static(2, "K: critics")
    critic_layer_norm: bool = static(False, "LayerNorm in the critics")
    backup_entropy: bool = static(True, "subtract alpha log pi(a'|s') in the backup")


PROTOCOL = dataclasses.replace(rlpd.PROTOCOL, updates=1, offline_fraction=0.0)
SUITES = {suite: {"protocol": preset["protocol"]} for suite, preset in rlpd.SUITES.items()}
validate = rlpd.validate
make = rlpd.make
