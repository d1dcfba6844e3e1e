"""From an experiment to programs: axes, grouping, protocols, and what is refused."""

import dataclasses

import pytest

from expo_bench import Experiment, Method, UserError
from expo_bench.sweeps import grid
from expo_bench.sweeps.runner import plan

BASE = Experiment("test", tasks=["point-umaze"], methods=["expo", "rlpd"], seeds=3, protocol={"online_steps": 8_000, "eval_every": 1_000})


def with_(**values):
    return dataclasses.replace(BASE, **values)


def test_seeds_and_traced_axes_are_rows_of_one_program():
    expo, rlpd = plan(with_(vary={"expo.edit_scale": (0.05, 0.1, 0.3), "expo.critic_lr": ("1e-4", "3e-4")}))
    assert len(expo.rows) == 3 * 2 * 3 and len(rlpd.rows) == 3
    assert {(r.hyper["edit_scale"], r.hyper["critic_lr"], r.seed) for r in expo.rows} == {
        (s, lr, seed) for s in (0.05, 0.1, 0.3) for lr in (1e-4, 3e-4) for seed in range(3)
    }
    assert expo.rows[0].labels == {"expo.edit_scale": 0.05, "expo.critic_lr": 1e-4}
    assert rlpd.rows[0].labels == {}


def test_static_axes_are_programs_of_their_own():
    programs = plan(with_(methods=["expo"], vary={"expo.n_samples": ("8", "16"), "expo.discount": (0.9, 0.99)}))
    assert [p.config.n_samples for p in programs] == [8, 16]
    assert all(len(p.rows) == 2 * 3 for p in programs)


def test_released_protocols_differ_and_the_equal_one_is_expos():
    expo, rlpd = plan(BASE)
    assert expo.protocol.warmup_steps == 0 and rlpd.protocol.warmup_steps == 5_000
    assert expo.protocol.offline_steps == 200_000 and rlpd.protocol.offline_steps == 0
    expo, rlpd, fql = plan(with_(comparison="equal", methods=["expo", "rlpd", "fql"]))
    assert rlpd.protocol == dataclasses.replace(expo.protocol, offline_steps=0), "RLPD has no offline phase under any protocol"
    assert fql.protocol == expo.protocol
    assert plan(with_(methods=["fql"]))[0].protocol.sampling == "union"


def test_a_shared_warm_up_shortens_one_and_gives_nobody_one():
    expo, rlpd = plan(with_(protocol={**BASE.protocol, "warmup_steps": 100}))
    assert (expo.protocol.warmup_steps, rlpd.protocol.warmup_steps) == (0, 100)


def test_suite_presets_apply():
    (program,) = plan(with_(tasks=["door"], methods=["expo"]))
    assert program.config.edit_dropout == 0.1 and program.rows[0].hyper["edit_scale"] == 0.7
    assert program.protocol.offline_steps == 20_000


def test_a_method_overrides_the_experiment_and_the_preset():
    (program,) = plan(
        with_(methods=[Method("expo", config={"hidden": (4,)}, protocol={"updates": 3})], config={"hidden": (8, 8), "critics": 5})
    )
    assert (program.config.hidden, program.config.critics, program.protocol.updates) == ((4,), 5, 3)


def test_labels_name_the_variant_and_static_cells():
    program = plan(with_(methods=[Method("expo", "random", {"select_act": "random"})], vary={"expo.n_samples": (8, 9)}))[1]
    assert program.label == "expo (random) n_samples=9"
    assert grid.differences([program])["point-umaze/expo/random"]["online_steps"] == 8_000


