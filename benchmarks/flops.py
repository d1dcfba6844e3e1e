"""Arithmetic per environment step: matrix products only, 2 FLOP per multiply-add.

`per_env_step` counts any agent's own program, by its jaxpr, with scans multiplied by their lengths (XLA's cost analysis counts the body of a scan
once, so it cannot be used for a sampler or for U critic steps). `released` is EXPO's count from its config as the released code computes it: backward =
2 x forward, gradients to an input alone 1 x, every row with its own shares of the first layer. At the paper's size (obs 19, action 7) one row of
the denoiser costs 3.490 MFLOP and an update 1,536 GFLOP at U = 20, 80.9 GFLOP at U = 1. This suite's sampler computes the time's share once per step
and the observation's once per state (`shared`): the same samples, less work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from expo_bench import agents
from expo_bench.agents.base import Spec
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import bulk
from expo_bench.protocol import Protocol


class Work(NamedTuple):
    """Of one environment step of one seed."""

    flop: float
    bytes: float  # of the operands and results of all products: what moves if no product finds anything in a cache
    products: float  # how many there are

    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(*map(sum, zip(self, other, strict=True)))

    def times(self, factor: float) -> Work:
        return Work(*(factor * x for x in self))


NOTHING = Work(0.0, 0.0, 0.0)

# -- counted from a program ----------------------------------------------------------------------------------------------------------------


def products(jaxpr: Any) -> Work:
    """All matrix products of a jaxpr: scans times their length, of branches the larger. Raises ValueError for a while loop that has some."""
    total = NOTHING
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, [products(part) for part in _parts(equation.params)]
        if name == "dot_general":
            total += _product(equation)
        elif name == "cond":
            total += max(inner)
        elif name == "while" and any(work.flop for work in inner):
            raise ValueError("matrix products in a while loop cannot be counted: nobody knows how often it runs")
        else:
            total += sum(inner, NOTHING).times(equation.params.get("length", 1))
    return total


def _product(equation: Any) -> Work:
    (contracted, _), _ = equation.params["dimension_numbers"]
    out, left = equation.outvars[0].aval, equation.invars[0].aval
    moved = sum(math.prod(x.aval.shape) * x.aval.dtype.itemsize for x in (*equation.invars, *equation.outvars))
    return Work(2.0 * math.prod(out.shape) * math.prod(left.shape[i] for i in contracted), float(moved), 1.0)


def _parts(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs inside an equation."""
    is_jaxpr = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
    for leaf in jax.tree.leaves(params, is_leaf=is_jaxpr):
        if is_jaxpr(leaf):
            yield getattr(leaf, "jaxpr", leaf)


def learning(agent: str, config: Any, spec: Spec, chunk: int = 1) -> Work:
    """One call of `learn` with its draws, on `spec.updates` batches."""
    made = agents.load(agent).make(config, spec)
    if made.learn is None:
        return NOTHING
    batches = _batches(made, spec, (spec.updates, spec.batch_size), chunk)
    if made.keep is not None:
        batches = batches._replace(next_index=jax.ShapeDtypeStruct((spec.updates, spec.batch_size), jnp.int32))
    call = lambda state, batches, key: made.learn(state, batches, made.draw(key))
    return products(jax.make_jaxpr(call)(_state(made), batches, jax.random.key(0)).jaxpr)


def pretraining(agent: str, config: Any, spec: Spec, chunk: int = 1) -> Work:
    """One gradient step of the offline phase with its draws."""
    made = agents.load(agent).make(config, spec)
    if made.pretrain is None:
        return NOTHING
    batch = _batches(made, spec, (spec.batch_size,), chunk)
    batch = batch._replace(next_action=batch.action, next_valid=jax.ShapeDtypeStruct((spec.batch_size, chunk), jnp.float32))
    call = lambda state, batch, key: made.pretrain(state, batch, made.draw_pretrain(key))
    return products(jax.make_jaxpr(call)(_state(made), batch, jax.random.key(0)).jaxpr)


def evaluating(agent: str, config: Any, spec: Spec, episodes: int) -> Work:
    """One decision in each of the episodes of an evaluation, with the critics' estimate of it."""
    made = agents.load(agent).make(config, spec)

    def decide(state: Any, obs: jax.Array, key: jax.Array) -> Any:
        action, _ = made.act(state, obs, made.draw_act(key, False), explore=False)
        return action if made.value is None else made.value(state, obs, action)

    obs, keys = jax.ShapeDtypeStruct((episodes, spec.obs_size), jnp.float32), jax.random.split(jax.random.key(0), episodes)
    return products(jax.make_jaxpr(jax.vmap(decide, in_axes=(None, 0, 0)))(_state(made), obs, keys).jaxpr)


def _batches(made: Any, spec: Spec, lead: tuple[int, ...], chunk: int) -> Batch:
    """The shapes of batches [*lead]."""
    shape = lambda *s: jax.ShapeDtypeStruct((*lead, *s), jnp.float32)
    valid = shape(chunk) if chunk > 1 else None
    return Batch(
        shape(spec.obs_size), shape(spec.action_size), shape(), shape(), shape(spec.obs_size), valid, shape() if made.mc_return else None
    )


