"""How exact the networks' matrix products are: float32, tensorfloat32 or bfloat16 operands, sums always in float32.

A product's precision is a context of the trace, so no algorithm mentions it: `products` sets it for a program, `base_policy` enters
`of_denoiser` for the products of the expressive base policy, and the loop enters `exactly` for the physics, which is float32 always. Parameters,
optimisers, activations and everything else stay float32: only the operands of products are rounded.

On a GPU that is a dot algorithm of XLA's (`jax.lax.DotAlgorithmPreset`): jax.default_matmul_precision("bfloat16") means "the device's fastest" and
is TF32 there. XLA's CPU products know float32 alone, so elsewhere the operands of the networks' products are rounded before each, to nearest even:
the same arithmetic up to the order of a sum, at no gain of time, and a learning curve on a CPU says something of the one on a GPU. The product
in a gradient rounds its operands too, the gradient that comes in and the other factor.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax

MANTISSA = {"tensorfloat32": 10, "bfloat16": 7}  # explicit bits of the 23 of float32; all have its 8 bits of exponent
_PRESETS = {"tensorfloat32": "TF32_TF32_F32", "bfloat16": "BF16_BF16_F32"}

_of_denoiser: ContextVar[str | None] = ContextVar("_of_denoiser", default=None)


@contextlib.contextmanager
def products(precision: str, denoiser: str | None = None, platform: str = "cpu") -> Iterator[None]:
    """Trace in this context what shall compute its matrix products so, those of the base policy as `denoiser` (None: alike)."""
    name = _PRESETS if platform in ("gpu", "cuda", "rocm") else {}
    token = _of_denoiser.set(None if denoiser is None else name.get(denoiser, denoiser))
    try:
        with jax.default_matmul_precision(name.get(precision, precision)):
            yield
    finally:
        _of_denoiser.reset(token)


@contextlib.contextmanager
def of_denoiser() -> Iterator[None]:
    """The products of the base policy are traced in here."""
    name = _of_denoiser.get()
    with contextlib.nullcontext() if name is None else jax.default_matmul_precision(name):
        yield


def exactly(function: Callable) -> Callable:
    """The function with its own products in float32, whatever the networks' are."""

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.default_matmul_precision("float32"):
            return function(*args)

    return traced


def bilinear(product: Callable, x: jax.Array, w: jax.Array) -> jax.Array:
    """product(x, w) with the operands of it, and of the products in its gradient, rounded as the context says."""
    bits = MANTISSA.get(jax.config.jax_default_matmul_precision)
    return product(x, w) if bits is None else _round_gradient(product(_round(x, bits), _round(w, bits)), bits)


def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """x [..., I] @ w [I, O] of a network."""
    return bilinear(jax.numpy.matmul, x, w)


def dot_general(x: jax.Array, w: jax.Array, dimension_numbers: Any, **kwargs: Any) -> jax.Array:
    """`jax.lax.dot_general` of a network, as flax's layers take it."""
    return bilinear(lambda x, w: jax.lax.dot_general(x, w, dimension_numbers, **kwargs), x, w)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _round(x: jax.Array, bits: int) -> jax.Array:
    """An operand of a product, rounded; its gradient passes as it is, as that of a product's own operand does."""
    return jax.lax.reduce_precision(x, 8, bits)


@_round.defjvp
def _round_jvp(bits: int, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return _round(primals[0], bits), tangents[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _round_gradient(y: jax.Array, bits: int) -> jax.Array:
    """A product's result as it is; the gradient that comes back to it, an operand of the products there, is rounded."""
    return y


@_round_gradient.defjvp
def _round_gradient_jvp(bits: int, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return primals[0], jax.lax.reduce_precision(tangents[0], 8, bits)
