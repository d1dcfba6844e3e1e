"""The mathematics of every algorithm against recorded numbers of the official implementations, through the functions that train.

Gradients are read off the first moments of the optimisers after one step of `learn` or `pretrain`, the TD target of a row off the gradient of
a critic whose output is zero: nothing is rebuilt for the test. Tolerance: 1e-5 relative to max(1, scale), in float32, jitted and not.
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
from expo_bench.agents.base import Agent, Spec
from expo_bench.parts import actors, base_policy, candidates, critics, diffusion, optim
from expo_bench.parts.replay import Batch

KEY = jax.random.key(0)
O, A, B, H = 11, 3, 16, 32
SPEC = Spec(obs_size=O, action_size=A, batch_size=B, updates=1)
EXPO = expo.Config(n_samples=4, n_edits=4, base_hidden=H, time_features=16, hidden=(H, H, H), edit_scale=0.1)
RLPD = rlpd.Config(hidden=(H, H, H))
IDQL = idql.Config(base_hidden=H, time_features=16, hidden=(H, H), expectile=0.8)
FQL_CONFIG = fql.Config(hidden=(H, H, H, H), distill=10.0)
DENOISER_NET = networks.Denoiser(A, O, hidden=H, time_features=16)
CRITICS = critics.ensemble(obs_size=O, action_size=A, members=10, widths=(H, H, H))


@pytest.fixture(params=[True, False], ids=["jit", "eager"])
def run(request: pytest.FixtureRequest) -> Callable:
    """jax.jit or nothing."""
    return jax.jit if request.param else lambda f: f


golden = cache(Golden)


def policy(steps: int = 10, **kwargs: Any) -> base_policy.BasePolicy:
    return base_policy.make("diffusion", obs_size=O, action_size=A, steps=steps, hidden=H, blocks=3, time_features=16, **kwargs)


@cache
def inits() -> dict[str, Any]:
    """Our own inits: the structure and shapes that every mapped tree has to have."""
    return jax.eval_shape(
        lambda key: {
            "expo": expo.make(EXPO, SPEC).init(key),
            "rlpd": rlpd.make(RLPD, SPEC).init(key),
            "idql": idql.make(IDQL, SPEC).init(key),
            "fql": fql.make(FQL_CONFIG, SPEC).init(key),
        },
        KEY,
    )


def denoiser(file: Golden, prefix: str) -> Any:
    return file.tree(prefix, DENOISER, inits()["expo"].imitation.base.params)


def critic_params(file: Golden, prefix: str) -> Any:
    return file.tree(prefix, CRITIC, inits()["expo"].critic.target)


def edit_params(file: Golden, prefix: str) -> Any:
    return file.tree(prefix, GAUSSIAN, inits()["expo"].edit.actor.params)


def batch_of(file: Golden) -> Batch:
    return Batch(file["observations"], file["actions"], file["rewards"], 1.0 - file["masks"], file["next_observations"])


def stacked(batch: Any) -> Any:
    """One batch [B, ...] as U = 1 batches."""
    return jax.tree.map(lambda x: jnp.asarray(x)[None], batch)


def trained(state: optim.Trained, params: Any) -> optim.Trained:
    """Other parameters, the optimiser as it starts."""
    return state._replace(params=params)


def silent(params: Any) -> Any:
    """Critics that answer 0 everywhere."""
    return {**params, "out": jax.tree.map(jnp.zeros_like, params["out"])}


def td_targets(learn: Callable, critic_of: Callable, state: Any, batch: Batch, draws: Any, draws_axes: Any) -> jax.Array:
    """The TD target [B] that training gives each row, for a `state` with silent online critics.

    Every row is learnt as a batch of its own. Where Q = 0 the TD loss mean_K (Q_k - y)^2 has the gradient -2 y / K at critic k's output bias.
    """

    def of_row(batch: Batch, draws: Any) -> jax.Array:
        after, _ = learn(state, jax.tree.map(lambda x: x[None, None], batch), draws)
        gradient = first_gradient(critic_of(after).opt)["out"]["bias"]
        return -gradient[:, 0] * len(gradient) / 2

    return jax.vmap(of_row, in_axes=(0, draws_axes))(batch, draws)


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
    got = run(policy(steps).sample)(denoiser(file, "params"), file["obs"], base_policy.SampleDraws(x_init, noise))
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
    times, x_in, eps = (np.stack(values) for values in zip(*visited, strict=True))
    assert times.tolist() == file[f"times_T{steps}"].tolist()
    close(x_in, file[f"x_in_T{steps}"])
    close(eps, file[f"eps_T{steps}"])


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_sampling_does_not_depend_on_its_layout(kind: str) -> None:
    """All chains at once, in blocks of states, and each chain alone: the same actions; so is a state's sample j whatever the others are."""
    file = golden("03_ddpm_sampling")
    params, obs, n = denoiser(file, "params"), jnp.asarray(file["obs"]), 4
    make = lambda rows: base_policy.make(kind, obs_size=O, action_size=A, steps=5, hidden=H, blocks=3, time_features=16, rows=rows)
    draws = make(1).draw_samples(KEY, (2, 8, n))  # two batches of 8 states
    obs = obs.reshape(2, 8, O)
    whole = jax.jit(make(10_000).sample)(params, obs, draws)
    assert whole.shape == (2, 8, n, A) and float(jnp.std(whole)) > 0.1
    for rows in (1, n, 2 * n, 3 * n, 8 * n):  # a block of 3 states does not divide 16: all at once
        close(jax.jit(make(rows).sample)(params, obs, draws), whole, 2e-6)
    alone = jax.vmap(make(n).sample, in_axes=(None, 0, 0))  # over the flattened states and chains
    x_init = draws.x_init.reshape(16 * n, 1, A)
    noise = None if draws.step_noise is None else jnp.moveaxis(draws.step_noise.reshape(5, 16 * n, 1, A), 1, 0)
    chains = alone(params, jnp.repeat(obs.reshape(16, O), n, axis=0), base_policy.SampleDraws(x_init, noise))
    close(chains.reshape(whole.shape), whole, 2e-6)


