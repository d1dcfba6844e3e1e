"""XLA's options for a CPU, by CPU time: `taskset -c 0 python -m benchmarks.options` prints milliseconds of one core, lowest first.

Two pieces of EXPO at the paper's size, a TD step of the critics and the denoising of 256 states' samples, compiled with each set of options and
timed in turn. CPU time of a process that is bound to one core says what an option saves also where other programs run.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax

from expo_bench.parts import base_policy, critics, optim
from expo_bench.sweeps import devices
from expo_bench.sweeps.compiled import CPU_OPTIONS

OBS, ACTION, BATCH, SAMPLES, STEPS = 19, 7, 256, 8, 10
TURNS = 6
LEVEL = {"xla_backend_optimization_level": 1}
PRODUCTS = {**LEVEL, "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
OPTIONS = {"XLA's own": {}, "level 1": LEVEL, "YNNPACK for products": PRODUCTS, "the suite's": CPU_OPTIONS}


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def td_step() -> tuple[Callable, tuple]:
    critic, optimiser = critics.ensemble(obs_size=OBS, action_size=ACTION, members=10, widths=(256, 256, 256)), optim.adam(3e-4)
    state = jax.jit(lambda key: critics.start(critic, optimiser, key))(jax.random.key(0))
    step = lambda state, obs, action, target: critics.td_step(critic, optimiser, state, obs, action, target, 0.005)
    return step, (state, normal(1, BATCH, OBS), normal(2, BATCH, ACTION), normal(3, BATCH))


def denoising() -> tuple[Callable, tuple]:
    base = base_policy.make(
        "diffusion", obs_size=OBS, action_size=ACTION, steps=STEPS, hidden=256, blocks=3, time_features=128, rows=BATCH * SAMPLES
    )
    draws = base_policy.SampleDraws(normal(2, BATCH, SAMPLES, ACTION), normal(3, STEPS, BATCH, SAMPLES, ACTION))
    return base.sample, (jax.jit(base.init)(jax.random.key(0)), normal(1, BATCH, OBS), draws)


def cpu_ms(call: Callable, inputs: tuple) -> float:
    began = time.process_time()
    jax.block_until_ready(call(*inputs))
    return 1e3 * (time.process_time() - began)


def measure(piece: Callable[[], tuple[Callable, tuple]], turns: int = TURNS) -> dict[str, list[float]]:
    """CPU milliseconds by options, sorted."""
    function, inputs = piece()
    calls = {name: jax.jit(function).lower(*inputs).compile(compiler_options=options) for name, options in OPTIONS.items()}
    for call in calls.values():
        cpu_ms(call, inputs)
    times = [{name: cpu_ms(call, inputs) for name, call in calls.items()} for _ in range(turns)]
    return {name: sorted(turn[name] for turn in times) for name in calls}


def main() -> None:
    devices.start()
    for piece in (td_step, denoising):
        for name, times in measure(piece).items():
            print(f"{piece.__name__:10} {name:22}", *(f"{ms:7.1f}" for ms in times))


if __name__ == "__main__":
    main()
