"""The data of a leaderboard: boards (datasets), groups (protocols), rows (models), and published figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from harness.results.marks import LEGEND, UNRANKED
from harness.runtime.text import command
from harness.statistics.leave_one_out import LeaveOneOut


class Begun(NamedTuple):
    """An unfinished run, which has no record yet."""

    model: str
    dataset: str
    protocol: str
    seed: int
    key: str


FIGURES = ("srcc", "plcc", "plcc_fitted", "krcc", "rmse", "main", "srcc_within", "score_2afc")


@dataclass(frozen=True)
class Row:
    """One line of a table. An absent figure is None, and shown as a blank."""

    kind: Literal["measured", "seeds", "control"]
    """seeds: the mean of several records that differ only in their seed; control: computed from the table of labels only."""
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
    """By figure, its values on the splits' test parts, where every split has one."""
    test_share: float | None = None
    """Over splits: the number of test references divided by the number of training references."""
    used_references: int | None = None
    """Over splits: the number of references in a split's training or test part; None where it is not known."""
    whole: Mapping[str, float | None] = field(default_factory=dict)
    """Over splits, for a model without training: its figures over all images."""
    whole_ci: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    """The intervals of `whole`."""
    marks: tuple[str, ...] = ()
    left_out: LeaveOneOut | None = None
    """Figures without each reference."""
    images: tuple[str | None, ...] = (None, None, None)
    """The hashes of table, split and images: rows are compared where all are equal."""
    best: tuple[str, ...] = ()
    """Figures for which the row is in the group of the best."""
    p_best: float | None = None
    """P-value of "no row is better" in the group's main figure, adjusted for all rows; None for the best itself."""
    trained_on: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """Settings that differ from the card: `recipe.epochs=3`, `weights=released`."""
    members: tuple[str, ...] = ()
    """seeds only: the keys of the records behind the mean."""
    key: str = ""
    folder: str = ""
    """The record's folder under the boards' `records/`, or empty where it is elsewhere."""
    recorded_command: str = ""
    """As in the record; `command` is the form that is shown."""
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
    """A published figure, from a model's card."""

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
    """The figure by which rows are ranked: main, or score_2afc for 2AFC datasets."""


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
        """The marks that occur, with their meanings."""
        used = {mark for group in self.groups for row in group.rows for mark in row.marks}
        return {mark: text for mark, text in LEGEND.items() if mark in used}
