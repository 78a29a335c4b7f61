"""Training shared out over a cluster with Ray Train: the recipe, the batch and the checkpoints are those of one process.

Each step's batch is split by whole groups (a reference and its images). Every member computes the gradients of its part,
weighted by its share of the images; their sum is the gradient of the mean over the whole batch, so all members take the
same step. What differs from one process is the order in which fp32 sums are taken (docs/scale.md).

The gradients are summed by hand and not by DistributedDataParallel, which takes the plain mean over members and cannot
have one of them without images, as the last batch of a pass may.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from harness import models
from harness.engine.distributed.allocation import Share
from harness.engine.distributed.inside_worker import Job, share_threads
from harness.engine.distributed.session import Session
from harness.engine.distributed.worker_pool import portable
from harness.engine.process_group import Loss, SingleProcess
from harness.engine.trainer import Trained, Trainer
from harness.models.kernels import choice
from harness.runtime import logs
from harness.runtime.errors import HarnessError, RunError, UsageError
from harness.runtime.progress import Step, progress
from harness.runtime.threads import meanwhile

_log = logging.getLogger(__package__)

_SCRATCH = "ray"
"""Ray Train's own notes, inside the run's folder, because every node must see them."""
_RESTARTS = 3
_SECONDS_BETWEEN_NEWS = 1.0
_HOURS_APART = 6
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
class TrainJob:
    """What every member of the group needs: the model's job, and the trainer's arguments that are plain data."""

    job: Job
    arguments: Mapping[str, Any]
    threads: int


class EventQueue:
    """An actor next to the driver that carries news from the first member, and the error that must not be tried again."""

    def __init__(self) -> None:
        self.news: list[tuple[str, Any]] = []
        self.failed = False

    def tell(self, what: str, content: Any) -> None:
        """Add a piece of news."""
        self.news.append((what, content))
        self.failed = self.failed or what == "error"

    def take(self) -> list[tuple[str, Any]]:
        """What came since the last call."""
        news, self.news = self.news, []
        return news

    def has_failed(self) -> bool:
        """Whether a member met an error that another try would meet again."""
        return self.failed


def group_size(model: Any, recipe_references: int, share: Share) -> int:
    """How many members can share the training of this model without changing its recipe."""
    # Training BatchNorm makes an image's features depend on the others of its batch.
    parts = model.modules() if isinstance(model, torch.nn.Module) else ()
    mixes = any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in parts)
    return 1 if mixes else min(share.workers, recipe_references)


def train(
    found: Session, share: Share, job: Job, arguments: Mapping[str, Any], *, on_epoch: Callable[[Mapping[str, Any]], None]
) -> Trained:
    """Train on `share.workers` workers; the chosen weights lie in the folder afterwards, as one process leaves them.

    `arguments`: of `harness.engine.trainer.Trainer`, but for the model and what it calls. Raises what the trainer raised.
    """
    ray: Any = importlib.import_module("ray")
    folder = Path(arguments["folder"]).resolve()
    scratch = folder / _SCRATCH
    events = ray.remote(EventQueue).options(num_cpus=0).remote()
    training_job = TrainJob(portable(job), {**arguments, "folder": folder}, share.threads)
    gpu = bool(share.gpus)

    def fit() -> None:
        from ray import train as ray_train
        from ray.train import torch as kit

        kit.TorchTrainer(
            member,
            train_loop_config={"training_job": training_job, "events": events},
            scaling_config=ray_train.ScalingConfig(
                num_workers=share.workers, use_gpu=gpu, resources_per_worker={"CPU": share.threads, **({"GPU": 1} if gpu else {})}
            ),
            torch_config=kit.TorchConfig(backend="nccl" if gpu else "gloo", timeout_s=_HOURS_APART * 3600),
            run_config=ray_train.RunConfig(
                name="training", storage_path=str(scratch), failure_config=ray_train.FailureConfig(max_failures=_RESTARTS)
            ),
        ).fit()

    try:
        # In the main thread Ray Train's loop would take Ctrl-C for itself.
        return _listen(ray, found, meanwhile(fit), events, on_epoch=on_epoch)
    finally:
        found.released = time.monotonic()
        shutil.rmtree(scratch, ignore_errors=True)


def member(config: Mapping[str, Any]) -> None:
    """One member's part; Ray Train calls it in every worker, and again after a worker was lost."""
    ray: Any = importlib.import_module("ray")
    kit: Any = importlib.import_module("ray.train.torch")
    training_job, events = config["training_job"], config["events"]
    if ray.get(events.has_failed.remote()):
        return
    share_threads(training_job.threads)
    device = str(kit.get_device())
    group = ProcessGroup(device)

    def tell(what: str) -> Callable[[Any], None]:
        return lambda content: ray.get(events.tell.remote(what, content)) if group.rank == 0 else None

    @contextlib.contextmanager
    def shown(what: str, total: int, *, done: int = 0, unit: str = "") -> Iterator[Step]:
        """As `harness.runtime.progress.progress`, of which the driver shows what it is told."""
        told, show = 0.0, tell("progress")

        def step(count: int, text: str = "") -> None:
            nonlocal told
            if time.monotonic() - told > _SECONDS_BETWEEN_NEWS or count == total:
                told = time.monotonic()
                show((count, total, text))

        show((done, total, ""))
        yield step

    try:
        if not ((folder := training_job.arguments["folder"]) / "state.json").is_file():
            raise UsageError(f"{folder}: not to be seen from every node; --runs must be a folder that the nodes share")
        model = models.build(training_job.job.card, training_job.job.found, training_job.job.seed)
        choice.impose(training_job.job.kernels)
        arguments = training_job.arguments
        trainer = Trainer(model, **arguments, device=device, on_epoch=tell("epoch"), group=group, shown=shown)
        with logs.handled(lambda level, text: tell("message")((level, text))):
            trained = trainer.train()
        tell("trained")(trained)
    except HarnessError as error:
        ray.get(events.tell.remote("error", error))
        raise


def _listen(
    ray: Any, found: Session, fitting: Future[None], events: Any, *, on_epoch: Callable[[Mapping[str, Any]], None]
) -> Trained:
    """Show the news until the training has ended; returns what it left."""
    trained: Trained | None = None
    error: HarnessError | None = None
    with contextlib.ExitStack() as stack:
        step: Step | None = None
        ended = False
        while not ended:
            ended = bool(wait([fitting], _SECONDS_BETWEEN_NEWS / 2).done)
            for what, content in ray.get(events.take.remote()):
                if what == "message":
                    level, text = content
                    _log.log(level, text)
                elif what == "epoch":
                    on_epoch(content)
                elif what == "progress":
                    count, total, text = content
                    if step is None:
                        found.record()
                        step = stack.enter_context(progress("training", total, done=count, unit="steps"))
                    step(count, text)
                elif what == "error":
                    error = error or content
                else:
                    trained = content
    ray.kill(events)
    if error is not None:
        raise error
    if trained is None:
        why = str(fitting.exception() or "it ended without a word").strip().splitlines()
        raise RunError(f"the training over Ray failed: {why[-1]}; the same command goes on from the last checkpoint")
    return trained
