"""The bandit: its closed forms against numerical integration, the distance against known cases, and short runs of three agents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.bandit import __main__ as bandit
from benchmarks.bandit import densities, methods, minimisers, training
from benchmarks.bandit.methods import CLAIMS, Method
from benchmarks.bandit.training import Phases
from expo_bench.parts import diffusion

SIDE = np.linspace(-1.5, 1.5, 601)
GRID = np.stack(np.meshgrid(SIDE, SIDE, indexing="ij"), axis=-1)
AREA = (SIDE[1] - SIDE[0]) ** 2


def normalised(density: np.ndarray) -> np.ndarray:
    """Of values on GRID."""
    return density / (density.sum() * AREA)


def test_the_tilted_density_is_behaviour_times_the_exponential_of_the_reward():
    behaviour = np.exp(densities.log_density(densities.BEHAVIOUR, GRID))
    assert behaviour.sum() * AREA == pytest.approx(1, abs=1e-6)
    tilted = normalised(behaviour * np.exp(densities.reward(GRID) / densities.TEMPERATURE))
    np.testing.assert_allclose(np.exp(densities.log_density(densities.TILTED, GRID)), tilted, atol=1e-6)
    share = (tilted * densities.at_better(GRID)).sum() * AREA
    assert bandit.moments("tilted")[0] == pytest.approx(
        share, abs=0.005
    )  # the line between the modes lies on an edge of cells and on the grid


def test_the_claimed_moments_are_those_of_the_density():
    tilted = np.exp(densities.log_density(densities.TILTED, GRID)) * AREA
    mean = (tilted[..., None] * GRID).sum(axis=(0, 1))
    deviation = np.sqrt((tilted[..., None] * (GRID - mean) ** 2).sum(axis=(0, 1)))
    np.testing.assert_allclose(densities.matched(densities.TILTED), (mean, deviation), atol=1e-5)
    there = tilted * densities.at_better(GRID)
    height = (there * GRID[..., 1]).sum() / there.sum()
    width = np.sqrt((there * (GRID[..., 1] - height) ** 2).sum() / there.sum())
    _, of_cells, width_of_cells = bandit.moments("tilted")
    assert of_cells == pytest.approx(height, abs=1e-3)
    assert width_of_cells**2 == pytest.approx(width**2 + 0.1**2 / 12, abs=2e-4)  # a cell of 0.1 adds the variance within it


def test_the_power_of_behaviour_that_qsm_with_imitation_keeps():
    power = minimisers.BC_WEIGHT / (1 + minimisers.BC_WEIGHT)
    exact = normalised(np.exp(power * densities.log_density(densities.BEHAVIOUR, GRID) + densities.reward(GRID) / densities.TEMPERATURE))
    assert np.abs(normalised(CLAIMS["tempered"].density(GRID)) - exact).sum() * AREA / 2 < 0.005


@pytest.mark.parametrize("name", CLAIMS)
def test_cells_are_integrals_of_the_density(name):
    edges = np.linspace(-1, 1, 401)
    middle = (edges[1:] + edges[:-1]) / 2
    density = CLAIMS[name].density(np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1))
    n = len(middle) // densities.CELLS
    summed = density.reshape(densities.CELLS, n, densities.CELLS, n).sum(axis=(1, 3))
    inside = slice(1, -1)  # the cells at the edge also hold what lies outside
    ratio = summed.sum() / summed[inside, inside].sum() * CLAIMS[name].cells[inside, inside].sum()
    np.testing.assert_allclose(CLAIMS[name].cells[inside, inside], ratio * (summed / summed.sum())[inside, inside], atol=1e-5)
    assert CLAIMS[name].cells.sum() == pytest.approx(1, abs=1e-12)


def test_the_reward_prefers_one_mode_and_leads_to_it_from_everywhere():
    at_modes = densities.reward(densities.BEHAVIOUR.means)
    assert at_modes[densities.BETTER] > at_modes[1 - densities.BETTER] + 1
    ridge = np.stack([np.linspace(-0.45, 0.43, 200), np.full(200, 0.2)], axis=-1)
    assert np.all(np.diff(densities.reward(ridge)) > 0)


def test_total_variation_and_its_noise_floor():
    p = np.array([[0.5, 0.5], [0, 0]])
    assert densities.total_variation(p, p) == 0
    assert densities.total_variation(p, p[::-1]) == 1
    assert densities.total_variation(p, np.array([[0.25, 0.5], [0.25, 0]])) == 0.25
    # by hand, of two cells of 1/2: half of 2 |n / N - 1/2|, of mean sqrt(2 / pi) / (2 sqrt(N))
    floor = densities.noise_floor(p, 10_000, np.random.default_rng(0), repeats=4_000)
    assert floor == pytest.approx(np.sqrt(2 / np.pi) / 200, rel=0.05)
    drawn = densities.sample(densities.TILTED, 4_000, np.random.default_rng(1))
    cells = CLAIMS["tilted"].cells
    found = densities.total_variation(densities.histogram(drawn), cells)
    assert found == pytest.approx(densities.noise_floor(cells, 4_000, np.random.default_rng(2)), abs=0.01)


def test_draws_follow_the_mixture():
    key = jax.random.split(jax.random.key(0))
    drawn = densities.draw(densities.TILTED, jax.random.uniform(key[0], (4_000,)), jax.random.normal(key[1], (4_000, 2)))
    assert densities.total_variation(densities.histogram(np.asarray(drawn)), CLAIMS["tilted"].cells) < 0.08  # of exact samples: 0.05


def test_score_noise_and_velocity_of_a_mixture():
    schedule = diffusion.vp_schedule(10)
    x = jax.random.normal(jax.random.key(1), (7, 2)).astype(jnp.float32)
    level = schedule.alpha_hat[4]
    mixed = densities.TILTED._replace(
        means=densities.TILTED.means * np.sqrt(float(level)),
        deviations=np.sqrt(float(level) * densities.TILTED.deviations**2 + 1 - float(level)),
    )
    gradient = jax.vmap(jax.grad(lambda a: densities.log_density(mixed, a)))(x)
    np.testing.assert_allclose(minimisers.noise_of(densities.TILTED, schedule)(x, 4), -jnp.sqrt(1 - level) * gradient, atol=1e-4)
    for name in ("b exp(Q)", minimisers.FLOW):  # both end at the density as steps grow
        drawn = minimisers.samples(name, 100, 4_000, 0)
        assert densities.total_variation(densities.histogram(drawn), CLAIMS["tilted"].cells) < 0.09


def test_the_exact_guidance_of_a_linear_value_is_weaker_than_its_gradient():
    """Of one Gaussian N(m, s^2) tilted by exp(g a): sqrt(level) s^2 / (level s^2 + 1 - level) g at every noise level, where DAC has g."""
    s, g = 0.15, np.array([1.0, 3.0])
    base = densities.Mixture(np.ones(1), np.array([[0.1, -0.2]]), np.array([s]))
    tilted = base._replace(means=base.means + s**2 * g)
    for level in (0.99, 0.5, 0.01):
        at = {"x": jnp.array([0.3, 0.4]), "scale": np.sqrt(level), "noise": np.sqrt(1 - level)}
        guidance = minimisers.score(tilted, **at) - minimisers.score(base, **at)
        np.testing.assert_allclose(guidance, np.sqrt(level) * s**2 / (level * s**2 + 1 - level) * g, rtol=1e-3)
        assert np.all(np.abs(guidance) < np.abs(g))


def test_reward_and_its_gradient_in_both_libraries():
    action = np.array([[0.45, 0.2], [-0.3, 0.1]])
    np.testing.assert_allclose(densities.reward(action), densities.reward(jnp.asarray(action)), atol=1e-5)
    step = 1e-6
    shifted = lambda i: densities.reward(action + step * np.eye(2)[i])
    numeric = np.stack([(shifted(i) - densities.reward(action)) / step for i in range(2)], axis=-1)
    np.testing.assert_allclose(minimisers.reward_gradient(jnp.asarray(action)), numeric, atol=1e-3)


def test_critics_can_be_the_reward_itself():
    exact = training.exact_critics(members=3)
    action = jnp.array([[0.1, 0.2], [-0.4, 0.0]])
    values = exact.values(exact.init(jax.random.key(0)), jnp.ones((2, 1)), action)
    np.testing.assert_allclose(values, np.broadcast_to(densities.reward(np.asarray(action)), (3, 2)), rtol=1e-5)


SHORT = Phases(batch=64, offline=400, online=300, fraction=0.5)
SMALL = {"denoising_steps": 5, "n_samples": 4, "n_edits": 2, "base_hidden": 32, "hidden": (32, 32), "edit_hidden": (32, 32), "critics": 2}


@pytest.fixture(scope="module")
def shares() -> dict[str, np.ndarray]:
    """The share at the better mode of each of two seeds."""
    found = {}
    for name in ("bc", "expo"):
        known = {field: value for field, value in SMALL.items() if hasattr(methods.agents.load(name).Config, field)}
        samples = Method(name, name, SHORT, config=known).run(2, 400)
        found[name] = densities.at_better(samples).mean(axis=1)
    return found


def test_behaviour_cloning_keeps_both_modes(shares):
    assert np.all(np.abs(shares["bc"] - 0.5) < 0.12)


def test_expo_finds_the_better_mode(shares):
    assert np.all(shares["expo"] > 0.8)


def test_unknown_methods_are_named(capsys):
    assert bandit.main(["--methods", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err


def test_tables_and_page(tmp_path):
    rng = np.random.default_rng(0)
    samples = np.stack([densities.sample(densities.TILTED, 500, rng) for _ in range(3)])
    sampler = Method("a sampler", "bc", SHORT, "tilted", "b exp(Q)")
    rows = [*bandit.learnt("sampling", sampler, samples), *bandit.learnt("maximising", Method("m", "bc", SHORT), samples)]
    text = bandit.sampling_table([row for row in rows if row.group == "sampling"], 500)
    assert "| a sampler | `b exp(Q)` | 0.1" in text and "(0.77)" in text
    (tmp_path / "bandit.md").write_text(f"before\n{bandit.BEGIN}\nold\n{bandit.END}\nafter\n")
    bandit.write(rows, text, tmp_path)
    page = (tmp_path / "bandit.md").read_text()
    assert page.startswith("before") and page.endswith("after\n") and "old" not in page and text in page
    bandit.pictures([(sampler, samples), (Method("m", "bc", SHORT), samples)], rows, tmp_path)
    assert (tmp_path / "bandit-sampling.png").stat().st_size > 5_000
