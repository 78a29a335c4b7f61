"""Training on several workers, with the same recipe, batches and checkpoints as in one process.

Each step's batch is split by whole groups (a reference and its images). Every member computes the gradients of its part,
weighted by its share of the images. Their sum is the gradient of the mean over the whole batch, so all members take the
same step. Only the order of fp32 sums differs from one process (docs/scale.md).

The same workers score afterwards. Ray Train is not used, because its controller and workers would start and import everything
again (docs/speed.md has the seconds). DistributedDataParallel is not used either: it takes the unweighted mean over members,
and no member may be without images, which happens in the last batch of a pass.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.engine.distributed.allocation import Share
from harness.engine.distributed.inside_worker import Job
from harness.engine.distributed.lost_workers import reason, reason_of_any
from harness.engine.distributed.start_workers import Workers, portable
from harness.engine.distributed.training_member import TrainTask
from harness.engine.trainer import Trained
from harness.runtime.errors import HarnessError, RunError
from harness.runtime.progress import Step, progress

_log = logging.getLogger(__package__)

_RESTARTS = 3


class _Lost(Exception):
    """A member is lost, or failed with an error that may not occur again."""


def group_size(model: Any, recipe_references: int, share: Share) -> int:
    """The largest number of members that can train this model without changing its recipe."""
    # With BatchNorm in training mode, an image's features depend on the other images of its batch.
    parts = model.modules() if isinstance(model, torch.nn.Module) else ()
    has_batch_norm = any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in parts)
    return 1 if has_batch_norm else min(share.workers, recipe_references)


def train(
    workers: Workers, members: int, job: Job, arguments: Mapping[str, Any], *, on_epoch: Callable[[Mapping[str, Any]], None]
) -> Trained:
    """Train on `members` of the workers; the chosen weights are in the folder afterwards, as with one process.

    `arguments`: those of `harness.engine.trainer.Trainer`, except the model and callbacks. Raises the errors of the trainer.
    """
    folder = Path(arguments["folder"]).resolve()
    task = TrainTask(portable(job), {**arguments, "folder": folder})
    for attempt in range(_RESTARTS + 1):
        try:
            trained = _follow(workers.start_members(members), task, on_epoch)
            break
        except _Lost as lost:
            workers.end_members()
            if attempt == _RESTARTS:
                raise RunError(
                    f"the training failed {attempt + 1} times: {lost}; the same command continues from the last checkpoint"
                ) from None
            _log.info(f"a training worker was lost ({lost}); all workers continue from the last checkpoint")
    return trained


def _follow(actors: Sequence[Any], task: TrainTask, on_epoch: Callable[[Mapping[str, Any]], None]) -> Trained:
    """Start the training of the actors, and show the events of the first until all have ended. Raises _Lost if one is lost."""
    ray: Any = importlib.import_module("ray")
    trained: Trained | None = None
    step: Step | None = None
    with contextlib.ExitStack() as stack:
        try:
            address = ray.get(actors[0].open_store.remote(len(actors)))
            streams = [
                actor.train.options(num_returns="streaming").remote(task, rank, len(actors), address)
                for rank, actor in enumerate(actors)
            ]
            while streams:
                for stream in ray.wait(streams, timeout=1.0, fetch_local=False)[0]:
                    try:
                        what, content = ray.get(next(stream))
                    except StopIteration:
                        streams.remove(stream)
                        continue
                    if what == "message":
                        _log.log(*content)
                    elif what == "epoch":
                        on_epoch(content)
                    elif what == "trained":
                        trained = content
                    else:
                        count, total, text = content
                        step = step or stack.enter_context(progress("training", total, done=count, unit="steps"))
                        step(count, text)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, HarnessError):
                raise cause from None
            raise _Lost(reason_of_any(actors) or (f"{type(cause).__name__}: {cause}" if cause else reason(error))) from None
    assert trained is not None, "the last event of the first member is `trained`"
    return trained