# -- 04 to 07: the losses of EXPO, one by one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["part", "pretrain", "learn"])
def test_04_imitation(run: Callable, through: str) -> None:
    """Loss, gradient, AdamW step and EMA: of the part, of EXPO's pretraining and of EXPO's online update."""
    file = golden("04_bc_loss")
    draws = base_policy.LossDraws(file["noise"], file["t"], None)
    optimiser = optax.adamw(optax.cosine_decay_schedule(3e-4, 3_000_000), weight_decay=1e-4)
    params, ema = denoiser(file, "params"), denoiser(file, "ema")
    close(run(lambda: diffusion.noised(diffusion.vp_schedule(10), file["act"], file["noise"], file["t"]))(), file["noisy_act"])
    if through == "part":
        start = base_policy.Imitation(optim.start(optimiser, params), ema)
        step = lambda state, obs, act: base_policy.imitate(policy(), optimiser, state, obs, act, draws, 0.001)
        state, loss = run(step)(start, file["obs"], file["act"])
    else:
        agent = expo.make(EXPO, SPEC)
        start = agent.init(KEY)
        imitation = base_policy.Imitation(trained(start.imitation.base, params), ema)
        batch = Batch(file["obs"], file["act"], np.zeros(B, np.float32), np.ones(B, np.float32), file["obs"])
        if through == "pretrain":
            after, metrics = run(agent.pretrain)(start._replace(imitation=imitation), batch, draws)
        else:
            after, metrics = run(agent.learn)(start._replace(imitation=imitation), stacked(batch), agent.draw(KEY)._replace(imitation=draws))
        state, loss = after.imitation, metrics["imitation_loss"]
    close(loss, file["loss"])
    close(first_gradient(state.base.opt), denoiser(file, "grad"))
    close(state.base.params, denoiser(file, "params_after"))
    close(state.ema, denoiser(file, "ema_after"))


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
    loss, q = run(lambda params: critics.td_loss(CRITICS, params, batch.obs, batch.action, y))(online)
    close((loss, q), (file["loss"], file["q_mean"]))
    optimiser = optax.adam(3e-4)
    start = critics.Critic(optim.start(optimiser, online), target)
    step = lambda state: critics.td_step(CRITICS, optimiser, state, batch.obs, batch.action, y, 0.005)
    state, metrics = run(step)(start)
    close((metrics["critic_loss"], metrics["q_mean"]), (file["loss"], file["q_mean"]))
    close(first_gradient(state.online.opt), critic_params(file, "grad"))
    close(state.online.params, critic_params(file, "critic_after"))
    close(state.target, critic_params(file, "target_after"))


