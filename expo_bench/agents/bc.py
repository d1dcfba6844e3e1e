"""Behaviour cloning: the base policy alone, EXPO's pretrained policy without critic and edits (denoising: Ho et al. 2020; flow: Lipman et al. 2023).

Acts with the EMA parameters, as EXPO does. Frozen online: what it shows is where the other agents start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from expo_bench.agents.base import Agent, Metrics, Spec
from expo_bench.config import static, traced
from expo_bench.errors import UserError
from expo_bench.parts import base_policy, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import bulk
from expo_bench.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Config:
    base: str = static("diffusion", "'diffusion' or 'flow'")
    denoising_steps: int = static(10, "T: denoising (or flow) steps")
    base_hidden: int = static(256, "width of the denoiser")
    base_blocks: int = static(3, "residual blocks of the denoiser")
    time_features: int = static(128, "Fourier features of the denoising time")
    decay_steps: int = static(3_000_000, "updates until the cosine schedule reaches 0")
    base_lr: float = traced(3e-4, "learning rate (cosine)")
    weight_decay: float = traced(1e-4, "AdamW's decay of all parameters")
    ema_tau: float = traced(0.001, "Polyak step of the EMA")


PROTOCOL = Protocol(offline_steps=200_000, online_steps=200_000, updates=1, batch_size=256)
SUITES = {"adroit": {"protocol": {"offline_steps": 20_000}}, "antmaze": {"protocol": {"offline_steps": 500_000}}}


def validate(config: Config, where: str) -> None:
    if config.base not in ("diffusion", "flow"):
        raise UserError(f"{where}: base must be 'diffusion' or 'flow', got {config.base!r}")


def base_of(config: Config, spec: Spec) -> tuple[base_policy.BasePolicy, optax.GradientTransformation]:
    """The base policy and its optimiser, which agents that steer a base policy have in common with this one."""
    policy = base_policy.make(
        config.base,
        obs_size=spec.obs_size,
        action_size=spec.action_size,
        steps=config.denoising_steps,
        hidden=config.base_hidden,
        blocks=config.base_blocks,
        time_features=config.time_features,
    )
    return policy, optim.adamw(optax.cosine_decay_schedule(config.base_lr, config.decay_steps), weight_decay=config.weight_decay)


def offline_phase(
    config: Config, spec: Spec, policy: base_policy.BasePolicy, optimiser: optax.GradientTransformation
) -> dict[str, Callable]:
    """The fields of an agent whose offline phase trains its base policy alone: `imitation` in its state, a named tuple."""

    def pretrain(state: Any, batch: Batch, draws: base_policy.LossDraws) -> tuple[Any, Metrics]:
        imitation, loss = base_policy.imitate(policy, optimiser, state.imitation, batch, draws, config.ema_tau)
        return state._replace(imitation=imitation), {"imitation_loss": loss}

    return {"draw_pretrain": bulk(lambda tape: policy.draw_loss(tape, spec.batch_size)), "pretrain": pretrain}


def make(config: Config, spec: Spec) -> Agent:
    policy, optimiser = base_of(config, spec)

    def pretrain(state: base_policy.Imitation, batch: Batch, draws: base_policy.LossDraws) -> tuple[base_policy.Imitation, Metrics]:
        state, loss = base_policy.imitate(policy, optimiser, state, batch, draws, config.ema_tau)
        return state, {"imitation_loss": loss}

    def act(state: base_policy.Imitation, obs: jax.Array, draws: base_policy.SampleDraws, *, explore: bool) -> tuple[jax.Array, Metrics]:
        return policy.sample(state.ema, obs, draws)[..., 0, :], {}

    return Agent(
        init=lambda key: base_policy.start(policy, optimiser, key),
        draw_pretrain=bulk(lambda tape: policy.draw_loss(tape, spec.batch_size)),
        pretrain=pretrain,
        draw=None,
        learn=None,
        draw_act=lambda key, explore: bulk(lambda tape: policy.draw_samples(tape, (1,)))(key),
        act=act,
        value=None,
    )
