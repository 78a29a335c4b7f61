"""The names of models and datasets that there are, from their cards alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.cards.loading import load_cards


def list_models(cards: Sequence[str | Path] = ()) -> list[str]:
    """The names of all model cards, in alphabetical order; `cards`: folders of one's own.

    Raises UsageError naming every problem of every card.
    """
    return list(load_cards("models", cards))


def list_datasets(cards: Sequence[str | Path] = ()) -> list[str]:
    """The names of all dataset cards, in alphabetical order; `cards`: folders of one's own.

    Raises UsageError naming every problem of every card.
    """
    return list(load_cards("datasets", cards))
