"""The algorithms by name. A new one is one file and one line here; one of your own is a file that is named by its path."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

from expo_bench.errors import unknown

AGENTS = {
    "awac": "advantage-weighted actor-critic: a Gaussian policy by exp(A / lambda)-weighted likelihood (Nair et al. 2020)",
    "bc": "the base policy alone: a diffusion or flow policy trained by imitation",
    "cal_ql": "calibrated conservative Q-learning: CQL whose penalty spares values below the data's returns (Nakamoto et al. 2023)",
    "cql": "conservative Q-learning: soft actor-critic whose critics are pushed down off the data (Kumar et al. 2020)",
    "dac": "diffusion actor-critic: imitation plus the critics' action gradient on the denoiser (Fang et al. 2024)",
    "diffusion_ql": "a diffusion policy that imitates and maximises Q through its whole denoising chain (Wang et al. 2022)",
    "dipo": "a diffusion policy, online from scratch, imitates replay actions that climbed Q (Yang et al. 2023)",
    "dsrl": "diffusion steering: soft actor-critic in the noise of a frozen flow or diffusion policy, DSRL-NA (Wagenmaker et al. 2025)",
    "expo": "EXPO as released: edited base samples, max-Q on-the-fly policy in acting and backup (Dong et al. 2025)",
    "faster": "FASTER-EXPO: a critic of initial noises keeps one of N, which alone is denoised and edited (Dong et al. 2026)",
    "fql": "flow Q-learning: a one-step policy distilled from a flow and trained on Q (Park et al. 2025)",
    "ibrl": "imitation bootstrapping: of a frozen imitator's action and the actor's, the better one, in acting and backup (Hu et al. 2023)",
    "idql": "implicit Q-learning with a diffusion policy: expectile critic, best-of-N acting (Hansen-Estruch et al. 2023)",
    "idql_online": "best-of-N diffusion policy in acting and in the TD backup (EMaQ, BFN; 'IDQL' of the EXPO paper's authors)",
    "ifql": "implicit Q-learning with a flow policy: expectile critic, best-of-N acting (Park et al. 2025)",
    "iql": "implicit Q-learning: expectile critic, a Gaussian policy by advantage-weighted likelihood (Kostrikov et al. 2021)",
    "pa_rl": "policy-agnostic RL: the best base samples climb Q, the base policy imitates what they become (Mark et al. 2024)",
    "pex": "policy expansion: the offline policy frozen, a new one beside it, and a softmax of Q between them (Zhang et al. 2023)",
    "policy_decorator": "Policy Decorator: soft actor-critic of a bounded residual on a frozen base policy, used ever more often (Yuan et al. 2024)",
    "qam": "Q-learning with adjoint matching: a flow tilted by exp(Q / temperature) without backpropagation through it (Li and Levine 2026)",
    "qam_e": "QAM whose actions an edit policy shifts towards higher Q (Li and Levine 2026)",
    "qc": "Q-chunking: best-of-N chunks of a flow policy in acting and in the TD backup (Q. Li et al. 2025)",
    "qc_fql": "Q-chunking with FQL's one-step policy (Q. Li et al. 2025)",
    "qsm": "Q-score matching: a denoiser regressed on the critics' action gradient, online (Psenka et al. 2023)",
    "qvpo": "a diffusion policy, online from scratch, imitates the best of its own samples by their advantage (Ding et al. 2024)",
    "rebrac": "TD3 with behaviour cloning in actor and critic, both fading online (Tarasov et al. 2023)",
    "redq": "soft actor-critic with ten critics and 20 updates per step, without offline data (Chen et al. 2021)",
    "residual": "a residual that sees a frozen base policy's action: ResiP's policy (Ankile et al. 2024) under RLPD's learning",
    "rlpd": "soft actor-critic with offline data, LayerNorm and a critic ensemble (Ball et al. 2023)",
    "sac": "soft actor-critic, without offline data (Haarnoja et al. 2018)",
}


def is_file(agent: str) -> bool:
    """Whether `agent` is the path of a file rather than a name."""
    return agent.endswith(".py") or os.sep in agent


def name_of(agent: str) -> str:
    """What an agent is called in results, axes and --set: its name, or the stem of its file."""
    return Path(agent).stem if is_file(agent) else agent


def load(agent: str) -> ModuleType:
    """The module of an algorithm, by name or by the path of its file: `Config`, `make(config, spec)`, `PROTOCOL`, `SUITES`.

    Raises UserError for an unknown name and for a file that is none.
    """
    if is_file(agent):
        from expo_bench.agents import files

        return files.load(agent)
    if agent not in AGENTS:
        beside = f"{agent}.py"
        raise unknown("agent", agent, AGENTS, hint=f"(a file is named by its path: ./{beside})" if Path(beside).is_file() else "")
    return importlib.import_module(f"expo_bench.agents.{agent}")