@pytest.mark.parametrize("prefix", ["", "sat_"], ids=["free", "saturated"])
def test_06_edit_policy(run: Callable, prefix: str) -> None:
    """The sample and its density, then EXPO's whole edit step: beta, the density's correction, the mean over online critics."""
    file = golden("06_edit_policy")
    params, noise = edit_params(file, f"{prefix}params"), file[f"{prefix}noise"]
    inputs = np.concatenate([file["obs"], file["act"]], axis=-1)
    actor = actors.tanh_gaussian(input_size=O + A, action_size=A, widths=(H, H, H))
    mean, log_std = run(lambda p, x: networks.apply(networks.TanhGaussian(A, (H, H, H)), p, x))(params, inputs)
    close((mean, log_std), (file[f"{prefix}mean"], file[f"{prefix}log_std"]))
    edit, log_prob = run(actor.sample)(params, inputs, actors.GaussianDraws(noise, None))
    close((edit, log_prob), (file[f"{prefix}edit_unit"], file[f"{prefix}logp_unit"]))
    close(run(actor.mode)(params, inputs), np.tanh(file[f"{prefix}mean"]))
    close(run(CRITICS.values)(critic_params(file, "critic"), file["obs"], file[f"{prefix}edited_act"]), file[f"{prefix}qs_edited"])
    assert prefix == "" or np.any(np.abs(file["sat_edit_unit"]) == 1), "the saturated case has to saturate"

    agent = expo.make(dataclasses.replace(EXPO, critic_lr=0.0), SPEC)  # the edit step sees the critics as recorded
    start = agent.init(KEY)
    edit = actors.SoftActor(trained(start.edit.actor, params), trained(start.edit.log_alpha, jnp.asarray(file["log_temp"])))
    critic = start.critic._replace(online=trained(start.critic.online, critic_params(file, "critic")))
    batch = Batch(file["obs"], file["act"], np.zeros(B, np.float32), np.ones(B, np.float32), file["obs"])
    draws = agent.draw(KEY)._replace(edit=actors.GaussianDraws(noise, None))
    after, metrics = run(agent.learn)(start._replace(edit=edit, critic=critic), stacked(batch), draws)
    got = {name: metrics[name] for name in ("actor_loss", "entropy", "actor_q", "alpha")}
    names = {"actor_loss": f"{prefix}loss", "entropy": f"{prefix}entropy", "actor_q": f"{prefix}edit_q"}
    close(got, {**{ours: file[name] for ours, name in names.items()}, "alpha": np.exp(file["log_temp"])})
    gradient = first_gradient(after.edit.actor.opt)
    close(gradient, edit_params(file, f"{prefix}grad"))
    norms = {path: np.linalg.norm(file[f"{prefix}grad/{path}"]) for path in ("MLP_0/Dense_0/kernel", "OutputDenseLogStd/bias")}
    close(norms, {path: file[f"{prefix}gradnorm/{path}"] for path in norms})
    close(after.edit.actor.params, edit_params(file, f"{prefix}params_after"))


def test_07_temperature(run: Callable) -> None:
    file = golden("07_temperature")
    optimiser = optax.adam(3e-4)

    def step(log_alpha: jax.Array, entropy: jax.Array) -> tuple:
        loss, gradient = jax.value_and_grad(actors.alpha_loss)(log_alpha, entropy, -A / 2)
        return loss, gradient, optim.step(optimiser, optim.start(optimiser, log_alpha), gradient).params

    for i in range(len(file["entropy"])):
        close(run(step)(file["log_temp"][i], file["entropy"][i]), (file["loss"][i], file["grad"][i], file["log_temp_after"][i]))


