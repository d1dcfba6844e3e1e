"""What the conformance tests have to know of an agent beyond its file. Needs no jax.

A file of one's own states it as `CHECK = Case(...)`; what the shipped agents need stands here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from expo_bench.config import fields, replace

DISCOUNT, EXPECTILE = 0.7, 0.8  # of the probes
SMALL = {  # for a step of each kind; whichever of these fields an agent has
    "n_samples": 3,
    "n_samples_eval": 2,
    "train_samples": 4,
    "denoising_steps": 2,
    "flow_steps": 2,
    "base_hidden": 8,
    "base_blocks": 1,
    "time_features": 4,
    "hidden": (8, 6),
    "edit_hidden": (8, 6),
    "critics": 3,
    "critic_subset": 2,
}
PROBE = {  # for the probes; whichever of these an agent has; learning rates of 3e-3
    "hidden": (32, 32),
    "edit_hidden": (32, 32),
    "critics": 3,
    "critic_subset": 2,
    "base_hidden": 16,
    "base_blocks": 1,
    "time_features": 8,
    "denoising_steps": 3,
    "n_samples": 8,
    "n_samples_eval": 32,
    "train_samples": 16,
    "flow_steps": 4,
    "discount": DISCOUNT,
    "expectile": EXPECTILE,
    "tau": 0.05,
    "ema_tau": 0.05,
    "distill": 0.03,
    "init_alpha": 0.1,
    "temperature": 0.03,  # so that the weighted likelihood comes close to the best action
    "inverse_temperature": 10.0,
    "edit_scale": 0.1,
    "cql_weight": 0.0,  # what these penalise makes the values wrong on purpose
    "actor_bc": 0.0,
    "critic_bc": 0.0,
}


def best_value(side: float) -> float:
    """max over a' of side - (a' - side / 2)^2: the value of a second stage of the probes under the best action."""
    return side


def expectile_value(side: float) -> float:
    """IQL's V at the second stage: the expectile of side - (a' - side / 2)^2 over uniform a'."""
    from scipy import optimize

    reward = side - (np.linspace(-1, 1, 10_001) - side / 2) ** 2
    balance = lambda m: EXPECTILE * np.mean(np.maximum(reward - m, 0)) - (1 - EXPECTILE) * np.mean(np.maximum(m - reward, 0))
    return optimize.brentq(balance, reward.min(), reward.max())


@dataclasses.dataclass(frozen=True)
class Case:
    """What is so of an agent by design."""

    small: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #    fields of its config beyond SMALL
    probe: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #    fields of its config beyond PROBE
    exceeds: str = ""  #                                    the field by which its actions may leave [-1, 1]
    inert: frozenset[str] = frozenset()  #                  traced fields without effect
    value: Callable[[float], float] = best_value  #         what its critics bootstrap from in the probes
    untaught: tuple[tuple[float, float], ...] = ()  #       (stage, side) of the probes at which it does not learn how to act
    exempt: Mapping[str, str] = dataclasses.field(default_factory=dict)  #   probes that it cannot pass: why


EDITS = frozenset({"edit_scale", "edit_lr", "alpha_lr", "init_alpha"})
SOFTMAX = frozenset({"temperature", "temperature_decay"})  # of a rule that is not the default
REACH = {"residual_scale": 2.0, "alpha_lr": 0.0, "init_alpha": 0.01}
SOON = {"ema_start": 0, "ema_every": 1, "grad_clip": 0.1}  # targets that move at once, gradients that are clipped
CRISP = {"grad_clip": 1.0, "backup_samples": 4}
TILT = {"flow_steps": 10, "inverse_temperature": 40.0, "pessimism": 0.0}
CASES = {
    "cal_ql": Case(small={"lagrange": True}),
    "cql": Case(inert=frozenset({"target_gap"})),  # without the multiplier that seeks it
    # Guidance by Q's gradient overshoots in the last of few denoising steps, which on a probe is all that there is to see: they get more.
    "dac": Case(small={**SOON, "dual_ascent": True}, probe={**SOON, **CRISP, "denoising_steps": 10, "eta": 0.3, "pessimism": 0.0}),
    "diffusion_ql": Case(small=SOON, probe={**SOON, **CRISP, "eta": 20.0}, inert=frozenset({"temperature"})),
    "dipo": Case(probe={"action_lr": 0.1}),  # the distance that an action may climb is 20 of it
    # The entropy that DSRL keeps at 0 by design is that of an actor who covers half of its noise: here as good as none, also in the backup.
    "dsrl": Case(probe={"alpha_lr": 0.0, "init_alpha": 0.01}),
    "expo": Case(small={"n_edits": 2}, probe={"n_edits": 4}, exceeds="edit_scale", inert=SOFTMAX),
    # FASTER's backup draws its seed instead of taking the best: here it nearly takes it. Its filter critic learns at next states alone.
    "faster": Case(probe={"filter_temperature": 0.1, "edit_scale": 0.3, "init_alpha": 0.01}, exceeds="edit_scale", untaught=((0, 0),)),
    "ibrl": Case(small={"explore_noise": 0.5}, probe={"actor_dropout": 0.0, "explore_noise": 0.02}),  # large enough to be clipped
    "idql": Case(value=expectile_value),
    "idql_online": Case(inert=EDITS | SOFTMAX),  # is EXPO with n_edits = 0
    "ifql": Case(value=expectile_value),
    "iql": Case(value=expectile_value),
    # A coarser ascent on fewer samples, and without the gap that cql_weight = 0 switches off: half of the work.
    "pa_rl": Case(probe={"conservative": False, "n_samples": 4, "n_climb": 2, "ascent_steps": 2, "denoising_steps": 2, "action_lr": 0.1}),
    # A tilt as strong as it takes to come close to the best action needs the authors' ten steps. The edits' fields are those of qam_e.
    "qam": Case(probe=TILT, inert=frozenset({"edit_scale", "init_alpha"})),
    "qam_e": Case(probe=TILT),
    "pex": Case(value=expectile_value),
    # A base policy of uniform actions: what corrects it has to see its action and to reach across. The entropy is as good as none, as DSRL's.
    "policy_decorator": Case(
        probe={"actor_input": "obs_base", **REACH}, exceeds="residual_scale", inert=frozenset({"progressive_steps"})
    ),  # the schedule is of acting alone
    "residual": Case(probe=REACH, exceeds="residual_scale"),
    "qsm": Case(probe={"denoising_steps": 20, "inverse_temperature": 3.0}),
    "rebrac": Case(small={"target_noise": 0.5}, inert=frozenset({"explore_noise"})),  # large enough to be clipped; noise on actions alone
}


def case_of(name: str, module: ModuleType) -> Case:
    """The case of an agent: what its file says, or what stands here."""
    return getattr(module, "CHECK", None) or CASES.get(name, Case())


def config_of(module: ModuleType, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Any:
    """The agent's config with whichever of the `shared` fields it has, and all of its `own`."""
    known = fields(module.Config)
    config = replace(module.Config(), "Config", **{**{name: value for name, value in shared.items() if name in known}, **own})
    if hasattr(module, "validate"):
        module.validate(config, "Config")
    return config
