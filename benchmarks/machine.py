"""The machine: its devices and the best rate of its matrix products, all devices together, as one line of JSON.

python -m benchmarks.machine --precision float32
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

# (m, k, n) of a chain x[m, k] @ b[k, n] @ c[n, k]; the first is a residual block of the paper's denoiser on 256 states x 8 samples.
SHAPES = ((2048, 256, 1024), (512, 512, 512), (2048, 2048, 2048))
ACCELERATOR_SHAPES = ((40960, 256, 1024), (8192, 8192, 8192))
REPEATS = 5
MIN_SECONDS = 0.1  # of one timing


def gemm_rate(shape: tuple[int, int, int], devices: list, precision: str) -> float:
    """FLOP/s of matrix products of one shape, one chain per device at the same time; the best of REPEATS timings."""
    import jax
    import jax.numpy as jnp

    from expo_bench.precision import products
    from expo_bench.sweeps import devices as device_rows

    m, k, n = shape

    def chain(x: jax.Array, b: jax.Array, c: jax.Array, count: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, count, lambda _, x: (x @ b) @ c, x)

    # Orthonormal rows and their transpose: the chain neither grows nor dies out, however long it is (k <= n).
    basis = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (n, k)))[0]
    start = jax.random.normal(jax.random.key(1), (m, k))
    rows = [jnp.broadcast_to(x, (len(devices), *x.shape)) for x in (start, basis.T, basis)]
    with products(precision, platform=devices[0].platform):
        call = device_rows.over_rows(chain, devices, (True, True, True, False)).lower(*rows, jnp.int32(1)).compile()
    rows = [jax.device_put(x, s) for x, s in zip(rows, call.input_shardings[0], strict=False)]

    def seconds(count: int) -> float:
        began = time.perf_counter()
        jax.block_until_ready(call(*rows, jnp.int32(count)))
        return time.perf_counter() - began

    seconds(1)
    count = 1
    while seconds(count) < MIN_SECONDS:
        count *= 2
    return len(devices) * count * 4 * m * k * n / min(seconds(count) for _ in range(REPEATS))


def describe(precision: str) -> dict[str, Any]:
    """Device kind and number, versions and GEMM rates (FLOP/s by shape, and the best)."""
    import jax

    from expo_bench.sweeps import devices as device_rows
    from expo_bench.sweeps import results

    devices = device_rows.start()
    shapes = SHAPES if devices[0].platform == "cpu" else SHAPES + ACCELERATOR_SHAPES
    rates = {"x".join(map(str, shape)): gemm_rate(shape, devices, precision) for shape in shapes}
    return {
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "platform_version": devices[0].client.platform_version,
        "devices": len(devices),
        "jax": jax.__version__,
        "git_commit": results.git_commit(),
        "precision": precision,
        "gemm_flop_per_s": rates,
        "gemm_peak_flop_per_s": max(rates.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machine", description=__doc__)
    parser.add_argument("--precision", default="float32")
    print(json.dumps(describe(parser.parse_args().precision)))


if __name__ == "__main__":
    main()
