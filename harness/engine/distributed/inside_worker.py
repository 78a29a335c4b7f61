"""`Worker`: the Ray actor of a worker process, which trains and scores a model on its device."""

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
    """The card, files and settings from which a worker builds its model; paths are absolute and valid on every node."""

    card: ModelCard
    weights: ResolvedWeights
    seed: int
    batch: int
    kernels: Mapping[str, str] | None = field(default_factory=dict)
    """The driver's choice of kernels (`harness.models.kernels.choice.using`)."""


class Done(NamedTuple):
    """The results of a finished chunk."""

    results: list[Scored]
    seconds: float | None
    """Time since the previous chunk; None for the first chunk of a shard, which includes the wait for decoding."""
    messages: list[tuple[int, str]]
    """The worker's log messages since the previous chunk: level and text."""


class Worker:
    """A Ray actor. `process` returns when Ray has placed it; it then trains with others, or builds a model and scores shards."""

    def __init__(self, device: str, threads: int) -> None:
        self.device, self.threads = device, threads
        self.messages: list[tuple[int, str]] = []
        logs.handle(lambda level, text: self.messages.append((level, text)))

    def process(self) -> int:
        """The process id."""
        return os.getpid()

    def open_store(self, size: int) -> tuple[str, int]:
        """Open the store with which `size` workers form a process group; returns its host and port."""
        from harness.engine.distributed.training_member import open_store

        self.store, address = open_store(size)
        return address

    def train(self, task: TrainTask, rank: int, size: int, address: tuple[str, int]) -> Iterator[Event]:
        """Train as member `rank` of `size`; yields the events of the first member when they happen.

        `address`: the result of the first member's `open_store`.
        """
        from harness.engine.distributed.training_member import take_part

        yield from take_part(task, rank, size, address, self.device, self.threads)

    def build(self, job: Job) -> None:
        """Build the model and move it to the device."""
        choice.impose(job.kernels)
        model = models.build(job.card, job.weights, job.seed)
        share_threads(self.threads)
        move(model, self.device)
        self.scorer = Scorer(
            model, job.card.protocol, job.card.identical, job.seed, self.device, job.batch, self.threads, job.card.path
        )

    def score(self, chunks: Sequence[Sequence[Pair]]) -> Iterator[Done]:
        """Score the chunks of a shard; yields each chunk when it is finished."""
        try:
            for _, results in self.scorer.each(dict(enumerate(chunks))):
                messages, self.messages[:] = list(self.messages), []
                yield Done(results, self.scorer.warm.last, messages)
        except RunError as error:
            # A full disk or a lost mount affects this machine only: another worker may succeed.
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    def seconds_per_image(self, chunks: Sequence[Sequence[Pair]]) -> float | None:
        """Seconds per image of the warm model, measured by scoring one image again."""
        return self.scorer.seconds_per_image(chunks)


def share_threads(threads: int) -> None:
    """Limit the libraries of this process to `threads` threads."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(max(1, threads))
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(max(1, threads))


def facts() -> Mapping[str, Any]:
    """The conditions that depend on this node (`harness.results.conditions.conditions`)."""
    return conditions("", 0, 0)
