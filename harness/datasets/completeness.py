"""Whether a dataset is whole where it lies: its card says how many pairs and references there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from harness.cards.schema import DatasetCard

if TYPE_CHECKING:
    import pandas as pd


class Count(NamedTuple):
    """What should be there, and what is."""

    what: str
    expected: int | None
    found: int

    @property
    def short(self) -> bool:
        """Whether some are missing."""
        return self.expected is not None and self.found < self.expected


def counts(card: DatasetCard, frame: pd.DataFrame, protocol: str | None = None) -> list[Count]:
    """Pairs and references that a protocol needs (None: all that the card counts), as the card gives them and as found.

    The card's own numbers are those of its default protocol's parts; further parts have theirs in the layout. A part that is
    absent altogether is not counted: a protocol that needs it cannot be used.
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
    """`200 of 3,000 pairs, 2 of 25 references`: what the protocol lacks; empty where the dataset is whole."""
    return ", ".join(f"{c.found:,} of {c.expected:,} {c.what}" for c in counts(card, frame, protocol) if c.short)
