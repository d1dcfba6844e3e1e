"""`expo-bench watch`: one episode as a moving picture or as a strip of frames."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from expo_bench.errors import UserError

FRAMES = 6  #      of a strip
PER_SECOND = 25  # pictures of a GIF; its format counts in hundredths of a second
LONGEST = 150  #   pictures of a GIF: longer episodes are shown with gaps


def episode(env: Any, demonstrator: Any, seed: int) -> Any:
    """The states of one episode under a demonstrator, a pytree with a leading axis [T + 1]: the first one, and one after each step."""
    import jax
    import jax.numpy as jnp

    def rollout(key):
        key_reset, key_demo, key_act = jax.random.split(key, 3)
        state = env.reset(key_reset)

        def step(carry, t):
            state, memory = carry
            action, memory = demonstrator.act(memory, state, jax.random.fold_in(key_act, t))
            after = env.step(state, action)
            return (after, memory), after

        _, states = jax.lax.scan(step, (state, demonstrator.init(key_demo, state)), jnp.arange(env.horizon))
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states)

    states = jax.tree.map(np.asarray, jax.jit(rollout)(jax.random.key(seed, impl="threefry2x32")))
    ends = np.flatnonzero(states.terminated | states.truncated)
    length = int(ends[0]) + 1 if len(ends) else env.horizon + 1
    return jax.tree.map(lambda x: x[:length], states)


def draw(env: Any, states: Any, out: Path | None, strip: Path | None, say: Callable[[str], None]) -> None:
    """Draw states [T] (of any policy) as a GIF `out` and as a strip of frames `strip`, each written whole or not at all.

    Raises UserError for another suffix, an existing file, and where nothing can be drawn or written.
    """
    from envs import rendering
    from envs.core import TaskError

    count = len(states.t)
    chosen = {out: _spread(count, LONGEST), strip: _spread(count, FRAMES)}
    wanted = sorted({int(i) for path, rows in chosen.items() if path is not None for i in rows})
    try:
        import jax

        pictures = dict(zip(wanted, rendering.render(env, jax.tree.map(lambda x: x[np.array(wanted)], states)), strict=True))
    except TaskError as error:
        raise UserError(str(error)) from None
    if out is not None:
        _write(out, lambda file: _gif(file, [pictures[i] for i in chosen[out]]))
        say(f"written: {out}, {len(chosen[out])} of {count} states")
    if strip is not None:
        _write(strip, lambda file: _image(np.concatenate([pictures[i] for i in chosen[strip]], axis=1)).save(file, "png"))
        say(f"written: {strip}, states {', '.join(map(str, chosen[strip]))}")


def check_paths(out: Path | None, strip: Path | None) -> None:
    """Raises UserError for what can be seen to be wrong before anything is built."""
    if out is None and strip is None:
        raise UserError("watch: give --out FILE.gif, --strip FILE.png, or both")
    for option, path, suffix in (("--out", out, ".gif"), ("--strip", strip, ".png")):
        if path is None:
            continue
        if path.suffix != suffix:
            raise UserError(f"{option} {path}: found the suffix {path.suffix!r}, expected {suffix}")
        if path.exists():
            raise UserError(f"{option} {path}: exists; name a new file (nothing is ever overwritten)")
        if not path.parent.is_dir():
            raise UserError(f"{option} {path}: the folder {path.parent} does not exist")


def _spread(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _image(pixels: np.ndarray) -> Any:
    from PIL import Image  # comes with matplotlib

    return Image.fromarray(pixels)


def _gif(file: Any, pictures: list[np.ndarray]) -> None:
    first, *rest = (_image(p).quantize(128) for p in pictures)
    first.save(file, "gif", save_all=True, append_images=rest, duration=1000 // PER_SECOND, loop=0)


def _write(path: Path, save: Callable[[Any], None]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with open(part, "wb") as file:
                save(file)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
