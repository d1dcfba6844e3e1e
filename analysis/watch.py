"""The report of a sweep that is still running, written again whenever there is something new."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis import ResultsError, page, report
from analysis.load import load

EVERY = 10.0  # seconds between two looks at the run folders
REFRESH = 30  # seconds after which an open page loads itself again


def watch(
    runs: Sequence[Path | str],
    say: Callable[[str], None] = print,
    every: float = EVERY,
    sleep: Callable[[float], None] = time.sleep,
    **options,
) -> Path | None:
    """Write the page of `runs` now, and again after every change of their files, until all manifests have an end time or Ctrl-C is pressed;
    the last page no longer loads itself again. Folders without results yet are waited for.

    `options`: those of `report.write_report`; figures are written once, at the end. Returns the page, None if there never was one.
    Raises ResultsError: a folder that does not exist, an unknown reference, a path that cannot be written.
    """
    figures, path, seen, waiting = options.pop("figures", None), None, None, ""
    _refuse_missing(runs)
    try:
        while True:
            state = _state(runs)
            if state != seen:
                seen = state
                try:
                    results = load(runs, partial=True)
                except ResultsError as error:  # nothing to show yet: a sweep writes its manifest first and its rows later
                    if str(error) != waiting:
                        waiting = str(error)
                        say(f"waiting: {waiting}")
                else:
                    done = len(results.manifests) == len({Path(run).resolve() for run in runs}) and all(
                        m.get("finished") for m in results.manifests
                    )
                    path = report.write_report(runs, **options, figures=figures if done else None, refresh=0 if done else REFRESH)
                    say(f"{time.strftime('%H:%M:%S')}: {len(results.frame):,} evaluations, {'finished' if done else 'running'}: {path}")
                    if done:
                        return path
            sleep(every)
    except KeyboardInterrupt:
        if path is not None:
            _settle(path)
            if figures is not None:
                report.write_report(runs, **options, figures=figures)
        return path


def _refuse_missing(runs: Sequence[Path | str]) -> None:
    for run in runs:
        if not Path(run).is_dir():
            raise ResultsError(f"{run}: no such folder; expected a run folder with manifest.json and results/")


def _state(runs: Sequence[Path | str]) -> tuple:
    """What tells whether anything changed: names, sizes and times of all files of results."""
    out = []
    for run in map(Path, runs):
        for path in sorted([run / "manifest.json", *(run / "results").glob("*.parquet")]):
            try:
                found = path.stat()
            except OSError:  # renamed or not there yet
                continue
            out.append((str(path), found.st_size, found.st_mtime_ns))
    return tuple(out)


def _settle(path: Path) -> None:
    """The page as it is, but no longer loading itself again."""
    report.write_whole(path, path.read_text(encoding="utf-8").replace(page.refresh_tag(REFRESH), "", 1))
