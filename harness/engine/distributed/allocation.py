"""How a cluster's devices are shared out among workers: one device each, and CPUs evenly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.engine.distributed.session import Node
from harness.runtime.errors import UsageError


@dataclass(frozen=True)
class Share:
    """Equal workers, and what each of them has."""

    workers: int
    device: str
    """`cuda` (a GPU each) or `cpu`."""
    threads: int
    """CPUs, and so threads, of each."""

    @property
    def gpus(self) -> int:
        """GPUs of each."""
        return 1 if self.device == "cuda" else 0

    def of(self, workers: int) -> Share:
        """The same for fewer workers."""
        return Share(min(workers, self.workers), self.device, self.threads)


def divide(
    nodes: Sequence[Node], described: str, wanted: int = 0, device: str | None = None, most_threads: int | None = None
) -> Share:
    """The share of each of `wanted` workers (0: as many as there are devices) in what `nodes` have.

    GPUs where there are any and `device` does not say otherwise, else CPUs: then a worker's threads are as many as let
    that many workers fit the nodes, each inside one node, and at most `most_threads`. Raises UsageError for what is not
    there; `described` tells what is.
    """
    kind = (device or "").partition(":")[0]
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"--device {device}: with workers, it is cpu or cuda; which device each gets is Ray's to say")
    gpus = [n for n in nodes if n.gpus]
    if kind == "cuda" and not gpus:
        raise UsageError(f"--device cuda: there is no GPU, but {described}")
    if gpus and kind != "cpu":
        there = sum(n.gpus for n in gpus)
        if wanted > there:
            raise UsageError(
                f"{wanted} workers asked for, one per GPU, but there is {described}: at most --workers {there}, or --device cpu"
            )
        beside = min(n.cpus // n.gpus for n in gpus)
        return Share(wanted or there, "cuda", min(beside, most_threads or beside))
    there = sum(n.cpus for n in nodes)
    if not there or wanted > there:
        fewer = f": at most --workers {there}, one per CPU" if there else ""
        raise UsageError(f"{wanted or 1} workers asked for, but there is {described}{fewer}")
    workers = wanted or there
    threads = max(t for t in range(1, max(n.cpus for n in nodes) + 1) if sum(n.cpus // t for n in nodes) >= workers)
    return Share(workers, "cpu", min(threads, most_threads or threads))
