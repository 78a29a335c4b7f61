"""The marks that tables and reports put next to a result (seen, partial, incomplete, ...), and their meanings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.results.record import Record

NOT_COMPARED = "not compared"
CONTROLS = {"cell": "oracle: knows kind and level", "level": "level alone"}
SEEN = "seen"
CONTAMINATED = "contaminated"
RANDOM = "random weights"
PARTIAL = "partial"
INCOMPLETE = "incomplete"
FEW = "few references"
UNFINISHED = "unfinished"
NO_LABELS = "labels withheld"
OTHER_TABLE = "other table"
OTHER_SPLIT = "other split"
OTHER_IMAGES = "other images"
ONE_SPLIT = "one split"
NOT_REBUILDABLE = "not rebuildable"
NO_FIT = "no fit"
IDENTICAL = "identical pairs"
LEGEND = {
    SEEN: "its weights were trained on this dataset: not a test, and not ranked",
    CONTAMINATED: "its weights were trained on data that share images or labels with this dataset: not ranked",
    RANDOM: "some parts keep random weights",
    PARTIAL: "only some of the pairs or splits were scored: not ranked, never averaged",
    INCOMPLETE: "the dataset lacked pairs or references where this was made: not ranked",
    FEW: "fewer than ten references: intervals are wide and rough",
    UNFINISHED: "the run has not finished: no figures yet",
    NO_LABELS: "labels of the test part are not public, so there are no figures here",
    OTHER_TABLE: "measured on other pairs or labels than the rest of this table: not ranked",
    OTHER_SPLIT: "tested on other images than the rest of this table: not ranked",
    OTHER_IMAGES: "scored on images of other content than the rest of this table, under the same names: not ranked",
    ONE_SPLIT: "tested on one of the protocol's splits, where the others are medians over all of them: not ranked",
    NOT_REBUILDABLE: "the model was an object of a Python session: it cannot be built from its record, and is not ranked",
    NO_FIT: "no curve could be fitted, so PLCC fitted and RMSE are blank",
    IDENTICAL: "pairs of identical images were given the card's ceiling instead of infinity",
    NOT_COMPARED: "not tested against the best row: one of the two has no figures without each reference (an older record), or "
    "they were tested on other splits (another seed)",
}
UNRANKED = frozenset({SEEN, CONTAMINATED, PARTIAL, INCOMPLETE, UNFINISHED, NO_LABELS, NOT_REBUILDABLE})
UNRANKED |= {OTHER_TABLE, OTHER_SPLIT, OTHER_IMAGES, ONE_SPLIT}
"""Marks of results that cannot be compared with the others of their table."""


def marks_of(record: Record, differs: str | None = None) -> tuple[str, ...]:
    """The marks of a record. `differs`: the one for having been measured on something else than its table."""
    figures = record.test
    holds = {
        SEEN: record.seen,
        CONTAMINATED: record.contaminated_by,
        RANDOM: record.random_weights,
        **{mark: mark == differs for mark in (PARTIAL, OTHER_TABLE, OTHER_SPLIT, OTHER_IMAGES, ONE_SPLIT)},
        NOT_REBUILDABLE: not record.rebuildable,
        INCOMPLETE: record.incomplete,
        NO_LABELS: figures is None,
        FEW: figures and figures.few_references,
        NO_FIT: figures and figures.fit_problem,
        IDENTICAL: record.identical_pairs,
    }
    return tuple(mark for mark, true in holds.items() if true)


def sentences(*texts: str) -> str:
    """Texts of cards, which begin and end as they like, as sentences."""
    return " ".join(f"{text[:1].upper()}{text[1:]}".rstrip(".") + "." for text in map(str.strip, texts) if text)
