"""The mathematics of every algorithm against recorded numbers of the official implementations, through the functions that train.

Gradients are read off the first moments of the optimisers after `learn` or `pretrain`, and the TD targets of a batch off the gradient of
critics whose output is zero: nothing is rebuilt for the test. Tolerance: 1e-5 relative to max(1, scale), in float32, jitted and not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import CRITIC, DENOISER, FQL, GAUSSIAN, VALUE, Golden, close, first_gradient

from expo_bench import networks
from expo_bench.agents import expo, fql, idql, rlpd
from expo_bench.agents.base import Spec
from expo_bench.parts import actors, base_policy, candidates, critics, diffusion, flow, optim
from expo_bench.parts.replay import Batch
from expo_bench.parts.tape import bulk

KEY = jax.random.key(0)
O, A, B, H = 11, 3, 16, 32
SPEC = Spec(obs_size=O, action_size=A, batch_size=B, updates=2)
EXPO = expo.Config(n_samples=4, n_edits=4, base_hidden=H, time_features=16, hidden=(H, H, H), edit_hidden=(H, H, H), edit_scale=0.1)
RLPD = rlpd.Config(hidden=(H, H, H))
IDQL = idql.Config(base_hidden=H, time_features=16, hidden=(H, H), expectile=0.8)
FQL_CONFIG = fql.Config(hidden=(H, H, H, H), distill=10.0, tau=0.5)  # tau is not in the numbers: large, so that it is seen
DENOISER_NET = networks.Denoiser(A, O, hidden=H, time_features=16)
CRITICS = critics.ensemble(obs_size=O, action_size=A, members=10, widths=(H, H, H))

golden = cache(Golden)


def jit(function: Callable) -> Callable:
    """Jitted with little optimisation: half the time to compile."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(params=[jit, lambda f: f], ids=["jit", "eager"])
def run(request: pytest.FixtureRequest) -> Callable:
    """jit or nothing."""
    return request.param


def learn(values: dict, state: expo.ExpoState, batches: Batch, draws: expo.Draws) -> Any:
    return expo.make(dataclasses.replace(EXPO, **values), SPEC).learn(state, batches, draws)


JITTED_LEARN = jit(learn)  # one program for all tests


def jitted_learn(*inputs: Any, **values: float) -> Any:
    """EXPO's `learn(state, batches [2, 16], draws, **traced fields)`."""
    return JITTED_LEARN({"critic_lr": 3e-4, "tau": 0.005, "discount": 0.99, **values}, *inputs)


@pytest.fixture(params=[jitted_learn, lambda *inputs, **values: learn(values, *inputs)], ids=["jit", "eager"])
def expo_learn(request: pytest.FixtureRequest) -> Callable:
    return request.param


def diffusion_policy(steps: int = 10, **kwargs: Any) -> base_policy.BasePolicy:
    return base_policy.make("diffusion", obs_size=O, action_size=A, steps=steps, hidden=H, blocks=3, time_features=16, **kwargs)


@cache
def start(module: Any, config: Any) -> Any:
    return jit(module.make(config, SPEC).init)(KEY)


@cache
def fresh_draws(module: Any, config: Any) -> Any:
    """The draws of one `learn`, for what a file has no numbers of."""
    return jit(module.make(config, SPEC).draw)(KEY)


def denoiser(file: Golden, prefix: str) -> Any:
    return file.tree(prefix, DENOISER, start(expo, EXPO).imitation.base.params)


def critic_params(file: Golden, prefix: str) -> Any:
    return file.tree(prefix, CRITIC, start(expo, EXPO).critic.target)


def edit_params(file: Golden, prefix: str) -> Any:
    return file.tree(prefix, GAUSSIAN, start(expo, EXPO).edit.actor.params)


def batch_of(file: Golden) -> Batch:
    return Batch(file["observations"], file["actions"], file["rewards"], 1.0 - file["masks"], file["next_observations"])


def imitation_batch(file: Golden) -> Batch:
    return Batch(file["obs"], file["act"], np.zeros(B, np.float32), np.ones(B, np.float32), file["obs"])


def times(batch: Batch, updates: int) -> Batch:
    """The same batch for each of U updates."""
    return jax.tree.map(lambda x: np.stack([x] * updates), batch)


# -- 01 to 03: diffusion -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [5, 10, 20])
def test_01_schedule(run: Callable, steps: int) -> None:
    got, file = run(lambda: diffusion.vp_schedule(steps))(), golden("01_vp_schedule")
    close(got.beta, file[f"betas_T{steps}"])
    close(got.alpha, file[f"alphas_T{steps}"])
    close(got.alpha_hat, file[f"alpha_hats_T{steps}"])


def test_02_denoiser(run: Callable) -> None:
    """With the first layer split into the shares of action, observation and time."""
    file = golden("02_denoiser")
    params, t = denoiser(file, "params"), file["t"][:, 0].astype(np.float32)
    net = lambda method, *inputs: run(lambda p, *x: networks.apply(DENOISER_NET, p, *x, method=method))(params, *inputs)
    close(net(DENOISER_NET.fourier, t), file["fourier"])
    close(net(DENOISER_NET.cond, t), file["cond"])
    close(net(DENOISER_NET.whole, file["obs"], file["act"], t), file["eps"])


