"""`expo-bench check`: what sound agents pass, and how what is wrong is said in terms of the file. Broken agents are edits of sound ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from expo_bench.agents import files
from expo_bench.conformance import check as checks
from expo_bench.conformance.check import FAILED, OK, SKIPPED

TINY = Path(__file__).parent.parent / "tiny_agent.py"
TEMPLATE = Path(files.__file__).with_name("template.py")
INIT = "return base_policy.start(policy, optimiser, policy_key), critics.start(critic, optimiser, critic_key)"
RETURN = 'return (imitation, critic_state), {**metrics, "imitation_loss": loss}'
THIRD = [(INIT, f"import jax.numpy as jnp\n        {INIT}, THIRD"), (RETURN, "return (imitation, critic_state, state[2]), metrics")]
SCORE = "loss, slope = jax"
ACTION = "jnp.tanh(state"


def edited(source: Path, folder: Path, *edits: tuple[str, str]) -> str:
    """The path of a changed copy."""
    text = source.read_text()
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "my_agent.py"
    path.write_text(text)
    return str(path)


def until(agent: str, name: str) -> checks.Result:
    """The result of one test; all before it that could run have passed, those after it do not run."""
    for result in checks.check(agent):
        if result.name == name:
            return result
        assert result.status != FAILED, result
    raise AssertionError(f"no test {name}")


def line(agent: str, text: str) -> int:
    """The first line of the file that holds `text`."""
    return next(i for i, row in enumerate(Path(agent).read_text().splitlines(), 1) if text in row)


@pytest.fixture(scope="module")
def of_tiny() -> dict[str, checks.Result]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "REFERENCE", str(TINY))
        return {result.name: result for result in checks.check(str(TINY))}


def test_a_sound_agent_passes_but_for_what_it_cannot_represent(of_tiny: dict) -> None:
    """A linear Q knows no best action."""
    failed = {name for name, result in of_tiny.items() if result.status != OK}
    assert failed == {"probe action", "probe two stages"}
    assert of_tiny["config"].text == "1 static and 2 traced fields, PROTOCOL, make"
    assert of_tiny["learn"].text == "the state as it was; loss"
    assert "rate, discount" in of_tiny["traced fields"].text
    assert "does `act` follow it?" in of_tiny["probe action"].text
    assert f"see value in tiny_agent.py, line {line(str(TINY), 'def value')}: `def value" in of_tiny["probe action"].text


def test_the_time_is_measured_beside_the_reference(of_tiny: dict) -> None:
    """Here itself."""
    words = of_tiny["time"].text.split()
    ratio = float(words[4])
    assert words[:2] == ["learn", "takes"] and 0.2 < ratio < 5 and "as they are: scale 1" in of_tiny["time"].text


@pytest.mark.parametrize(
    ("edits", "test", "message", "at"),
    [
        ([("traced(0.99,", "static(0.99,"), ('0.005, "Polyak', '-0.005, "Polyak')], "config", "tau must be at least 0, got -0.005", "tau: float"),
        ([('critics: int = static(2, "K', 'critics: int = (2) #')], "config", "the field critics is not marked; expected static(VALUE", "critics: int"),
        ([("lr: float = traced(3e-4", "lr: float = traced(True")], "config", "expected a number as default of lr, found True", "lr: float"),
        ([("(frozen=True)", "")], "config", "expected a frozen dataclass", "class Config"),
        ([("class Config", "class Settings")], "config", "defines no Config; expected a frozen dataclass", None),
        ([("PROTOCOL = Protocol(", "PROTOCOL = dict(")], "config", "expected a Protocol(...) (expo_bench.protocol), found dict", "PROTOCOL ="),
        ([("200_000, updates", "0, warmup_steps=5, updates")], "config", "warmup_steps (5) exceed online_steps (0)", "PROTOCOL ="),
        ([("PROTOCOL = ", "OTHER = ")], "config", "defines no PROTOCOL; expected PROTOCOL = Protocol(...)", None),
        ([("def make(config, spec)", "def make(config)")], "config", "expected a function make(config, spec)", "def make"),
        ([("PROTOCOL = ", 'CHECK = {"inert": "lr"}\nPROTOCOL = ')], "config", "expected CHECK = Case(...)", "CHECK"),
        ([("PROTOCOL = ", 'SUITES = {"adroit": {"config": {"lrr": 1}}}\nPROTOCOL = ')], "config", "'lrr'; did you mean 'lr'", "SUITES"),
        ([("return one_step_agent(", "return {'init': init} or one_step_agent(")], "make", "returns a dict; expected an Agent", "def make"),
        ([("act=act, value", "act=None, value")], "make", "Agent.act is a NoneType; expected a function", "def make"),
        ([("    optimiser = ", "    if config.lr > 1:\n        raise ValueError\n    optimiser = ")], "init", "a traced value decides a Python `if`", "if config.lr > 1"),
        ([("config.tau, batch", "float(config.tau), batch")], "pretrain", "a traced value stands where Python needs a number", "float(config.tau)"),
        ([*THIRD, ("THIRD", "0.5")], "init", "state[2] is a weakly typed float32 (made from a Python number); expected jnp.float32", "def init"),
        ([*THIRD, ("THIRD", "jnp.zeros(3, bool)")], "init", "state[2] is bool; expected float32 or int32", "def init"),
        ([(RETURN, RETURN.replace(", critic_state", ", (critic_state, loss)"))], "pretrain", "is gone; expected the structure that init returns", "def step"),
        ([*THIRD, ("THIRD", "jnp.zeros(3)"), ("state[2])", "state[2][:2])")], "pretrain", "state[2] becomes float32[2]; expected float32[3] as in init", "def step"),
        ([(RETURN, "return (imitation, critic_state)")], "pretrain", "returns (Imitation, Critic); expected (state, metrics), metrics a dict of scalars", "def step"),
        ([(RETURN, "return [imitation, critic_state]")], "pretrain", "returns a list; expected (state, metrics), metrics a dict of scalars", "def step"),
        ([("imitation_loss\": loss", "imitation_loss\": next_value")], "pretrain", "metric 'imitation_loss' is float32[4]; expected a scalar", "def step"),
        ([("config.discount, next_value)", "config.discount, next_value[1:])")], "pretrain", "shapes", "next_value[1:]"),
        ([("return best_of_n(state, obs, draws)[0], {}", "return best_of_n(state, obs, draws)[0]")], "act", "expected (action, scalars), scalars a dict", "def act"),
        ([("return best_of_n(state, obs, draws)[0], {}", "return best_of_n(state, obs, draws)[1], {}")], "act", "the action is float32[]; expected float32[2]", "def act"),
        ([(".values(state[1].online.params, obs, action).mean()", ".values(state[1].online.params, obs, action)")], "value", "returns float32[3]; expected float32[]", "value = lambda"),
        ([(RETURN, RETURN.replace("loss}", "loss + __import__('random').random()}"))], "pure", "is another program when it is traced again", "def step"),
        ([(RETURN, f"SEEN.append(1)\n        {RETURN.replace('loss}', 'loss * len(SEEN)}')}"), ("PROTOCOL = ", "SEEN = []\nPROTOCOL = ")], "pure", "is another program", "def step"),
        ([(RETURN, f"SEEN.append(loss)\n        {RETURN.replace('loss}', 'loss * SEEN[0]}')}"), ("PROTOCOL = ", "SEEN = []\nPROTOCOL = ")], "learn", "a value of one call was kept for the next", "def step"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_without_running_it(edits: list, test: str, message: str, at: str | None, tmp_path: Path) -> None:
    agent = edited(TEMPLATE, tmp_path, *edits)
    result = until(agent, test)
    assert result.status == FAILED and message in result.text and "\n" not in result.text
    assert at is None or f"line {line(agent, at)}" in result.text


@pytest.mark.parametrize(
    ("edits", "test", "message", "at"),
    [
        ([("* slope}", "* slope * jnp.log(-config.rate)}")], "finite", "returns NaN or infinity in [0]['w']", "def step"),
        ([(ACTION, "9 * jnp.tanh(state")], "actions", "expected at most 1 (jnp.clip or jnp.tanh)", "def act"),
        ([("- config.rate * slope}", "+ 0 * slope}")], "learning", "1 of 1 arrays of the state come out as they went in: ['w']", "def step"),
        ([("config.rate * slope", "0.05 * slope")], "traced fields", "the traced field rate has no effect", "rate: float"),
        ([(SCORE, "noise = jax.pure_callback(lambda: __import__('numpy').random.rand(1).astype('float32')[0], target[0])\n        target = target + noise\n        loss, slope = jax")], "repeatable", "the same arguments give another result", "def step"),
        ([(SCORE, "target = jax.pure_callback(lambda x: x - x.mean(), target, target, vmap_method='expand_dims')\n        loss, slope = jax")], "rows", "a row changes with the rows beside it", "def step"),
        ([("config.discount, next", "0.5 * config.discount, next")], "probe discount", "r + discount * (1 - terminated) * V(next_obs)", "def value"),
        ([("q(w, obs, action):\n        return jnp.concatenate([obs", "q(w, obs, action):\n        return jnp.concatenate([0 * obs")], "probe observation", "does it reach the critic?", "def value"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_what_it_does_is_said_too(edits: list, test: str, message: str, at: str, tmp_path: Path) -> None:
    agent = edited(TINY, tmp_path, *edits)
    result = until(agent, test)
    assert result.status == FAILED and message in result.text and "\n" not in result.text
    assert f"line {line(agent, at)}" in result.text


def test_what_depends_on_a_failure_is_skipped(tmp_path: Path) -> None:
    results = list(
        checks.check(edited(TINY, tmp_path, ("def make(config, spec):", "def make(config, spec):\n    raise RuntimeError('two\\nlines')")))
    )
    assert results[1].status == FAILED and results[1].text.startswith("RuntimeError: two lines; see make in my_agent.py, line 25: `raise")
    assert {result.status for result in results[2:]} == {SKIPPED}


def test_what_is_so_by_design_is_stated_in_the_file(tmp_path: Path) -> None:
    case = """from expo_bench.conformance.cases import Case
CHECK = Case(inert=frozenset({"rate"}), exempt={"action": "Q is linear"}, untaught=((1, 1), (0, 0)), value=lambda side: 0.0)
PROTOCOL = """
    agent = edited(TINY, tmp_path, ("PROTOCOL = ", case), ("config.rate * slope", "0.05 * slope"))
    results = {}
    for result in checks.check(agent):
        results[result.name] = result
        if result.name == "probe two stages":
            break
    assert results["traced fields"].status == OK
    assert results["probe action"].text == "exempt: Q is linear"
