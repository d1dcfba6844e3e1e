"""A run as a list of legs, each learnt in one phase and mostly ended by an evaluation: the same for every row of a program. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from expo_bench.protocol import Protocol


class Evaluation(NamedTuple):
    """What a row of the results says of when it was measured."""

    phase: str  #      "offline" or "online"
    grad_step: int
    env_step: int
    number: int  #     which evaluation it is, for its random numbers


class Leg(NamedTuple):
    """Steps `start` to `stop` of a phase. A step is a gradient step of "pretrain", an environment step of "online"."""

    phase: str | None  #             None: nothing to learn on the way
    start: int
    stop: int
    evaluation: Evaluation | None  # at its end
    reported: bool = True  #         whether its metrics say something: nothing is learnt in a warm-up


def legs(protocol: Protocol, phases: Collection[str]) -> list[Leg]:
    """All legs of a run whose program has these phases ("pretrain", "online")."""
    first = _offline(protocol) if "pretrain" in phases else [Leg(None, 0, 0, Evaluation("online", 0, 0, 0))]
    ends = [*range(protocol.eval_every, protocol.online_steps, protocol.eval_every), protocol.online_steps] if protocol.online_steps else []
    return first + [leg for start, stop in zip([0, *ends], ends, strict=False) for leg in _online(protocol, phases, start, stop)]


def effort(protocol: Protocol, plan: Sequence[Leg]) -> list[int]:
    """How much each leg is, in gradient steps, or what stands for them: an evaluation, and a step at which nothing is learnt, count as one."""
    of_step = lambda leg: protocol.updates if leg.phase == "online" and leg.reported else int(leg.phase is not None)
    return [of_step(leg) * (leg.stop - leg.start) + (leg.evaluation is not None) for leg in plan]


def _offline(protocol: Protocol) -> list[Leg]:
    """The last evaluation before the online phase meets the episodes that one at environment step 0 would."""
    steps, n = protocol.offline_steps, protocol.offline_evals
    ends = [steps * k // n for k in range(n + 1)]
    number = lambda end: 0 if end == steps else -end
    return [Leg("pretrain", a, b, Evaluation("offline", b, 0, number(b))) for a, b in zip(ends, ends[1:], strict=False)]


def _online(protocol: Protocol, phases: Collection[str], start: int, stop: int) -> list[Leg]:
    """Environment steps `start` to `stop`, cut where the warm-up ends, and the evaluation after them."""
    learnt = max(0, stop - protocol.warmup_steps) * protocol.updates if "online" in phases else 0
    offline = protocol.offline_steps if "pretrain" in phases or "online" not in phases else 0
    evaluation = Evaluation("online", offline + learnt, stop, stop)
    if "online" not in phases:
        return [Leg(None, start, stop, evaluation)]
    warm = min(stop, max(start, protocol.warmup_steps))
    cuts = [Leg("online", start, warm, None, reported=False), Leg("online", warm, stop, None)]
    cuts = [leg for leg in cuts if leg.stop > leg.start]
    return [*cuts[:-1], cuts[-1]._replace(evaluation=evaluation)]
