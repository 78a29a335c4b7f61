"""The part of one worker in a shared training: the torch process group, and the trainer that runs in it."""

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
"""How long members wait for each other: one of them may be writing or validating."""


class ProcessGroup(SingleProcess):
    """The process group of a shared training, with torch.distributed."""

    def __init__(self, device: str) -> None:
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This member's contiguous part of the items; parts differ by at most one item, and may be empty."""
        return items[len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size]

    def broadcast(self, model: torch.nn.Module) -> None:
        """Copy the first member's parameters and buffers to all members."""
        for tensor in model.state_dict().values():
            copy = tensor.contiguous()
            dist.broadcast(copy, 0)
            tensor.copy_(copy)

    def reduce_gradients(self, parameters: Sequence[torch.nn.Parameter], loss: Loss, share: float) -> Loss:
        """Sum gradients and losses over the members, each weighted by its share, with one all-reduce."""
        sizes = [p.numel() for p in parameters]
        packed = torch.zeros(sum(sizes) + len(sizes) + 1, device=self.device)
        gradients, present = torch.split(packed[: sum(sizes)], sizes), packed[sum(sizes) : -1]
        for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if parameter.grad is not None:
                gradient.copy_(parameter.grad.flatten()).mul_(share)
                present[number] = 1
        packed[-1] = loss * share
        dist.all_reduce(packed)
        # In one process, a parameter without a gradient in the batch has grad None, and its moments do not change: the same here.
        for parameter, gradient, count in zip(parameters, gradients, present.tolist(), strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(gradient.view_as(parameter)) if count else None
        return float(packed[-1])

    def all_reduce(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The sum over all members."""
        tensor = torch.from_numpy(values).to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()


@dataclass(frozen=True)
class TrainTask:
    """The input of every member of the group: the model's job, and the trainer's arguments."""

    job: Job
    arguments: Mapping[str, Any]


class Event(NamedTuple):
    """An event that the first member reports during training."""

    what: str
    """`message` (level, text), `epoch`, `progress` (done, total, text), or at the end `trained`."""
    content: Any


def open_store(size: int) -> tuple[Any, tuple[str, int]]:
    """The store of a process group of `size` members, and its host and port: it listens at this node's address only."""
    ray_util: Any = importlib.import_module("ray.util")
    host = ray_util.get_node_ip_address()
    server = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = int(server.getsockname()[1])
    # The store closes the descriptor itself.
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, size, is_master=True, timeout=_TIMEOUT, wait_for_workers=False, master_listen_fd=server.detach()
    )
    return store, (host, port)


def take_part(task: TrainTask, rank: int, size: int, address: tuple[str, int], device: str, threads: int) -> Iterator[Event]:
    """Train as member `rank`; yields the first member's events. Raises what the trainer raises."""
    device = "cuda:0" if device == "cuda" else device  # Ray makes only its own GPU visible to a worker
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
            share_threads(threads)  # torch stores the number for each thread
            with logs.handled(lambda level, text: report("message", (level, text))):
                report("trained", _train(task, device, report))
        finally:
            events.put(None)

    try:
        training = meanwhile(work)
        while (event := events.get()) is not None:
            yield event
        training.result()
    finally:
        dist.destroy_process_group()


def _train(task: TrainTask, device: str, report: Callable[[str, Any], None]) -> Trained:
    if not ((folder := task.arguments["folder"]) / "state.json").is_file():
        raise UsageError(f"{folder}: not visible on every node; set --runs to a folder that all nodes share")
    model = models.build(task.job.card, task.job.weights, task.job.seed)
    choice.impose(task.job.kernels)

    @contextlib.contextmanager
    def shown(what: str, total: int, *, done: int = 0, unit: str = "") -> Iterator[Step]:
        """Like `harness.runtime.progress.progress`, but the driver shows the progress."""
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
