"""Comparing a run's figures with published ones: the difference, and why they may differ.

Published figures are in the models' cards (`[[published]]`). They are never averaged or ranked with ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.cards.schema import Published
from harness.results.record import Record, RepeatsRecord
from harness.results.tables import number
from harness.runtime.errors import listed
from harness.runtime.terminal_columns import text_table
from harness.runtime.text import one_line

_FIGURES = {"srcc": "SRCC", "plcc": "PLCC", "plcc_fitted": "PLCC fitted", "krcc": "KRCC", "main": "main"}
_FULL = "full"


@dataclass(frozen=True)
class PublishedFigure:
    """One figure, ours and theirs."""

    figure: str
    """srcc, plcc, plcc_fitted, krcc or main: our figure that theirs is compared with."""
    ours: float
    theirs: float
    interval: tuple[float, float] | None
    """Ours; None where there is none."""

    @property
    def difference(self) -> float:
        """Ours minus theirs."""
        return self.ours - self.theirs

    @property
    def inside(self) -> bool | None:
        """Whether theirs is within our interval; None where there is none."""
        return None if self.interval is None else self.interval[0] <= self.theirs <= self.interval[1]

    @property
    def equal(self) -> bool:
        """Whether ours equals theirs in every published digit."""
        digits = len(repr(self.theirs).partition(".")[2])
        return abs(self.difference) <= 0.5 * 10.0**-digits * (1 + 1e-9)


@dataclass(frozen=True)
class PublishedComparison:
    """A run's figures next to one published entry for its dataset."""

    model: str
    dataset: str
    protocol: str
    """Ours."""
    entry: Published
    figures: tuple[PublishedFigure, ...]
    reasons: tuple[str, ...]
    """Why ours and theirs may differ; empty where all digits are equal."""

    @property
    def source(self) -> str:
        """The source of theirs."""
        return source_of(self.entry)

    def facts(self) -> dict[str, object]:
        """Plain values, for JSON."""
        figures = [
            {"figure": f.figure, "ours": f.ours, "theirs": f.theirs, "difference": f.difference, "inside_interval": f.inside}
            for f in self.figures
        ]
        about = {"source": self.source, "status": self.entry.status, "protocol": self.entry.protocol}
        return {**about, "definition": self.entry.definition, "figures": figures, "reasons": list(self.reasons)}


def source_of(entry: Published) -> str:
    """The source of a published figure, with its commit where it is known."""
    return f"{entry.source} at {entry.commit}" if entry.commit else entry.source


def compare_published(record: Record) -> tuple[PublishedComparison, ...]:
    """Compare a record's figures with every published figure that its model's card has for its dataset.

    Args:
        record: a finished run, or repeated splits, whose figures are medians; a published figure over all images is
            compared with ours over all images, where the record has it.

    Returns:
        One comparison for each entry of the card with a figure that the record has too, in the card's order; empty where labels
        are withheld.
    """
    if record.test is None:
        return ()
    found = []
    for entry in (entry for entry in record.cards.model.published if entry.dataset == record.dataset):
        ours = record.test
        if isinstance(record, RepeatsRecord) and entry.protocol == _FULL and record.all_images:
            ours = record.all_images
        plcc = "plcc_fitted" if entry.plcc_kind in ("logistic", "polynomial") else "plcc"
        theirs = {"srcc": entry.srcc, plcc: entry.plcc, "krcc": entry.krcc, "main": entry.main}
        figures = tuple(
            PublishedFigure(name, value, published, ours.ci.get(name))
            for name, published in theirs.items()
            if published is not None and (value := getattr(ours, name)) is not None
        )
        if figures:
            reasons = () if all(f.equal for f in figures) else _reasons(record, entry)
            found.append(PublishedComparison(record.model, record.dataset, record.protocol, entry, figures, reasons))
    return tuple(found)


def _reasons(record: Record, entry: Published) -> tuple[str, ...]:
    """Why a record's figures may differ from a published entry's, the most important reason first."""
    settings, weights = record.request.get("settings"), record.request.get("weights")
    changed = listed([f"{k}={v}" for k, v in settings.items()]) if isinstance(settings, Mapping) else ""
    over = isinstance(record, RepeatsRecord)
    protocol = record.cards.dataset.protocols.get(record.protocol)
    whole = record.protocol == _FULL or (protocol is not None and protocol.split == _FULL and not protocol.parts)
    full, elsewhere = entry.protocol == _FULL, entry.protocol not in ("", _FULL, record.protocol)
    scored_once = isinstance(record, RepeatsRecord) and record.all_images
    fit = entry.plcc_kind if entry.plcc is not None else ""
    holds: Mapping[str, object] = {
        "theirs is quoted from memory, not checked in its source": entry.status == "unverified",
        "what exactly was computed there is not stated": not entry.definition and not entry.variant,
        f"theirs is of {entry.variant}": entry.variant,
        "ours is on a part of the pairs or splits (--limit, --splits)": record.partial,
        "the dataset lacks pairs or references here": record.incomplete,
        "ours is a median over splits, theirs is over all images": full and over and not scored_once,
        "ours is on the test part, theirs is over all images": full and not over and not whole,
        f"other images or another training: ours by protocol {record.protocol}, theirs: {entry.protocol}": elsewhere,
        "their protocol is not known": not entry.protocol,
        f"ours has other settings than its card: {changed}": settings,
        f"ours has other weights: {weights}": isinstance(weights, str),
        "ours keeps random weights": record.random_weights,
        "it is not known whether their PLCC is after a fit": fit == "unknown",
        f"their PLCC may be after another fit ({fit}) than ours": fit in ("logistic", "polynomial"),
        entry.note: entry.note,
    }
    unknown = "no difference in definition is known: the labels' version, the decoding of images or the weights may differ"
    return tuple(reason for reason, true in holds.items() if true) or (unknown,)


def published_table(comparisons: Iterable[PublishedComparison], width: int | None = None) -> str:
    """The comparisons as a table for a terminal, with the reasons for differences below it; empty without comparisons.

    `width`: characters in a line of the terminal; None: all columns.
    """
    comparisons = list(comparisons)
    if not comparisons:
        return ""
    rows: list[list[str]] = []
    notes: dict[str, list[str]] = {}
    for i, one in enumerate(comparisons, start=1):
        for figure in one.figures:
            inside = "" if figure.inside is None else "yes" if figure.inside else "no"
            difference = "0" if figure.equal else signed(figure.difference)
            ours, theirs = number(figure.ours, 4), number(figure.theirs, 4)
            rows.append([str(i), one.model, one.dataset, _FIGURES[figure.figure], ours, theirs, difference, inside])
        because = f"; may differ because: {'; '.join(one.reasons)}" if one.reasons else "; ours equals theirs in every digit"
        what = f" ({one.entry.definition})" if one.entry.definition else ""
        notes.setdefault(f"{one.source}{what}{because}", []).append(str(i))
    headers = ("", "model", "dataset", "figure", "ours", "published", "difference", "in our interval")
    align = ("right", "left", "left", "left", "right", "right", "right", "left")
    drops = ("in our interval", "difference")
    table = text_table(headers, rows, align, width=width, drops=drops, shortens=("model", "dataset")).text
    lines = [one_line(f"{', '.join(numbers)}: {text}") for text, numbers in notes.items()]
    return "\n".join(["published figures next to ours", "", table, "", *lines])


def signed(value: float) -> str:
    """A difference with its sign: +.012, -.003."""
    return ("+" if value >= 0 else "") + number(value, 4)
