"""Freezing the parts of a model that its recipe names (`recipe.frozen`)."""

from __future__ import annotations

import torch

from harness.cards.schema import Recipe
from harness.runtime.errors import UsageError


def freeze(model: torch.nn.Module, recipe: Recipe) -> None:
    """Freeze the recipe's parts, so that only the other parameters are trained; raises UsageError for an unknown part."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(name == f or name.startswith(f + ".") for f in recipe.frozen))
    prefixes = {name.split(".")[0] for name, _ in model.named_parameters()}
    unknown = [f for f in recipe.frozen if f.split(".")[0] not in prefixes]
    if unknown:
        raise UsageError(f"recipe.frozen names {unknown}, which the model does not have (it has {sorted(prefixes)})")


def train_mode(model: torch.nn.Module, recipe: Recipe) -> None:
    """Training mode, except for frozen parts: their BatchNorm statistics must not change, and their dropout stays off."""
    model.train()
    parts = dict(model.named_modules()) if recipe.frozen else {}
    for name in recipe.frozen:
        if name in parts:
            parts[name].eval()
