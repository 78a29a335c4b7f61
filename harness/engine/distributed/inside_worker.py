"""What works on the other side: one model on one device, in a process that Ray placed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness import models
from harness.cards.schema import ModelCard
from harness.engine.scorer import Pair, Scorer
from harness.models.capabilities import move
from harness.models.kernels import choice
from harness.models.weights import ResolvedWeights
from harness.results.conditions import conditions
from harness.results.run_scores import Scored
from harness.runtime import logs
from harness.runtime.errors import RunError


@dataclass(frozen=True)
class Job:
    """A model to be built where it works, from its card and files; paths are absolute, and the same everywhere."""

    card: ModelCard
    found: ResolvedWeights
    seed: int
    batch: int
    kernels: Mapping[str, str] | None = field(default_factory=dict)
    """The driver's ways of computing (`harness.models.kernels.choice.using`)."""


class Done(NamedTuple):
    """A finished chunk."""

    results: list[Scored]
    seconds: float | None
    """Since the chunk before it; None for the first of a shard, which waited for its pictures."""
    messages: list[tuple[int, str]]
    """What the worker logged since the chunk before: level and text."""


class Worker:
    """An actor: asked for its facts first, then to build its model, then to score one shard after another."""

    def __init__(self, job: Job, device: str, threads: int) -> None:
        self.job, self.device, self.threads = job, device, threads
        self.messages: list[tuple[int, str]] = []
        choice.impose(job.kernels)
        logs.handle(lambda level, text: self.messages.append((level, text)))

    def process(self) -> int:
        """The process id: an answer means that there was a place for the worker."""
        return os.getpid()

    def build(self) -> None:
        """Make the model and put it on the device."""
        model = models.build(self.job.card, self.job.found, self.job.seed)
        share_threads(self.threads)
        move(model, self.device)
        self.scorer = Scorer(
            model, self.job.card.protocol, self.job.card.identical, self.job.seed, self.device, self.job.batch,
            self.threads, self.job.card.path,
        )  # fmt: skip

    def score(self, chunks: Sequence[Sequence[Pair]]) -> Iterator[Done]:
        """The chunks of a shard, each as soon as it is finished."""
        try:
            for _, results in self.scorer.each(dict(enumerate(chunks))):
                messages, self.messages[:] = list(self.messages), []
                yield Done(results, self.scorer.warm.last, messages)
        except RunError as error:
            # A full disk or a lost mount is this machine's: another worker may succeed.
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    def seconds_per_image(self, chunks: Sequence[Sequence[Pair]]) -> float | None:
        """Of the warm model, from one image scored once more."""
        return self.scorer.seconds_per_image(chunks)


def share_threads(threads: int) -> None:
    """Keep every library of this process to its share of the cores."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(max(1, threads))
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(max(1, threads))


def facts() -> Mapping[str, Any]:
    """Under which conditions this node works, as far as the node decides them (`harness.results.conditions.conditions`)."""
    return conditions("", 0, 0)
