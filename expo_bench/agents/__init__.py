"""The algorithms by name. A new one is one file and one line here."""

from __future__ import annotations

import importlib
from types import ModuleType

from expo_bench.errors import unknown

AGENTS = {
    "bc": "the base policy alone: a diffusion or flow policy trained by imitation",
    "dsrl": "diffusion steering: soft actor-critic in the noise of a frozen flow or diffusion policy, DSRL-NA (Wagenmaker et al. 2025)",
    "expo": "EXPO as released: edited base samples, max-Q on-the-fly policy in acting and backup (Dong et al. 2025)",
    "faster": "FASTER-EXPO: a critic of initial noises keeps one of N, which alone is denoised and edited (Dong et al. 2026)",
    "fql": "flow Q-learning: a one-step policy distilled from a flow and trained on Q (Park et al. 2025)",
    "idql": "implicit Q-learning with a diffusion policy: expectile critic, best-of-N acting (Hansen-Estruch et al. 2023)",
    "idql_online": "best-of-N diffusion policy in acting and in the TD backup (EMaQ, BFN; 'IDQL' of the EXPO paper's authors)",
    "rlpd": "soft actor-critic with offline data, LayerNorm and a critic ensemble (Ball et al. 2023)",
}


def load(name: str) -> ModuleType:
    """The module of an algorithm: `Config`, `make(config, spec)`, `PROTOCOL`, `SUITES`."""
    if name not in AGENTS:
        raise unknown("agent", name, AGENTS)
    return importlib.import_module(f"expo_bench.agents.{name}")
