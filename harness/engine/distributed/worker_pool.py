"""Scoring by several workers: shards are whole references, results come back chunk by chunk, whoever dies is replaced.

The driver workers out shards and writes; a chunk is done when its results are here. Of a worker that is lost only the
chunks that had not come back are done again, by others.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.cards.schema import Recipe
from harness.engine.devices import on_uint8, threads
from harness.engine.distributed.allocation import Share, divide
from harness.engine.distributed.inside_worker import Done, Job, Worker, facts
from harness.engine.distributed.session import Node, Session, cores, session
from harness.engine.kernels import kernels_of
from harness.engine.scorer import Pair, cut
from harness.models.weights import ResolvedWeights
from harness.results.conditions import conditions as local_conditions
from harness.results.run_scores import Scored
from harness.runtime.errors import HarnessError, RunError, UsageError, listed

_log = logging.getLogger(__package__)

_SECONDS_TO_START = 60.0
_TRIES = 3
"""Of one chunk: what kills three workers, or fails on three, is the chunk's own fault."""
_SHARDS_PER_WORKER = 8
"""Enough that workers end together, few enough that starting a shard costs nothing."""


@dataclass
class Workers:
    """The workers that a request may have, and the conditions under which they work."""

    session: Session
    share: Share
    nodes: Sequence[Mapping[str, Any]]
    """What each node says of itself."""
    members: list[Any] = field(default_factory=list)
    """Actors that trained: the pool that scores takes them, because they have imported everything already."""

    def conditions(self, batch: int, model: Any, recipe: Recipe | None) -> dict[str, Any]:
        """`harness.results.conditions.conditions` of the workers; where machines differ, each is named, and no bits are promised.

        `recipe`: of a model that is trained, which then says by how many, too.
        """
        each = 1 if on_uint8(model) else max(1, self.share.threads)
        now = local_conditions(self.share.device, each, batch, kernels_of(model, self.share.device, each))
        for what in ("machine", "python"):
            now[what] = " | ".join(sorted({str(node[what]) for node in self.nodes}))
        if recipe is not None:
            group = self.group(model, recipe)
            now["training"] = (
                {"workers": group.workers, "threads": group.threads} if group else {"workers": 1, "threads": threads(model)}
            )
        return now

    def group(self, model: Any, recipe: Recipe | None) -> Share | None:
        """The workers that may share the training without changing the recipe; None where this process does it as well alone."""
        from harness.engine.distributed.training import group_size

        members = group_size(model, recipe.batch_references if recipe else 1, self.share)
        return None if members == 1 and not self.session.address else self.share.of(members)

    def start_members(self, count: int) -> list[Any]:
        """So many actors for a training, once all are placed. Raises RunError where there is no place for them in time."""
        ray: Any = importlib.import_module("ray")
        self.members = [start_actor(self.share) for _ in range(count)]
        placed = [actor.process.remote() for actor in self.members]
        if len(ray.wait(placed, num_returns=count, timeout=_SECONDS_TO_START)[0]) < count:
            raise RunError(_not_placed(self.session, count))
        self.session.record()
        return self.members

    def end_members(self) -> None:
        """End the actors that trained and that no pool took."""
        _kill(self.members)
        self.session.released = time.monotonic()

    @contextlib.contextmanager
    def pool(self, job: Job) -> Iterator[WorkerPool]:
        """Workers for one model."""
        pool = WorkerPool(self.session, self.share, portable(job), self.members)
        try:
            pool.start()
            yield pool
        finally:
            pool.stop()


@contextlib.contextmanager
def start_workers(
    model: Any,
    address: str | None = None,
    workers: int = 0,
    device: str | None = None,
    *,
    folder: Path | None = None,
) -> Iterator[Workers]:
    """Workers for as long as the block runs: `workers` processes of this machine, or of the cluster at `address` (there 0
    means one per device).

    `model`: one that works on uint8 gets CPUs alone. A worker has no more threads than the caller has here (or, on a cluster,
    than $OMP_NUM_THREADS). Raises UsageError at once for what is not there.
    """
    kind = "cpu" if on_uint8(model) else device
    most = _most_threads(here=address is None and not on_uint8(model))
    if address is None:
        # Ray takes seconds to start; what this machine cannot do is known before.
        there = f"this machine with {cores()} CPUs and {_gpus()} GPUs"
        share = divide([Node("", cores(), _gpus())], there, workers, kind, most)
    with session(address, folder=folder) as found:
        if address is not None:
            share = divide(found.nodes(), found.described(), workers, kind, most)
        found.require(share.workers * share.threads, share.workers * share.gpus)
        started = Workers(found, share, node_facts(found) if address else [facts()])
        try:
            yield started
        finally:
            if started.members:
                started.end_members()


