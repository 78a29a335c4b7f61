"""Whether a dataset is complete: its pairs and references, counted and compared with its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from harness.cards.schema import DatasetCard

if TYPE_CHECKING:
    import pandas as pd


class Count(NamedTuple):
    """An expected and a found number."""

    what: str
    expected: int | None
    found: int

    @property
    def short(self) -> bool:
        """Whether some are missing."""
        return self.expected is not None and self.found < self.expected


def counts(card: DatasetCard, frame: pd.DataFrame, protocol: str | None = None) -> list[Count]:
    """Pairs and references that a protocol needs (None: all that the card counts): the card's numbers and the found ones.

    The card's own numbers are those of its default protocol's parts; the layout has those of further parts. A part without any
    row is not counted: a protocol that needs it cannot be used.
    """
    about = card.protocols[protocol] if protocol is not None else None
    needed = {*about.parts, *about.roles} if about is not None else set()
    usual = card.protocols[card.default_protocol].parts
    found: list[Count] = []
    if not needed or not usual or needed & set(usual):
        rows = frame[frame["part"].isin(usual)] if usual else frame
        of = f" of part {', '.join(usual)}" if usual else ""
        found.append(Count("pairs" + of, card.pairs or None, len(rows)))
        found.append(Count("references" + of, card.references or None, int(rows["reference_id"].nunique())))
    parts = card.layout.get("parts")
    for name, part in parts.items() if isinstance(parts, Mapping) else ():
        here = int((frame["part"] == name).sum())
        expected = part.get("pairs") if isinstance(part, Mapping) else None
        if here and expected and name not in usual and (not needed or name in needed):
            found.append(Count(f"pairs of part {name}", int(expected), here))
    return found


def missing(card: DatasetCard, frame: pd.DataFrame, protocol: str) -> str:
    """`200 of 3,000 pairs, 2 of 25 references`: what a protocol has of what it needs; empty where the dataset is complete."""
    return ", ".join(f"{c.found:,} of {c.expected:,} {c.what}" for c in counts(card, frame, protocol) if c.short)
