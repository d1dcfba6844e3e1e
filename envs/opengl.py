"""Which OpenGL library MuJoCo draws with where there may be no screen. Imports no MuJoCo: a wrong MUJOCO_GL makes that fail."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

from envs.core import TaskError

BACKENDS = ("egl", "osmesa", "glfw")  # in the order in which they are tried: with a GPU or Mesa, in software, on a screen
_PROBE = (
    "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=\".1\"/></worldbody></mujoco>'); "
    "d = mujoco.MjData(m); mujoco.mj_forward(m, d); r = mujoco.Renderer(m, 8, 8); r.update_scene(d); r.render(); print('drawn')"
)


def choose_backend() -> str:
    """The first of `BACKENDS` that draws here, put into MUJOCO_GL; or the one that is there already.

    Each is tried in a process of its own, because a backend that fails may take the process along. MuJoCo reads MUJOCO_GL when it is
    imported: where it is already, the part of it that does is read again.

    Raises:
        TaskError: none does.
    """
    given = os.environ.get("MUJOCO_GL")
    for backend in (given,) if given else BACKENDS:
        environment = {**os.environ, "MUJOCO_GL": backend}
        try:
            done = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if "drawn" in done.stdout:
            if not given:
                os.environ["MUJOCO_GL"] = backend
                if mujoco := sys.modules.get("mujoco"):
                    importlib.reload(sys.modules[mujoco.Renderer.__module__].gl_context)
            return backend
    tried = f"MUJOCO_GL={given}" if given else ", ".join(BACKENDS)
    raise TaskError(
        f"nothing to draw with: tried {tried}; expected a library for offscreen OpenGL, such as libegl1 with Mesa, or libosmesa6"
    )
