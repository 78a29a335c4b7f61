"""What happens when a worker dies: why it is gone, how often its images are tried again, and when the run gives up."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.runtime.errors import RunError, listed

TRIES = 3
"""Of one chunk and of starting a worker: a chunk that ends three workers is the cause itself."""
_SECONDS_TO_LEARN_WHY = 3.0


class LostWorkers:
    """Counts the workers that were lost while scoring."""

    def __init__(self) -> None:
        self.tries: Counter[int] = Counter()
        self.failed_starts = 0

    def at_start(self, model: str, why: str) -> None:
        """A worker was lost before its model was built. Raises RunError for the third in a row."""
        self.failed_starts += 1
        if self.failed_starts >= TRIES:
            raise RunError(f"{model}: no worker starts: {why}")

    def at_chunk(self, number: int, names: Sequence[str], why: str) -> None:
        """A worker was lost while it scored chunk `number`, the images `names`. Raises RunError for the third of one chunk."""
        self.tries[number] += 1
        if self.tries[number] >= TRIES:
            raise RunError(
                f"{self.tries[number]} workers failed on the same images ({listed(names, 8)}); the last: {why}; "
                "earlier scores are kept"
            )


def reason(error: Exception) -> str:
    """Why a worker is gone, in a few words."""
    text = str(error)
    # Ray's text about any lost process speaks of memory, as one cause that there might be.
    if type(error).__name__ == "OutOfMemoryError" or "running low on memory" in text:
        return "it ran out of memory"
    if "node has died" in text or "node died" in text or "died node" in text:
        return "its node is gone"
    return "its process is gone"


def reason_of_any(actors: Sequence[Any]) -> str | None:
    """Why one of these actors is gone, None where all answer; the others only know that their connection to it is closed."""
    ray: Any = importlib.import_module("ray")
    asked = [actor.process.remote() for actor in actors]
    for answer in ray.wait(asked, num_returns=len(asked), timeout=_SECONDS_TO_LEARN_WHY)[0]:
        try:
            ray.get(answer)
        except ray.exceptions.RayError as error:
            return reason(error)
    return None