def acting(agent: str, config: Any, spec: Spec) -> Work:
    """One decision in exploration."""
    made = agents.load(agent).make(config, spec)
    call = lambda state, obs, key: made.act(state, obs, made.draw_act(key, True), explore=True)
    obs = jax.ShapeDtypeStruct((spec.obs_size,), jnp.float32)
    return products(jax.make_jaxpr(call)(_state(made), obs, jax.random.key(0)).jaxpr)


def keeping(agent: str, config: Any, spec: Spec, transitions: int) -> Work:
    """The first samples of so many transitions, where the agent keeps some (parts/proposals.py)."""
    keep = (made := agents.load(agent).make(config, spec)).keep
    if keep is None:
        return NOTHING
    call = lambda state, obs, key: keep.sample(state, obs, bulk(lambda tape: keep.draw(tape, (transitions,)))(key))
    obs = jax.ShapeDtypeStruct((transitions, spec.obs_size), jnp.float32)
    return products(jax.make_jaxpr(call)(_state(made), obs, jax.random.key(0)).jaxpr)


def _state(made: Any) -> Any:
    return jax.eval_shape(made.init, jax.random.key(0))


def per_env_step(agent: str, config: Any, protocol: Protocol, obs: int, action: int, offline: int = 0) -> Work:
    """Acting and learning of one seed, physics apart.

    Of an agent that keeps samples also the first ones of each new transition, unless they come from acting, and those of the `offline`
    transitions that it begins with, spread over the protocol's online steps.
    """
    # U batches follow each environment step, also where several environments step together; the last batch's steps are then shared.
    # With chunks an agent proposes at every step, and the proposal is used where a new chunk is due.
    spec = Spec(obs, action * protocol.chunk, protocol.batch_size, protocol.updates * protocol.num_envs, offline + protocol.online_steps)
    work = learning(agent, config, spec, protocol.chunk).times(1 / protocol.num_envs) + acting(agent, config, spec)
    if not getattr(config, "proposals_from_acting", False):
        work += keeping(agent, config, spec, 1)
    return work + keeping(agent, config, spec, offline).times(1 / protocol.online_steps) if offline else work


# -- EXPO as released ----------------------------------------------------------------------------------------------------------------------

TRAIN = 3  # forward and backward, as multiples of a forward pass
THROUGH = 2  # forward and the gradient to the input


class Sizes(NamedTuple):
    """What a task and a protocol fix."""

    obs: int
    action: int
    batch: int
    updates: int  # U per loop iteration


def dense(*widths: int) -> int:
    """FLOP of a row through dense layers of these widths, input first."""
    return sum(2 * a * b for a, b in zip(widths, widths[1:], strict=False))


def gaussian(inputs: int, action: int, hidden: tuple[int, ...]) -> int:
    """FLOP of a row through a policy with two heads, mean and log standard deviation."""
    return dense(inputs, *hidden) + 2 * dense(hidden[-1], action)


class Denoiser(NamedTuple):
    """FLOP of the LN-ResNet by what it depends on."""

    chain: int  # the noisy action's share and all that follows
    state: int  # the observation's share of the first layer
    time: int  #  time embedding and its share of the first layer

    @property
    def row(self) -> int:
        """A whole row."""
        return self.chain + self.state + self.time

    def samples(self, states: int, chains: int, steps: int, shared: bool) -> int:
        """`chains` samples for each state in `steps` steps; shared: time once per step, observation once per state."""
        rows = states * chains * steps
        return rows * self.chain + states * self.state + steps * self.time if shared else rows * self.row


def denoiser(config: Any, obs: int, action: int) -> Denoiser:
    """The base policy of a config with `base_hidden`, `base_blocks` and `time_features`."""
    hidden, cond = config.base_hidden, 2 * config.time_features
    chain = dense(action, hidden) + config.base_blocks * dense(hidden, 4 * hidden, hidden) + dense(hidden, action)
    return Denoiser(chain, dense(obs, hidden), dense(config.time_features, cond, cond, hidden))


def released(config: Any, s: Sizes, *, shared: bool = False) -> tuple[float, float]:
    """FLOP of one loop iteration's (learning, action): candidates, their selection and value, K critics, imitation and edit policy."""
    base = denoiser(config, s.obs, s.action)
    critic = dense(s.obs + s.action, *config.hidden, 1)
    edit = gaussian(s.obs + s.action, s.action, config.edit_hidden)

    def choose(states: int, rule: str) -> int:
        """Eq. 3: base samples, edits and, where Q decides, M critics on all of them."""
        n, edits = (config.n_samples, config.n_edits) if rule == "max" else (1, min(config.n_edits, 1))
        judged = (n + edits) * config.critic_subset * critic if rule == "max" else 0
        return base.samples(states, n, config.denoising_steps, shared) + states * (edits * edit + judged)

    # One call serves all U batches, but the released code samples within each: the same count where nothing is shared.
    learn = choose(s.updates * s.batch, config.select_backup)
    learn += s.updates * s.batch * (config.critic_subset + TRAIN * config.critics) * critic
    learn += TRAIN * s.batch * base.row
    if config.n_edits:
        learn += s.batch * (TRAIN * edit + THROUGH * config.critics * critic)
    return learn, choose(1, config.select_act)