@pytest.mark.parametrize("reachable", [False, True])
def test_07_target_entropy(run: Callable, reachable: bool) -> None:
    """EXPO's temperature gradient alpha (entropy - target), with the target as released and as made reachable."""
    temperatures, file = golden("07_temperature"), golden("06_edit_policy")
    agent = expo.make(dataclasses.replace(EXPO, critic_lr=0.0, reachable_target_entropy=reachable), SPEC)
    start = agent.init(KEY)
    log_alpha = jnp.asarray(file["log_temp"])
    edit = actors.SoftActor(trained(start.edit.actor, edit_params(file, "params")), trained(start.edit.log_alpha, log_alpha))
    batch = Batch(file["obs"], file["act"], np.zeros(B, np.float32), np.ones(B, np.float32), file["obs"])
    draws = agent.draw(KEY)._replace(edit=actors.GaussianDraws(file["noise"], None))
    after, _ = run(agent.learn)(start._replace(edit=edit), stacked(batch), draws)
    target = temperatures["target_entropy_adjusted" if reachable else "target_entropy"]
    gradient = np.exp(file["log_temp"]) * (file["entropy"] - target)
    close(first_gradient(after.edit.log_alpha.opt), gradient)
    close(after.edit.log_alpha.params, file["log_temp"] - 3e-4 * np.sign(gradient))


# -- 08: candidates and selection ----------------------------------------------------------------------------------------------------------


def otf_state(file: Golden) -> expo.ExpoState:
    """EXPO's state with the recorded base policy, EMA, edit policy and target critics."""
    start = expo.make(EXPO, SPEC).init(KEY)
    imitation = base_policy.Imitation(trained(start.imitation.base, denoiser(file, "base")), denoiser(file, "ema"))
    edit = start.edit._replace(actor=trained(start.edit.actor, edit_params(file, "edit")))
    return expo.ExpoState(imitation, edit, start.critic._replace(target=critic_params(file, "target")))


def proposal(file: Golden, who: str, n: int = 4) -> expo.Proposal:
    """The recorded noises as EXPO's own draws, [states, n, ...]; the steps of the noise stay in front."""
    states = lambda x: jnp.asarray(x).reshape(-1, n, A)
    noise = jnp.stack([states(x) for x in file[f"{who}_step_noise"]])
    return expo.Proposal(
        base_policy.SampleDraws(states(file[f"{who}_x_init"]), noise),
        actors.GaussianDraws(states(file[f"{who}_edit_noise"]), None),
        jnp.asarray(file[f"{who}_subset_select"]),
        None,
    )


STATES = expo.Proposal(base_policy.SampleDraws(0, 1), actors.GaussianDraws(0, None), None, None)  # where a proposal's states lie


@pytest.mark.parametrize("who", ["act", "backup"])
def test_08_acting(run: Callable, who: str) -> None:
    """EXPO's `act`, which samples the EMA; for the backup's states the EMA is set to the online parameters that it samples."""
    file = golden("08_selection")
    state, draws, obs = otf_state(file), proposal(file, who), file[f"{who}_obs"]
    if who == "backup":
        state = state._replace(imitation=state.imitation._replace(ema=state.imitation.base.params))
    agent = expo.make(EXPO, SPEC)
    act = lambda obs, draws: agent.act(state, obs, draws, explore=True)
    got = run(jax.vmap(act, in_axes=(0, STATES)))(obs, draws)
    close(got, file[f"{who}_best_action"])
    evaluated = jax.vmap(lambda obs, draws: agent.act(state, obs, draws, explore=False), in_axes=(0, STATES))(obs, draws)
    close(evaluated, file[f"{who}_best_action"])


