"""The datasets that `expo-bench data fetch` gets by name: from Minari's server, through the `minari` package's own downloader.

They lie where Minari keeps its own (MINARI_DATASETS_PATH, or .minari/datasets in the home folder), so that either finds what the other got.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from expo_bench.errors import UserError, unknown

NEEDS = "needs the package minari with its downloader: pip install 'expo-bench[minari]'"
_ID = re.compile(r"[-\w]+(/[-\w]+)*-v\d+")  # Minari's (namespace/)name-vN
_NO_NETWORK = ("connect", "gaierror", "offline", "localentrynotfound", "timeout", "proxy", "unreachable", "resolve")  # of exceptions' names


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of a dataset before it is fetched. Zero stands for a size that its server says only when asked."""

    name: str
    tasks: tuple[str, ...]  #  of this package that its observations, actions and dynamics fit
    what: str
    episodes: int = 0
    steps: int = 0
    megabytes: float = 0.0


_HANDS = {"human": "25 teleoperated demonstrations of hand_dapg", "cloned": "half demonstrations, half a policy cloned from them"}
_HANDS["expert"] = "rollouts of a trained DAPG policy"
# (episodes, steps) as Minari's documentation says, where it was seen to say so.
_SIZES = {
    "D4RL/door/human-v2": (25, 6_729),
    "D4RL/door/cloned-v2": (4_358, 1_000_000),
    "D4RL/door/expert-v2": (5_000, 1_000_000),
    "D4RL/relocate/cloned-v2": (3_758, 1_000_000),
    **{f"D4RL/antmaze/{maze}-v1": (1_000, 1_000_000) for maze in ("large-diverse", "large-play", "medium-diverse")},
}
_MEGABYTES = {f"D4RL/antmaze/{maze}-v1": 605.2 for maze in ("large-diverse", "large-play", "medium-diverse")}
_FOUND = [
    *((f"D4RL/{task}/{kind}-v2", (task,), what) for task in ("door", "pen", "relocate", "hammer") for kind, what in _HANDS.items()),
    *(
        (
            f"D4RL/antmaze/{maze}-v1",
            (f"antmaze-minari-{maze}",),
            "an ant trained by SAC behind a maze planner, noisy; gymnasium-robotics' ant",
        )
        for maze in ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
    ),
]
CATALOGUE = {n: Entry(n, tasks, what, *_SIZES.get(n, (0, 0)), megabytes=_MEGABYTES.get(n, 0.0)) for n, tasks, what in _FOUND}


def root() -> Path:
    """The folder of all of Minari's datasets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def local(name: str) -> Path | None:
    """The folder of a dataset that was fetched, by Minari's name; None for what is no such name, or one of nothing that is here.

    Raises UserError for a dataset of the catalogue that was not fetched yet, with how to.
    """
    if not _ID.fullmatch(name):
        return None
    if (root() / name / "data").is_dir():
        return root() / name
    if name in CATALOGUE:
        raise UserError(f"{name}: not fetched yet (looked in {root()}): `expo-bench data fetch {name}`")
    return None


def listing(tasks: Callable[[str], bool]) -> Iterator[str]:
    """One line for each dataset of the catalogue; `tasks` says which tasks there are."""
    width = max(map(len, CATALOGUE))
    for entry in CATALOGUE.values():
        size = f"{entry.episodes:,} episodes, {entry.steps:,} steps" if entry.steps else "size as the server says"
        size += f", {entry.megabytes:g} MB" if entry.megabytes else ""
        fits = ", ".join(filter(tasks, entry.tasks)) or "no task of this version"
        here = "  [fetched]" if (root() / entry.name / "data").is_dir() else ""
        yield f"  {entry.name:{width}}  {fits:32} {entry.what} ({size}){here}"


def fetch(name: str, say: Callable[[str], None], *, unlisted: bool = False) -> Path:
    """Get a dataset of the catalogue (`unlisted`: any of Minari's), check that it is whole, and put it where `load` finds it by name.

    It is downloaded beside its place and moved there when its counts are those of its metadata, so that nothing half-written is ever found.
    Raises UserError for an unknown name, a missing package, no network, a server that does not have it, and data that are not whole.
    """
    from expo_bench import datasets
    from expo_bench.datasets.inspect import summary

    if not _ID.fullmatch(name) or (name not in CATALOGUE and not unlisted):
        raise unknown("dataset", name, CATALOGUE, hint="(--unlisted fetches what Minari's server has beside the catalogue)")
    place = root() / name
    if (place / "data").is_dir():
        say(f"{name}: fetched before, {place}")
        say(summary(datasets.load(place)))
        return place
    with _beside(root()) as workshop:
        say(f"{name}: from Minari's server to {place}")
        _download(name, workshop)
        data = datasets.load(workshop / name)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.rename(workshop / name, place)
        except OSError as error:
            raise UserError(f"{place}: cannot be written: {error.strerror or error}") from None
    say(summary(data))
    return place


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder inside `folder` that is gone afterwards; with it go `folder` and its parents, if they were made for it and nothing came."""
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    workshop = folder / f".fetching-{os.getpid()}"
    try:
        try:
            workshop.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from None
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _download(name: str, folder: Path) -> None:
    """`minari.download_dataset` into `folder`. Its progress bars go to stderr."""
    try:
        import minari
    except ImportError:
        raise UserError(f"data fetch {NEEDS}") from None
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        minari.download_dataset(name)
    except ImportError:  # the part of minari that talks to its server is an extra of its own
        raise UserError(f"data fetch {NEEDS}") from None
    except Exception as error:
        raise UserError(_reason(name, error)) from None
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
    if not (folder / name / "data").is_dir():
        raise UserError(f"{name}: the download left no data, expected a Minari dataset")


def _reason(name: str, error: BaseException) -> str:
    """One line for whatever a download raises: no network, or what the server said."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    text = " ".join(str(error).split())[:160]
    if any(sign in type(e).__name__.lower() for e in chain for sign in _NO_NETWORK):
        return f"{name}: Minari's server cannot be reached ({type(chain[-1]).__name__}); is there a network? Nothing was written"
    return f"{name}: the download failed: {text or type(error).__name__}. Nothing was written"
