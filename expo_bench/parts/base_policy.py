"""The expressive base policy, diffusion or flow, trained by imitation alone: one interface for both.

Shape letters: B batch, N samples per state, T denoising steps, O observation, A action, H hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from expo_bench import networks, precision
from expo_bench.parts import diffusion, flow, optim, replay
from expo_bench.parts.tape import Tape

Params = Any


class LossDraws(NamedTuple):
    noise: jax.Array  #          [B, A] standard normal: diffusion's noise, flow's x0
    t: jax.Array  #              [B] diffusion: int32 step index; flow: float32 time in [0, 1]
    masks: jax.Array | None  #   [blocks, B, H] dropout masks, None without dropout


class SampleDraws(NamedTuple):
    x_init: jax.Array  #              [..., N, A] standard normal
    step_noise: jax.Array | None  #   [T, ..., N, A] standard normal (diffusion); None: a flow, or diffusion without noise (DDIM)


class BasePolicy(NamedTuple):
    """What an algorithm needs of a base policy: pure functions on one parameter pytree."""

    init: Callable[[jax.Array], Params]
    draw_loss: Callable[[Tape, int], LossDraws]  #                           (tape, B)
    loss: Callable[..., jax.Array]  #  (params, obs [B, O], action [B, A], draws, weight [B, A] = None) -> scalar
    draw_samples: Callable[[Tape, tuple[int, ...]], SampleDraws]  #          (tape, (..., N))
    sample: Callable[[Params, jax.Array, SampleDraws], jax.Array]  #         (params, obs [..., O], draws) -> [..., N, A] in [-1, 1]
    predict: Callable[..., jax.Array]  #  (params, obs [..., O], x [..., A], t [...]) -> the network's noise or velocity [..., A]


def make(
    kind: str,
    *,
    obs_size: int,
    action_size: int,
    steps: int,
    hidden: int,
    blocks: int,
    time_features: int,
    dropout: float = 0.0,
    schedule: str = "vp",
    rows: int = 2048,
) -> BasePolicy:
    """A "diffusion" or "flow" policy over the LN-ResNet of IDQL and EXPO.

    `steps` is T, `schedule` the diffusion's, "vp" or "cosine". `rows` is the number of chains that are denoised at a time: on a CPU a larger
    block of activations leaves the cache.
    A flow's time runs in [0, 1] and enters the network as t * T, the range for which its Fourier features are initialised.
    """
    net = networks.Denoiser(action_size, obs_size, hidden, blocks, time_features)
    levels = diffusion.SCHEDULES[schedule](steps)

    def init(key: jax.Array) -> Params:
        return networks.init(net, key, jnp.zeros(obs_size), jnp.zeros(action_size), jnp.zeros(()), method=net.whole)

    def network(params: Params, obs: jax.Array, masks: jax.Array | None = None) -> Callable:
        """(x, t) -> output, with the observation's share of the first layer computed once."""
        state = _apply(net, params, obs, method=net.state)

        def run(x: jax.Array, t: jax.Array) -> jax.Array:
            index = t.astype(jnp.float32) * (steps if kind == "flow" else 1)
            return _apply(net, params, x, state, _apply(net, params, index, method=net.time), masks)

        return run

    def draw_loss(tape: Tape, batch: int) -> LossDraws:
        t = tape.uniform((batch,)) if kind == "flow" else replay.index(tape.uniform((batch,)), steps)
        masks = tape.keep(dropout, (blocks, batch, hidden)) if dropout else None
        return LossDraws(tape.normal((batch, action_size)), t, masks)

    def loss(params: Params, obs: jax.Array, action: jax.Array, draws: LossDraws, weight: jax.Array | None = None) -> jax.Array:
        run = network(params, obs, draws.masks)
        if kind == "flow":
            return flow.imitation_loss(run, action, draws.noise, draws.t, weight)
        return diffusion.imitation_loss(run, levels, action, draws.noise, draws.t, weight)

    def draw_samples(tape: Tape, shape: tuple[int, ...]) -> SampleDraws:
        if kind == "flow":
            return SampleDraws(tape.normal((*shape, action_size)), None)
        noise = tape.normal((steps + 1, *shape, action_size))
        return SampleDraws(noise[0], noise[1:])

    def sample(params: Params, obs: jax.Array, draws: SampleDraws) -> jax.Array:
        def chains(inputs: tuple[jax.Array, SampleDraws]) -> jax.Array:
            obs, draws = inputs
            run = network(params, obs[..., None, :])
            if kind == "flow":
                return flow.sample(run, draws.x_init, steps)
            if draws.step_noise is None:
                return diffusion.sample_ddim(run, levels, draws.x_init)
            return diffusion.sample(run, levels, draws.x_init, draws.step_noise)

        return _in_row_blocks(chains, obs, draws, rows)

    return BasePolicy(init, draw_loss, loss, draw_samples, sample, lambda params, obs, x, t: network(params, obs)(x, t))


