"""One worker's part in a training that several share: the torch process group, and the trainer that runs in it."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import queue
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from harness import models
from harness.engine.distributed.inside_worker import Job, share_threads
from harness.engine.process_group import Loss, SingleProcess
from harness.engine.trainer import Trained, Trainer
from harness.models.kernels import choice
from harness.runtime import logs
from harness.runtime.errors import UsageError
from harness.runtime.progress import Step
from harness.runtime.threads import meanwhile

_SECONDS_BETWEEN_PROGRESS = 1.0
_TIMEOUT = datetime.timedelta(hours=6)
"""How long members wait for one another: one may be writing or validating."""


class ProcessGroup(SingleProcess):
    """Members of a torch process group."""

    def __init__(self, device: str) -> None:
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """A contiguous part; members' parts differ by one item at most, and may be empty."""
        return items[len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size]

    def broadcast(self, model: torch.nn.Module) -> None:
        """Take the first member's parameters and buffers."""
        for tensor in model.state_dict().values():
            same = tensor.contiguous()
            dist.broadcast(same, 0)
            tensor.copy_(same)

    def reduce_gradients(self, parameters: Sequence[torch.nn.Parameter], loss: Loss, share: float) -> Loss:
        """Sum gradients and losses over the members, each weighted by its share; in one exchange."""
        sizes = [p.numel() for p in parameters]
        packed = torch.zeros(sum(sizes) + len(sizes) + 1, device=self.device)
        gradients, there = torch.split(packed[: sum(sizes)], sizes), packed[sum(sizes) : -1]
        for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if parameter.grad is not None:
                gradient.copy_(parameter.grad.flatten()).mul_(share)
                there[number] = 1
        packed[-1] = loss * share
        dist.all_reduce(packed)
        # A parameter that no image reached has no gradient in one process either, and its moments then stay as they are.
        for parameter, gradient, count in zip(parameters, gradients, there.tolist(), strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(gradient.view_as(parameter)) if count else None
        return float(packed[-1])

    def all_reduce(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The sum over all members."""
        tensor = torch.from_numpy(values).to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()


@dataclass(frozen=True)
class TrainTask:
    """What every member of the group needs: the model's job, and the trainer's arguments that are plain data."""

    job: Job
    arguments: Mapping[str, Any]
    threads: int


class Event(NamedTuple):
    """What the first member reports while it trains."""

    what: str
    """`message` (level, text), `epoch`, `progress` (done, total, text), or at the end `trained`."""
    content: Any


def open_store(size: int) -> tuple[Any, tuple[str, int]]:
    """The store of a process group of `size` members, and its host and port: it listens at this node's own address alone."""
    ray_util: Any = importlib.import_module("ray.util")
    host = ray_util.get_node_ip_address()
    listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = int(listening.getsockname()[1])
    # The store closes the descriptor itself.
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, size, is_master=True, timeout=_TIMEOUT, wait_for_workers=False, master_listen_fd=listening.detach()
    )
    return store, (host, port)


def take_part(task: TrainTask, rank: int, size: int, address: tuple[str, int], device: str) -> Iterator[Event]:
    """Train as member `rank`; yields the first member's events. Raises what the trainer raises."""
    device = "cuda:0" if device == "cuda" else device  # Ray shows a worker its own GPU alone
    store = dist.TCPStore(*address, size, is_master=False, timeout=_TIMEOUT)  # type: ignore[attr-defined]
    dist.init_process_group(
        "nccl" if device.startswith("cuda") else "gloo", store=store, rank=rank, world_size=size, timeout=_TIMEOUT
    )
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def report(what: str, content: Any) -> None:
        if rank == 0:
            events.put(Event(what, content))

    def work() -> None:
        try:
            share_threads(task.threads)  # torch keeps the number for each thread
            with logs.handled(lambda level, text: report("message", (level, text))):
                report("trained", _train(task, device, report))
        finally:
            events.put(None)

    try:
        working = meanwhile(work)
        while (event := events.get()) is not None:
            yield event
        working.result()
    finally:
        dist.destroy_process_group()


def _train(task: TrainTask, device: str, report: Callable[[str, Any], None]) -> Trained:
    if not ((folder := task.arguments["folder"]) / "state.json").is_file():
        raise UsageError(f"{folder}: not to be seen from every node; --runs must be a folder that the nodes share")
    model = models.build(task.job.card, task.job.found, task.job.seed)
    choice.impose(task.job.kernels)

    @contextlib.contextmanager
    def shown(what: str, total: int, *, done: int = 0, unit: str = "") -> Iterator[Step]:
        """As `harness.runtime.progress.progress`; the driver shows it."""
        reported = 0.0

        def step(count: int, text: str = "") -> None:
            nonlocal reported
            if time.monotonic() - reported > _SECONDS_BETWEEN_PROGRESS or count == total:
                reported = time.monotonic()
                report("progress", (count, total, text))

        report("progress", (done, total, ""))
        yield step

    group = ProcessGroup(device)
    arguments = task.arguments
    return Trainer(
        model, **arguments, device=device, on_epoch=lambda epoch: report("epoch", epoch), group=group, shown=shown
    ).train()