@pytest.mark.parametrize("steps", [5, 10])
def test_03_sampler(run: Callable, steps: int) -> None:
    file = golden("03_ddpm_sampling")
    x_init, noise = file[f"x_init_T{steps}"][:, None], file[f"noise_T{steps}"][:, :, None]
    got = run(diffusion_policy(steps).sample)(denoiser(file, "params"), file["obs"], base_policy.SampleDraws(x_init, noise))
    close(got[:, 0], file[f"action_T{steps}"])


@pytest.mark.parametrize("steps", [5, 10])
def test_03_every_step_of_the_sampler(run: Callable, steps: int) -> None:
    """What enters each denoising step, and what the network answers there."""
    file = golden("03_ddpm_sampling")
    params, visited = denoiser(file, "params"), []

    def epsilon(x: jax.Array, t: jax.Array) -> jax.Array:
        answer = networks.apply(DENOISER_NET, params, file["obs"], x, t.astype(jnp.float32), method=DENOISER_NET.whole)
        jax.debug.callback(lambda *values: visited.append(values), t, x, answer, ordered=True)
        return answer

    sample = lambda x_init, noise: diffusion.sample(epsilon, diffusion.vp_schedule(steps), x_init, noise)
    close(run(sample)(file[f"x_init_T{steps}"], file[f"noise_T{steps}"]), file[f"action_T{steps}"])
    jax.effects_barrier()
    t, x_in, eps = (np.stack(values) for values in zip(*visited, strict=True))
    assert t.tolist() == file[f"times_T{steps}"].tolist()
    close(x_in, file[f"x_in_T{steps}"])
    close(eps, file[f"eps_T{steps}"])


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_sampling_does_not_depend_on_its_layout(kind: str) -> None:
    """All chains at once, in blocks of states, and each chain by itself: the same actions."""
    file = golden("03_ddpm_sampling")
    params, obs, n, steps = denoiser(file, "params"), jnp.asarray(file["obs"]).reshape(2, 8, O), 4, 3
    make = lambda rows: base_policy.make(kind, obs_size=O, action_size=A, steps=steps, hidden=H, blocks=3, time_features=16, rows=rows)
    draws = bulk(lambda tape: make(1).draw_samples(tape, (2, 8, n)))(KEY)  # two batches of 8 states
    whole = jit(make(10_000).sample)(params, obs, draws)
    assert whole.shape == (2, 8, n, A) and float(jnp.std(whole)) > 0.1
    for rows in (1, 3 * n, 4 * n):  # blocks of 1, 3 (does not divide the 16 states: all at once) and 4 states
        close(jit(make(rows).sample)(params, obs, draws), whole, 2e-5)
    x_init = draws.x_init.reshape(16 * n, 1, A)
    noise = None if draws.step_noise is None else jnp.moveaxis(draws.step_noise.reshape(steps, 16 * n, 1, A), 1, 0)
    alone = jax.vmap(make(n).sample, in_axes=(None, 0, 0))
    chains = jit(alone)(params, jnp.repeat(obs.reshape(16, O), n, axis=0), base_policy.SampleDraws(x_init, noise))
    close(chains.reshape(whole.shape), whole, 2e-5)


# -- 04 to 07: the losses of EXPO, one by one ----------------------------------------------------------------------------------------------


def check_imitation(file: Golden, state: base_policy.Imitation, loss: jax.Array) -> None:
    close(loss, file["loss"])
    close(first_gradient(state.base.opt), denoiser(file, "grad"))
    close(state.base.params, denoiser(file, "params_after"))
    close(state.ema, denoiser(file, "ema_after"))


def imitation_before(file: Golden) -> base_policy.Imitation:
    fresh = start(expo, EXPO).imitation
    return base_policy.Imitation(fresh.base._replace(params=denoiser(file, "params")), denoiser(file, "ema"))


def test_04_imitation(run: Callable) -> None:
    """Loss, gradient, AdamW step and EMA."""
    file = golden("04_bc_loss")
    draws = base_policy.LossDraws(file["noise"], file["t"], None)
    optimiser = optax.adamw(optax.cosine_decay_schedule(3e-4, 3_000_000), weight_decay=1e-4)
    close(run(lambda: diffusion.noised(diffusion.vp_schedule(10), file["act"], file["noise"], file["t"]))(), file["noisy_act"])
    step = lambda state: base_policy.imitate(
        diffusion_policy(), optimiser, state, Batch(file["obs"], file["act"], None, None, None), draws, 0.001
    )
    check_imitation(file, *run(step)(imitation_before(file)))


def test_04_imitation_in_pretrain() -> None:
    file = golden("04_bc_loss")
    before = start(expo, EXPO)._replace(imitation=imitation_before(file))
    draws = base_policy.LossDraws(file["noise"], file["t"], None)
    pretrain = jit(
        lambda ema_tau: expo.make(dataclasses.replace(EXPO, ema_tau=ema_tau), SPEC).pretrain(before, imitation_batch(file), draws)
    )
    after, metrics = pretrain(0.001)
    check_imitation(file, after.imitation, metrics["imitation_loss"])
    whole_way = pretrain(1.0)[0].imitation
    close(whole_way.ema, whole_way.base.params, 1e-7)  # the average follows the parameters after their step
    for fresh, left in zip(jax.tree.leaves((before.edit, before.critic)), jax.tree.leaves((after.edit, after.critic)), strict=True):
        np.testing.assert_array_equal(fresh, left)  # critic and edit policy start the online phase untrained


