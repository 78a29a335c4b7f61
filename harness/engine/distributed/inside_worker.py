"""The code that runs in a worker process: one device, on which a model is trained with other workers, built and scored."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

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

if TYPE_CHECKING:
    from harness.engine.distributed.training_member import Event, TrainTask


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
    """An actor. It answers `process` once Ray has placed it; then it trains with others, or builds a model and scores shards."""

    def __init__(self, device: str, threads: int) -> None:
        self.device, self.threads = device, threads
        self.messages: list[tuple[int, str]] = []
        logs.handle(lambda level, text: self.messages.append((level, text)))

    def process(self) -> int:
        """The process id."""
        return os.getpid()

    def open_store(self, size: int) -> tuple[str, int]:
        """Open the store by which `size` workers form a process group; returns its host and port."""
        from harness.engine.distributed.training_member import open_store

        self.store, address = open_store(size)
        return address

    def train(self, task: TrainTask, rank: int, size: int, address: tuple[str, int]) -> Iterator[Event]:
        """Take part in a training as member `rank` of `size`; the first member's events come as they happen.

        `address`: what the first member's `open_store` returned.
        """
        from harness.engine.distributed.training_member import take_part

        share_threads(self.threads)
        yield from take_part(task, rank, size, address, self.device)
        share_threads(self.threads)

    def build(self, job: Job) -> None:
        """Make the model and put it on the device."""
        choice.impose(job.kernels)
        model = models.build(job.card, job.found, job.seed)
        share_threads(self.threads)
        move(model, self.device)
        self.scorer = Scorer(
            model, job.card.protocol, job.card.identical, job.seed, self.device, job.batch, self.threads, job.card.path
        )

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
