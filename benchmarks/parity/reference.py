"""gymnasium-robotics' own Adroit environments, from starts of our choosing, as the reference that ours are compared with."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import mujoco
import numpy as np

ENV = {"pen": "AdroitHandPen-v1", "door": "AdroitHandDoor-v1", "relocate": "AdroitHandRelocate-v1", "hammer": "AdroitHandHammer-v1"}


class Shadow:
    """The same trajectory stepped one substep at a time, to see what touches."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, middle: np.ndarray, half: np.ndarray, substeps: int):
        self.model, self.data, self.middle, self.half, self.substeps = copy.copy(model), copy.copy(data), middle, half, substeps

    @classmethod
    def of(cls, system: Any, fields: tuple) -> Shadow:
        """At rest in one of our systems with this episode's fields."""
        model = copy.copy(system.model)
        for field, value in zip(system.fields, fields, strict=True):
            getattr(model, field.name)[field.index] = value
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        return cls(model, data, system.control_middle, system.control_range, system.substeps)

    def step(self, action: np.ndarray) -> set[str]:
        """The pairs of bodies in contact in any substep of this step."""
        found = set()
        self.data.ctrl[:] = self.middle + self.half * action.astype(np.float64)
        for _ in range(self.substeps):
            mujoco.mj_step(self.model, self.data)
            found |= {self._pair(contact) for contact in self.data.contact if contact.efc_address >= 0}
        return found

    def _pair(self, contact: mujoco.MjContact) -> str:
        return "-".join(sorted(self.model.body(self.model.geom_bodyid[geom]).name for geom in contact.geom))


class Adroit:
    """`rows` environments of gymnasium-robotics. `obs` [rows, O] float64."""

    def __init__(self, task: str, rows: int):
        import gymnasium

        with contextlib.redirect_stdout(io.StringIO()):
            import gymnasium_robotics
        gymnasium.register_envs(gymnasium_robotics)
        self.task = task
        self.envs = [gymnasium.make(ENV[task], reward_type="sparse").unwrapped for _ in range(rows)]

    def reset(self, params: np.ndarray) -> None:
        """Start all from our tasks' episode parameters [rows, ...]."""
        self.obs = np.stack([self._start(env, row) for env, row in zip(self.envs, params, strict=True)])

    def _start(self, env, params: np.ndarray) -> np.ndarray:
        env.reset(seed=0)
        named = {"pen": ("desired_orien",), "door": ("door_body_pos",), "relocate": ("obj_pos", "target_pos"), "hammer": ("board_pos",)}[
            self.task
        ]
        values = params if len(named) > 1 else (params,)
        start = {"qpos": env.init_qpos, "qvel": env.init_qvel, **dict(zip(named, values, strict=True))}
        return env.reset(seed=0, options={"initial_state_dict": start})[0]

    def step(self, action: np.ndarray) -> np.ndarray:
        """[rows] bool, whether each is solved."""
        found = [env.step(row.astype(np.float64)) for env, row in zip(self.envs, action, strict=True)]
        self.obs = np.stack([obs for obs, *_ in found])
        return np.array([info["success"] for *_, info in found], bool)

    def shadow(self, row: int) -> Shadow:
        env = self.envs[row]
        return Shadow(env.model, env.data, env.act_mean, env.act_rng, env.frame_skip)
