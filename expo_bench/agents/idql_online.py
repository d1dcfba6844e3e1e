"""IDQL-online: best of N base samples to act and in the TD backup; EXPO without its edits.

Known as EMaQ (Ghasemipour et al., arXiv 2007.11091) and BFN (Q. Li et al., arXiv 2507.07969); what FASTER's authors, who wrote EXPO, run under
the name IDQL. Not to be confused with `idql`, whose critic is an expectile one. Deviation from FASTER's settings: critics and protocol are
EXPO's, so that the two differ by the edits alone.
"""

from __future__ import annotations

import dataclasses

from expo_bench.agents import expo
from expo_bench.agents.base import Agent, Spec
from expo_bench.config import fixed


@dataclasses.dataclass(frozen=True)
class Config(expo.Config):
    n_edits: int = fixed(0, "no base sample is edited")


PROTOCOL = expo.PROTOCOL
SUITES = {"adroit": {"protocol": expo.SUITES["adroit"]["protocol"]}, "antmaze": expo.SUITES["antmaze"]}
validate, validate_batch = expo.validate, expo.validate_batch


def make(config: Config, spec: Spec) -> Agent:
    return expo.make(config, spec)