def _most_threads(*, here: bool) -> int | None:
    torch: Any = sys.modules.get("torch")
    if here and torch is not None:
        return int(torch.get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else None


def _gpus() -> int:
    torch: Any = sys.modules.get("torch")
    return int(torch.cuda.device_count()) if torch is not None else 0


def node_facts(found: Session) -> list[Mapping[str, Any]]:
    """What the nodes of a joined cluster say of themselves. Raises UsageError where the harness is another or is missing."""
    ray: Any = importlib.import_module("ray")
    at = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    nodes = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
    ask = ray.remote(num_cpus=0, max_retries=0)(facts)
    asked = {n["NodeManagerAddress"]: ask.options(scheduling_strategy=at(n["NodeID"], soft=False)).remote() for n in nodes}
    told, problems, here = {}, [], facts()["libraries"]
    for name, reference in asked.items():
        try:
            told[name] = ray.get(reference, timeout=_SECONDS_TO_START)
        except ray.exceptions.RayError as error:
            problems.append(f"{name}: the harness cannot work there ({_last_line(error)}); install it as it is installed here")
            continue
        other = {k: v for k, v in told[name]["libraries"].items() if here.get(k) != v}
        if other:
            versions = listed([f"{k} {v}, here {here.get(k)}" for k, v in other.items()])
            problems.append(f"{name}: other versions than here: {versions}")
    if problems:
        raise UsageError("\n".join(f"node {problem}" for problem in problems))
    return list(told.values())


def portable(job: Job) -> Job:
    """The same job with paths that mean the same from any folder."""
    card, found = job.card, job.found
    if Path(card.path).is_file():
        card = replace(card, path=os.path.abspath(card.path))
    found = ResolvedWeights(
        {part: _absolute(path) for part, path in found.parts.items()},
        found.file and _absolute(found.file),
        found.sha256,
        found.trained_on,
        found.random,
        found.backbone and _absolute(found.backbone),
    )
    return replace(job, card=card, found=found)


def _anywhere(pair: Pair) -> Pair:
    return pair._replace(distorted=os.path.abspath(pair.distorted), reference=os.path.abspath(pair.reference))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


@dataclass
class _WorkerHandle:
    """A worker as the driver sees it."""

    actor: Any
    placed: Any
    """The reference that is there once Ray has found a place for it."""
    built: Any
    """The reference that is there once its model is; None afterwards."""
    asked: float
    name: str = "a worker"
    stream: Any = None
    left: deque[int] = field(default_factory=deque)
    """Numbers of the chunks of its shard that have not come back."""


class WorkerPool:
    """Workers for one model; scores like `harness.engine.scorer.Scorer`, chunks in the order in which they are finished."""

    def __init__(self, found: Session, share: Share, job: Job, ready: list[Any]) -> None:
        self.session, self.share, self.job = found, share, job
        self.actors = ready
        """Actors that are there already and are taken before others are started."""
        self.ray: Any = importlib.import_module("ray")
        self.workers: list[_WorkerHandle] = []
        self.tries: Counter[int] = Counter()
        self.stillborn = 0
        self.seconds, self.images = 0.0, 0

    def chunks(self, pairs: Sequence[Pair]) -> list[list[Pair]]:
        """The pairs, cut into chunks as one process would."""
        return cut([_anywhere(pair) for pair in pairs], self.job.batch)

    def start(self) -> None:
        """Hire the workers and wait until their models are built. Raises what building a model raised."""
        while len(self.workers) < self.share.workers:
            self._start_one()
        while any(worker.built is not None for worker in self.workers):
            for _ in self._collect(deque(), {}):
                pass

    def each(self, chunks: Mapping[int, Sequence[Pair]]) -> Iterator[tuple[int, list[Scored]]]:
        """Chunks by their numbers, with their results, as they come back.

        Raises what the model raised (UsageError, RunError), after giving what had been finished, and RunError for a chunk
        that no worker survives, or when no worker is left.
        """
        waiting = deque(_shards(chunks, self.share.workers * _SHARDS_PER_WORKER))
        self.tries.clear()
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
        """Of one warm worker, one image after the other."""
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
        _kill([worker.actor for worker in self.workers])
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
        """Wait for something to happen, and give the chunks that came back."""
        by_what = {h.built if h.built is not None else h.stream: h for h in self.workers if h.built is not None or h.left}
        if not any(h.left for h in self.workers):
            self._refuse_to_wait_for_ever()
        ready, _ = self.ray.wait(list(by_what), num_returns=1, timeout=1.0, fetch_local=False)
        for what in ready:
            worker = by_what[what]
            try:
                if worker.built is not None:
                    self._ready(worker)
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

    def _ready(self, worker: _WorkerHandle) -> None:
        self.ray.get(worker.built)
        worker.name = f"worker {self.ray.get(worker.placed)}"
        worker.built, self.stillborn = None, 0
        self.session.record()

    def _lost(self, worker: _WorkerHandle, waiting: deque[list[int]], chunks: Mapping[int, Sequence[Pair]], why: str) -> None:
        """Give a lost worker's unfinished chunks to the others, and hire another one in its place."""
        _kill([worker.actor])
        self.workers.remove(worker)
        if worker.built is not None:
            self.stillborn += 1
            if self.stillborn >= _TRIES:
                raise RunError(f"{self.job.card.name}: no worker starts: {why}")
        if worker.left:
            first = worker.left[0]
            self.tries[first] += 1
            if self.tries[first] >= _TRIES:
                names = listed([pair.name for pair in chunks[first]], 8)
                raise RunError(
                    f"{self.tries[first]} workers failed on the same images ({names}); the last: {why}; "
                    "what was scored before is kept"
                )
            waiting.appendleft(list(worker.left))
            _log.info(f"{worker.name} is lost ({why}); its {len(worker.left)} unfinished chunks go to others")
        self._start_one()

    def _finished(self) -> Iterator[tuple[int, Done]]:
        """Whatever has come back by now, before an error ends the work."""
        for worker in self.workers:
            with contextlib.suppress(self.ray.exceptions.RayError, StopIteration):
                while worker.built is None and worker.left and self.ray.wait([worker.stream], timeout=0, fetch_local=False)[0]:
                    done = self.ray.get(next(worker.stream))
                    yield worker.left.popleft(), done

    def _refuse_to_wait_for_ever(self) -> None:
        asked = max((h.asked for h in self.workers), default=0.0)
        placed = self.ray.wait([h.placed for h in self.workers], timeout=0, fetch_local=False)[0]
        if time.monotonic() - asked > _SECONDS_TO_START and not placed:
            raise RunError(_not_placed(self.session, self.share.workers))


def start_actor(share: Share) -> Any:
    """A worker with one share of the cluster, somewhere in it."""
    ray: Any = importlib.import_module("ray")
    options = {"num_cpus": share.threads, "num_gpus": share.gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
    return ray.remote(Worker).options(**options).remote(share.device, share.threads)


def _kill(actors: list[Any]) -> None:
    ray: Any = importlib.import_module("ray")
    while actors:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(actors.pop())


def _not_placed(found: Session, workers: int) -> str:
    return (
        f"{workers} workers asked for, and not all are there after {_SECONDS_TO_START:.0f} s; there is {found.described()}; "
        "what was done is kept, the same command goes on from here"
    )


def _shards(chunks: Mapping[int, Sequence[Pair]], about: int) -> list[list[int]]:
    """Whole references, some together where they are small, in about so many shards."""
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


def reason(error: Exception) -> str:
    """Why a worker is gone, in a few words."""
    text = str(error)
    # Ray's text about any lost process speaks of memory, as one cause that there might be.
    if type(error).__name__ == "OutOfMemoryError" or "running low on memory" in text:
        return "it ran out of memory"
    if "node has died" in text or "node died" in text or "died node" in text:
        return "its node is gone"
    return "its process is gone"


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
