"""Of which qualities generated data are made up, and how often each is attempted.

    expert   episodes that fulfil the task, by the demonstrator as it is
    noisy    episodes that fulfil the task although the demonstrator acts with the noise asked for
    failed   episodes that do not fulfil it under the same noise

The shares are enforced: episodes are attempted in the order of their keys, and those of the wrong outcome are left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from expo_bench.errors import UserError

QUALITIES = ("expert", "noisy", "failed")
ATTEMPTS = 20  # per episode that is wanted; a demonstrator that needs more of them is not the one to ask
LEAST = 200  #   attempts that are always made


@dataclasses.dataclass(frozen=True)
class Stream:
    """Attempts with one demonstrator. What is wanted of them: episodes by outcome, or `any_outcome` the first ones as they come."""

    name: str
    noisy: bool
    successes: int = 0
    failures: int = 0
    any_outcome: int = 0

    def complete(self, success: np.ndarray) -> bool:
        """Whether these attempts ([n] bool) hold all that is wanted."""
        if self.any_outcome:
            return len(success) >= self.any_outcome
        return success.sum() >= self.successes and (~success).sum() >= self.failures

    def chosen(self, success: np.ndarray) -> list[tuple[int, str]]:
        """(the number of the attempt, its quality) of all that is wanted."""
        if self.any_outcome:
            return [(i, "") for i in range(self.any_outcome)]
        solved, failed = np.flatnonzero(success)[: self.successes], np.flatnonzero(~success)[: self.failures]
        return [(int(i), "noisy" if self.noisy else "expert") for i in solved] + [(int(i), "failed") for i in failed]

    def refuse(self, success: np.ndarray, task: str, noise: float | None) -> None:
        """Raise UserError where the outcome that is missing is too rare."""
        wanted = self.successes + self.failures
        if len(success) < max(LEAST, ATTEMPTS * wanted) or self.any_outcome:
            return
        kind, found, need = "successful", int(success.sum()), self.successes
        if found >= need:
            kind, found, need = "failed", int((~success).sum()), self.failures
        how = f"with noise {noise:g}" if self.noisy else "by the demonstrator as it is"
        raise UserError(
            f"{task}: found {found} {kind} episodes in {len(success)} attempts {how}, expected {need}; another --noise or --mix is needed"
        )


def shares(text: str) -> dict[str, float]:
    """ "expert=0.5,noisy=0.3,failed=0.2" as shares that add up to 1.

    Raises UserError for unknown qualities, shares that are no numbers from 0 to 1, and another sum.
    """
    expected = f"--mix {text!r}: expected shares of {', '.join(QUALITIES)} that add up to 1, such as expert=0.5,noisy=0.3,failed=0.2"
    found: dict[str, float] = {}
    for item in text.split(","):
        name, _, value = item.strip().partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise UserError(f"{expected}; found {item!r}") from None
        if name not in QUALITIES or not 0 <= found[name] <= 1:
            raise UserError(f"{expected}; found {item!r}")
    if abs(sum(found.values()) - 1) > 1e-6 or len(found) < len(text.split(",")):
        raise UserError(f"{expected}; found {sum(found.values()):g} in all")
    return {name: found[name] for name in QUALITIES if found.get(name)}


def counts(mix: dict[str, float], episodes: int) -> dict[str, int]:
    """Whole numbers of episodes by largest remainder.

    Raises UserError where a quality that was asked for would get none.
    """
    exact = {name: share * episodes for name, share in mix.items()}
    result = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: result[name] - exact[name])[: episodes - sum(result.values())]:
        result[name] += 1
    for name, count in result.items():
        if count == 0:
            raise UserError(f"episodes: {episodes} are too few for a share of {mix[name]:g} {name} ones")
    return result


def streams(mix: dict[str, float] | None, episodes: int) -> list[Stream]:
    """What to attempt for `episodes` episodes; without a mix they are taken as they come."""
    if mix is None:
        return [Stream("all", noisy=True, any_outcome=episodes)]
    wanted = counts(mix, episodes)
    expert = Stream("expert", noisy=False, successes=wanted.get("expert", 0))
    noisy = Stream("noisy", noisy=True, successes=wanted.get("noisy", 0), failures=wanted.get("failed", 0))
    return [s for s in (expert, noisy) if s.successes + s.failures]


def attempt(stream: Stream, batch: int, run: Callable[[int], np.ndarray], refuse: Callable[[np.ndarray], None]) -> np.ndarray:
    """[n] bool, the successes of as many attempts as it takes; `run(k)` makes the k-th `batch` of them and returns theirs."""
    success = np.zeros(0, bool)
    while not stream.complete(success):
        refuse(success)
        success = np.concatenate([success, run(len(success) // batch)])
    return success
