"""What is found wrong, or worth knowing, while a dataset is read and checked: everything at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from harness.runtime.errors import BadRequest, listed

if TYPE_CHECKING:
    import pandas as pd

    from harness.cards.schema import DatasetCard


@dataclass(frozen=True)
class Problem:
    """One line of a report. An error makes scoring impossible or wrong; a warning is what a reader should know."""

    severity: Literal["error", "warning"]
    what: str
    where: str
    mend: str = ""

    def json(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.mend})" if self.mend else "")


class BrokenTree(BadRequest):
    """A dataset that cannot be used as it lies there; carries every problem, and what could be listed all the same."""

    def __init__(self, what: str, problems: Sequence[Problem], frame: pd.DataFrame | None = None) -> None:
        errors = [p for p in problems if p.severity == "error"]
        super().__init__(
            "\n".join([f"{what} cannot be used as it is; `harness data check {what}` tells more", *map(str, errors)])
        )
        self.problems = list(problems)
        self.frame = frame


@dataclass
class Findings:
    """Collects problems and remarks while a tree is read."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Facts for people: which labels were taken, what was left out."""
    label_files: list[str] = field(default_factory=list)

    def error(self, what: str, where: object, mend: str = "") -> None:
        self.problems.append(Problem("error", what, str(where), mend))

    def warning(self, what: str, where: object, mend: str = "") -> None:
        self.problems.append(Problem("warning", what, str(where), mend))

    @property
    def failed(self) -> bool:
        return any(p.severity == "error" for p in self.problems)

    def finish(self, card: DatasetCard, frame: pd.DataFrame | None) -> pd.DataFrame:
        """The table with what was found in its `attrs` (`notes`, `problems`, `label_files`); raises BrokenTree on errors."""
        if self.failed or frame is None or frame.empty:
            if not self.failed:
                self.error("nothing of this dataset was found", card.name, card.get.strip())
            raise BrokenTree(card.name, self.problems, frame)
        frame.attrs |= {"notes": list(self.notes), "problems": list(self.problems), "label_files": list(self.label_files)}
        return frame


def counted(items: Sequence[object], noun: str, of: int | None = None, limit: int = 20) -> str:
    """`3 of 25 pictures: a, b, c`; the first `limit` are named."""
    total = f" of {of:,}" if of is not None else ""
    return f"{len(items):,}{total} {noun}: {listed(items, limit)}"
