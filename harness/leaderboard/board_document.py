"""What a leaderboard holds: boards of groups of rows, and figures that others reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from harness.results.marks import LEGEND, UNRANKED
from harness.runtime.text import command
from harness.statistics.leave_one_out import LeaveOneOut


class Begun(NamedTuple):
    """A run that has begun and left no record yet."""

    model: str
    dataset: str
    protocol: str
    seed: int
    key: str


FIGURES = ("srcc", "plcc", "plcc_fitted", "krcc", "rmse", "main", "srcc_within", "score_2afc")


@dataclass(frozen=True)
class Row:
    """One line of a table. A figure that does not exist is None, and blank wherever it is shown."""

    kind: Literal["measured", "seeds", "control"]
    """seeds: the mean of several records that differ in their seed alone; control: computed from the labels' table alone."""
    name: str
    dataset: str
    protocol: str
    figures: Mapping[str, float | None]
    ci: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Smallest and largest value over the seeds or splits behind a row."""
    rank: int | None = None
    title: str = ""
    n: int | None = None
    references: int | None = None
    pairs_per_second: float | None = None
    device: str = ""
    seeds: tuple[int, ...] = ()
    repeats: int = 0
    """Splits that the figures are a median over; 0: one split."""
    splits: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By figure, its value on each split's test part, where every split has one."""
    test_share: float | None = None
    """Over splits: references that are tested by references that are trained on."""
    used_references: int | None = None
    """Over splits: references that a split trains on or tests; None where that is not known."""
    whole: Mapping[str, float | None] = field(default_factory=dict)
    """Over splits, of a model that is not trained: its figures over all images."""
    whole_ci: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    """The intervals of `whole`."""
    marks: tuple[str, ...] = ()
    left_out: LeaveOneOut | None = None
    """Figures without each reference."""
    images: tuple[str | None, ...] = (None, None, None)
    """The hashes of table, split and images: rows are compared where all are the same."""
    best: tuple[str, ...] = ()
    """Figures in which no other row is shown to be better."""
    p_best: float | None = None
    """Of no row being better in the group's headline figure, adjusted for all rows; None for the best itself."""
    trained_on: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """What the user passed beyond the card: `recipe.epochs=3`, `weights=released`."""
    members: tuple[str, ...] = ()
    """seeds only: the keys of the records behind the mean."""
    key: str = ""
    folder: str = ""
    """The record's folder under the boards' `records/`, or empty where it lies elsewhere."""
    recorded_command: str = ""
    """As the record has it; `command` is for showing."""
    created: str = ""

    @property
    def ranked(self) -> bool:
        """Whether the row can be compared with the others of its group."""
        return self.kind != "control" and self.figures.get("main") is not None and not UNRANKED.intersection(self.marks)

    @property
    def command(self) -> str:
        """The command that makes the record again, quoted for a shell; empty where none is known."""
        return command(self.recorded_command)

    def without(self, figure: str) -> tuple[float, ...] | None:
        """`figure` with each reference left out."""
        known = self.left_out.figures if self.left_out else {}
        if figure == "main" and "srcc" in known and "plcc" in known:
            return tuple(a + b for a, b in zip(known["srcc"], known["plcc"], strict=True))
        return known.get(figure)


@dataclass(frozen=True)
class Reported:
    """A number that somebody else published, from a model's card."""

    name: str
    dataset: str
    protocol: str
    figures: Mapping[str, float | None]
    plcc_kind: str
    variant: str
    source: str
    status: str
    """`read` in its source, or `unverified`."""
    note: str


@dataclass(frozen=True)
class Group:
    """The rows of one protocol, best first."""

    dataset: str
    protocol: str
    description: str
    note: str
    rows: tuple[Row, ...]
    confidence: float = 0.95
    headline: str = "main"
    """The figure that rows are ranked by: main, or score_2afc where people chose between pairs."""


@dataclass(frozen=True)
class Board:
    """One dataset's tables."""

    dataset: str
    title: str
    note: str
    label: str
    groups: tuple[Group, ...]
    reported: tuple[Reported, ...]

    @property
    def marks(self) -> dict[str, str]:
        """The marks that occur, with what they mean."""
        used = {mark for group in self.groups for row in group.rows for mark in row.marks}
        return {mark: text for mark, text in LEGEND.items() if mark in used}
