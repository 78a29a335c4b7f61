"""`list_models` and `list_datasets`: the names of all models and datasets that have a card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.cards.loading import load_cards


def list_models(cards: Sequence[str | Path] = ()) -> list[str]:
    """The names of all models that have a card.

    Args:
        cards: folders of the caller's own cards, in addition to the built-in ones.

    Returns:
        The names, in alphabetical order.

    Raises:
        UsageError: cards that cannot be read: every problem of every card.
    """
    return list(load_cards("models", cards))


def list_datasets(cards: Sequence[str | Path] = ()) -> list[str]:
    """The names of all datasets that have a card.

    Args:
        cards: folders of the caller's own cards, in addition to the built-in ones.

    Returns:
        The names, in alphabetical order.

    Raises:
        UsageError: cards that cannot be read: every problem of every card.
    """
    return list(load_cards("datasets", cards))
