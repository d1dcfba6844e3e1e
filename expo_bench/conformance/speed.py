"""The time of an update beside another agent's, in one process and turn by turn, at the quickstart's sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.sizes import CONFIG, PROTOCOL
from expo_bench.agents.base import Spec
from expo_bench.config import fields
from expo_bench.conformance.cases import config_of
from expo_bench.conformance.stages import batch_of, offline

SPEC = Spec(obs_size=10, action_size=2, batch_size=PROTOCOL["batch_size"], updates=PROTOCOL["updates"], stored=4096)
CALLS, TURNS = 10, 7  # updates per measurement, measurements per agent


class Times(NamedTuple):
    """Milliseconds per call of `learn`, or of `pretrain` where there is no `learn`: medians over the turns."""

    step: str
    own: float
    reference: float
    at_default: dict[str, Any]  # the static fields that the shared sizes do not name


def measure(module: ModuleType, reference: ModuleType) -> Times:
    step = "learn" if module.make(config_of(module, CONFIG, {}), SPEC).learn is not None else "pretrain"
    runs = [_compiled(m, step) for m in (module, reference)]
    seconds = np.array([[_timed(run) for run in runs] for _ in range(TURNS)])
    own, other = 1e3 * np.median(seconds, axis=0) / CALLS
    sizes = {n: f.default for n, f in fields(module.Config).items() if f.metadata["kind"] == "static" and n not in CONFIG}
    return Times(step, float(own), float(other), sizes)


def _compiled(module: ModuleType, step: str) -> Callable[[], Any]:
    agent = module.make(config_of(module, CONFIG, {}), SPEC)

    def body(state: Any, key: jax.Array) -> tuple[Any, None]:
        batch_key, draw_key = jax.random.split(key)
        if step == "learn":
            return agent.learn(state, batch_of(batch_key, agent, SPEC.updates, SPEC.batch_size, spec=SPEC), agent.draw(draw_key))[0], None
        return agent.pretrain(state, offline(batch_of(batch_key, agent, SPEC.batch_size, spec=SPEC)), agent.draw_pretrain(draw_key))[
            0
        ], None

    run = jax.jit(lambda state, keys: jax.lax.scan(body, state, keys)[0])
    state, keys = jax.jit(agent.init)(jax.random.key(0)), jax.random.split(jax.random.key(1), CALLS)
    call = lambda: jax.block_until_ready(run(state, keys))
    call()  # compiles
    return call


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
