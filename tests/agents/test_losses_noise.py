"""Agents that choose the base policy's initial noise: the deterministic sampler, DSRL and FASTER, against numbers worked out in numpy."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expo_bench import networks
from expo_bench.parts import base_policy, diffusion, flow


def jit(function: Callable) -> Callable:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(params=[jit, lambda f: f], ids=["jit", "eager"])
def run(request: pytest.FixtureRequest) -> Callable:
    return request.param


def alpha_hats(steps: int) -> np.ndarray:
    """alpha_hat_t, t = 1..T, of the variance-preserving schedule in float64."""
    t = np.arange(1, steps + 1)
    return np.cumprod(np.exp(-0.1 / steps - 9.9 * (2 * t - 1) / (2 * steps**2)))


# -- the deterministic sampler -------------------------------------------------------------------------------------------------------------


def test_ddim_by_hand(run: Callable) -> None:
    """Two steps with epsilon(x, t) = x / 2 + t / 10: a row that goes free and one that is clipped after its first step."""
    late, early = alpha_hats(2)[::-1]  # alpha_hat_2 and alpha_hat_1
    x_2 = np.array([[0.3, 0.05], [2.5, 0.1]])
    eps = x_2 / 2 + 0.1
    x_1 = np.sqrt(early) * (x_2 - np.sqrt(1 - late) * eps) / np.sqrt(late) + np.sqrt(1 - early) * eps
    np.testing.assert_array_equal(np.abs(x_1) > 1, [[False, False], [True, False]])
    x_1 = np.clip(x_1, -1, 1)
    want = np.clip((x_1 - np.sqrt(1 - early) * x_1 / 2) / np.sqrt(early), -1, 1)
    epsilon = lambda x, t: x / 2 + t / 10
    got = run(lambda x: diffusion.sample_ddim(epsilon, diffusion.vp_schedule(2), x))(jnp.asarray(x_2, jnp.float32))
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_ddim_returns_to_the_only_action(steps: int) -> None:
    """With the exact noise of data that is one action, every start ends there."""
    alpha_hat, action = jnp.asarray(alpha_hats(steps), jnp.float32), jnp.array([0.4, -0.7])
    epsilon = lambda x, t: (x - jnp.sqrt(alpha_hat[t]) * action) / jnp.sqrt(1 - alpha_hat[t])
    starts = jax.random.normal(jax.random.key(0), (50, 2)) / 3  # so small that no step is clipped
    got = jit(lambda x: diffusion.sample_ddim(epsilon, diffusion.vp_schedule(steps), x))(starts)
    np.testing.assert_allclose(got, np.broadcast_to(action, got.shape), atol=1e-4)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_decoding_is_a_map_of_state_and_noise(kind: str) -> None:
    """The base policy without noise between its steps is the sampler by itself, row by row, whatever else is in the batch."""
    policy = base_policy.make(kind, obs_size=3, action_size=2, steps=4, hidden=8, blocks=1, time_features=4)
    params = policy.init(jax.random.key(0))
    obs, z = jax.random.normal(jax.random.key(1), (6, 3)), jax.random.normal(jax.random.key(2), (6, 2))
    actions = jit(lambda o, z: base_policy.decode(policy, params, o, z))(obs, z)
    assert actions.shape == (6, 2) and float(jnp.std(actions)) > 0.1
    one_by_one = jit(jax.vmap(lambda o, z: base_policy.decode(policy, params, o, z)))(obs[::-1], z[::-1])[::-1]
    np.testing.assert_allclose(actions, one_by_one, atol=1e-6)
    net = networks.Denoiser(action_size=2, obs_size=3, hidden=8, blocks=1, time_features=4)
    scale = 4 if kind == "flow" else 1
    run = lambda x, t: networks.apply(net, params, obs, x, jnp.float32(t) * scale, method=net.whole)
    by_itself = flow.sample(run, z, 4) if kind == "flow" else diffusion.sample_ddim(run, diffusion.vp_schedule(4), z)
    np.testing.assert_allclose(actions, by_itself, atol=1e-5)
