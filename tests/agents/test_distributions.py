"""The Gaussian and the tanh-Gaussian against distrax, the latter against float64 where tanh saturates, and as a density that integrates to 1."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expo_bench import distributions

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_density_and_sample_against_distrax(jit: bool) -> None:
    """Away from saturation, where distrax can invert the sample."""
    mean, log_std, noise = (RNG.normal(size=(64, 3)).astype(np.float32) * scale for scale in (0.3, 0.2, 0.5))
    function = jax.jit(distributions.tanh_gaussian) if jit else distributions.tanh_gaussian
    sample, log_prob = function(mean, log_std, noise)
    normal = distrax.Normal(mean, np.exp(log_std))
    reference = distrax.Independent(distrax.Transformed(normal, distrax.Tanh()), reinterpreted_batch_ndims=1)
    assert log_prob.shape == (64,) and float(jnp.abs(sample).max()) < 0.99
    np.testing.assert_allclose(sample, np.tanh(mean + np.exp(log_std) * noise), atol=1e-6)
    np.testing.assert_allclose(log_prob, reference.log_prob(sample), atol=1e-4)  # distrax inverts a float32 tanh
    np.testing.assert_allclose(log_prob, _float64(mean, log_std, noise), rtol=1e-6, atol=3e-6)


def test_gaussian_density_against_distrax() -> None:
    mean, log_std, value = RNG.normal(size=(3, 16, 3)).astype(np.float32)
    reference = distrax.MultivariateNormalDiag(mean, np.exp(log_std)).log_prob(value)
    np.testing.assert_allclose(distributions.gaussian_log_prob(mean, log_std, value), reference, rtol=1e-5)


def _float64(mean: np.ndarray, log_std: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """log N(u; mean, std) - log(1 - tanh(u)^2) with 1 - tanh(u)^2 = 1 / cosh(u)^2, in float64."""
    mean, log_std, noise = (np.asarray(x, np.float64) for x in (mean, log_std, noise))
    u = mean + np.exp(log_std) * noise
    normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    return np.sum(normal + 2 * (np.logaddexp(u, -u) - np.log(2)), axis=-1)


@pytest.mark.parametrize("mean", [-60.0, -9.0, 9.0, 60.0])
@pytest.mark.parametrize("log_std", [-20.0, 0.0, 2.0])
def test_density_in_saturation(mean: float, log_std: float) -> None:
    """Where tanh(u) is exactly +-1 in float32, the density and its gradients stay finite and right."""
    noise = RNG.normal(size=(16, 2)).astype(np.float32)
    mean, log_std = (np.full((16, 2), x, np.float32) for x in (mean, log_std))
    _, log_prob = distributions.tanh_gaussian(mean, log_std, noise)
    want = _float64(mean, log_std, noise)
    np.testing.assert_allclose(log_prob, want, atol=1e-5 * max(1.0, np.abs(want).max()))
    gradients = jax.grad(lambda m, s: jnp.sum(distributions.tanh_gaussian(m, s, noise)[1]), argnums=(0, 1))(mean, log_std)
    u = mean.astype(np.float64) + np.exp(log_std.astype(np.float64)) * noise
    np.testing.assert_allclose(gradients[0], 2 * np.tanh(u), atol=1e-5)
    np.testing.assert_allclose(gradients[1], -1 + 2 * np.tanh(u) * np.exp(log_std.astype(np.float64)) * noise, rtol=1e-4, atol=1e-5)


def test_some_samples_saturate() -> None:
    sample, log_prob = distributions.tanh_gaussian(jnp.full((1, 1), 9.5), jnp.zeros((1, 1)), jnp.full((1, 1), 0.5))
    assert 1 - 1e-6 < float(sample[0, 0]) <= 1 and np.isfinite(log_prob[0])


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -1.0), (0.7, 0.0), (-1.5, -0.5)])
def test_density_integrates_to_one(mean: float, log_std: float) -> None:
    """Over the action a = tanh(u) in (-1, 1), on a grid that is even in u."""
    u = np.linspace(-12, 12, 20_001)
    noise = ((u - mean) / np.exp(log_std)).astype(np.float32)[:, None]
    fill = lambda x: np.full_like(noise, x)
    _, log_prob = distributions.tanh_gaussian(fill(mean), fill(log_std), noise)
    density = np.exp(np.asarray(log_prob, np.float64))
    assert np.trapezoid(density, np.tanh(u)) == pytest.approx(1.0, abs=1e-4)
