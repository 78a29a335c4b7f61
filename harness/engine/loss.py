"""The training loss of a batch: the model's own, or the one in its card's recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from harness.cards.plugins import resolve
from harness.cards.schema import Recipe
from harness.runtime.errors import UsageError


def mean_loss(model: Any, recipe: Recipe, card_path: str) -> Callable[..., torch.Tensor]:
    """(reference, distorted, index, target) -> the mean loss: the model's `training_step`, or `forward` and the recipe's."""
    own = getattr(model, "training_step", None)
    if callable(own):
        if recipe.loss != Recipe.loss:
            raise UsageError(f"recipe.loss = {recipe.loss!r}: the model's training_step computes its own loss; leave one out")
        step_of: Callable[..., torch.Tensor] = own
        return step_of
    named = {"mse": torch.nn.functional.mse_loss, "l1": torch.nn.functional.l1_loss}
    loss = named[recipe.loss] if recipe.loss in named else resolve(recipe.loss, card_path)
    takes_index = "index" in inspect.signature(model.forward).parameters

    def step(reference: torch.Tensor, distorted: torch.Tensor, index: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        predicted = model(reference, distorted, index=index) if takes_index else model(reference[index], distorted)
        value: torch.Tensor = loss(predicted, target)
        return value

    return step