@pytest.mark.parametrize("who", ["act", "backup"])
def test_08_every_candidate(run: Callable, who: str) -> None:
    """Each candidate alone: an agent with one sample and one edit that takes either, then the values by which the best is selected."""
    file = golden("08_selection")
    state, draws, obs = otf_state(file), proposal(file, who), jnp.asarray(file[f"{who}_obs"])
    if who == "backup":
        state = state._replace(imitation=state.imitation._replace(ema=state.imitation.base.params))
    single = expo.make(dataclasses.replace(EXPO, n_samples=1, n_edits=1, select_act="random"), SPEC)

    def candidate(pick: float, j: int) -> jax.Array:
        one = jax.tree.map(lambda x: x[..., j : j + 1, :], draws._replace(subset=None))
        one = one._replace(subset=draws.subset, pick=jnp.full(len(obs), pick))
        axes = STATES._replace(pick=0)
        return jax.vmap(lambda obs, draws: single.act(state, obs, draws, explore=True), in_axes=(0, axes))(obs, one)

    proposed = run(lambda: jnp.stack([candidate(pick, j) for pick in (0.0, 0.99) for j in range(4)], axis=1))()
    close(proposed, file[f"{who}_candidates"])
    q = run(lambda c: critics.min_of(CRITICS, state.critic.target, draws.subset, obs[:, None], c))(file[f"{who}_candidates"])
    close(q, file[f"{who}_q_min_subset"])
    close(run(candidates.best)(file[f"{who}_candidates"], q), file[f"{who}_best_action"])


def test_08_backup(run: Callable) -> None:
    """The action that `learn` backs up, seen through its value under each target critic by itself."""
    file = golden("08_selection")
    obs, recorded = jnp.asarray(file["backup_obs"]), proposal(file, "backup")
    agent = expo.make(dataclasses.replace(EXPO, discount=1.0), SPEC._replace(batch_size=1))
    state = otf_state(file)
    state = state._replace(critic=state.critic._replace(online=trained(state.critic.online, silent(state.critic.online.params))))
    axes = jax.tree.map(lambda _: None, agent.draw(KEY))._replace(backup=expo.Proposal(base_policy.SampleDraws(0, 1), actors.GaussianDraws(0, None), None, None))

    def values(member: jax.Array) -> jax.Array:
        """[8, K], the TD target of each state where `member` values the action: reward 0, discount 1."""
        backup = expo.Proposal(
            base_policy.SampleDraws(recorded.base.x_init[:, None, None], recorded.base.step_noise[:, :, None, None]),
            actors.GaussianDraws(recorded.edit.noise[:, None, None], None),
            recorded.subset[None],
            None,
        )
        draws = agent.draw(KEY)._replace(backup=backup, value_subset=jnp.stack([member, member])[None])
        batch = Batch(obs, jnp.zeros((8, A)), jnp.zeros(8), jnp.zeros(8), obs)
        return td_targets(agent.learn, lambda s: s.critic.online, state, batch, draws, axes)

    got = run(jax.vmap(values))(jnp.arange(10))  # [member, state, K]: the target is the same for every critic that learns
    want = CRITICS.values(state.critic.target, obs, file["backup_best_action"])
    close(got, np.broadcast_to(np.asarray(want)[..., None], got.shape))


# -- 09: one whole update ------------------------------------------------------------------------------------------------------------------


def expo_before(file: Golden, agent: Agent) -> expo.ExpoState:
    start = agent.init(KEY)
    imitation = base_policy.Imitation(trained(start.imitation.base, denoiser(file, "base")), denoiser(file, "ema"))
    edit = actors.SoftActor(trained(start.edit.actor, edit_params(file, "edit")), trained(start.edit.log_alpha, jnp.asarray(file["log_temp"])))
    critic = critics.Critic(trained(start.critic.online, critic_params(file, "critic")), critic_params(file, "target"))
    return expo.ExpoState(imitation, edit, critic)


def expo_inputs(file: Golden) -> tuple[Batch, expo.Draws]:
    """The recorded update as batches [2, 16] and the draws of one `learn`."""
    batches = jax.tree.map(lambda x: jnp.asarray(x).reshape(2, B, *x.shape[1:]), batch_of(file))
    both = lambda name: jnp.stack([jnp.asarray(file[f"{name}_{i}"]) for i in range(2)])
    noise = jnp.moveaxis(both("step_noise"), 0, 1).reshape(10, 2, B, 4, A)  # the denoising steps in front
    backup = expo.Proposal(
        base_policy.SampleDraws(both("x_init").reshape(2, B, 4, A), noise),
        actors.GaussianDraws(both("edit_noise").reshape(2, B, 4, A), None),
        both("subset_select"),
        None,
    )
    imitation = base_policy.LossDraws(jnp.asarray(file["bc_noise"]), jnp.asarray(file["bc_t"]), None)
    return batches, expo.Draws(backup, both("subset_value"), imitation, actors.GaussianDraws(jnp.asarray(file["edit_loss_noise"]), None))