def test_04_imitation_in_learn(expo_learn: Callable) -> None:
    file = golden("04_bc_loss")
    before = start(expo, EXPO)._replace(imitation=imitation_before(file))
    draws = fresh_draws(expo, EXPO)._replace(imitation=base_policy.LossDraws(file["noise"], file["t"], None))
    after, metrics = expo_learn(before, times(imitation_batch(file), 2), draws)
    check_imitation(file, after.imitation, metrics["imitation_loss"])


def test_05_critic(run: Callable) -> None:
    file = golden("05_critic_td")
    batch, subset, next_action = batch_of(file), file["subset_value"], file["next_actions"]
    online, target = critic_params(file, "critic"), critic_params(file, "target")
    close(run(CRITICS.values)(online, batch.obs, batch.action), file["qs"])
    close(run(CRITICS.values)(target, batch.next_obs, next_action), file["next_qs_all"])
    next_value = run(lambda: critics.min_of(CRITICS, target, subset, batch.next_obs, next_action))()
    close(next_value, file["next_qs"].min(axis=0))
    y = run(critics.td_target)(batch.reward, batch.terminated, 0.99, next_value)
    close(y, file["td_target"])
    close(run(lambda p: critics.td_loss(CRITICS, p, batch.obs, batch.action, y))(online), (file["loss"], file["q_mean"]))
    optimiser = optax.adam(3e-4)
    before = critics.Critic(optim.start(optimiser, online), target)
    step = run(lambda state, tau: critics.td_step(CRITICS, optimiser, state, batch.obs, batch.action, y, tau))
    after, metrics = step(before, 0.005)
    close(metrics, {"critic_loss": file["loss"], "q_mean": file["q_mean"]})
    close(first_gradient(after.online.opt), critic_params(file, "grad"))
    close(after.online.params, critic_params(file, "critic_after"))
    close(after.target, critic_params(file, "target_after"))
    whole_way = step(before, 1.0)[0]
    close(whole_way.target, whole_way.online.params, 1e-7)  # the target follows the critics after their step


@pytest.mark.parametrize("prefix", ["", "sat_"], ids=["free", "saturated"])
def test_06_edit_policy(run: Callable, prefix: str) -> None:
    """Mean, standard deviation, sample and density, and the critics at the edited action."""
    file = golden("06_edit_policy")
    params, inputs = edit_params(file, f"{prefix}params"), np.concatenate([file["obs"], file["act"]], axis=-1)
    actor = actors.tanh_gaussian(input_size=O + A, action_size=A, widths=(H, H, H))
    mean, log_std = run(lambda p, x: networks.apply(networks.TanhGaussian(A, (H, H, H)), p, x))(params, inputs)
    close((mean, log_std), (file[f"{prefix}mean"], file[f"{prefix}log_std"]))
    edit, log_prob = run(actor.sample)(params, inputs, actors.GaussianDraws(file[f"{prefix}noise"], None))
    close((edit, log_prob), (file[f"{prefix}edit_unit"], file[f"{prefix}logp_unit"]))
    close(run(actor.mode)(params, inputs), np.tanh(file[f"{prefix}mean"]))
    close(run(CRITICS.values)(critic_params(file, "critic"), file["obs"], file[f"{prefix}edited_act"]), file[f"{prefix}qs_edited"])
    assert prefix == "" or np.any(np.abs(edit) == 1), "the saturated case has to saturate"


def edit_before(file: Golden, prefix: str = "") -> tuple[expo.ExpoState, expo.Draws]:
    """EXPO's state with the recorded edit policy, temperature and online critics, and draws with the recorded edit noise."""
    fresh = start(expo, EXPO)
    actor = fresh.edit.actor._replace(params=edit_params(file, f"{prefix}params"))
    edit = actors.SoftActor(actor, fresh.edit.log_alpha._replace(params=jnp.asarray(file["log_temp"])))
    critic = fresh.critic._replace(online=fresh.critic.online._replace(params=critic_params(file, "critic")))
    draws = fresh_draws(expo, EXPO)._replace(edit=actors.GaussianDraws(file[f"{prefix}noise"], None))
    return fresh._replace(edit=edit, critic=critic), draws


