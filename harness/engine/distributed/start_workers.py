"""Starting workers: how many, on which devices, of this machine or of a cluster; and what each node must have.

`Workers` are what a run works with: they train (`harness.engine.distributed.shared_training`) and score
(`harness.engine.distributed.worker_pool`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cards.schema import Recipe
from harness.engine.devices import on_uint8, threads
from harness.engine.distributed.allocation import Share, divide
from harness.engine.distributed.inside_worker import Job, Worker, facts
from harness.engine.distributed.session import Node, Session, cores, session
from harness.engine.kernels import kernels_of
from harness.models.weights import ResolvedWeights
from harness.results.conditions import conditions as local_conditions
from harness.runtime.errors import RunError, UsageError, listed

if TYPE_CHECKING:
    from harness.engine.distributed.worker_pool import WorkerPool

SECONDS_TO_START = 60.0


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
        from harness.engine.distributed.shared_training import group_size

        members = group_size(model, recipe.batch_references if recipe else 1, self.share)
        return None if members == 1 and not self.session.address else self.share.of(members)

    def start_members(self, count: int) -> list[Any]:
        """So many actors for a training, once all are placed. Raises RunError where there is no place for them in time."""
        ray: Any = importlib.import_module("ray")
        self.members = [start_actor(self.share) for _ in range(count)]
        placed = [actor.process.remote() for actor in self.members]
        if len(ray.wait(placed, num_returns=count, timeout=SECONDS_TO_START)[0]) < count:
            raise RunError(not_placed(self.session, count))
        self.session.record()
        return self.members

    def end_members(self) -> None:
        """End the actors that trained and that no pool took."""
        kill(self.members)
        self.session.released = time.monotonic()

    @contextlib.contextmanager
    def pool(self, job: Job) -> Iterator[WorkerPool]:
        """Workers for one model."""
        from harness.engine.distributed.worker_pool import WorkerPool

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
            told[name] = ray.get(reference, timeout=SECONDS_TO_START)
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


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def start_actor(share: Share) -> Any:
    """A worker with one share of the cluster, somewhere in it."""
    ray: Any = importlib.import_module("ray")
    options = {"num_cpus": share.threads, "num_gpus": share.gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
    return ray.remote(Worker).options(**options).remote(share.device, share.threads)


def kill(actors: list[Any]) -> None:
    """End these actors; the list is empty afterwards."""
    ray: Any = importlib.import_module("ray")
    while actors:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(actors.pop())


def not_placed(found: Session, workers: int) -> str:
    """What to say where workers are not placed in time."""
    return (
        f"{workers} workers asked for, and not all are there after {SECONDS_TO_START:.0f} s; there is {found.described()}; "
        "what was done is kept, the same command goes on from here"
    )


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
