"""The networks, as flax.linen modules without randomness: whatever is random (noise, dropout masks) comes in as an argument.

Shape letters: O observation, A action, H hidden width, K critics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from expo_bench import precision

Params = Any

Dense = partial(nn.Dense, dot_general=precision.dot_general)


class MLP(nn.Module):
    """Dense layers. `norm` says where LayerNorm stands: "none", "pre" (Dense, LN, activation: RLPD) or "post" (Dense, activation, LN: FQL)."""

    widths: Sequence[int]
    out: int | None = None  #                          width of a last, linear layer; None: the trunk alone
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    norm: str = "none"
    norm_input: bool = False  #                        LayerNorm on the input (IDQL's value net)

    @nn.compact
    def __call__(self, x: jax.Array, masks: Sequence[jax.Array] | None = None) -> jax.Array:
        """x [..., I] -> [..., out]; masks, one [..., width] per layer, are dropout masks, applied after each Dense (as RLPD does)."""
        if self.norm_input:
            x = nn.LayerNorm(name="norm_input")(x)
        for i, width in enumerate(self.widths):
            x = Dense(width, name=f"dense_{i}")(x)
            if masks is not None:
                x = x * masks[i]
            if self.norm == "pre":
                x = nn.LayerNorm(name=f"norm_{i}")(x)
            x = self.activation(x)
            if self.norm == "post":
                x = nn.LayerNorm(name=f"norm_{i}")(x)
        return x if self.out is None else Dense(self.out, name="out")(x)


class TanhGaussian(nn.Module):
    """The mean and log standard deviation of a Gaussian before its tanh, both state-dependent, log_std clipped to [-20, 2] (RLPD)."""

    action_size: int
    widths: Sequence[int]
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    norm: str = "none"
    log_std_offset: float = 0.0  # added to log_std before it is clipped (Cal-QL: -1)

    @nn.compact
    def __call__(self, x: jax.Array, masks: Sequence[jax.Array] | None = None) -> tuple[jax.Array, jax.Array]:
        """x [..., I] -> mean [..., A], log_std [..., A]."""
        x = MLP(self.widths, activation=self.activation, norm=self.norm, name="trunk")(x, masks)
        mean = Dense(self.action_size, name="mean")(x)
        log_std = Dense(self.action_size, name="log_std")(x)
        return mean, jnp.clip(log_std + self.log_std_offset, -20.0, 2.0)


class ResidualBlock(nn.Module):
    """x + Dense(swish(Dense(LN(dropout(x))))), four times wider inside (IDQL's LN_Resnet)."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        y = x if mask is None else x * mask
        y = nn.LayerNorm(name="norm")(y)
        y = nn.swish(Dense(4 * self.hidden, name="wide")(y))
        return x + Dense(self.hidden, name="narrow")(y)


class Denoiser(nn.Module):
    """The LN-ResNet of IDQL and EXPO: epsilon(s, a_t, t), or a flow's velocity, from [a_t, s, cond(t)] -> [..., A].

    The first layer is written as a sum of its three inputs' shares, so that a sampler computes the observation's share once per state and
    the time's once per step: exact, up to the order of a sum.
    """

    action_size: int
    obs_size: int
    hidden: int = 256
    blocks: int = 3
    time_features: int = 128

    def setup(self) -> None:
        cond = 2 * self.time_features
        self.frequencies = self.param("frequencies", nn.initializers.zeros, (self.time_features // 2, 1))
        self.cond_0 = Dense(cond)
        self.cond_1 = Dense(cond)
        self.in_kernel = self.param("in_kernel", nn.initializers.zeros, (self.action_size + self.obs_size + cond, self.hidden))
        self.in_bias = self.param("in_bias", nn.initializers.zeros, (self.hidden,))
        self.block = [ResidualBlock(self.hidden) for _ in range(self.blocks)]
        self.out = Dense(self.action_size)

    def fourier(self, t: jax.Array) -> jax.Array:
        """t [...] (the raw step index as a float) -> [..., time_features]: cos | sin of 2 pi t w with learnable w."""
        f = 2 * jnp.pi * t[..., None] * self.frequencies[:, 0]
        return jnp.concatenate([jnp.cos(f), jnp.sin(f)], axis=-1)

    def cond(self, t: jax.Array) -> jax.Array:
        return self.cond_1(nn.swish(self.cond_0(self.fourier(t))))

    def time(self, t: jax.Array) -> jax.Array:
        """t [...] -> [..., H], the time's share of the first layer."""
        return precision.matmul(self.cond(t), self.in_kernel[self.action_size + self.obs_size :])

    def state(self, obs: jax.Array) -> jax.Array:
        """obs [..., O] -> [..., H], the observation's share of the first layer."""
        return precision.matmul(obs, self.in_kernel[self.action_size : self.action_size + self.obs_size]) + self.in_bias

    def __call__(self, noisy: jax.Array, state: jax.Array, time: jax.Array, masks: jax.Array | None = None) -> jax.Array:
        """noisy [..., A], state and time [..., H] (broadcast against each other) -> [..., A]; masks [blocks, ..., H]."""
        x = precision.matmul(noisy, self.in_kernel[: self.action_size]) + state + time
        for i, block in enumerate(self.block):
            x = block(x, None if masks is None else masks[i])
        return self.out(nn.swish(x))

    def whole(self, obs: jax.Array, noisy: jax.Array, t: jax.Array, masks: jax.Array | None = None) -> jax.Array:
        """epsilon(s, a_t, t) for obs [..., O], noisy [..., A], t [...]."""
        return self(noisy, self.state(obs), self.time(t), masks)


class MlpDenoiser(nn.Module):
    """The denoiser of Diffusion-QL, QSM, DAC, DIPO and QVPO: an MLP of [a_t, cond(t), s] with mish activations -> [..., A].

    `learnt_time`: Fourier features with learnable frequencies (QSM) instead of fixed sinusoids (Diffusion-QL, DAC, DIPO, QVPO).
    """

    action_size: int
    widths: Sequence[int]
    time_features: int
    time_widths: Sequence[int]  #  of the MLP on the time's features; its last layer is linear
    learnt_time: bool = False

    @nn.compact
    def __call__(self, obs: jax.Array, noisy: jax.Array, t: jax.Array) -> jax.Array:
        """epsilon(s, a_t, t) for obs [..., O], noisy [..., A], t [...] (the raw step index as a float), broadcast against each other."""
        half = self.time_features // 2
        if self.learnt_time:
            rates = 2 * jnp.pi * self.param("frequencies", nn.initializers.zeros, (half, 1))[:, 0]
        else:
            rates = jnp.exp(-jnp.log(10_000.0) / max(half - 1, 1) * jnp.arange(half))
        angle = t[..., None] * rates
        features = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        cond = MLP(self.time_widths[:-1], out=self.time_widths[-1], activation=jax.nn.mish, name="cond")(features)
        like_noisy = lambda x: jnp.broadcast_to(x, (*noisy.shape[:-1], x.shape[-1]))
        x = jnp.concatenate([noisy, like_noisy(cond), like_noisy(obs)], axis=-1)
        return MLP(self.widths, out=self.action_size, activation=jax.nn.mish, name="trunk")(x)


def init(module: nn.Module, key: jax.Array, *inputs: jax.Array, **kwargs: Any) -> Params:
    """The bare parameter pytree of a module, from one draw for all its leaves. `key` is consumed.

    flax derives a key per leaf, which makes initialisation as slow to compile as a whole update; the rule per leaf is `_first_value`.
    """
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **kwargs))["params"]
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    sizes = [leaf.size for _, leaf in leaves]
    uniform = jnp.split(jax.random.uniform(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    values = [_first_value([k.key for k in path], u.reshape(leaf.shape)) for (path, leaf), u in zip(leaves, uniform, strict=True)]
    return jax.tree_util.tree_unflatten(structure, values)


def _first_value(path: list[str], uniform: jax.Array) -> jax.Array:
    """The first value of a leaf from uniform numbers of its shape: Xavier-uniform kernels (RLPD, IDQL, EXPO, FQL), flax's default
    (LeCun normal, cut at two standard deviations) inside residual blocks, Fourier frequencies N(0, 0.2), zero biases, unit scales."""
    name = path[-1]
    if name in ("bias", "in_bias"):
        return jnp.zeros_like(uniform)
    if name == "scale":
        return jnp.ones_like(uniform)
    if name == "frequencies":
        return 0.2 * jax.scipy.special.ndtri(jnp.clip(uniform, 1e-7, 1 - 1e-7))
    fan_in, fan_out = uniform.shape
    if any(part in ("wide", "narrow") for part in path):
        low = jax.scipy.special.ndtr(-2.0)
        cut_normal = jax.scipy.special.ndtri(low + uniform * (1 - 2 * low))
        return cut_normal / 0.87962566103423978 / jnp.sqrt(fan_in)  # the divisor is the standard deviation of the cut normal
    return (2 * uniform - 1) * jnp.sqrt(6.0 / (fan_in + fan_out))


def apply(module: nn.Module, params: Params, *inputs: Any, **kwargs: Any) -> Any:
    return module.apply({"params": params}, *inputs, **kwargs)