@pytest.mark.parametrize("prefix", ["", "sat_"], ids=["free", "saturated"])
def test_06_edit_step(expo_learn: Callable, prefix: str) -> None:
    """EXPO's edit step: a + beta u, the density's correction, the mean of the online critics, alpha before its update."""
    file = golden("06_edit_policy")
    before, draws = edit_before(file, prefix)
    after, metrics = expo_learn(before, times(imitation_batch(file), 2), draws, critic_lr=0.0)  # the critics stay as recorded
    want = {"actor_loss": file[f"{prefix}loss"], "entropy": file[f"{prefix}entropy"], "actor_q": file[f"{prefix}edit_q"]}
    close({name: metrics[name] for name in want}, want)
    close(metrics["alpha"], np.exp(file["log_temp"]))
    close(first_gradient(after.edit.actor.opt), edit_params(file, f"{prefix}grad"))
    close(after.edit.actor.params, edit_params(file, f"{prefix}params_after"))
    entropy_gap = file[f"{prefix}entropy"] - golden("07_temperature")["target_entropy"]
    close(first_gradient(after.edit.log_alpha.opt), np.exp(file["log_temp"]) * entropy_gap)
    close(after.edit.log_alpha.params, file["log_temp"] - 3e-4 * np.sign(entropy_gap))


def test_07_temperature(run: Callable) -> None:
    file = golden("07_temperature")
    optimiser = optax.adam(3e-4)

    @run
    @jax.vmap
    def step(log_alpha: jax.Array, entropy: jax.Array) -> tuple:
        loss, gradient = jax.value_and_grad(actors.alpha_loss)(log_alpha, entropy, file["target_entropy"])
        return loss, gradient, optim.step(optimiser, optim.start(optimiser, log_alpha), gradient).params

    close(step(file["log_temp"], file["entropy"]), (file["loss"], file["grad"], file["log_temp_after"]))


def test_07_reachable_target_entropy() -> None:
    """The variant's target is -A/2 + A log beta, seen in the gradient alpha (entropy - target) of its temperature."""
    file = golden("06_edit_policy")
    config = dataclasses.replace(EXPO, reachable_target_entropy=True, n_samples=1, n_edits=1, denoising_steps=2, critics=2)
    before, recorded = edit_before(file)
    before = before._replace(critic=start(expo, config).critic)
    draws = fresh_draws(expo, config)._replace(edit=recorded.edit)
    after, _ = jit(expo.make(config, SPEC).learn)(before, times(imitation_batch(file), 2), draws)
    gap = file["entropy"] - golden("07_temperature")["target_entropy_adjusted"]
    close(first_gradient(after.edit.log_alpha.opt), np.exp(file["log_temp"]) * gap)


# -- 08: candidates and selection ----------------------------------------------------------------------------------------------------------


def on_the_fly(file: Golden, *, acting: bool) -> expo.ExpoState:
    """EXPO's state with the recorded networks. `act` samples the EMA: for the backup's states that is set to the online base policy."""
    fresh = start(expo, EXPO)
    base = fresh.imitation.base._replace(params=denoiser(file, "base"))
    edit = fresh.edit._replace(actor=fresh.edit.actor._replace(params=edit_params(file, "edit")))
    ema = denoiser(file, "ema") if acting else base.params
    return expo.ExpoState(base_policy.Imitation(base, ema), edit, fresh.critic._replace(target=critic_params(file, "target")), fresh.step)


def proposal(file: Golden, who: str, pick: jax.Array | None = None) -> expo.Proposal:
    """The recorded noises of 8 states as EXPO's draws, with the states in front: base [8, 4, A] and [8, T, 4, A], edit [8, 4, A]."""
    states = lambda x: np.broadcast_to(x.reshape(-1, 4, A), (8, 4, A))  # the one state that acts: 8 times
    base = base_policy.SampleDraws(states(file[f"{who}_x_init"]), np.stack([states(x) for x in file[f"{who}_step_noise"]], axis=1))
    subset = np.broadcast_to(file[f"{who}_subset_select"], (8, 2))
    return expo.Proposal(base, actors.GaussianDraws(states(file[f"{who}_edit_noise"]), None), subset, pick)


@pytest.fixture(params=[jit, lambda f: f], ids=["jit", "eager"], scope="module")
def act(request: pytest.FixtureRequest) -> Callable:
    """EXPO's `act` for 8 states; one program for both tests that take it."""
    program = lambda explore: request.param(
        jax.vmap(lambda *inputs: expo.make(EXPO, SPEC).act(*inputs, explore=explore)[0], in_axes=(None, 0, 0))
    )
    return {explore: program(explore) for explore in (True, False)}


@pytest.mark.parametrize("who", ["act", "backup"])
@pytest.mark.parametrize("explore", [True, False])
def test_08_acting(act: Callable, who: str, explore: bool) -> None:
    """Acting and evaluating are one policy: the best candidate of the EMA under the minimum of the subset of target critics."""
    file = golden("08_selection")
    obs = np.broadcast_to(file[f"{who}_obs"], (8, O))
    got = act[explore](on_the_fly(file, acting=who == "act"), obs, proposal(file, who))
    close(got, np.broadcast_to(file[f"{who}_best_action"], got.shape))


