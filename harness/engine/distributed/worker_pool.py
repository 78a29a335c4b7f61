"""Scoring on several workers: a shard holds all images of its references, and results return chunk by chunk.

The driver assigns shards and writes the scores; a chunk is finished when the driver has its results. A lost worker is replaced,
and only its unfinished chunks are scored again (`harness.engine.distributed.lost_workers` limits how often).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.engine.distributed.allocation import Share
from harness.engine.distributed.inside_worker import Done, Job
from harness.engine.distributed.lost_workers import LostWorkers, reason
from harness.engine.distributed.session import Session
from harness.engine.distributed.start_workers import SECONDS_TO_START, kill, not_placed, start_actor
from harness.engine.scorer import Pair, cut
from harness.results.run_scores import Scored
from harness.runtime.errors import HarnessError, RunError

_log = logging.getLogger(__package__)

_SHARDS_PER_WORKER = 8
"""Enough that all workers end at about the same time, and few enough that starting shards takes no noticeable time."""


def _absolute_paths(pair: Pair) -> Pair:
    return pair._replace(distorted=os.path.abspath(pair.distorted), reference=os.path.abspath(pair.reference))


@dataclass
class _WorkerHandle:
    """The driver's handle of a worker."""

    actor: Any
    placed: Any
    """The Ray reference that is ready when the worker is placed."""
    built: Any
    """The Ray reference that is ready when the model is built; None afterwards."""
    requested: float
    name: str = "a worker"
    stream: Any = None
    left: deque[int] = field(default_factory=deque)
    """Numbers of the unfinished chunks of its shard."""


