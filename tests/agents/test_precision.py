"""What each precision does to the products of the networks, forward and backward, on a CPU and in the program for a GPU; and what it leaves alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import SMALL, Walk

from expo_bench import precision
from expo_bench.agents import expo
from expo_bench.agents.base import Spec
from expo_bench.config import fields, replace
from expo_bench.parts.replay import Batch
from expo_bench.protocol import Protocol
from expo_bench.sweeps.experiment import PRECISIONS
from expo_bench.training import loop

X, W, G = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(128, 256), (256, 64), (128, 64)]))
# Root mean square error over root mean square value of a product. Rounding to m bits errs by 2^-m / sqrt(12) of a number's leading power of two, 0.39
# of it for two operands in the root mean square of normal numbers: 0.0024 for bfloat16, an eighth of that for TF32.
ERRORS = {"float32": (0.0, 1e-6), "tensorfloat32": (2e-4, 4e-4), "bfloat16": (1.6e-3, 3.2e-3)}


def rounded(x, name):
    return x if name == "float32" else jax.lax.reduce_precision(x, 8, precision.MANTISSA[name])


def products(name, matmul=precision.matmul):
    """(x @ w, and the gradients of sum(g * (x @ w)) in x and in w), as a network computes them."""
    with precision.products(name):
        y, back = jax.vjp(matmul, X, W)
        return (y, *back(G))


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_product_and_those_in_its_gradient_err_as_their_precision_does(name):
    exact = [np.asarray(a, np.float64) @ np.asarray(b, np.float64) for a, b in ((X, W), (G, W.T), (X.T, G))]
    low, high = ERRORS[name]
    for found, expected in zip(products(name), exact, strict=True):
        assert found.dtype == jnp.float32 and low <= np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)) <= high
    x, w, g = (rounded(v, name) for v in (X, W, G))
    for found, expected in zip(products(name), (x @ w, g @ w.T, x.T @ g), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_layers_of_flax_and_of_the_denoiser_round_alike():
    dense = lambda x, w: precision.dot_general(x, w, (((1,), (0,)), ((), ())), precision=None)
    for found, expected in zip(products("bfloat16", dense), products("bfloat16"), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_rounding_goes_through_scans_batches_and_forward_derivatives():
    def chain(w, x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(precision.matmul(h, w)), None), x, None, length=3)[0].sum()

    square, start = W[:64] / 8, X[:5, :64]
    by_rows = jax.jit(jax.vmap(jax.grad(chain), in_axes=(None, 0)))
    with precision.products("bfloat16"):
        gradient = by_rows(square, start)
        along = jax.jvp(chain, (square, start[0]), (square, start[0]))[1]
        across = sum(jnp.vdot(g, t) for g, t in zip(jax.grad(chain, (0, 1))(square, start[0]), (square, start[0]), strict=True))
    assert 1e-4 < np.max(np.abs(gradient - by_rows(square, start))) < 0.1  # the context is part of what a jitted function is cached by
    np.testing.assert_allclose(along, across, atol=0.06)  # of the order of 1, from terms that are rounded apart


@pytest.mark.parametrize("name, operand", [("float32", ""), ("tensorfloat32", "tf32"), ("bfloat16", "bf16")])
def test_the_program_for_a_gpu_names_the_algorithm_and_rounds_nothing_itself(name, operand):
    with precision.products(name, platform="gpu"):
        forward_and_back = jax.jit(jax.value_and_grad(lambda x, w: jnp.sum(precision.matmul(x, w) * G), argnums=(0, 1)))
        text = forward_and_back.trace(X, W).lower(lowering_platforms=("cuda",)).as_text()
    dots = [line for line in text.splitlines() if "dot_general" in line]
    assert len(dots) == 3 and "reduce_precision" not in text
    for line in dots:
        if operand:
            assert f"lhs_precision_type = {operand}, rhs_precision_type = {operand}, accumulation_type = f32" in line
        else:
            assert "algorithm" not in line and "[HIGHEST, HIGHEST]" in line


# -- of an algorithm ---------------------------------------------------------------------------------------------------------------------

SPEC = Spec(obs_size=6, action_size=2, batch_size=16, updates=2)
CONFIG = replace(expo.Config(), "expo", **{name: value for name, value in SMALL.items() if name in fields(expo.Config)})
AGENT = expo.make(CONFIG, SPEC)


def learnt(everywhere, denoiser):
    """EXPO after one call of `learn` whose candidates do not depend on the denoiser's products: its last layer is still 0."""

    def from_key(key):
        state = AGENT.init(key)
        params = state.imitation.base.params
        params = {**params, "out": jax.tree.map(jnp.zeros_like, params["out"])}
        state = state._replace(imitation=state.imitation._replace(base=state.imitation.base._replace(params=params)))
        numbers = lambda i, *shape: jax.random.normal(jax.random.fold_in(key, i), (SPEC.updates, SPEC.batch_size, *shape))
        zeros = jnp.zeros((SPEC.updates, SPEC.batch_size))
        batches = Batch(numbers(1, 6), jnp.tanh(numbers(2, 2)), numbers(3), zeros, numbers(4, 6))
        return AGENT.learn(state, batches, AGENT.draw(key))

    with precision.products(everywhere, denoiser):
        return jax.jit(from_key, compiler_options={"xla_backend_optimization_level": 0})(jax.random.key(0))


def differs(a, b):
    """By more than another program's rounding, which is 1e-7; bfloat16 changes gradients by 1e-3."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(np.linalg.norm(x - y) > 1e-5 * np.linalg.norm(x) for x, y in pairs)


def test_the_denoisers_precision_is_its_own_and_parameters_stay_float32():
    exact, info = learnt("float32", None)
    apart, info_apart = learnt("float32", "bfloat16")
    rest, info_rest = learnt("bfloat16", "float32")
    assert not differs(exact.critic, apart.critic) and not differs(exact.edit, apart.edit)
    assert not differs(info["critic_loss"], info_apart["critic_loss"])
    assert differs(exact.imitation.base.opt, apart.imitation.base.opt)
    assert differs(exact.critic, rest.critic) and differs(exact.edit, rest.edit)
    assert differs(info["critic_loss"], info_rest["critic_loss"])
    assert not differs(exact.imitation, rest.imitation)
    assert {leaf.dtype for state in (apart, rest) for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32"), jnp.dtype("int32")}


def test_physics_is_float32_whatever_the_networks_are():
    seen = {"physics": set(), "agent": set()}

    def note(who, function, *args):
        seen[who].add(jax.config.jax_default_matmul_precision)
        return function(*args)

    class Noting(Walk):
        def reset(self, key):
            return note("physics", super().reset, key)

        def step(self, state, action):
            return note("physics", super().step, state, action)

    def make(config, spec):
        agent = expo.make(config, spec)
        return agent._replace(act=lambda *args, **kwargs: note("agent", partial(agent.act, **kwargs), *args))

    run = loop.make(Noting(), make, CONFIG, Protocol(online_steps=4, updates=1, batch_size=4, offline_fraction=0.0, eval_episodes=2), 0)
    clock, zero = loop.Clock(jnp.int32(0), jnp.int32(0)), jnp.int32(0)
    with precision.products("bfloat16"):
        state = jax.eval_shape(lambda: run.init(zero, {}))
        jax.eval_shape(lambda s: run.online(s, clock, jnp.int32(2), {}, jnp.zeros((0, 2 * 2 + 1 + 3))), state)
        jax.eval_shape(lambda s: run.evaluate(s, zero, {}), state)
    assert seen == {"physics": {"float32"}, "agent": {"bfloat16"}}