@pytest.mark.parametrize("who", ["act", "backup"])
def test_08_every_candidate(who: str) -> None:
    """Each candidate by itself: an agent with one base sample and its edit takes either; then the values that select the best."""
    file = golden("08_selection")
    state, obs = on_the_fly(file, acting=who == "act"), np.broadcast_to(file[f"{who}_obs"], (8, O))
    agent = expo.make(dataclasses.replace(EXPO, n_samples=1, n_edits=1, select_act="random"), SPEC)

    def candidate(obs: jax.Array, draws: expo.Proposal, pick: jax.Array, j: jax.Array) -> jax.Array:
        one = lambda x: jax.lax.dynamic_slice_in_dim(x, j, 1, axis=-2)
        draws = draws._replace(base=jax.tree.map(one, draws.base), edit=jax.tree.map(one, draws.edit), pick=pick)
        return agent.act(state, obs, draws, explore=True)[0]

    by_candidate = jax.vmap(candidate, in_axes=(None, None, 0, 0))
    picks, samples = np.repeat(np.float32([0.0, 0.99]), 4), np.tile(np.arange(4), 2)
    got = jit(jax.vmap(by_candidate, in_axes=(0, 0, None, None)))(obs, proposal(file, who), picks, samples)
    recorded = file[f"{who}_candidates"]
    close(got, np.broadcast_to(recorded, got.shape))
    subset = file[f"{who}_subset_select"]
    q = jit(lambda o, c: critics.min_of(CRITICS, state.critic.target, subset, o[:, None], c))(file[f"{who}_obs"], recorded)
    close(q, file[f"{who}_q_min_subset"])
    close(jit(candidates.best)(recorded, q), file[f"{who}_best_action"])


@pytest.mark.parametrize("n_edits", [1, 2])
def test_08_only_the_first_samples_are_edited(n_edits: int) -> None:
    """With n_edits < N the candidates are the N base samples and the edits of the first n_edits."""
    file = golden("08_selection")
    agent, draws = expo.make(dataclasses.replace(EXPO, n_edits=n_edits), SPEC), proposal(file, "backup")
    draws = draws._replace(edit=actors.GaussianDraws(draws.edit.noise[:, :n_edits], None))
    state = on_the_fly(file, acting=False)
    got = jit(jax.vmap(lambda obs, draws: agent.act(state, obs, draws, explore=True)[0]))(file["backup_obs"], draws)
    best = np.argmax(file["backup_q_min_subset"][:, : 4 + n_edits], axis=1)
    assert np.any(best >= 4) and np.any(best < 4)
    close(got, file["backup_candidates"][np.arange(8), best])


