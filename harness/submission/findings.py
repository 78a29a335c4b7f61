"""What is found in a submission: everything at once, each with its place, its weight and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.runtime.errors import listed

Severity = Literal["error", "warning", "information"]


@dataclass(frozen=True)
class Finding:
    """One thing found. An error makes a server refuse or misread the submission."""

    severity: Severity
    kind: str
    """A word for programs: `order`, `missing`, `line-ends`."""
    where: str
    """The file, as the zip calls it."""
    what: str
    mend: str = ""
    line: int | None = None
    """The first line concerned, from 1; for an absent line, where it belongs. None: the whole file."""
    mechanical: bool = False
    """Whether `--fix` mends it."""
    count: int = 1
    lines: tuple[int, ...] = ()
    """The first twenty lines concerned."""

    def json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        facts = ("severity", "kind", "where", "line", "what", "mend", "mechanical", "count")
        return {**{name: getattr(self, name) for name in facts}, "lines": list(self.lines)}

    def __str__(self) -> str:
        place = self.where + (f" line {self.line}" if self.line else "")
        more = f" (lines {listed(self.lines, 8)}{f', {self.count} in all' if self.count > 8 else ''})" if self.count > 1 else ""
        mend = f"\n         mend: {self.mend}" if self.mend else ""
        return f"{self.severity:8} {place}: {self.what}{more if self.lines else ''}{mend}" + (
            " (--fix does it)" if self.mechanical else ""
        )


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """Those that make the submission defective."""
    return [f for f in findings if f.severity == "error"]


def warnings(findings: Sequence[Finding]) -> list[Finding]:
    """Those that a person should look at."""
    return [f for f in findings if f.severity == "warning"]
