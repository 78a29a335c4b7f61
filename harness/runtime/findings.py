"""Findings of a check: errors and warnings, each with its file and line. All are collected before any is reported."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from harness.runtime.errors import UsageError, listed
from harness.runtime.python37 import Literal

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["error", "warning", "information"]


@dataclass(frozen=True)
class Finding:
    """One result of a check. An error makes what was checked unusable or wrong; a warning should be read."""

    severity: Severity
    kind: str
    """A word that programs can test: `order`, `missing`, `line-ends`, `weights`; empty where a check has no kinds."""
    where: str
    """The file, row or part concerned."""
    what: str
    fix: str = ""
    """How to repair it."""
    line: int | None = None
    """The first line concerned, from 1; for an absent line, where it belongs. None: the whole file."""
    mechanical: bool = False
    """Whether a command repairs it (`harness submission check --fix`)."""
    count: int = 1
    lines: tuple[int, ...] = ()
    """The first twenty lines concerned."""

    def json(self) -> Mapping[str, object]:
        """Plain values for JSON."""
        facts = ("severity", "kind", "where", "line", "what", "fix", "mechanical", "count")
        return {**{name: getattr(self, name) for name in facts}, "lines": list(self.lines)}

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.fix})" if self.fix else "")

    def text(self) -> str:
        """Severity, place, lines and repair, for a report on one file."""
        place = self.where + (f" line {self.line}" if self.line else "")
        more = f" (lines {listed(self.lines, 8)}{f', {self.count} in all' if self.count > 8 else ''})" if self.count > 1 else ""
        fix = f"\n         fix: {self.fix}" if self.fix else ""
        fix += " (--fix does it)" if self.mechanical else ""
        return f"{self.severity:8} {place}: {self.what}{more if self.lines else ''}{fix}"


def advice_once(findings: Sequence[Finding], given: str = "") -> list[Finding]:
    """The findings, each repair given once: not where an earlier finding or the text `given` has it."""
    seen = {""}
    shown = []
    for finding in findings:
        fix = finding.fix.replace(given, "").strip().rstrip(".") if given else finding.fix
        shown.append(replace(finding, fix="" if fix in seen else fix))
        seen.add(fix)
    return shown


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that make what was checked unusable."""
    return [f for f in findings if f.severity == "error"]


def warnings(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that should be read but are not errors."""
    return [f for f in findings if f.severity == "warning"]


class BrokenTree(UsageError):
    """A dataset whose files cannot be used; carries every problem, and the pairs that could be listed nevertheless."""

    def __init__(
        self, what: str, problems: Sequence[Finding], frame: pd.DataFrame | None = None, options: Sequence[str] = ()
    ) -> None:
        check = shlex.join(["harness", "data", "check", what, *options])
        lines = [f"{what} cannot be used as it is; `{check}` shows more", *map(str, advice_once(errors(problems)))]
        super().__init__("\n".join(lines))
        self.problems = list(problems)
        self.frame = frame


@dataclass
class Findings:
    """Collects problems and remarks while a dataset's folder is read."""

    problems: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Facts to show: which labels were used, what was left out."""
    label_files: list[str] = field(default_factory=list)

    def error(self, what: str, where: object, fix: str = "") -> None:
        """Add a problem that makes the dataset unusable."""
        self.problems.append(Finding("error", "", str(where), what, fix))

    def warning(self, what: str, where: object, fix: str = "") -> None:
        """Add a problem that does not make the dataset unusable."""
        self.problems.append(Finding("warning", "", str(where), what, fix))

    def information(self, what: str, where: object, fix: str = "") -> None:
        """Add a fact that needs no action."""
        self.problems.append(Finding("information", "", str(where), what, fix))

    @property
    def failed(self) -> bool:
        """Whether any problem is an error."""
        return bool(errors(self.problems))

    def finish(self, dataset: str, how_to_get: str, frame: pd.DataFrame | None) -> pd.DataFrame:
        """The table, with the findings in its `attrs` (`notes`, `problems`, `label_files`); raises BrokenTree on errors."""
        if self.failed or frame is None or frame.empty:
            if not self.failed:
                self.error("no file of this dataset was found", dataset, how_to_get)
            raise BrokenTree(dataset, self.problems, frame)
        frame.attrs |= {"notes": list(self.notes), "problems": list(self.problems), "label_files": list(self.label_files)}
        return frame


def counted(items: Sequence[object], noun: str, of: int | None = None, limit: int = 20) -> str:
    """`3 of 25 images: a, b, c`; the first `limit` are named."""
    total = f" of {of:,}" if of is not None else ""
    return f"{len(items):,}{total} {noun}: {listed(items, limit)}"