@cache
def probe_critics() -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Critics with a zero output layer, random obs [B, O] and action [B, A], and dQ_k(s_b, a_b) / d(output weight of k) [weights, B]."""
    trunk, rng = start(expo, EXPO).critic.online.params, np.random.default_rng(0)
    silent = {**trunk, "out": jax.tree.map(np.zeros_like, trunk["out"])}
    obs, action = (rng.standard_normal((B, n), np.float32) for n in (O, A))
    values = lambda out: CRITICS.values({**silent, "out": out}, obs, action)
    features = jit(jax.jacrev(values))(silent["out"])  # [K, B, K, ...]: nothing where the two K differ
    own = lambda x: np.einsum("kbkh->khb", np.asarray(x, np.float64).reshape(10, B, 10, -1)).reshape(-1, B)
    return silent, obs, action, np.concatenate([own(features["kernel"]), own(features["bias"])])


def td_targets(before: expo.ExpoState, batch: Batch, draws: expo.Draws, discount: float) -> np.ndarray:
    """The TD targets y [B] of a batch in `learn`, for whatever critics learn.

    With online critics whose output layer is zero, the TD loss mean_{K,B} (Q_k - y)^2 has the gradient -2/(K B) sum_b y_b features_kb at
    that layer: linear equations for y, many more than unknowns. What the critics see (obs, action) does not enter y and is drawn at random.
    """
    silent, obs, action, equations = probe_critics()
    before = before._replace(critic=before.critic._replace(online=before.critic.online._replace(params=silent)))
    batch = batch._replace(obs=obs, action=action)
    after, _ = jitted_learn(before, times(batch, 2), draws, critic_lr=0.0, tau=0.0, discount=discount)  # two equal updates
    gradient = first_gradient(after.critic.online.opt, steps=2)["out"]
    right = np.concatenate([np.asarray(gradient[name], np.float64).ravel() for name in ("kernel", "bias")])
    y, residual, rank, _ = np.linalg.lstsq(equations, -right * 10 * B / 2)
    assert rank == B and residual[0] < 1e-8
    return y


def test_08_backup() -> None:
    """The action that the backup takes, seen through its value under each target critic by itself: reward 0, discount 1."""
    file = golden("08_selection")
    state, recorded = on_the_fly(file, acting=True), proposal(file, "backup")
    twice = lambda x: np.concatenate([x, x])  # 8 states fill a batch of 16
    both = lambda x, axis: np.stack([x, x], axis)  # the same draws for both updates
    base = base_policy.SampleDraws(both(twice(recorded.base.x_init), 0), both(np.moveaxis(twice(recorded.base.step_noise), 0, 1), 1))
    backup = expo.Proposal(base, actors.GaussianDraws(both(twice(recorded.edit.noise), 0), None), recorded.subset[:2], None)
    draws = fresh_draws(expo, EXPO)._replace(backup=backup)
    next_obs = twice(file["backup_obs"])
    batch = Batch(None, None, np.zeros(B, np.float32), np.zeros(B, np.float32), next_obs)
    want = jit(CRITICS.values)(state.critic.target, next_obs, twice(file["backup_best_action"]))
    for k in (0, 3, 6, 9):
        y = td_targets(state, batch, draws._replace(value_subset=np.full((2, 2), k, np.int32)), discount=1.0)
        close(y, want[k])


# -- 09: one whole update ------------------------------------------------------------------------------------------------------------------


def update_before(file: Golden) -> expo.ExpoState:
    fresh = start(expo, EXPO)
    imitation = base_policy.Imitation(fresh.imitation.base._replace(params=denoiser(file, "base")), denoiser(file, "ema"))
    actor = fresh.edit.actor._replace(params=edit_params(file, "edit"))
    edit = actors.SoftActor(actor, fresh.edit.log_alpha._replace(params=jnp.asarray(file["log_temp"])))
    critic = critics.Critic(fresh.critic.online._replace(params=critic_params(file, "critic")), critic_params(file, "target"))
    return expo.ExpoState(imitation, edit, critic, jnp.int32(0))


def update_inputs(file: Golden, steps: tuple[int, int] = (0, 1)) -> tuple[Batch, expo.Draws]:
    """The recorded batches [2, 16] and draws, those of critic step i twice with `steps` = (i, i)."""
    batches = jax.tree.map(lambda x: x.reshape(2, B, *x.shape[1:])[np.array(steps)], batch_of(file))
    stack = lambda name, *shape: np.stack([file[f"{name}_{i}"].reshape(*shape) for i in steps])
    base = base_policy.SampleDraws(stack("x_init", B, 4, A), np.moveaxis(stack("step_noise", 10, B, 4, A), 0, 1))
    backup = expo.Proposal(base, actors.GaussianDraws(stack("edit_noise", B, 4, A), None), stack("subset_select", 2), None)
    imitation = base_policy.LossDraws(file["bc_noise"], file["bc_t"], None)
    edit = actors.GaussianDraws(file["edit_loss_noise"], None)
    return batches, expo.Draws(backup, stack("subset_value", 2), imitation, edit, None)


def test_09_whole_update(expo_learn: Callable) -> None:
    """Two critic steps, then base policy, EMA, edit policy and temperature: all parameters and every scalar that the release returns."""
    file = golden("09_full_update_utd2")
    after, metrics = expo_learn(update_before(file), *update_inputs(file))
    close(after.critic.online.params, critic_params(file, "critic_after"))
    close(after.critic.target, critic_params(file, "target_after"))
    close(after.imitation.base.params, denoiser(file, "base_after"))
    close(after.imitation.ema, denoiser(file, "ema_after"))
    close(after.edit.actor.params, edit_params(file, "edit_after"))
    close(after.edit.log_alpha.params, file["log_temp_after"])
    info = {"critic_loss": "critic_loss", "q_mean": "q", "entropy": "entropy", "actor_q": "edit_q", "actor_loss": "edit_actor_loss"}
    close({name: metrics[name] for name in info}, {name: file[f"info_{official}"] for name, official in info.items()})
    close(metrics["critic_loss"], file["critic_loss_1"])
    close(metrics["alpha"], np.exp(file["log_temp"]))


def test_09_first_backup() -> None:
    """The TD target of every row of the first critic step, and its loss."""
    file = golden("09_full_update_utd2")
    batches, draws = update_inputs(file, (0, 0))
    _, metrics = jitted_learn(update_before(file), batches, draws, critic_lr=0.0, tau=0.0)
    close(metrics["critic_loss"], file["critic_loss_0"])
    batch = jax.tree.map(lambda x: x[0], batches)
    close(td_targets(update_before(file), batch, draws, discount=0.99), file["td_target_0"])


def test_09_second_backup() -> None:
    """The TD target of every row of the second critic step, under the target critics that the first step leaves."""
    file = golden("09_full_update_utd2")
    before, batch = update_before(file), jax.tree.map(lambda x: x[:B], batch_of(file))
    step = lambda state: critics.td_step(CRITICS, optax.adam(3e-4), state, batch.obs, batch.action, file["td_target_0"], 0.005)
    once, _ = jit(step)(before.critic)
    batches, draws = update_inputs(file, (1, 1))
    batch = jax.tree.map(lambda x: x[0], batches)
    close(td_targets(before._replace(critic=before.critic._replace(target=once.target)), batch, draws, discount=0.99), file["td_target_1"])


def test_critic_steps_follow_one_another() -> None:
    """Each of the U steps starts from the critics and the target critics that the last one left (seen with large steps of both)."""
    file = golden("09_full_update_utd2")
    before, tau, lr = update_before(file), 0.5, 0.01
    step = jit(lambda state, batch, y: critics.td_step(CRITICS, optax.adam(lr), state, batch.obs, batch.action, y, tau)[0])
    critic = before.critic
    for i in range(2):
        batches, draws = update_inputs(file, (i, i))
        batch = jax.tree.map(lambda x: x[0], batches)
        target_alone = before._replace(critic=before.critic._replace(target=critic.target))
        critic = step(critic, batch, td_targets(target_alone, batch, draws, discount=0.99).astype(np.float32))
    after, _ = jitted_learn(before, *update_inputs(file), critic_lr=lr, tau=tau)
    close((after.critic.online.params, after.critic.target), (critic.online.params, critic.target))


# -- 11, 13, 14: the baselines -------------------------------------------------------------------------------------------------------------


def test_11_fql(run: Callable) -> None:
    """All losses, the gradient of their sum, the joint Adam step and the target critics."""
    file, fresh = golden("11_fql"), start(fql, FQL_CONFIG)
    names = {"critic": "modules_critic", "flow": "modules_actor_bc_flow", "one_step": "modules_actor_onestep_flow"}
    tree = lambda prefix: fql.Params(
        **{ours: file.tree(f"{prefix}/{official}", FQL, getattr(fresh.trained.params, ours)) for ours, official in names.items()}
    )
    params, gradient = tree("params"), tree("grad")
    target = file.tree("params/modules_target_critic", FQL, fresh.target)
    before = fresh._replace(trained=fresh.trained._replace(params=params), target=target)
    draws = fql.Draws(file["next_noise"], file["flow_x0"], file["flow_t"][:, 0], file["distill_noise"])
    agent = fql.make(FQL_CONFIG, SPEC)
    after, metrics = run(agent.pretrain)(before, batch_of(file), draws)
    losses = ("critic_loss", "bc_flow_loss", "distill_loss", "q_loss")
    close({name: metrics[name] for name in losses}, {name: file[name] for name in losses})
    close(metrics["actor_q"], file["q_mean"])
    close(metrics["q_mean"], file["qs"].mean())
    total = metrics["critic_loss"] + metrics["bc_flow_loss"] + file["alpha"] * metrics["distill_loss"] + metrics["q_loss"]
    close(total, file["total_loss"])
    close(first_gradient(after.trained.opt), gradient)
    adam = jax.tree.map(lambda p, g: np.asarray(p) - 3e-4 * g / (np.abs(g) + 1e-8), params, gradient)
    close(after.trained.params, adam)
    close(after.target, jax.tree.map(lambda t, p: 0.5 * p + 0.5 * np.asarray(t), target, adam.critic))
    act = run(jax.vmap(lambda obs, noise: agent.act(before, obs, noise, explore=True)[0]))
    close(act(file["observations"], file["distill_noise"]), np.clip(file["onestep_actions"], -1, 1))


def test_11_actions_are_clipped_for_the_critics() -> None:
    """In the backup and in the policy's Q loss, but not in the distillation: seen with a one-step policy that goes far beyond 1."""
    file, fresh = golden("11_fql"), start(fql, FQL_CONFIG)
    one_step = jax.tree.map(np.zeros_like, fresh.trained.params.one_step)
    one_step["out"]["bias"] = np.full(A, 5, np.float32)
    params = fresh.trained.params._replace(one_step=one_step)
    draws = fql.Draws(file["next_noise"], file["flow_x0"], file["flow_t"][:, 0], file["distill_noise"])
    batch, agent = batch_of(file), fql.make(FQL_CONFIG, SPEC)
    after, metrics = jit(agent.pretrain)(fresh._replace(trained=fresh.trained._replace(params=params)), batch, draws)
    ensemble = critics.ensemble(obs_size=O, action_size=A, members=2, widths=(H, H, H, H), norm="post", activation=jax.nn.gelu)
    values = jit(ensemble.values)
    ones = np.ones((B, A), np.float32)
    close(metrics["q_loss"], -np.mean(values(params.critic, batch.obs, ones)))
    y = critics.td_target(batch.reward, batch.terminated, 0.99, np.mean(values(fresh.target, batch.next_obs, ones), axis=0))
    close(metrics["critic_loss"], np.mean((np.asarray(values(params.critic, batch.obs, batch.action)) - y) ** 2))
    assert metrics["distill_loss"] > 16
    assert np.all(agent.act(after._replace(trained=fresh.trained._replace(params=params)), batch.obs[0], ones[0], explore=True)[0] == 1)


