"""Which agents are put on the bandit, with which settings, and what each claims to do there.

A density is claimed with a temperature, which is mapped onto each agent's own setting so that it is densities.TEMPERATURE for all:

- `qam`, `qam_e`: inverse_temperature is its inverse;
- `dac`: 2 eta mean |Q|, mean |Q| being the critics' on the data; one sample acts (N = 1), or else the best of N would;
- `qsm`: inverse_temperature is its inverse, and no behaviour is in the density. With `bc_weight` c, epsilon's minimum is
  (c epsilon_b - M_q grad Q) / (1 + c): the score of behaviour^(c / (1 + c)) exp(M_q Q / (1 + c));
- `expo` without edits, selecting by softmax: exact as N grows (self-normalised importance sampling of the base policy's samples);
- `awac`: lambda; the Gaussian that its weighted likelihood prefers has the mean and the standard deviations of the tilted density.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from benchmarks.bandit import densities, minimisers, training
from benchmarks.bandit.training import Phases
from experiments import sizes
from expo_bench import agents
from expo_bench.agents.base import Agent
from expo_bench.config import fields, replace
from expo_bench.parts import critics

TEMPERED = densities.BEHAVIOUR._replace(deviations=densities.BEHAVIOUR.deviations * np.sqrt(1 + 1 / minimisers.BC_WEIGHT))
# ^ behaviour^(c / (1 + c)), exactly but for the overlap of its modes, e^-4.5 at the middle between them


def mean_q() -> float:
    """mean |r| under behaviour, by the cells of the grid."""
    return float(np.sum(densities.cells(densities.BEHAVIOUR) * np.abs(densities.reward(densities.middles()))))


class Claim(NamedTuple):
    """A density."""

    said: str
    cells: np.ndarray  #    [G, G]
    density: Callable[[np.ndarray], np.ndarray]  # of action [..., D], up to a factor


def of_mixture(said: str, mixture: densities.Mixture) -> Claim:
    return Claim(said, densities.cells(mixture), lambda action: np.exp(densities.log_density(mixture, action)))


def of_gaussian(said: str, mean: np.ndarray, deviation: np.ndarray) -> Claim:
    density = lambda action: np.exp(-np.sum(((action - mean) / deviation) ** 2, axis=-1) / 2)
    return Claim(said, densities.separable(np.ones(1), mean[None], deviation[None]), density)


CLAIMS = {
    "behaviour": of_mixture("b", densities.BEHAVIOUR),
    "tilted": of_mixture("b exp(Q)", densities.TILTED),
    "reward": of_mixture("exp(Q)", densities.HILLS)._replace(cells=densities.within(densities.HILLS)),
    "tempered": of_mixture("b^(10/11) exp(Q)", densities.product(TEMPERED, densities.HILLS)),
    "gaussian": of_gaussian("nearest Gaussian to b exp(Q)", *densities.matched(densities.TILTED)),
}


@dataclasses.dataclass(frozen=True)
class Method:
    """An agent with settings, trained in one way."""

    label: str
    agent: str
    phases: Phases
    claim: str | None = None  #   of CLAIMS: the density that it samples; None: it maximises
    minimum: str | None = None  # of minimisers.samples: what its loss would sample if nothing had to be learnt
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    explore: bool = False  #      sampled as it explores: where evaluation takes a mean
    exact: bool = False  #        the critics are the reward itself

    def make(self) -> Agent:
        module = agents.load(self.agent)
        known = fields(module.Config)
        shared = SIZES | NO_BACKUP | (STEPS if self.claim else {})
        values = {name: value for name, value in (shared | dict(self.config)).items() if name in known}
        ensemble = training.exact_critics if self.exact else critics.ensemble
        with mock.patch.object(critics, "ensemble", ensemble):
            return module.make(replace(module.Config(), self.label, **values), training.spec(self.phases.batch))

    def run(self, seeds: int, count: int) -> np.ndarray:
        """[seeds, count, D]."""
        return training.run(self.make(), self.phases, seeds, count, self.explore)


SIZES = {**sizes.CONFIG, "ema_tau": 0.01}  # the quickstart's; its EMA would lag behind so few steps
STEPS = {"denoising_steps": 20, "flow_steps": 20}  # of the samplers, at which an exact denoiser comes close to its density

ALONE = Phases(batch=128, offline=3_000, online=0, fraction=1.0)  #      the losses of an offline phase
ON_DATA = Phases(batch=128, offline=0, online=3_000, fraction=1.0)  #    the same for those who have none
BASE_FIRST = Phases(batch=128, offline=2_000, online=1_000, fraction=1.0)  # imitation, then critics
TILTED_DATA = ALONE._replace(data=densities.TILTED)
FRESH = Phases(batch=128, offline=0, online=3_000, fraction=0.0)  #      their own actions only
MIXED = Phases(batch=64, offline=1_500, online=1_500, fraction=0.5)
ONLINE = MIXED._replace(fraction=0.0)

NO_BACKUP = {"select_backup": "base", "backup_samples": 1}  # the cheapest: every transition ends its episode, so that none has an effect
TAU = densities.TEMPERATURE
SOFTMAX = {"n_edits": 0, "n_samples": 16, "select_act": "softmax", "temperature": TAU}
WITH_BC = {"bc_weight": minimisers.BC_WEIGHT, "inverse_temperature": (1 + minimisers.BC_WEIGHT) / TAU}
STEERED = [  # by Q
    Method("expo, softmax of 16", "expo", BASE_FIRST, "tilted", minimisers.SOFTMAX, SOFTMAX),
    Method("qam", "qam", ALONE._replace(offline=6_000), "tilted", minimisers.FLOW, {"inverse_temperature": 1 / TAU}),
    Method("dac", "dac", ALONE, "tilted", "dac", {"n_samples": 1, "eta": TAU / (2 * mean_q())}),
    Method("qsm, imitating too", "qsm", ON_DATA, "tempered", "qsm, imitating too", WITH_BC),
    Method("qsm", "qsm", FRESH, "reward", "qsm", {"inverse_temperature": 1 / TAU}),
    Method("awac", "awac", ALONE, "gaussian", None, {"temperature": TAU}, explore=True),
]
SAMPLING = [
    Method("bc", "bc", ALONE, "behaviour", "behaviour"),
    Method("bc of b exp(Q)", "bc", TILTED_DATA, "tilted", "b exp(Q)"),
    Method("bc of b exp(Q), flow", "bc", TILTED_DATA, "tilted", minimisers.FLOW, {"base": "flow"}),
    *STEERED,
    *[dataclasses.replace(method, exact=True) for method in STEERED if method.agent in ("qam", "dac", "qsm")],
]
SHORT = MIXED._replace(offline=600, online=600)  # of who takes many times as long as the others
MAXIMISING = [
    Method("bc", "bc", MIXED),
    *[Method(name, name, MIXED) for name in ("expo", "idql_online", "idql", "ifql", "fql", "dsrl", "diffusion_ql", "dac")],
    # So strong a tilt asks for more steps of the flow than the quickstart's 5, with which its samples end in the corners (docs/bandit.md).
    Method("qam_e, temperature 0.1", "qam_e", MIXED, config={"inverse_temperature": 10.0}),
    Method("pa_rl", "pa_rl", SHORT, config={"conservative": False}),
    *[Method(name, name, MIXED) for name in ("ibrl", "pex", "policy_decorator", "residual", "rlpd")],
    *[Method(name, name, ONLINE) for name in ("qvpo", "dipo")],
]
