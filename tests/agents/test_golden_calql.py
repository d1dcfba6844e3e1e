"""Cal-QL and CQL against recorded numbers of the official implementation, all of them through `pretrain`.

What a file holds per row comes from one-row batches, what it holds per critic from two equal critics, TD targets from the gradient of critics
that are zero: nothing is rebuilt for the test. The recorded policy samples are replayed as the noise that leads to them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import CAL_QL, CAL_QL_POLICY, Golden, close, first_gradient, with_heads

from expo_bench import networks
from expo_bench.agents import cal_ql, cql
from expo_bench.agents.base import Spec
from expo_bench.parts import actors, critics
from expo_bench.parts.replay import Batch

O, A, B, N, H = 11, 3, 16, 4, 32
SPEC = Spec(obs_size=O, action_size=A, batch_size=B, updates=1)
SIZES = {"hidden": (H, H), "n_samples": N}
CONFIGS = {"cql": cql.Config(**SIZES), "calql": cal_ql.Config(**SIZES), "lag": cal_ql.Config(**SIZES, lagrange=True)}
GOLDEN = Golden("15_calql")


def step(name: str) -> Callable:
    """`pretrain` as a function of (cql_weight, state, batches [n, b], draws) -> n states and metrics."""

    def of_one(weight: jax.Array, state: cal_ql.CalQlState, batch: Batch, draws: cal_ql.Draws) -> Any:
        return cal_ql.make(dataclasses.replace(CONFIGS[name], cql_weight=weight), SPEC).pretrain(state, batch, draws)

    return jax.vmap(of_one, in_axes=(None, None, 0, 0))


@cache
def jitted(name: str) -> Callable:
    return jax.jit(step(name), compiler_options={"xla_backend_optimization_level": 0})


class Recorded(NamedTuple):
    """A file's inputs as ours."""

    step: Callable
    state: cal_ql.CalQlState  #  with its two critics
    batch: Batch  #              [B]
    draws: cal_ql.Draws  #       [B]


@pytest.fixture(params=list(CONFIGS))
def recorded(request: pytest.FixtureRequest) -> tuple[str, Recorded]:
    name = request.param
    file, fresh = GOLDEN, fresh_state(name)
    soft_actor = fresh.actor._replace(actor=fresh.actor.actor._replace(params=policy(fresh)))
    online = fresh.critic.online._replace(params=pair("qf1", "qf2"))
    state = fresh._replace(actor=soft_actor, critic=critics.Critic(online, pair("target_qf1", "target_qf2")))
    if name == "lag":
        assert fresh.log_multiplier.params == file["lag_log_alpha_prime"], "l is 1 at first"
    arrays = (file[k] for k in ("observations", "actions", "rewards", "dones", "next_observations"))
    batch = Batch(*arrays, mc_return=file["mc_returns"])
    noise = lambda group, obs: actors.GaussianDraws(noise_of(state, obs, file[f"{name}_{group}_actions"]), None)
    draws = cal_ql.Draws(
        backup=noise("target_next", batch.next_obs),
        uniform=file[f"{name}_random_actions"],
        following=noise("next", batch.next_obs),
        current=noise("current", batch.obs),
        action=actors.GaussianDraws(np.zeros((B, A), np.float32), None),
    )
    return name, Recorded(jitted(name), state, batch, draws)


@cache
def fresh_state(name: str) -> cal_ql.CalQlState:
    return cal_ql.make(CONFIGS[name], SPEC).init(jax.random.key(0))


def policy(fresh: cal_ql.CalQlState) -> Any:
    return with_heads(GOLDEN, "policy").tree("policy", CAL_QL_POLICY, fresh.actor.actor.params)


def pair(*prefixes: str) -> critics.Params:
    """Official critics as our ensemble."""
    like = jax.tree.map(lambda x: x[0], fresh_state("cql").critic.target)
    return jax.tree.map(lambda *x: jnp.stack(x), *(GOLDEN.tree(prefix, CAL_QL, like) for prefix in prefixes))