def test_11_flow(run: Callable) -> None:
    """The flow's network at its loss's points, and the Euler sampler, clipped at the end only."""
    file, fresh = golden("11_fql"), start(fql, FQL_CONFIG)
    params = file.tree("params/modules_actor_bc_flow", FQL, fresh.trained.params.flow)
    net = networks.MLP((H, H, H, H), out=A, activation=jax.nn.gelu)

    def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
        t = jnp.broadcast_to(jnp.reshape(t, (-1, 1)), (B, 1))
        return networks.apply(net, params, jnp.concatenate([file["observations"], x, t], axis=-1))

    close(run(velocity)(file["x_t"], file["flow_t"]), file["velocity_pred"])
    loss = run(lambda: flow.imitation_loss(velocity, file["actions"], file["flow_x0"], file["flow_t"][:, 0]))()
    close(loss, file["bc_flow_loss"])
    close(run(lambda: flow.sample(velocity, file["distill_noise"], 10))(), file["flow_actions"])


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.8, 0.9])
def test_13_expectile_loss(run: Callable, expectile: float) -> None:
    file = golden("13_idql_iql")
    close(run(critics.expectile_loss)(file["diff"], expectile), file[f"expectile_{expectile}"])


def test_13_idql(run: Callable) -> None:
    """The losses of value function and critics and their gradients, through `learn`; with learning rate 0 the critic sees the recorded V."""
    file = golden("13_idql_iql")
    fresh, batch = start(idql, IDQL), batch_of(file)
    draws = jax.tree.map(lambda x: x[:1], fresh_draws(idql, IDQL))
    learn = run(lambda lr, state: idql.make(dataclasses.replace(IDQL, critic_lr=lr), SPEC).learn(state, times(batch, 1), draws))
    tree = lambda prefix, like, rules=CRITIC: file.tree(prefix, rules, like)
    value = fresh.value._replace(params=tree("value", fresh.value.params, VALUE))
    online = fresh.critic.online._replace(params=tree("critic", fresh.critic.target))
    before = fresh._replace(value=value, critic=critics.Critic(online, tree("target", fresh.critic.target)))
    after, metrics = learn(0.0, before)
    close({name: metrics[name] for name in ("value_loss", "critic_loss")}, {name: file[name] for name in ("value_loss", "critic_loss")})
    close(first_gradient(after.value.opt), tree("value_grad", value.params, VALUE))
    close(first_gradient(after.critic.online.opt), tree("critic_grad", online.params))
    both_move, _ = learn(0.01, before)  # V is updated first: the critics' target is the new V
    moved, _ = learn(0.0, before._replace(value=value._replace(params=both_move.value.params)))
    close(first_gradient(both_move.critic.online.opt), first_gradient(moved.critic.online.opt))
    net = networks.MLP((H, H), out=1, norm_input=True)
    v = lambda obs: networks.apply(net, value.params, obs)[:, 0]
    close(run(v)(batch.obs), file["v"])
    close(critics.td_target(batch.reward, batch.terminated, 0.99, v(batch.next_obs)), file["td_target"])
    ensemble = critics.ensemble(obs_size=O, action_size=A, members=2, widths=(H, H), norm="none")
    close(run(ensemble.values)(before.critic.target, batch.obs, batch.action).min(axis=0), file["target_q_min"])


