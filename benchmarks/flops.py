"""Arithmetic per environment step, counted from a config: matrix products only, 2 FLOP per multiply-add, backward = 2 x forward.

XLA's cost analysis counts the body of a scan once, so it cannot be used for a sampler or for U critic steps. Gradients through a network to
its input alone cost 1 x forward. At the paper's size (obs 19, action 7) one row of the denoiser costs 3.490 MFLOP and an EXPO update
1,536 GFLOP at U = 20, 80.9 GFLOP at U = 1, when every row computes its own shares of the first layer (the released code, `shared=False`).
This suite's sampler computes the time's share once per step and the observation's once per state
(`shared=True`): the same samples, less work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from expo_bench.protocol import Protocol

TRAIN = 3  # forward and backward, as multiples of a forward pass
THROUGH = 2  # forward and the gradient to the input


class Sizes(NamedTuple):
    """What a task and a protocol fix."""

    obs: int
    action: int
    batch: int
    updates: int  # U per loop iteration


class Work(NamedTuple):
    """FLOP of one loop iteration of one row of the sweep."""

    learn: float
    act: float  # of one environment


def dense(*widths: int) -> int:
    """FLOP of a row through dense layers of these widths, input first."""
    return sum(2 * a * b for a, b in zip(widths, widths[1:], strict=False))


def gaussian(inputs: int, action: int, hidden: tuple[int, ...]) -> int:
    """FLOP of a row through a policy with two heads, mean and log standard deviation."""
    return dense(inputs, *hidden) + 2 * dense(hidden[-1], action)


class Denoiser(NamedTuple):
    """FLOP of the LN-ResNet by what it depends on."""

    chain: int  # the noisy action's share and all that follows
    state: int  # the observation's share of the first layer
    time: int  #  time embedding and its share of the first layer

    @property
    def row(self) -> int:
        """A whole row."""
        return self.chain + self.state + self.time

    def samples(self, states: int, chains: int, steps: int, shared: bool) -> int:
        """`chains` samples for each state in `steps` steps; shared: time once per step, observation once per state."""
        rows = states * chains * steps
        return rows * self.chain + states * self.state + steps * self.time if shared else rows * self.row


def denoiser(config: Any, obs: int, action: int) -> Denoiser:
    """The base policy of a config with `base_hidden`, `base_blocks` and `time_features`."""
    hidden, cond = config.base_hidden, 2 * config.time_features
    chain = dense(action, hidden) + config.base_blocks * dense(hidden, 4 * hidden, hidden) + dense(hidden, action)
    return Denoiser(chain, dense(obs, hidden), dense(config.time_features, cond, cond, hidden))


def expo(config: Any, s: Sizes, shared: bool) -> Work:
    """Candidates, their selection and value, K critics, imitation and edit policy."""
    base = denoiser(config, s.obs, s.action)
    critic = dense(s.obs + s.action, *config.hidden, 1)
    edit = gaussian(s.obs + s.action, s.action, config.edit_hidden)

    def choose(states: int, rule: str) -> int:
        """Eq. 3: base samples, edits and, where Q decides, M critics on all of them."""
        n, edits = (config.n_samples, config.n_edits) if rule == "max" else (1, min(config.n_edits, 1))
        judged = (n + edits) * config.critic_subset * critic if rule == "max" else 0
        return base.samples(states, n, config.denoising_steps, shared) + states * (edits * edit + judged)

    # One call serves all U batches, but the released code samples within each: the same count where nothing is shared.
    learn = choose(s.updates * s.batch, config.select_backup)
    learn += s.updates * s.batch * (config.critic_subset + TRAIN * config.critics) * critic
    learn += TRAIN * s.batch * base.row
    if config.n_edits:
        learn += s.batch * (TRAIN * edit + THROUGH * config.critics * critic)
    return Work(learn, choose(1, config.select_act))


def rlpd(config: Any, s: Sizes, shared: bool) -> Work:
    """Next actions, U x K critics, one actor step."""
    critic = dense(s.obs + s.action, *config.hidden, 1)
    actor = gaussian(s.obs, s.action, config.hidden)
    learn = s.updates * s.batch * (actor + (config.critic_subset + TRAIN * config.critics) * critic)
    return Work(learn + s.batch * (TRAIN * actor + THROUGH * config.critics * critic), actor)


def idql(config: Any, s: Sizes, shared: bool) -> Work:
    """Per batch: target critics, value net (trained on s, applied to s'), K critics and, if asked for, imitation."""
    base = denoiser(config, s.obs, s.action)
    critic = config.critics * dense(s.obs + s.action, *config.hidden, 1)
    value = dense(s.obs, *config.hidden, 1)
    row = critic + (TRAIN + 1) * value + TRAIN * critic + (TRAIN * base.row if config.train_base_online else 0)
    act = base.samples(1, config.n_samples, config.denoising_steps, shared) + config.n_samples * critic
    return Work(s.updates * s.batch * row, act)


def fql(config: Any, s: Sizes, shared: bool) -> Work:
    """Per batch: target value, K critics, flow loss, flow samples, one-step policy and Q through the critics."""
    critic = config.critics * dense(s.obs + s.action, *config.hidden, 1)
    one_step = dense(s.obs + s.action, *config.hidden, s.action)
    flow = dense(s.obs + s.action + 1, *config.hidden, s.action)
    row = one_step + critic + TRAIN * critic + (TRAIN + config.flow_steps) * flow + TRAIN * one_step + THROUGH * critic
    return Work(s.updates * s.batch * row, one_step)


COUNTED: dict[str, Callable[[Any, Sizes, bool], Work]] = {"expo": expo, "rlpd": rlpd, "idql": idql, "fql": fql}


def per_env_step(agent: str, config: Any, protocol: Protocol, obs: int, action: int, *, shared: bool = True) -> float | None:
    """FLOP per environment step of one seed, acting and learning, physics apart; None for an agent that is not counted."""
    if agent not in COUNTED:
        return None
    # U batches follow each environment step, also where several environments step together; the last batch's steps are then shared.
    work = COUNTED[agent](config, Sizes(obs, action, protocol.batch_size, protocol.updates * protocol.num_envs), shared)
    return work.learn / protocol.num_envs + work.act
