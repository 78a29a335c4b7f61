"""The number of threads of training: all of torch's, or one where a timed trial shows that it is faster.

For small networks, synchronising threads costs more time than they save. The choice changes the last bits, so it is one of the
kernel choices (`harness.models.kernels.choice`): tried once on a machine, kept, and named in a record's conditions.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.models.capabilities import capabilities
from harness.models.kernels import choice

if TYPE_CHECKING:
    from torch import Tensor

    from harness.engine.request import Plan

_log = logging.getLogger(__package__)

KIND, ONE = "training", "one"
_MOST_PARAMETERS = 5_000_000
"""Larger networks always use all threads: a trial on one thread would take minutes."""


def training_threads(plan: Plan, model: Any, device: str) -> dict[str, str]:
    """The choice of threads for a plan's training, under its name; empty where there is no choice.

    `plain`: all of torch's threads; `one`: one. There is no choice for GPUs, a single thread, whole images, large networks, and
    older records.
    """
    torch = sys.modules.get("torch")
    recipe = plan.card.recipe
    if (
        torch is None
        or recipe is None
        or not isinstance(model, torch.nn.Module)
        or device != "cpu"
        or torch.get_num_threads() == 1
    ):
        return {}
    size = plan.card.protocol.crop_size or capabilities(model).crop_size
    if not size or plan.request.object is not None:
        return {}
    references = recipe.batch_references * recipe.crops
    parameters = sum(p.numel() for p in model.parameters())
    if parameters > _MOST_PARAMETERS:
        return {}
    frozen = f" without {','.join(recipe.frozen)}" if recipe.frozen else ""
    kernel = f"{KIND} {type(model).__name__} {parameters} {references}x{recipe.batch_distorted}x{size}{frozen}"
    named = choice.imposed()
    if named is None or (named and kernel not in named):
        return {}
    if choice.asked() != "auto":
        return {kernel: choice.PLAIN}

    def ways() -> dict[str, Callable[[], Tensor]]:
        from harness.engine.frozen_parts import freeze, train_mode
        from harness.engine.loss import mean_loss

        own = copy.deepcopy(model)
        freeze(own, recipe)
        train_mode(own, recipe)
        draw = torch.Generator().manual_seed(0)
        reference, distorted = (
            torch.rand(n, 3, size, size, generator=draw) for n in (references, references * recipe.batch_distorted)
        )
        index = torch.arange(references).repeat_interleave(recipe.batch_distorted)
        loss = mean_loss(own, recipe, plan.card.path)
        target = torch.rand(len(index), generator=draw)

        def step() -> Tensor:
            with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                own.zero_grad(set_to_none=True)
                with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
                    value = loss(reference, distorted, index, target)
                value.backward()  # type: ignore[no-untyped-call]
            gradient: Tensor = torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None])
            return gradient

        def alone() -> Tensor:
            with on_threads(1):
                return step()

        return {choice.PLAIN: step, ONE: alone}

    try:
        return {kernel: choice.way_of(kernel, ways)}
    except Exception as error:
        # A model that cannot be trained gives its error when it is trained.
        _log.debug("no trial of threads: %s", error)
        return {}


def threads_of(ways: dict[str, str]) -> int:
    """The threads that `training_threads` chose; 0 for all."""
    return 1 if ONE in ways.values() else 0


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads inside the block, and restore it after it; 0 changes nothing."""
    import torch

    before = torch.get_num_threads()
    if count and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
