"""Lost workers: the reason of a loss, and the limits on retries of chunks and starts."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.runtime.errors import RunError, listed

TRIES = 3
"""Attempts at one chunk, and at starting a worker: a chunk on which three workers are lost is probably the cause."""
_SECONDS_TO_ANSWER = 3.0


class LostWorkers:
    """Counts the workers that were lost while scoring."""

    def __init__(self) -> None:
        self.tries: Counter[int] = Counter()
        self.failed_starts = 0

    def at_start(self, model: str, why: str) -> None:
        """A worker was lost before its model was built. Raises RunError for the third in a row."""
        self.failed_starts += 1
        if self.failed_starts >= TRIES:
            raise RunError(f"{model}: {self.failed_starts} workers in a row were lost while they started: {why}")

    def at_chunk(self, number: int, names: Sequence[str], why: str) -> None:
        """A worker was lost while it scored chunk `number`, the images `names`. Raises RunError for the third of one chunk."""
        self.tries[number] += 1
        if self.tries[number] >= TRIES:
            raise RunError(
                f"{self.tries[number]} workers failed on the same images ({listed(names, 8)}); the last: {why}; "
                "earlier scores are kept"
            )


def reason(error: Exception) -> str:
    """A short reason why a worker was lost."""
    text = str(error)
    # Ray's message about any lost process mentions memory as one possible cause.
    if type(error).__name__ == "OutOfMemoryError" or "running low on memory" in text:
        return "it ran out of memory"
    if "node has died" in text or "node died" in text or "died node" in text:
        return "its node was lost"
    return "its process ended"


def reason_of_any(actors: Sequence[Any]) -> str | None:
    """Why one of these actors was lost; None if all answer. The other actors report only a closed connection."""
    ray: Any = importlib.import_module("ray")
    pings = [actor.process.remote() for actor in actors]
    for answer in ray.wait(pings, num_returns=len(pings), timeout=_SECONDS_TO_ANSWER)[0]:
        try:
            ray.get(answer)
        except ray.exceptions.RayError as error:
            return reason(error)
    return None
