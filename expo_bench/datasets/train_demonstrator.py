"""The ant demonstrator: a policy that walks to waypoints (envs.ant_walk), trained with brax's PPO through envs.to_brax."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from expo_bench.errors import UserError

HIDDEN = (128, 128)  # of the policy, swish
PPO = {
    "num_envs": 256,
    "unroll_length": 16,
    "batch_size": 64,
    "num_minibatches": 8,
    "num_updates_per_batch": 6,
    "discounting": 0.97,
    "gae_lambda": 0.95,
    "learning_rate": 3e-4,
    "entropy_cost": 3e-3,
    "clipping_epsilon": 0.2,
    "max_grad_norm": 1.0,
    "reward_scaling": 1.0,
    "normalize_observations": True,
}
EPOCH = 32 * PPO["batch_size"] * PPO["num_minibatches"] * PPO["unroll_length"]  # environment steps between two looks at the clock
EVALUATION_EPISODES = 128


class _OutOfTime(Exception):
    """Training has used its minutes: brax's trainer has no other way to be stopped."""


def train(path: Path, *, minutes: float, seed: int = 0, engine: str = "mujoco", say: Callable[[str], None] = print) -> dict[str, Any]:
    """Train for `minutes` of wall-clock time, one epoch at least, and write the policy to `path`, also after every epoch, with its provenance; returns that.

    Not reproducible to the bit: how many epochs fit depends on the machine. Raises UserError for a wrong setting or path.
    """
    path = Path(path)
    if not minutes > 0 or not np.isfinite(minutes):
        raise UserError(f"minutes: found {minutes}, expected a number above 0")
    if path.suffix != ".npz":
        raise UserError(f"{path}: found the suffix {path.suffix!r}, expected .npz")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
    from envs.physics import import_mjx

    import_mjx()  # quietly, before brax does it
    import jax
    from brax.training.agents.ppo import networks
    from brax.training.agents.ppo import train as ppo

    from envs.ant_walk import ant_walk
    from envs.to_brax import BraxView

    env = ant_walk(engine)
    started, took = time.monotonic(), [0.0, 0]

    def record(**more: Any) -> dict[str, Any]:
        about = {"environment": "ant-walk", "engine": engine, "algorithm": "brax PPO", "settings": PPO, "hidden": HIDDEN, "seed": seed}
        versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "cpus": os.cpu_count()}
        return {**about, **versions, "steps": took[1], "minutes": round(took[0] / 60, 1), **more}

    latest: list[Any] = []

    def after_epoch(steps: int, _make: Any, params: Any) -> None:
        took[:] = [time.monotonic() - started, int(steps)]
        latest[:] = [policy_arrays(params)]
        if steps:
            _write(path, latest[0], record())
        if steps and took[0] > 60 * minutes:  # one epoch at least
            raise _OutOfTime

    def progress(steps: int, metrics: dict[str, Any]) -> None:
        shown = {"return": "sum_reward", "length": "length", "waypoints": "success"}  # means over the episodes of the last epoch
        means = "  ".join(f"{name} {metrics[f'episode/{key}']:.1f}" for name, key in shown.items() if f"episode/{key}" in metrics)
        if means:
            say(f"{took[0] / 60:5.1f} min  {steps:>9} steps  {means}")

    logging.getLogger("absl").setLevel(logging.ERROR)
    epochs = 100_000  # more than anyone waits for
    factory = lambda *args, **kwargs: networks.make_ppo_networks(
        *args, policy_hidden_layer_sizes=HIDDEN, value_hidden_layer_sizes=(256, 256), **kwargs
    )
    with contextlib.suppress(_OutOfTime), _replication():
        ppo.train(
            environment=BraxView(env),
            num_timesteps=epochs * EPOCH,
            num_evals=epochs + 1,
            run_evals=False,
            log_training_metrics=True,
            training_metrics_steps=EPOCH,
            episode_length=env.horizon,
            max_devices_per_host=1,
            network_factory=factory,
            seed=seed,
            progress_fn=progress,
            policy_params_fn=after_epoch,
            **PPO,
        )
    provenance = record(**evaluate(env, latest[0], seed=seed + 1))
    _write(path, latest[0], provenance)
    return provenance


@contextlib.contextmanager
def _replication() -> Iterator[None]:
    """brax 0.14.2 calls jax.device_put_replicated, which jax 0.10 has dropped; here it stands for the one device that trains."""
    import jax
    import jax.numpy as jnp

    if hasattr(jax, "device_put_replicated"):
        yield
        return
    jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda x: jnp.asarray(x)[None], tree)
    try:
        yield
    finally:
        del jax.device_put_replicated


def policy_arrays(params: Any) -> dict[str, np.ndarray]:
    """The deterministic policy of brax's parameters: the features' mean and deviation, and w0, b0, ... up to the mean action before tanh."""
    normaliser, policy = params[0], params[1]["params"]
    arrays = {"mean": np.asarray(normaliser.mean), "deviation": np.asarray(normaliser.std)}
    for i in range(len(HIDDEN) + 1):
        layer = policy[f"hidden_{i}"]
        columns = 8 if i == len(HIDDEN) else None  # the last layer's other half is the noise
        arrays |= {f"w{i}": np.asarray(layer["kernel"])[:, :columns], f"b{i}": np.asarray(layer["bias"])[:columns]}
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def evaluate(env: Any, arrays: dict[str, np.ndarray], *, seed: int) -> dict[str, float]:
    """The policy without noise over `EVALUATION_EPISODES` episodes: mean return, share of falls, waypoints passed, metres per second."""
    import jax

    from envs.ant_walk import NEXT_WAYPOINT, walker

    act = walker(arrays)

    def episode(key):
        def step(carry, _):
            state, live = carry
            after = env.step(state, act(state.obs))
            ended = after.terminated | after.truncated
            return (after, live & ~ended), (live * after.reward, live & after.success, live & after.terminated)

        state = env.reset(key)
        return jax.lax.scan(step, (state, state.t == 0), None, length=env.horizon)[1]

    keys = jax.random.split(jax.random.key(seed), EVALUATION_EPISODES)
    reward, arrived, fell = jax.tree.map(np.asarray, jax.jit(jax.vmap(episode))(keys))
    return {
        "evaluation_episodes": EVALUATION_EPISODES,
        "final_return": round(float(reward.sum(1).mean()), 2),
        "waypoints_per_episode": round(float(arrived.sum(1).mean()), 2),
        "episodes_with_a_fall": round(float(fell.any(1).mean()), 3),
        "waypoint_distance": NEXT_WAYPOINT,
    }


def _write(path: Path, arrays: dict[str, np.ndarray], provenance: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            np.savez(file, **arrays, provenance=np.array(json.dumps(provenance)))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
