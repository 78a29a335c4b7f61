"""Decoding a submitted text file into lines, with findings about encoding and line ends."""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass, field

from harness.runtime.findings import Finding, Severity

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


@dataclass
class Tally:
    """Findings about the lines of one file, grouped by kind."""

    where: str
    found: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, kind: str, line: int, detail: str = "") -> None:
        """Add one occurrence of a kind of defect, and its line."""
        self.found.setdefault(kind, []).append((line, detail))

    def findings(self, kinds: dict[str, Kind]) -> list[Finding]:
        """One finding a kind, in the order of `kinds`, each with its first line and how often it occurs."""
        result = []
        for name, kind in kinds.items():
            places = sorted(self.found.get(name, ()))
            if not places:
                continue
            line, detail = places[0]
            what, lines = kind.what.replace("{}", detail), tuple(dict.fromkeys(number for number, _ in places[:20]))
            result.append(Finding(kind.severity, name, self.where, what, kind.fix, line, kind.mechanical, len(places), lines))
        return result


@dataclass(frozen=True)
class Kind:
    """The message and the fix of a kind of defect; `{}` in `what` is the first line's detail."""

    severity: Severity
    what: str
    fix: str
    mechanical: bool = True


def decoded(data: bytes, where: str) -> tuple[list[str], list[Finding]]:
    """The lines of a file, without their ends, for any encoding and line ends.

    A line ends at a newline, with or without a carriage return before it, or at a lone carriage return; an empty last line
    does not count.
    """
    found: list[Finding] = []
    text = _text(data, where, found)
    returns, pairs = text.count("\r"), text.count("\r\n")
    if returns:
        ends = [end for end, many in (("CRLF", pairs), ("CR", returns - pairs)) if many]
        first = text[: text.index("\r")].count("\n") + 1
        what = f"line ends are {' and '.join(ends)} (Windows, old Macs); they must be \\n"
        found.append(Finding("error", "line-ends", where, what, "save it with Unix line ends", first, True, returns))
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text and not text.endswith("\n"):
        number = text.count("\n") + 1
        what = "the last line has no line end; some programs then lose its last digit"
        found.append(Finding("warning", "last-line", where, what, "end it with a newline", number, True))
    lines = text.split("\n")
    return (lines[:-1] if not lines[-1] else lines), found


def _text(data: bytes, where: str, found: list[Finding]) -> str:
    fix = "save it as plain ASCII or UTF-8 without a byte order mark"
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            text = data.decode(encoding, errors="replace")
            readable = "\N{REPLACEMENT CHARACTER}" not in text
            found.append(Finding("error", "encoding", where, "written in UTF-16, not in plain text", fix, 1, readable))
            return text
    if data.startswith(codecs.BOM_UTF8):
        found.append(Finding("error", "byte-order-mark", where, "begins with a byte order mark", fix, 1, True))
        data = data[len(codecs.BOM_UTF8) :]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        found.append(Finding("error", "encoding", where, f"byte {error.start} is not UTF-8", fix, line))
        text = data.decode("latin-1")
    control = _CONTROL.search(text)
    if control:
        what = f"a control character (code {ord(control[0])})"
        found.append(Finding("error", "control", where, what, "take it out", text[: control.start()].count("\n") + 1))
    return text


def ascii_line(text: str) -> str:
    """`text` as one line of ASCII: accents are dropped, other characters become a question mark, blanks are single."""
    for dash in "\u2010\u2011\u2012\u2013\u2014\u2212":
        text = text.replace(dash, "-")
    for quote in "\u2018\u2019":
        text = text.replace(quote, "'")
    for quote in "\u201c\u201d":
        text = text.replace(quote, '"')
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).encode("ascii", "replace").decode("ascii")
    return " ".join("".join(c if c.isprintable() else " " for c in plain).split())
