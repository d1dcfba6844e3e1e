"""Pictures of physics states, by MuJoCo's own offscreen renderer: no screen is needed, an OpenGL library is."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import mujoco
import numpy as np

from envs.core import TaskError
from envs.physics import Field


class View(NamedTuple):
    """How a task likes to be looked at; a task's attribute `view` of this kind is optional."""

    lookat: tuple[float, float, float]  #  metres
    height: float  #                       metres that the picture shows from its lower to its upper edge
    elevation: float = -90.0  #            degrees; -90: from straight above, x to the right
    azimuth: float = 90.0  #               degrees
    colours: Mapping[str, tuple[float, float, float, float]] = {}  #  of geoms by name, or by kind ("box")
    marks: tuple[
        tuple[tuple[float, float, float], float, tuple[float, float, float, float]], ...
    ] = ()  #  spheres that are only drawn: (place, radius, colour)


def qpos_of(env: Any, states: Any) -> np.ndarray:
    """[T, nq] the joint positions of states [T] of a task on either engine.

    Raises:
        TaskError: an environment of another package, whose states are not this package's.
    """
    data = getattr(states, "data", None)
    if not hasattr(env, "physics"):
        raise TaskError(f"task {env.name!r} is of another package: its states cannot be drawn")
    if hasattr(data, "qpos"):
        return np.asarray(data.qpos, np.float64)
    return env.physics.positions(np.asarray(data))


def render(env: Any, states: Any, *, width: int = 480, height: int = 360, camera: str | None = None) -> Iterator[np.ndarray]:
    """Pictures [height, width, 3] uint8 of `states`, a pytree of envs.core.State with a leading axis [T] (of one episode, or of any).

    Needs `envs.opengl.choose_backend` first. `camera` names one of the model's; without, the whole scene is looked at from the side and above.

    Raises:
        TaskError: see `qpos_of`; or a camera that the model does not have.
    """
    system = env.physics.system if hasattr(env, "physics") else None
    qpos = qpos_of(env, states)
    model = copy.copy(system.model)
    model.vis.global_.offwidth, model.vis.global_.offheight = max(width, 640), max(height, 480)
    data = mujoco.MjData(model)
    wish = getattr(env.task, "view", None)
    view = _view(model, camera, wish)
    if wish is not None:
        for i in range(model.ngeom):
            kind = mujoco.mjtGeom(model.geom_type[i]).name.removeprefix("mjGEOM_").lower()
            model.geom_rgba[i] = wish.colours.get(model.geom(i).name, wish.colours.get(kind, model.geom_rgba[i]))
    if not model.nlight:
        model.vis.headlight.ambient[:] = 0.5
    try:
        with mujoco.Renderer(model, height, width) as renderer:
            for t, q in enumerate(qpos):
                if system.fields:
                    _set_fields(model, system.fields, env.task.fields(jax.tree.map(lambda x, t=t: x[t], states.params)))
                data.qpos[:] = q
                mujoco.mj_forward(model, data)
                renderer.update_scene(data, camera=view)
                _mark(renderer.scene, wish.marks if wish else ())
                yield renderer.render().copy()
    except (mujoco.FatalError, RuntimeError, AttributeError, ImportError) as error:
        raise TaskError(f"cannot draw with MUJOCO_GL={os.environ.get('MUJOCO_GL')}: {' '.join(str(error).split())[:120]}") from error


def _set_fields(model: mujoco.MjModel, fields: tuple[Field, ...], values: tuple[Any, ...]) -> None:
    for field, value in zip(fields, values, strict=True):
        getattr(model, field.name)[field.index] = value


def _mark(scene: mujoco.MjvScene, marks: tuple) -> None:
    for place, radius, colour in marks:
        if scene.ngeom < scene.maxgeom:
            geom = scene.geoms[scene.ngeom]
            mujoco.mjv_initGeom(
                geom, mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, radius), np.array(place), np.eye(3).ravel(), np.array(colour, np.float32)
            )
            scene.ngeom += 1


def _view(model: mujoco.MjModel, camera: str | None, wish: View | None) -> str | mujoco.MjvCamera:
    names = [model.camera(i).name for i in range(model.ncam)]
    if camera is not None:
        if camera not in names:
            raise TaskError(f"the model has no camera {camera!r}; it has: {', '.join(names) or 'none'}")
        return camera
    view = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, view)
    if wish is not None:
        view.lookat[:], view.azimuth, view.elevation = wish.lookat, wish.azimuth, wish.elevation
        view.distance = wish.height / (2 * math.tan(math.radians(model.vis.global_.fovy) / 2))
    return view