def diffusion_mlp(
    *,
    obs_size: int,
    action_size: int,
    steps: int,
    widths: Sequence[int],
    time_features: int,
    time_widths: Sequence[int],
    learnt_time: bool = False,
    schedule: str = "vp",
    sampler: str = "ancestral",
    rows: int = 2048,
) -> BasePolicy:
    """The diffusion policy of Diffusion-QL, QSM, DAC, DIPO and QVPO: `networks.MlpDenoiser`. `steps` and `rows` as in `make`.

    `schedule`: "vp" or "cosine"; `sampler`: "ancestral" clips every step (QSM), "posterior" the action that each step predicts, and
    "posterior_beta" does so with the larger noise beta_t (DAC).
    """
    net = networks.MlpDenoiser(action_size, tuple(widths), time_features, tuple(time_widths), learnt_time)
    levels = diffusion.SCHEDULES[schedule](steps)
    denoise = {
        "ancestral": diffusion.sample,
        "posterior": diffusion.sample_posterior,
        "posterior_beta": partial(diffusion.sample_posterior, beta_noise=True),
    }[sampler]

    def predict(params: Params, obs: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
        return _apply(net, params, obs, x, t.astype(jnp.float32))

    def draw_loss(tape: Tape, batch: int) -> LossDraws:
        return LossDraws(tape.normal((batch, action_size)), replay.index(tape.uniform((batch,)), steps), None)

    def loss(params: Params, obs: jax.Array, action: jax.Array, draws: LossDraws, weight: jax.Array | None = None) -> jax.Array:
        return diffusion.imitation_loss(lambda x, t: predict(params, obs, x, t), levels, action, draws.noise, draws.t, weight)

    def draw_samples(tape: Tape, shape: tuple[int, ...]) -> SampleDraws:
        noise = tape.normal((steps + 1, *shape, action_size))
        return SampleDraws(noise[0], noise[1:])

    def sample(params: Params, obs: jax.Array, draws: SampleDraws) -> jax.Array:
        def chains(inputs: tuple[jax.Array, SampleDraws]) -> jax.Array:
            obs, draws = inputs
            return denoise(lambda x, t: predict(params, obs[..., None, :], x, t), levels, draws.x_init, draws.step_noise)

        return _in_row_blocks(chains, obs, draws, rows)

    def init(key: jax.Array) -> Params:
        return networks.init(net, key, jnp.zeros(obs_size), jnp.zeros(action_size), jnp.zeros(()))

    return BasePolicy(init, draw_loss, loss, draw_samples, sample, predict)


def flow_mlp(*, obs_size: int, action_size: int, steps: int, widths: Sequence[int], rows: int = 2048) -> BasePolicy:
    """The flow policy of FQL, IFQL and Q-chunking: the velocity is a GELU MLP of [s, x, t]. `steps` and `rows` as in `make`."""
    net = networks.MLP(tuple(widths), out=action_size, activation=jax.nn.gelu)

    def velocity(params: Params, obs: jax.Array) -> Callable:
        def run(x: jax.Array, t: jax.Array) -> jax.Array:
            like_x = lambda v: jnp.broadcast_to(v, (*x.shape[:-1], v.shape[-1]))
            return _apply(net, params, jnp.concatenate([like_x(obs), x, like_x(t[..., None])], axis=-1))

        return run

    def draw_loss(tape: Tape, batch: int) -> LossDraws:
        return LossDraws(tape.normal((batch, action_size)), tape.uniform((batch,)), None)

    def loss(params: Params, obs: jax.Array, action: jax.Array, draws: LossDraws, weight: jax.Array | None = None) -> jax.Array:
        return flow.imitation_loss(velocity(params, obs), action, draws.noise, draws.t, weight)

    def sample(params: Params, obs: jax.Array, draws: SampleDraws) -> jax.Array:
        chains = lambda inputs: flow.sample(velocity(params, inputs[0][..., None, :]), inputs[1].x_init, steps)
        return _in_row_blocks(chains, obs, draws, rows)

    return BasePolicy(
        init=lambda key: networks.init(net, key, jnp.zeros(obs_size + action_size + 1)),
        draw_loss=draw_loss,
        loss=loss,
        draw_samples=lambda tape, shape: SampleDraws(tape.normal((*shape, action_size)), None),
        sample=sample,
        predict=lambda params, obs, x, t: velocity(params, obs)(x, t),
    )


def _apply(net: Any, params: Params, *inputs: Any, **kwargs: Any) -> jax.Array:
    """The network's output, its products in the precision of the base policy."""
    with precision.of_denoiser():
        return networks.apply(net, params, *inputs, **kwargs)


def decode(policy: BasePolicy, params: Params, obs: jax.Array, z: jax.Array) -> jax.Array:
    """The action that a noise becomes, z [..., A] at obs [..., O] -> [..., A]: a deterministic map, a flow's Euler steps or DDIM's."""
    return policy.sample(params, obs, SampleDraws(z[..., None, :], None))[..., 0, :]


def _in_row_blocks(chains: Callable, obs: jax.Array, draws: SampleDraws, rows: int) -> jax.Array:
    """Sample all states at once, or, beyond `rows` chains, a block of states after the other (exact: states do not see each other)."""
    *lead, n, action_size = draws.x_init.shape
    states = 1
    for size in lead:
        states *= size
    block = max(1, rows // n)
    if states <= block or states % block:
        return chains((obs, draws))
    count = states // block
    flat_obs = obs.reshape(count, block, obs.shape[-1])
    x_init = draws.x_init.reshape(count, block, n, action_size)
    noise = draws.step_noise
    if noise is not None:  # the steps have to stay in front within a block
        noise = jnp.moveaxis(noise.reshape(len(noise), count, block, n, action_size), 1, 0)
    actions = jax.lax.map(chains, (flat_obs, SampleDraws(x_init, noise)))
    return actions.reshape(*lead, n, action_size)


class Imitation(NamedTuple):
    """A base policy in training, with the exponential moving average of its parameters."""

    base: optim.Trained
    ema: Params


def start(policy: BasePolicy, optimiser: optax.GradientTransformation, key: jax.Array) -> Imitation:
    params = policy.init(key)
    return Imitation(optim.start(optimiser, params), params)


def imitate(
    policy: BasePolicy,
    optimiser: optax.GradientTransformation,
    state: Imitation,
    batch: replay.Batch,
    draws: LossDraws,
    ema_tau: jax.Array,
) -> tuple[Imitation, jax.Array]:
    """One behaviour-cloning step and one step of the EMA on the actions of a batch [B] -> (state, loss)."""
    loss, grads = jax.value_and_grad(policy.loss)(state.base.params, batch.obs, batch.action, draws, batch.action_weight)
    base = optim.step(optimiser, state.base, grads)
    return Imitation(base, optim.polyak(state.ema, base.params, ema_tau)), loss
