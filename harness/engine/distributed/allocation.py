"""Allocation of a cluster's resources to workers: one GPU each, or equal numbers of CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.engine.distributed.session import Node
from harness.runtime.errors import UsageError


@dataclass(frozen=True)
class Share:
    """The number of workers, and the resources of each; they are equal for all workers."""

    workers: int
    device: str
    """`cuda` (one GPU for each worker) or `cpu`."""
    threads: int
    """CPUs of each worker, which is also its number of threads."""

    @property
    def gpus(self) -> int:
        """GPUs of each worker."""
        return 1 if self.device == "cuda" else 0

    def of(self, workers: int) -> Share:
        """The same resources for each of at most `workers` workers."""
        return Share(min(workers, self.workers), self.device, self.threads)


def divide(
    nodes: Sequence[Node], described: str, wanted: int = 0, device: str | None = None, most_threads: int | None = None
) -> Share:
    """Divide the resources of `nodes` among `wanted` workers (0: one for each device).

    Workers get GPUs if there are any and `device` is not `cpu`, else CPUs. CPU workers get the largest number of threads
    with which all workers fit into the nodes, each inside one node, but at most `most_threads`. Raises UsageError if there
    are not enough resources; `described` is the description of the nodes for its message.
    """
    kind = (device or "").partition(":")[0]
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"--device {device}: with workers, give cpu or cuda; Ray chooses the device of each worker")
    gpus = [n for n in nodes if n.gpus]
    if kind == "cuda" and not gpus:
        raise UsageError(f"--device cuda: there is no GPU, only {described}; use --device cpu")
    if gpus and kind != "cpu":
        total = sum(n.gpus for n in gpus)
        if wanted > total:
            raise UsageError(
                f"{wanted} workers requested, one per GPU, but there is only {described}: "
                f"use --workers {total} or fewer, or --device cpu"
            )
        cpus_per_gpu = min(n.cpus // n.gpus for n in gpus)
        return Share(wanted or total, "cuda", min(cpus_per_gpu, most_threads or cpus_per_gpu))
    total = sum(n.cpus for n in nodes)
    if not total or wanted > total:
        fewer = f": use --workers {total} or fewer, one per CPU" if total else ""
        raise UsageError(f"{wanted or 1} workers requested, but there is only {described}{fewer}")
    workers = wanted or total
    threads = max(t for t in range(1, max(n.cpus for n in nodes) + 1) if sum(n.cpus // t for n in nodes) >= workers)
    return Share(workers, "cpu", min(threads, most_threads or threads))
