"""Synthetic run folders: the same files as a sweep writes, with numbers that a test can compute by hand."""

import json
from pathlib import Path

import pandas as pd


def evaluation(**fields) -> dict:
    """One row as it lies on disk; `score` alone sets `success` too."""
    row = {
        "experiment": "trial", "task": "maze", "agent": "expo", "variant": "", "seed": 0, "phase": "online", "env_step": 0, "grad_step": 0,
        "wall_s": 1.0, "score": 0.5, "episode_return": -10.0, "episode_length": 50.0, "eval_episodes": 10, "diverged": False, "blowups": 0,
    } | fields  # fmt: skip
    return {"success": row["score"]} | row


def curve(scores, *, every: int = 100, start: int = 0, **fields) -> list[dict]:
    """Online evaluations of one seed at start, start + every, ..."""
    return [evaluation(env_step=start + every * i, grad_step=start + every * i, score=score, **fields) for i, score in enumerate(scores)]


def write_run(folder: Path, rows: list[dict], *, files: int = 1, **manifest) -> Path:
    """A run folder of these rows, spread over `files` parquet files."""
    (folder / "results").mkdir(parents=True)
    for i in range(files):
        pd.DataFrame(rows[i::files]).to_parquet(folder / "results" / f"{i:04d}.parquet")
    experiment = rows[0]["experiment"] if rows else "trial"
    (folder / "manifest.json").write_text(json.dumps({"experiment": experiment, "finished": "2026-01-01T00:00:00"} | manifest))
    return folder


def comparison(tasks=("maze",), seeds: int = 3) -> list[dict]:
    """EXPO, its random selection, IDQL and behavior cloning: EXPO learns most, behavior cloning never goes online."""
    rows = []
    for task in tasks:
        for agent, variant, top in (("idql", "", 0.7), ("expo", "random selection", 0.8), ("expo", "", 1.0), ("bc", "", 0.3)):
            for seed in range(seeds):
                own = {"task": task, "agent": agent, "variant": variant, "seed": seed}
                level = top - 0.05 * seed
                rows += [evaluation(phase="offline", grad_step=step, score=0.1 * i, **own) for i, step in enumerate((0, 500, 1000))]
                rows += [] if agent == "bc" else curve([0.3, 0.6, level, level], start=100, **own)
    return rows
