"""Models: `load_model` builds a model from its card and loads its weights."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cards.loading import find_card
from harness.cards.overrides import apply_set
from harness.cards.plugins import errors_of, model_class
from harness.cards.schema import ModelCard
from harness.models.capabilities import LoadedModel
from harness.runtime.errors import UsageError

if TYPE_CHECKING:
    from harness.models.weights import ResolvedWeights


def find_model(name: str, extra: Sequence[str | Path] = ()) -> ModelCard:
    """The model card called `name`, the card in the file `name` (ending in .toml), or a library's metric (`pyiqa:gmsd`)."""
    library, colon, metric = name.partition(":")
    if colon and not name.endswith(".toml"):
        from harness.models import adapters

        return adapters.card(library, metric)
    return find_card(ModelCard, "models", name, extra)


def load_model(
    name: str,
    weights: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    *,
    cards: Sequence[str | Path] = (),
    offline: bool = False,
    seed: int = 0,
) -> LoadedModel:
    """A model with its weights loaded, ready to score.

    Args:
        name: of a card, a card's path (.toml), or a library's metric such as `piq:gmsd`.
        weights: a file, or a word of the card such as `released`; None: the weights that the card always loads.
        set: values by dotted paths into the card, such as `{"model.precision": "bf16"}`.
        cards: folders of the caller's own cards.
        offline: do not use the network.
        seed: seed of parameters that no file fills.

    Returns:
        The model (`score(reference, distorted)`, see `harness.models.base`), and its card as `card`.

    Raises:
        UsageError: no such model or setting, a package that is not installed, weights that are missing or do not fit.
    """
    from harness.models import weights as files

    card = apply_set(find_model(name, cards), set or {})
    return LoadedModel(build(card, files.find(card, weights, offline=offline), seed), card)


def build(card: ModelCard, found: ResolvedWeights | None, seed: int = 0) -> Any:
    """The card's class, constructed with its `[model]` table and filled from the files in `found`."""
    from harness.models import weights as files

    absent = [package for package in card.requires if importlib.util.find_spec(package) is None]
    if absent:
        how = f"pip install '.[{card.extra}]' in the harness's checkout" if card.extra else f"pip install {' '.join(absent)}"
        raise UsageError(f"{card.name} needs {', '.join(absent)}, which is not installed: {how}")
    made = model_class(card.class_, card.path)
    try:
        if card.program is None:
            inspect.signature(made).bind(**card.model)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{card.path}: [model] does not fit {card.class_}: {error}") from None
    torch = sys.modules.get("torch")
    # Torch's generator is restored afterwards.
    drawing = contextlib.nullcontext() if torch is None else torch.random.fork_rng(devices=[])
    with drawing, errors_of(card.path, f"{card.class_} cannot be created"):
        if torch is not None:
            torch.random.default_generator.manual_seed(seed)
        model = made.from_card(card) if hasattr(made, "from_card") else made(**card.model)
    if bool(getattr(model, "higher_is_better", card.higher_is_better)) != card.higher_is_better:
        raise UsageError(f"{card.path}: higher_is_better = {card.higher_is_better} contradicts {card.class_}")
    with errors_of(card.path, f"{card.class_} cannot be prepared"):
        if found is not None:
            files.fill(model, found)
        if callable(getattr(model, "eval", None)):
            model.eval()
    return model


def version_of(card: ModelCard) -> int:
    """The class's `version`, which is raised when its numbers change."""
    version = getattr(model_class(card.class_, card.path), "version", 1)
    if not isinstance(version, int) or isinstance(version, bool):
        raise UsageError(f"{card.path}: {card.class_}.version is not a whole number")
    return version