def only(i: int, batches: Batch, draws: expo.Draws) -> tuple[Batch, expo.Draws]:
    """One of the U batches, as U = 1."""
    one = lambda x: x[i : i + 1]
    backup = expo.Proposal(
        base_policy.SampleDraws(one(draws.backup.base.x_init), draws.backup.base.step_noise[:, i : i + 1]),
        actors.GaussianDraws(one(draws.backup.edit.noise), None),
        one(draws.backup.subset),
        None,
    )
    return jax.tree.map(one, batches), draws._replace(backup=backup, value_subset=one(draws.value_subset))


def test_09_whole_update(run: Callable) -> None:
    file = golden("09_full_update_utd2")
    agent = expo.make(EXPO, SPEC._replace(updates=2))
    after, metrics = run(agent.learn)(expo_before(file, agent), *expo_inputs(file))
    close(after.critic.online.params, critic_params(file, "critic_after"))
    close(after.critic.target, critic_params(file, "target_after"))
    close(after.imitation.base.params, denoiser(file, "base_after"))
    close(after.imitation.ema, denoiser(file, "ema_after"))
    close(after.edit.actor.params, edit_params(file, "edit_after"))
    close(after.edit.log_alpha.params, file["log_temp_after"])
    names = {"critic_loss": "info_critic_loss", "q_mean": "info_q", "entropy": "info_entropy", "actor_q": "info_edit_q"}
    names["actor_loss"] = "info_edit_actor_loss"
    close({ours: metrics[ours] for ours in names}, {ours: file[name] for ours, name in names.items()})
    assert error_of_step(file, metrics) <= 1e-5


def error_of_step(file: Golden, metrics: Any) -> float:
    return abs(float(metrics["critic_loss"]) - float(file["critic_loss_1"]))


def test_09_each_backup(run: Callable) -> None:
    """The TD target of every row of both critic steps, the second under the target critics that the first step left."""
    file = golden("09_full_update_utd2")
    agent = expo.make(EXPO, SPEC._replace(batch_size=1))
    batches, draws = expo_inputs(file)
    before = expo_before(file, agent)
    once, metrics = run(agent.learn)(before, *only(0, batches, draws))
    close(metrics["critic_loss"], file["critic_loss_0"])
    spare = agent.draw(KEY)  # imitation and edit of a batch of one row: not looked at
    axes = jax.tree.map(lambda _: None, spare)._replace(backup=expo.Proposal(base_policy.SampleDraws(0, 1), actors.GaussianDraws(0, None), None, None))
    for i, target in ((0, before.critic.target), (1, once.critic.target)):
        batch, one = only(i, batches, draws)
        by_row = lambda x, axis: jnp.expand_dims(jnp.moveaxis(x, axis - 1, axis - 1), axis)
        x_init, noise, edit = one.backup.base.x_init[0], one.backup.base.step_noise[:, 0], one.backup.edit.noise[0]
        backup = expo.Proposal(
            base_policy.SampleDraws(x_init[:, None, None], noise[:, :, None, None]),
            actors.GaussianDraws(edit[:, None, None], None),
            one.backup.subset,
            None,
        )
        del by_row
        critic = critics.Critic(trained(before.critic.online, silent(before.critic.online.params)), target)
        state = before._replace(critic=critic)
        rows = jax.tree.map(lambda x: x[0], batch)
        targets = lambda rows, backup, subset, state=state: td_targets(
            agent.learn, lambda s: s.critic.online, state, rows, spare._replace(backup=backup, value_subset=subset), axes
        )
        got = run(targets)(rows, backup, one.value_subset)
        close(got, np.broadcast_to(file[f"td_target_{i}"][:, None], got.shape))