def test_what_may_be_zero_or_negative():
    for program in plan(
        with_(methods=["expo", "idql_online"], config={"n_edits": 0, "edit_scale": 0}, protocol={**BASE.protocol, "reward_shift": -1})
    ):
        assert (program.config.n_edits, program.rows[0].hyper["edit_scale"], program.protocol.reward_shift) == (0, 0.0, -1.0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tasks": ["point-umaz"]}, "unknown task 'point-umaz'; did you mean 'point-umaze'"),
        ({"tasks": []}, "no tasks"),
        ({"methods": []}, "no agents"),
        ({"methods": ["exppo"]}, "unknown agent 'exppo'; did you mean 'expo'"),
        ({"methods": ["expo", "expo"]}, "same agent and variant"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"first_seed": -1}, "first_seed must not be negative"),
        ({"vary": {"expo.edit_scal": (1,)}}, "unknown field of point-umaze, agent 'expo' 'edit_scal'; did you mean 'edit_scale'"),
        ({"vary": {"iql.tau": (1,)}}, "names an agent that does not run (running: expo, rlpd)"),
        ({"vary": {"edit_scale": (1,)}}, "an axis is written agent.field"),
        ({"vary": {"expo.edit_scale": ()}}, "has no values"),
        ({"vary": {"expo.edit_scale": (0.1, 0.1)}}, "has a value twice"),
        ({"vary": {"expo.edit_scale": ("big",)}}, "edit_scale: expected float, got 'big'"),
        ({"vary": {"expo.n_samples": (2.5,)}}, "n_samples: expected int, got 2.5"),
        ({"vary": {"expo.n_samples": (4,)}}, "n_edits must lie in 0..n_samples (4), got 8"),
        ({"vary": {"expo.edit_scale": ("0.1", "0.10")}}, "two cells of vary are the same"),
        ({"config": {"hidden": ()}}, "hidden: expected widths of at least 1 such as 256x256, got ()"),
        ({"config": {"hidden": (8, 0)}}, "hidden: expected widths of at least 1"),
        ({"config": {"hidden": (8, 2.5)}}, "hidden: expected widths of at least 1"),
        ({"config": {"hidden": (True,)}}, "hidden: expected widths of at least 1"),
        ({"config": {"hidden": [8, 8]}}, "hidden: expected widths such as 256x256, got [8, 8]"),
        ({"config": {"hidden": ""}}, "hidden: expected widths of at least 1 such as 256x256, got ''"),
        ({"config": {"critics": 0}}, "critics must be at least 1, got 0"),
        ({"config": {"n_edits": -1}}, "n_edits must be at least 0, got -1"),
        ({"config": {"decay_steps": 0}}, "decay_steps must be at least 1, got 0"),
        ({"config": {"edit_dropout": 1}}, "edit_dropout must be below 1, got 1.0"),
        ({"config": {"edit_dropout": -0.1}}, "edit_dropout must be at least 0, got -0.1"),
        ({"config": {"discount": float("nan")}}, "discount: expected a finite number, got nan"),
        ({"config": {"tau": "-inf"}}, "tau: expected a finite number, got '-inf'"),
        ({"config": {"tau": -0.1}}, "tau must be at least 0, got -0.1"),
        ({"protocol": {"reward_shift": "nan"}}, "reward_shift: expected a finite number, got 'nan'"),
        ({"protocol": {"reward_scale": 0}}, "reward_scale must be above 0, got 0.0"),
        ({"name": "a/b"}, "the name must be that of a folder"),
        ({"first_seed": 2**31}, "seeds must stay below 2**31"),
        ({"config": {"hiden": (8,)}}, "'hiden'; did you mean 'hidden'"),
        ({"config": {"select_act": "min"}}, "select_act must be one of max, random, base, online, softmax, got 'min'"),
        ({"protocol": {"online_step": 1}}, "protocol 'online_step'; did you mean 'online_steps'"),
        ({"protocol": {"online_steps": 100}}, "warmup_steps (5000) exceed online_steps (100)"),
        ({"protocol": {"batch_size": 0}}, "batch_size must be at least 1"),
        ({"protocol": {"sampling": "half"}}, "sampling must be 'mixed' or 'union'"),
        ({"protocol": {"offline_fraction": 1.5}}, "offline_fraction must lie in [0, 1]"),
        ({"protocol": {"num_envs": 3}}, "must be a multiple of num_envs (3)"),
        ({"dataset": "none"}, "offline_steps need a dataset"),
        ({"comparison": "fair"}, "comparison must be 'released' or 'equal'"),
        ({"engine": "bullet"}, "engine must be"),
        ({"precision": "float16"}, "precision must be one of"),
        ({"denoiser_precision": "float16"}, "denoiser_precision must be one of float32, tensorfloat32, bfloat16, got 'float16'"),
        ({"block_rows": 0}, "block_rows must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(change, message):
    with pytest.raises(UserError) as error:
        plan(with_(**change))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_defines_an_algorithm_is_not_overridden_by_settings_for_all():
    """An experiment's n_edits is EXPO's; IDQL-online is EXPO without edits whatever is set for all."""
    expo, idql = plan(with_(methods=["expo", "idql_online"], config={"n_edits": 4, "n_samples": 6}))
    assert (expo.config.n_edits, expo.config.n_samples) == (4, 6) and (idql.config.n_edits, idql.config.n_samples) == (0, 6)
    with pytest.raises(UserError, match="n_edits"):
        plan(with_(methods=[Method("idql_online", config={"n_edits": 4})]))
    with pytest.raises(UserError, match="n_edits"):
        plan(with_(methods=["idql_online"], vary={"idql_online.n_edits": (0, 4)}))
