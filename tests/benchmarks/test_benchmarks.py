"""The benchmarks: the counted arithmetic against the facts and against the programs themselves, and one tiny case end to end."""

import json
import math

import jax
import jax.numpy as jnp
import pytest
from toy import SMALL

from benchmarks import __main__ as command
from benchmarks import case as cases
from benchmarks import flops, synthetic, updates
from expo_bench import agents
from expo_bench.agents.base import Spec
from expo_bench.parts.replay import Batch
from expo_bench.protocol import Protocol


def paper_update(updates, agent="expo"):
    config = agents.load(agent).Config()
    return flops.COUNTED[agent](config, flops.Sizes(19, 7, 256, updates), False).learn


def test_the_paper_sizes_cost_what_was_measured_and_counted_apart():
    assert flops.denoiser(agents.load("expo").Config(), 19, 7).row == pytest.approx(3.490e6, rel=1e-3)
    assert paper_update(20) == pytest.approx(1536e9, rel=0.01)
    assert paper_update(1) == pytest.approx(80.9e9, rel=0.01)
    assert paper_update(20, "rlpd") == pytest.approx(48e9, rel=0.02)


def test_one_step_of_expo_is_its_update_and_its_action():
    config, protocol = agents.load("expo").Config(), agents.load("expo").PROTOCOL
    unshared = flops.per_env_step("expo", config, protocol, 19, 7, shared=False)
    assert unshared == pytest.approx(paper_update(20) + 80 * 3.490e6 + 8 * 0.283e6 + 32 * 0.276e6, rel=1e-3)
    assert 0.85 * unshared < flops.per_env_step("expo", config, protocol, 19, 7) < unshared
    assert flops.per_env_step("bc", None, protocol, 19, 7) is None


def products(jaxpr):
    """FLOP of all matrix products in a program, scans multiplied by their length."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
        inner = sum(products(getattr(j, "jaxpr", j)) for j in jax.tree.leaves(eqn.params, is_leaf=is_jaxpr) if is_jaxpr(j))
        total += inner * eqn.params.get("length", 1)
    return total


def is_jaxpr(x):
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


@pytest.mark.parametrize("agent", sorted(flops.COUNTED))
def test_the_count_is_that_of_the_program(agent):
    """Only the gradients to the inputs of first layers, which nobody needs, are counted and not computed."""
    config, spec = agents.load(agent).Config(), Spec(19, 7, 32, 3)
    made = agents.load(agent).make(config, spec)
    state = jax.eval_shape(made.init, jax.random.key(0))
    shape = lambda *s: jax.ShapeDtypeStruct((3, 32, *s), jnp.float32)
    batches = Batch(shape(19), shape(7), shape(), shape(), shape(19))
    counted = flops.COUNTED[agent](config, flops.Sizes(19, 7, 32, 3), True)
    learn = jax.make_jaxpr(lambda s, b, k: made.learn(s, b, made.draw(k)))(state, batches, jax.random.key(0))
    assert products(learn.jaxpr) == pytest.approx(counted.learn, rel=0.03)
    act = jax.make_jaxpr(lambda s, o, k: made.act(s, o, made.draw_act(k, True), explore=True))(state, jnp.zeros(19), jax.random.key(0))
    assert products(act.jaxpr) == pytest.approx(counted.act, rel=1e-6)


TINY = cases.Size(
    synthetic.NAME,
    SMALL,
    {"offline_steps": 8, "online_steps": 64, "updates": 2, "batch_size": 8, "eval_every": 64, "eval_episodes": 2},
)
KEYS = """agent size task engine seeds rows devices_used precision protocol compile_s compile_phases_s iterations iterations_chosen
repetitions seconds_per_env_step env_steps_per_s updates_per_s offline_gradient_steps_per_s evaluation_s flop_per_env_step
flop_per_env_step_unshared
achieved_flop_per_s peak_resident_bytes peak_device_bytes state_bytes scratch_bytes utilisation utilisation_of_devices_used""".split()


def test_a_tiny_case_from_end_to_end():
    measured = cases.measure(cases.Case("fql", seeds=2, iterations=3, repetitions=2), TINY)
    case = command.with_utilisation(measured, {"gemm_peak_flop_per_s": 1e12, "devices": 2 * measured["devices_used"], "platform": "gpu"})
    assert sorted(case) == sorted(KEYS)
    assert json.loads(json.dumps(case)) == case
    for name in ("env_steps_per_s", "updates_per_s", "seconds_per_env_step", "achieved_flop_per_s"):
        assert 0 < case[name]["min"] <= case[name]["median"] <= case[name]["max"]
    assert case["updates_per_s"]["median"] == pytest.approx(2 * case["env_steps_per_s"]["median"])
    assert case["env_steps_per_s"]["max"] == pytest.approx(2 / case["seconds_per_env_step"]["min"])
    assert case["achieved_flop_per_s"]["median"] == pytest.approx(case["flop_per_env_step"] * case["env_steps_per_s"]["median"])
    assert case["iterations"] == 3 and case["repetitions"] == 2 and 2 * case["utilisation"] == case["utilisation_of_devices_used"] > 0
    assert case["peak_resident_bytes"] > 50 * 2**20 and case["state_bytes"] > 0 and case["scratch_bytes"] > 0
    assert "fql" in command.table([case]) and "failed: x" in command.table([{**measured, "error": "x"}])


def test_automatic_iterations_fit_the_time():
    case = cases.Case("expo")
    assert cases.plan_repetitions(case, 0.01) == (200, 5)
    assert cases.plan_repetitions(case, 6.0) == (1, 5)
    assert cases.plan_repetitions(case, 50.0) == (1, 1)
    assert cases.plan_repetitions(cases.Case("expo", iterations=2, repetitions=3), 50.0) == (2, 3)


def test_paper_size_uses_the_published_settings():
    program, task = cases.prepare(cases.Case("expo", "paper"), cases.SIZES["paper"])
    assert (task.env.obs_size, task.env.action_size) == (19, 7) and task.dataset.shape[1] == 2 * 19 + 7 + 3
    assert program.config == agents.load("expo").Config() and program.protocol.updates == 20 and program.protocol.batch_size == 256
    assert isinstance(program.protocol, Protocol) and program.protocol.offline_steps == program.protocol.warmup_steps == 0


def test_updates_are_timed_beside_rlpds(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(cases.SIZES, "quickstart", cases.Size("push-disc", SMALL, {"updates": 2, "batch_size": 8}))
    monkeypatch.setattr(updates, "SECONDS", 0.01)
    updates.main(["--size", "quickstart", "--agents", "fql", "--out", str(tmp_path / "updates.json")])
    (row,) = json.loads((tmp_path / "updates.json").read_text())["sizes"]["quickstart"]
    assert row["agent"] == "fql" and row["updates"] == 2 and row["batch_size"] == 8
    assert 0.05 < row["relative_to_rlpd"] < 20 and 0 < row["seconds_per_env_step"] < 1
    assert "| quickstart | `fql` | 2 x 8 |" in capsys.readouterr().out
