"""The benchmarks: the counted arithmetic against the facts and against the programs themselves, and one tiny case end to end."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from toy import SMALL

from benchmarks import __main__ as command
from benchmarks import case as cases
from benchmarks import flops, synthetic, updates
from expo_bench import agents
from expo_bench.agents.base import Spec
from expo_bench.config import fields, replace
from expo_bench.protocol import Protocol


def paper_update(updates):
    return flops.released(agents.load("expo").Config(), flops.Sizes(19, 7, 256, updates))[0]


def test_the_paper_sizes_cost_what_was_measured_and_counted_apart():
    assert flops.denoiser(agents.load("expo").Config(), 19, 7).row == pytest.approx(3.490e6, rel=1e-3)
    assert paper_update(20) == pytest.approx(1536e9, rel=0.01)
    assert paper_update(1) == pytest.approx(80.9e9, rel=0.01)
    rlpd = flops.learning("rlpd", agents.load("rlpd").Config(), Spec(19, 7, 256, 20))
    assert rlpd.flop == pytest.approx(48e9, rel=0.02)


@pytest.mark.parametrize("steps", [10, 3])
def test_the_programs_count_is_the_configs(steps):
    """Only the gradients to the inputs of first layers, which nobody needs, are counted by hand and not computed."""
    config = dataclasses.replace(agents.load("expo").Config(), denoising_steps=steps)
    learn, act = flops.released(config, flops.Sizes(19, 7, 32, 3), shared=True)
    spec = Spec(19, 7, 32, 3)
    assert flops.learning("expo", config, spec).flop == pytest.approx(learn, rel=0.03)
    assert flops.acting("expo", config, spec).flop == pytest.approx(act, rel=1e-6)


def test_samples_that_are_kept_are_not_counted_and_first_ones_are():
    config, protocol = agents.load("expo").Config(), Protocol(online_steps=100, updates=3, batch_size=32)
    kept, spec = dataclasses.replace(config, refresh_every=4), Spec(19, 7, 32, 3, 500)
    samples = lambda states: flops.denoiser(config, 19, 7).samples(states, 8, 10, shared=True)
    saved = flops.learning("expo", config, spec).flop - flops.learning("expo", kept, spec).flop
    assert saved == pytest.approx(samples(3 * 24), rel=0.01)
    both = flops.learning("expo", kept, spec) + flops.acting("expo", kept, spec)
    first = flops.per_env_step("expo", kept, protocol, 19, 7, 400).flop - both.flop
    assert first == pytest.approx(samples(1) + samples(400) / 100, rel=0.01)
    acting = dataclasses.replace(kept, proposals_from_acting=True)
    assert flops.per_env_step("expo", acting, protocol, 19, 7).flop == pytest.approx(both.flop)
    assert flops.per_env_step("expo", config, protocol, 19, 7, 400) == flops.per_env_step("expo", config, protocol, 19, 7)


def test_products_by_hand():
    """A scan counts as often as it runs, of branches the larger one, and a while loop not at all."""
    x, w = jnp.zeros((3, 4)), jnp.zeros((4, 4))
    once, moved = 2 * 3 * 4 * 4, 4 * (12 + 16 + 12)
    count = lambda f: flops.products(jax.make_jaxpr(f)(x, w).jaxpr)
    assert count(lambda x, w: x @ w) == (once, moved, 1)
    assert count(jax.jit(lambda x, w: jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=5)[0])) == (5 * once, 5 * moved, 5)
    assert count(lambda x, w: jax.lax.cond(x.sum() > 0, lambda x: x @ w @ w, lambda x: x @ w, x)) == (2 * once, 2 * moved, 2)
    with pytest.raises(ValueError, match="while loop"):
        count(lambda x, w: jax.lax.fori_loop(0, x.sum().astype(int), lambda i, c: c @ w, x))


@pytest.mark.parametrize("agent", sorted(agents.AGENTS))
def test_every_agent_is_counted(agent):
    """More updates, more work, in proportion where nothing is done once for all of them."""
    module = agents.load(agent)
    config = replace(module.Config(), agent, **{name: x for name, x in SMALL.items() if name in fields(module.Config)})
    once, thrice = (flops.per_env_step(agent, config, replace(module.PROTOCOL, agent, updates=u, batch_size=8), 5, 2) for u in (1, 3))
    assert 0 < once.flop <= thrice.flop <= 3 * once.flop and 0 < once.bytes <= thrice.bytes
    assert (once.flop < thrice.flop) == (agent != "bc")


TINY = cases.Size(
    synthetic.NAME,
    SMALL,
    {"offline_steps": 8, "online_steps": 64, "updates": 2, "batch_size": 8, "eval_every": 64, "eval_episodes": 2},
)
KEYS = """agent size task engine seeds rows devices_used precision protocol compile_s compile_phases_s iterations iterations_chosen
repetitions seconds_per_env_step env_steps_per_s updates_per_s offline_gradient_steps_per_s evaluation_s flop_per_env_step
bytes_per_env_step
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