class WorkerPool:
    """Workers for one model; scores like `harness.engine.scorer.Scorer`; chunks come in the order in which they finish."""

    def __init__(self, session: Session, share: Share, job: Job, actors: list[Any]) -> None:
        self.session, self.share, self.job = session, share, job
        self.actors = actors
        """Actors that run already; they are used before others are started."""
        self.ray: Any = importlib.import_module("ray")
        self.workers: list[_WorkerHandle] = []
        self.losses = LostWorkers()
        self.seconds, self.images = 0.0, 0

    def chunks(self, pairs: Sequence[Pair]) -> list[list[Pair]]:
        """The pairs, divided into the same chunks as in one process."""
        return cut([_absolute_paths(pair) for pair in pairs], self.job.batch)

    def start(self) -> None:
        """Start the workers and wait until their models are built. Raises the errors of building a model."""
        while len(self.workers) < self.share.workers:
            self._start_one()
        while any(worker.built is not None for worker in self.workers):
            for _ in self._collect(deque(), {}):
                pass

    def each(self, chunks: Mapping[int, Sequence[Pair]]) -> Iterator[tuple[int, list[Scored]]]:
        """Chunks by their numbers, with their results, when they are finished.

        Raises the model's UsageError or RunError after yielding all finished chunks. Raises RunError for a chunk on which
        several workers were lost, and if no worker starts.
        """
        waiting = deque(_shards(chunks, self.share.workers * _SHARDS_PER_WORKER))
        self.losses.tries.clear()
        missing = set(chunks)
        while missing:
            self._assign(waiting, chunks)
            try:
                for number, done in self._collect(waiting, chunks):
                    missing.remove(number)
                    for level, text in done.messages:
                        _log.log(level, text)
                    if done.seconds is not None:
                        self.seconds, self.images = self.seconds + done.seconds, self.images + len(done.results)
                    yield number, done.results
            except HarnessError:
                for number, done in self._finished():
                    yield number, done.results
                raise

    def seconds_per_image(self, chunks: Sequence[Sequence[Pair]]) -> float | None:
        """Seconds per image of one warm worker, one image after the other."""
        if self.images or not chunks:
            return self.seconds / self.images if self.images else None
        worker = next((h for h in self.workers if h.built is None), None)
        if worker is None:
            return None
        try:
            return float(self.ray.get(worker.actor.seconds_per_image.remote([list(chunks[-1])])))
        except self.ray.exceptions.RayError:
            return None

    def stop(self) -> None:
        """End the workers."""
        kill([worker.actor for worker in self.workers])
        self.workers.clear()
        self.session.released = time.monotonic()

    def _start_one(self) -> None:
        actor = self.actors.pop() if self.actors else start_actor(self.share)
        self.workers.append(_WorkerHandle(actor, actor.process.remote(), actor.build.remote(self.job), time.monotonic()))

    def _assign(self, waiting: deque[list[int]], chunks: Mapping[int, Sequence[Pair]]) -> None:
        for worker in self.workers:
            if worker.built is None and not worker.left and waiting:
                shard = waiting.popleft()
                worker.left = deque(shard)
                worker.stream = worker.actor.score.options(num_returns="streaming").remote([list(chunks[n]) for n in shard])

    def _collect(self, waiting: deque[list[int]], chunks: Mapping[int, Sequence[Pair]]) -> Iterator[tuple[int, Done]]:
        """Wait until a worker has something to report; yields the finished chunks."""
        by_reference = {h.built if h.built is not None else h.stream: h for h in self.workers if h.built is not None or h.left}
        if not any(h.left for h in self.workers):
            self._require_placed()
        ready, _ = self.ray.wait(list(by_reference), num_returns=1, timeout=1.0, fetch_local=False)
        for reference in ready:
            worker = by_reference[reference]
            try:
                if worker.built is not None:
                    self._use(worker)
                else:
                    done = self.ray.get(next(worker.stream))
                    yield worker.left.popleft(), done
            except self.ray.exceptions.RayTaskError as error:
                cause = error.cause
                if isinstance(cause, HarnessError):
                    raise cause from None
                self._lost(worker, waiting, chunks, f"{type(cause).__name__}: {cause}")
            except self.ray.exceptions.RayError as error:
                self._lost(worker, waiting, chunks, reason(error))

    def _use(self, worker: _WorkerHandle) -> None:
        self.ray.get(worker.built)
        worker.name = f"worker {self.ray.get(worker.placed)}"
        worker.built, self.losses.failed_starts = None, 0
        self.session.record()

    def _lost(self, worker: _WorkerHandle, waiting: deque[list[int]], chunks: Mapping[int, Sequence[Pair]], why: str) -> None:
        """Return a lost worker's unfinished chunks to the queue, and start a new worker."""
        kill([worker.actor])
        self.workers.remove(worker)
        if worker.built is not None:
            self.losses.at_start(self.job.card.name, why)
        if worker.left:
            self.losses.at_chunk(worker.left[0], [pair.name for pair in chunks[worker.left[0]]], why)
            waiting.appendleft(list(worker.left))
            _log.info(f"{worker.name} was lost ({why}); other workers score its {len(worker.left)} unfinished chunks")
        self._start_one()

    def _finished(self) -> Iterator[tuple[int, Done]]:
        """The chunks that are finished when an error ends the work."""
        for worker in self.workers:
            with contextlib.suppress(self.ray.exceptions.RayError, StopIteration):
                while worker.built is None and worker.left and self.ray.wait([worker.stream], timeout=0, fetch_local=False)[0]:
                    done = self.ray.get(next(worker.stream))
                    yield worker.left.popleft(), done

    def _require_placed(self) -> None:
        requested = max((h.requested for h in self.workers), default=0.0)
        placed = self.ray.wait([h.placed for h in self.workers], timeout=0, fetch_local=False)[0]
        if time.monotonic() - requested > SECONDS_TO_START and not placed:
            raise RunError(not_placed(self.session, self.share.workers))


def _shards(chunks: Mapping[int, Sequence[Pair]], about: int) -> list[list[int]]:
    """About `about` shards; all images of a reference are in one shard, and a shard may hold several references."""
    groups: dict[str, list[int]] = {}
    for number, chunk in chunks.items():
        groups.setdefault(chunk[0].reference, []).append(number)
    enough = -(-len(chunks) // max(1, about))
    shards: list[list[int]] = [[]]
    for group in groups.values():
        if len(shards[-1]) >= enough:
            shards.append([])
        shards[-1] += group
    return [shard for shard in shards if shard]
