"""How far a sweep is: which of its methods have no results yet, and which are on their way."""

from dataclasses import dataclass

from analysis.load import Manifest, Results


@dataclass(frozen=True)
class Progress:
    """What a run folder without an end time still lacks, by its own manifest."""

    folder: str
    planned: int  # methods on tasks
    waiting: tuple[tuple[str, str], ...]  # (task, label) without any row
    running: dict[tuple[str, str], tuple[int, int]]  # (task, label) -> (last environment step, of)

    @property
    def text(self) -> str:
        """One sentence."""
        if not self.planned:
            return f"{self.folder}: the manifest has no end time; the run is not finished, or was stopped."
        done = self.planned - len(self.waiting) - len(self.running)
        text = f"{self.folder}: the manifest has no end time; the run is not finished, or was stopped: {done} of {self.planned} methods complete"
        if self.running:
            at = (f"{label} on {task} at step {step:,} of {of:,}" for (task, label), (step, of) in self.running.items())
            text += f"; {', '.join(at)}"
        if self.waiting:
            tasks = dict.fromkeys(task for task, _ in self.waiting)
            listed = (f"on {task} {', '.join(label for other, label in self.waiting if other == task)}" for task in tasks)
            text += f"; nothing yet {'; '.join(listed)}"
        return text + "."


def protocol_key(key: str, results: Results) -> tuple[str, str, str]:
    """ "task/agent/variant" -> (task, agent, variant); a task of these results is recognised whole, since its name may hold a slash."""
    task = next((task for task in sorted(results.tasks, key=len, reverse=True) if key.startswith(task + "/")), key.partition("/")[0])
    agent, _, variant = key[len(task) + 1 :].partition("/")
    return task, agent, variant


def unfinished(results: Results) -> list[Progress]:
    """One entry for every run folder whose manifest has no end time."""
    return [_progress(results, manifest) for manifest in results.manifests if manifest.get("finished") is None]


def _progress(results: Results, manifest: Manifest) -> Progress:
    own = results.frame[results.frame["experiment"] == manifest.data["experiment"]]
    waiting, running = [], {}
    protocols = manifest.get("protocols", {})
    for key, fields in protocols.items():
        task, agent, variant = protocol_key(str(key), results)
        rows = own[(own["task"] == task) & (own["agent"] == agent) & (own["variant"] == variant)]
        if rows.empty:
            waiting.append((task, agent + (f" ({variant})" if variant else "")))
        of = fields.get("online_steps")
        for label, part in rows.groupby("method", sort=False) if isinstance(of, int) else ():
            if (last := int(part["env_step"].max())) < of:
                running[task, label] = last, of
    return Progress(manifest.folder.name, len(protocols), tuple(waiting), running)


def marks(progress: list[Progress]) -> dict[tuple[str, str], str]:
    """(task, label) -> what a table says beside the name of a method that is still running."""
    return {key: f" [unfinished: step {step:,} of {of:,}]" for part in progress for key, (step, of) in part.running.items()}