def noise_of(state: cal_ql.CalQlState, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The standard normals [B, N, A] from which the policy makes these actions."""
    net = networks.TanhGaussian(A, (H, H), log_std_offset=-1.0)
    mean, log_std = (np.asarray(x, np.float64)[:, None] for x in networks.apply(net, state.actor.actor.params, obs))
    return np.float32((np.arctanh(np.float64(action)) - mean) / np.exp(log_std))


def whole(tree: Any) -> Any:
    """[B] -> one batch [1, B]."""
    return jax.tree.map(lambda x: x[None], tree)


def rows(tree: Any) -> Any:
    """[B] -> B batches of one row [B, 1]."""
    return jax.tree.map(lambda x: x[:, None], tree)


def with_critics(state: cal_ql.CalQlState, params: critics.Params) -> cal_ql.CalQlState:
    return state._replace(critic=state.critic._replace(online=state.critic.online._replace(params=params)))


def test_policy_samples_and_their_densities(recorded: tuple[str, Recorded]) -> None:
    name, r = recorded
    actor = actors.tanh_gaussian(input_size=O, action_size=A, widths=(H, H), log_std_offset=-1.0)
    params = r.state.actor.actor.params
    for group, obs, draws in (("current", r.batch.obs, r.draws.current), ("next", r.batch.next_obs, r.draws.following)):
        close(actor.sample(params, obs[:, None], draws), (GOLDEN[f"{name}_{group}_actions"], GOLDEN[f"{name}_{group}_logp"]))
    close(actor.sample(params, r.batch.next_obs[:, None], r.draws.backup)[0], GOLDEN[f"{name}_target_next_actions"])


@pytest.mark.parametrize("critic", ["q1", "q2"])
def test_losses_of_each_critic(recorded: tuple[str, Recorded], critic: str) -> None:
    """TD error and penalty of the batch; Q and the soft maximum of every row."""
    name, r = recorded
    state = with_critics(r.state, pair(f"{critic[0]}f{critic[1]}", f"{critic[0]}f{critic[1]}"))
    number = lambda what: GOLDEN[f"{name}_{what}_{critic}"]
    _, metrics = r.step(5.0, state, whole(r.batch), whole(r.draws))
    got = {k: metrics[k][0] for k in ("critic_loss", "cql_gap", "cql_loss")}
    close(got, {"critic_loss": number("bellman"), "cql_gap": number("diff"), "cql_loss": number("min_loss")})
    close(got["critic_loss"] + got["cql_loss"], number("total"))
    _, metrics = r.step(5.0, state, rows(r.batch), rows(r.draws))
    close(metrics["q_mean"], GOLDEN[f"{name}_{critic}_pred"])
    close(metrics["cql_gap"] + metrics["q_mean"], number("ood"))
    close(metrics["critic_loss"], (GOLDEN[f"{name}_{critic}_pred"] - GOLDEN[f"{name}_td_target"]) ** 2)


def test_td_targets(recorded: tuple[str, Recorded]) -> None:
    """Of critics that are zero and pay no penalty the gradient of (0 - y)^2 is -2 y."""
    name, r = recorded
    state = with_critics(r.state, jax.tree.map(jnp.zeros_like, r.state.critic.target))
    after, _ = r.step(0.0, state, rows(r.batch), rows(r.draws))
    bias = first_gradient(after.critic.online.opt)["out"]["bias"]
    close(bias[..., 0] / -2, np.stack([GOLDEN[f"{name}_td_target"]] * 2, axis=1))


def test_the_multiplier_and_what_is_calibrated(recorded: tuple[str, Recorded]) -> None:
    name, r = recorded
    after, metrics = r.step(5.0, r.state, whole(r.batch), whole(r.draws))
    if name == "lag":
        close(first_gradient(after.log_multiplier.opt)[0], GOLDEN["lag_alpha_prime_loss"])
        close(metrics["multiplier"][0], np.exp(GOLDEN["lag_log_alpha_prime"]))
    else:
        assert after.log_multiplier is None and "multiplier" not in metrics
    assert ("calibrated" in metrics) == (name != "cql")
    assert name == "cql" or 0.1 < metrics["calibrated"][0] < 0.9, "some of the policy's actions are below the returns, others are not"
