"""`start_workers`: starts the workers of a run on this machine or a cluster, and checks the cluster's nodes.

`Workers` train (`harness.engine.distributed.shared_training`) and score (`harness.engine.distributed.worker_pool`).
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
    """The workers of a request, and their conditions."""

    session: Session
    share: Share
    nodes: Sequence[Mapping[str, Any]]
    """The conditions that each node reports (`facts`)."""
    members: list[Any] = field(default_factory=list)
    """Actors after training: the pool for scoring uses them again, because their imports are done."""

    def conditions(self, batch: int, model: Any, recipe: Recipe | None) -> dict[str, Any]:
        """`harness.results.conditions.conditions` of the workers; different machines are all named, and bits need not repeat.

        `recipe`: the recipe of a model with training; the conditions then include the number of training workers.
        """
        each = 1 if on_uint8(model) else max(1, self.share.threads)
        document = local_conditions(self.share.device, each, batch, kernels_of(model, self.share.device, each))
        for what in ("machine", "python"):
            document[what] = " | ".join(sorted({str(node[what]) for node in self.nodes}))
        if recipe is not None:
            group = self.group(model, recipe)
            document["training"] = (
                {"workers": group.workers, "threads": group.threads} if group else {"workers": 1, "threads": threads(model)}
            )
        return document

    def group(self, model: Any, recipe: Recipe | None) -> Share | None:
        """The workers that can train without changing the recipe; None if this process should train by itself."""
        from harness.engine.distributed.shared_training import group_size

        members = group_size(model, recipe.batch_references if recipe else 1, self.share)
        return None if members == 1 and not self.session.address else self.share.of(members)

    def start_members(self, count: int) -> list[Any]:
        """Start `count` actors for training and wait for all. Raises RunError if none of the missing ones starts for a minute."""
        ray: Any = importlib.import_module("ray")
        self.members = [start_actor(self.share) for _ in range(count)]
        placed = [actor.process.remote() for actor in self.members]
        for started in range(count):  # one after the other: many imports of torch at once may take longer than one
            if len(ray.wait(placed, num_returns=started + 1, timeout=SECONDS_TO_START)[0]) <= started:
                raise RunError(not_placed(self.session, count))
        self.session.record()
        return self.members

    def end_members(self) -> None:
        """End the actors that no pool has taken."""
        kill(self.members)
        self.session.released = time.monotonic()

    @contextlib.contextmanager
    def pool(self, job: Job) -> Iterator[WorkerPool]:
        """A pool of workers for one model."""
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
    """Workers for the duration of the block: `workers` processes on this machine, or on the cluster at `address` (where 0
    means one per device).

    `model`: a model on uint8 arrays gets CPUs only. A worker has at most as many threads as the caller (or, on a cluster,
    $OMP_NUM_THREADS). Raises UsageError at once if there are not enough resources.
    """
    kind = "cpu" if on_uint8(model) else device
    most = _most_threads(here=address is None and not on_uint8(model))
    if address is None:
        # Checked before Ray starts, which takes seconds.
        described = f"this machine with {cores()} CPUs and {_gpus()} GPUs"
        share = divide([Node("", cores(), _gpus())], described, workers, kind, most)
    with session(address, folder=folder) as current:
        if address is not None:
            share = divide(current.nodes(), current.described(), workers, kind, most)
        current.require(share.workers * share.threads, share.workers * share.gpus)
        started = Workers(current, share, node_facts(current) if address else [facts()])
        try:
            yield started
        finally:
            if started.members:
                started.end_members()


def _most_threads(*, here: bool) -> int | None:
    torch: Any = sys.modules.get("torch")
    if here and torch is not None:
        return int(torch.get_num_threads())
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) else None


def _gpus() -> int:
    torch: Any = sys.modules.get("torch")
    return int(torch.cuda.device_count()) if torch is not None else 0


def node_facts(_: Session) -> list[Mapping[str, Any]]:
    """The conditions that the joined cluster's nodes report. Raises UsageError if versions differ or the harness is missing."""
    ray: Any = importlib.import_module("ray")
    on_node = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    nodes = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
    task = ray.remote(num_cpus=0, max_retries=0)(facts)
    answers = {
        n["NodeManagerAddress"]: task.options(scheduling_strategy=on_node(n["NodeID"], soft=False)).remote() for n in nodes
    }
    reported, problems, here = {}, [], facts()["libraries"]
    for name, reference in answers.items():
        try:
            reported[name] = ray.get(reference, timeout=SECONDS_TO_START)
        except ray.exceptions.RayError as error:
            problems.append(f"{name}: the harness cannot run on it ({_last_line(error)}); install it there as on this machine")
            continue
        other = {k: v for k, v in reported[name]["libraries"].items() if here.get(k) != v}
        if other:
            versions = listed([f"{k} {v} (here {here.get(k)})" for k, v in other.items()])
            problems.append(f"{name}: versions differ from this machine: {versions}; install the same ones")
    if problems:
        raise UsageError("\n".join(f"node {problem}" for problem in problems))
    return list(reported.values())


def portable(job: Job) -> Job:
    """The same job with absolute paths, which are valid in any working directory."""
    card, weights = job.card, job.weights
    if Path(card.path).is_file():
        card = replace(card, path=os.path.abspath(card.path))
    weights = ResolvedWeights(
        {part: _absolute(path) for part, path in weights.parts.items()},
        weights.file and _absolute(weights.file),
        weights.sha256,
        weights.trained_on,
        weights.random,
        weights.backbone and _absolute(weights.backbone),
    )
    return replace(job, card=card, weights=weights)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def start_actor(share: Share) -> Any:
    """Start a worker with one share of the resources, on any node."""
    ray: Any = importlib.import_module("ray")
    options = {"num_cpus": share.threads, "num_gpus": share.gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
    return ray.remote(Worker).options(**options).remote(share.device, share.threads)


def kill(actors: list[Any]) -> None:
    """End these actors and empty the list."""
    ray: Any = importlib.import_module("ray")
    while actors:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(actors.pop())


def not_placed(current: Session, workers: int) -> str:
    """The error message for workers that are not placed in time."""
    return (
        f"{workers} workers requested, but some did not start within {SECONDS_TO_START:.0f} s; there is {current.described()}; "
        "finished work is kept: run the same command again to continue"
    )


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
