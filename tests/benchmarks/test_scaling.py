"""The cost model: its arithmetic by hand, its fit, the tasks that it is about, and the page that holds its tables."""

import jax
import numpy as np
import pytest
from toy import SMALL

from benchmarks import flops, scaling
from benchmarks.flops import Work
from benchmarks.scaling import Device, End
from envs.registry import TASKS as REGISTERED
from expo_bench import agents
from expo_bench.agents.base import Spec
from expo_bench.config import fields, replace

DEVICE = Device("toy", {"float32": 1e12}, 1e11, 1e9, best=End(0.5, False, 1e-6), worst=End(0.25, True, 1e-5))


def test_seconds_by_hand():
    computing, moving = Work(1e12, 1e9, 100.0), Work(1e6, 1e11, 100.0)
    assert scaling.seconds(computing, DEVICE, DEVICE.best, "float32") == pytest.approx(2 + 1e-4)
    assert scaling.seconds(computing, DEVICE, DEVICE.worst, "float32", rows=3) == pytest.approx(12 + 1e-3)
    assert scaling.seconds(moving, DEVICE, DEVICE.worst, "float32", rows=2) == pytest.approx(2 + 1e-3)
    assert scaling.seconds(moving, DEVICE, DEVICE.best, "float32") == pytest.approx(2e-6 + 1e-4)


def test_the_fit_finds_the_constants_that_made_the_points():
    work = [Work(10.0**e, 0.0, n) for e in range(6, 13) for n in (10.0, 1000.0)]
    device = scaling.fitted([(w, w.flop / 4e11 + 3e-6 * w.products) for w in work])
    assert device.peak["float32"] == pytest.approx(4e11, rel=0.03) and device.best.per_product == pytest.approx(3e-6, rel=0.05)


def test_the_tasks_are_the_papers_and_those_of_the_suite_have_its_sizes():
    assert len(scaling.TASKS) == 12 and len(set(scaling.AGENTS)) == 10
    of_suite = {name: task for name, task in scaling.TASKS.items() if name in REGISTERED}
    assert len(of_suite) == 7
    for name, task in of_suite.items():
        known = REGISTERED[name]
        assert (task.obs, task.action, task.horizon, task.suite) == (known.obs_size, known.action_size, known.horizon, known.suite)


def test_a_program_is_the_released_one_with_the_papers_steps():
    made = scaling.program("expo", "antmaze-large-play")
    assert (made.protocol.offline_steps, made.protocol.online_steps, made.protocol.updates, made.config.critic_subset) == (
        500_000,
        200_000,
        20,
        1,
    )
    assert scaling.program("expo", "lift").protocol.eval_every == 10_000 and scaling.program("rlpd", "pen").protocol.offline_steps == 0


def test_offline_steps_and_evaluations_are_counted():
    spec, plain = Spec(5, 2, 8, 1), agents.load("expo").Config()
    config = replace(plain, "expo", **{name: value for name, value in SMALL.items() if name in fields(plain)})
    one, two = (flops.evaluating("expo", config, spec, episodes) for episodes in (1, 2))
    critic = flops.dense(5 + 2, *config.hidden, 1)
    candidates = config.n_samples + config.n_edits  # selected among by M target critics; all K examine them, and value the action
    judged = (candidates + 1) * config.critics * critic
    assert (
        one.flop == pytest.approx(flops.acting("expo", config, spec).flop + judged)
        and two.flop > 1.9 * one.flop
        and two.products == one.products
    )
    step = flops.pretraining("expo", config, spec)
    row = flops.denoiser(config, 5, 2).row
    assert 2 * 8 * row < step.flop <= 3 * 8 * row and flops.pretraining("rlpd", agents.load("rlpd").Config(), spec) == flops.NOTHING


@pytest.fixture()
def cheap(monkeypatch):
    """Nothing is counted."""
    known = {"pretrain": Work(1e9, 1e6, 10), "online": Work(1e12, 1e9, 1e3), "decision": Work(1e9, 1e6, 10)}
    monkeypatch.setattr(scaling, "work_of", lambda agent, task, what: known[what])
    monkeypatch.setattr(scaling, "update_work", lambda agent, size: Work(1e9, 1e6, 10))


def test_the_time_of_a_run_adds_up(cheap):
    one, ten = (scaling.time_of("rlpd", "pen", DEVICE, DEVICE.best, "float32", rows, 4) for rows in (1, 10))
    steps = 200_000
    assert one.learning == pytest.approx(steps * (2 + 1e-3))
    assert one.evaluation == pytest.approx(41 * 100 * (2e-3 + 1e-5))
    assert one.physics == pytest.approx((steps + 41 * 100 * 100) / (3_459 * 4) + (steps + 41 * 100) * scaling.CALLBACK)
    assert ten.learning == pytest.approx(steps * (20 + 1e-3)) and 9 * one.total < ten.total < 10 * one.total


def test_the_tables_stand_in_the_page(cheap, capsys, monkeypatch, tmp_path):
    page = tmp_path / "scaling.md"
    page.write_text(scaling.PAGE.read_text())
    monkeypatch.setattr(scaling, "PAGE", page)
    scaling.main(["--agents", "rlpd", "--counted", "rlpd", "sac", "--write"])
    text = page.read_text()
    assert scaling.hours(3600.0, 1e6) == "1 to 278" and scaling.hours(1.0, 2.0) == "0.00" and scaling.number(1234.5) == "1,234"
    assert (
        "| `rlpd` | 1,000 | 1,000 | 1,000 | 1 |" in text
        and "| `sac` | 1,000 |" in text
        and "<!-- scaling: memory -->\n| agent | lift: MiB |" in text
    )
    assert capsys.readouterr().out.count("\n|---") == 6
    scaling.main(["--agents", "rlpd", "--counted", "rlpd", "--peak", "312", "--bandwidth", "2", "--memory", "40"])
    assert "rows per 40 GB" in capsys.readouterr().out and page.read_text() == text


def test_the_measured_points_are_those_of_the_page():
    points = {(p.size, p.agent): p.seconds for p in scaling.measured()}
    assert points["paper", "expo"] == pytest.approx(4.09) and {agent for _, agent in points} == set(agents.AGENTS) - {"bc"}


def test_what_a_row_carries():
    agent, replay = scaling.row_bytes("expo", "lift")
    made = agents.load("expo").make(scaling.program("expo", "lift").config, Spec(19, 7, 256, 20))
    leaves = jax.tree.leaves(jax.eval_shape(made.init, jax.random.key(0)))
    assert agent == sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in leaves) and replay == 4 * 120_000 * (19 + 7 + 19 + 3)