@pytest.mark.parametrize("prefix", ["", "ent_"], ids=["plain", "backup_entropy"])
def test_14_rlpd(run: Callable, prefix: str) -> None:
    """The losses of critics and actor, their gradients and the actor's step, through `learn` with critics that stay as recorded."""
    file = golden("14_rlpd")
    config = dataclasses.replace(RLPD, backup_entropy=prefix == "ent_")
    fresh, agent = start(rlpd, config), rlpd.make(config, SPEC)
    actor_tree = lambda name: file.tree(name, GAUSSIAN, fresh.actor.actor.params)
    actor = fresh.actor.actor._replace(params=actor_tree("actor"))
    soft_actor = actors.SoftActor(actor, fresh.actor.log_alpha._replace(params=jnp.asarray(file["log_temp"])))
    online = fresh.critic.online._replace(params=critic_params(file, "critic"))
    before = rlpd.RlpdState(soft_actor, critics.Critic(online, critic_params(file, "target")))
    noise = lambda name: actors.GaussianDraws(file[name], None)
    next_action = jax.tree.map(lambda x: x[None], noise(f"{prefix}next_noise"))
    draws = rlpd.Draws(next_action, file[f"{prefix}subset"][None], noise("noise"))
    learn = run(lambda lr, state: rlpd.make(dataclasses.replace(config, critic_lr=lr), SPEC).learn(state, times(batch_of(file), 1), draws))
    after, metrics = learn(0.0, before)
    want = {"critic_loss": file[f"{prefix}critic_loss"], "actor_loss": file["actor_loss"], "entropy": file["entropy"]}
    close({name: metrics[name] for name in want}, want)
    close(first_gradient(after.critic.online.opt), critic_params(file, f"{prefix}critic_grad"))
    close(first_gradient(after.actor.actor.opt), actor_tree("actor_grad"))
    close(after.actor.actor.params, actor_tree("actor_after"))
    close(first_gradient(after.actor.log_alpha.opt), np.exp(file["log_temp"]) * (file["entropy"] - file["target_entropy"]))
    both_move, _ = learn(0.01, before)  # the critics are updated first: the actor climbs the new ones
    moved, _ = learn(0.0, before._replace(critic=before.critic._replace(online=online._replace(params=both_move.critic.online.params))))
    close(first_gradient(both_move.actor.actor.opt), first_gradient(moved.actor.actor.opt))
    gaussian = actors.tanh_gaussian(input_size=O, action_size=A, widths=(H, H, H))
    sampled = run(gaussian.sample)(actor.params, file["observations"], noise("noise"))
    close(sampled, (file["actor_action"], file["actor_logp"]))
    act = lambda explore: jax.vmap(lambda obs, noise: agent.act(before, obs, actors.GaussianDraws(noise, None), explore=explore)[0])
    close(run(act(True))(file["observations"], file["noise"]), file["actor_action"])
    close(run(act(False))(file["observations"], file["noise"]), run(gaussian.mode)(actor.params, file["observations"]))
