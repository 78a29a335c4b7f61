"""The readme of a submission: lines `label : value`, written from facts, and read strictly.

runtime per image [s] : 0.12
CPU[1] / GPU[0] : 0
Extra Data [1] / No Extra Data [0] : 1
Other description : AHIQ (ViT-B/8)
Full-Reference [1] / Non-Reference [0] : 1
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from harness.cards.challenge import ReadmeField
from harness.challenges.text import Kind, Tally, ascii_line
from harness.runtime.findings import Finding

_SEPARATOR = " : "
_LONGEST = 1000
_KINDS = {
    "readme-blank": Kind("error", "a blank line", "remove it"),
    "readme-missing": Kind("error", "no line {}", "add it", mechanical=False),
    "readme-twice": Kind("error", "{} again, with the same value", "keep one of the lines"),
    "readme-two-values": Kind("error", "{} again, with another value", "keep the right one", mechanical=False),
    "readme-extra": Kind("error", "{} is not one of the required lines", "remove it", mechanical=False),
    "readme-wrapped": Kind("error", "the value of {} continues on a second line", "write it on one line"),
    "readme-order": Kind("error", "{} is out of order", "put the lines in the required order"),
    "readme-label": Kind("error", "{}", "write labels and ' : ' exactly as required"),
    "readme-value": Kind("error", "{}", "give the required value", mechanical=False),
    "readme-unit": Kind("error", "{}", "give the number only, without a unit"),
    "readme-empty": Kind("warning", "{} is empty", "describe the method in a few words", mechanical=False),
    "readme-ascii": Kind("warning", "{} holds characters outside ASCII, which some programs refuse", "write it in ASCII"),
    "readme-contradiction": Kind("error", "{}", "is this the right challenge?", mechanical=False),
}
_EXPECTED = {"cpu": "0 or 1", "extra-data": "0 or 1", "full-reference": "1", "runtime": "seconds, a positive number"}
_EXPECTED["operations"] = "GFLOP per image, a number"


@dataclass(frozen=True)
class Facts:
    """The facts in a readme."""

    runtime: float
    """Seconds per image."""
    cpu: bool
    extra_data: bool
    description: str
    operations: float = 0.0
    """GFLOP per image; used only where the readme asks for it."""


@dataclass(frozen=True)
class Reading:
    """The result of reading a readme: values by label, all findings, and the readme with all mechanical defects fixed.

    Lines that cannot be fixed are at the fixed readme's end.
    """

    values: Mapping[str, str]
    findings: tuple[Finding, ...]
    fixed: str


def written(facts: Facts, fields: Sequence[ReadmeField]) -> str:
    """The readme's text."""
    values = {
        "runtime": seconds(facts.runtime),
        "operations": seconds(facts.operations),
        "cpu": str(int(facts.cpu)),
        "extra-data": str(int(facts.extra_data)),
        "description": ascii_line(facts.description)[:_LONGEST],
        "full-reference": "1",
    }
    return "".join(f"{f.label}{_SEPARATOR}{values.get(f.fact, f.value)}\n" for f in fields)


def costs(values: Mapping[str, str], fields: Sequence[ReadmeField]) -> dict[str, float]:
    """Runtime and operations, where a readme's values give them."""
    texts = [(field.fact, values.get(field.label, "")) for field in fields if field.fact in ("runtime", "operations")]
    return {fact: float(text) for fact, text in texts if _is_number(text)}


def seconds(value: float) -> str:
    """Three digits, never with an exponent: 0.12, 0.0000321, 13.4."""
    return f"{Decimal(f'{value:.3g}'):f}"


def read(lines: Sequence[str], fields: Sequence[ReadmeField], where: str) -> Reading:
    """The values in the lines, and all defects. Lines are counted from 1."""
    tally = Tally(where)
    values: dict[str, str] = {}
    order: list[int] = []
    rest: list[str] = []
    last: ReadmeField | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            tally.add("readme-blank", number)
            continue
        place, value = _matched(line, fields)
        if place is None:
            if last is not None and last.fact == "description":
                tally.add("readme-wrapped", number, last.label)
                values[last.label] = f"{values[last.label]} {line.strip()}".strip()
            else:
                tally.add("readme-extra", number, repr(line.strip()[:60]))
                rest.append(line)
            continue
        field = fields[place]
        if field.label in values:
            same = values[field.label] == value
            tally.add("readme-twice" if same else "readme-two-values", number, field.label)
            rest += [] if same else [line]
            continue
        if order and place < max(order):
            tally.add("readme-order", number, field.label)
        order.append(place)
        if line != f"{field.label}{_SEPARATOR}{value}" and not (not value and line == f"{field.label}{_SEPARATOR}".rstrip()):
            tally.add("readme-label", number, f"{line.strip()[:60]!r} is not exactly '{field.label}{_SEPARATOR}...'")
        values[field.label] = _checked(field, value, number, tally)
        last = field
    for place, label in enumerate([field.label for field in fields], 1):
        if label not in values:
            tally.add("readme-missing", place, repr(label))
    kept = [f"{f.label}{_SEPARATOR}{values[f.label]}" for f in fields if f.label in values]
    return Reading(values, tuple(tally.findings(_KINDS)), "".join(f"{line}\n" for line in [*kept, *rest]))


def _matched(line: str, fields: Sequence[ReadmeField]) -> tuple[int | None, str]:
    """The field of a line, in any letter case and spacing, and its value without surrounding blanks."""
    for place, field in enumerate(fields):
        if line.startswith(f"{field.label}{_SEPARATOR}"):
            return place, line[len(field.label) + len(_SEPARATOR) :].strip()
    squeezed = _squeezed(line)
    for place, field in enumerate(fields):
        label = _squeezed(field.label)
        if squeezed.startswith(label) and re.match(r"[:=]|$", squeezed[len(label) :]):
            value = re.split(r"[:=]", line, maxsplit=1)[1:] or [""]
            return place, value[0].strip()
    return None, ""


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text).lower()


def _checked(field: ReadmeField, value: str, number: int, tally: Tally) -> str:
    """The value in its correct form; its defects go to the tally."""
    label = field.label
    if field.fact == "description":
        if not value:
            tally.add("readme-empty", number, label)
        elif value != ascii_line(value) and not value.isascii():
            tally.add("readme-ascii", number, label)
            return ascii_line(value)
        return value
    if field.fact == "fixed":
        if value != field.value:
            tally.add("readme-value", number, f"{label} is {value!r}, expected {field.value!r}")
        return value
    bare = value.strip("[]() ")
    if field.fact == "runtime":
        bare = re.sub(r"\s*(s|sec|secs|seconds?)\.?$", "", bare, flags=re.IGNORECASE)
        good = _is_number(bare) and math.isfinite(float(bare)) and float(bare) > 0
    elif field.fact == "operations":
        bare = re.sub(r"\s*g(flops?|macs?)?$", "", bare, flags=re.IGNORECASE)
        good = _is_number(bare) and math.isfinite(float(bare)) and float(bare) >= 0
    else:
        bare = "1" if bare in ("1.0", "1.") else "0" if bare in ("0.0", "0.") else bare
        good = bare in ("0", "1")
    if not good:
        tally.add("readme-value", number, f"{label} is {value!r}, expected {_EXPECTED[field.fact]}")
        return value
    if field.fact == "full-reference" and bare != "1":
        tally.add("readme-contradiction", number, f"{label} is 0, but this is a full-reference challenge")
    if bare != value:
        tally.add("readme-unit", number, f"{label} is {value!r} instead of {bare}")
    return bare


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) is not None
