"""`harness show`: a card's summary on one screen: its fields, then its tables, shortened where they are too long."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.runtime.terminal_columns import shortened

ALWAYS = ("higher_is_better",)
"""Fields that are shown also where they are false."""
LINES = 36
"""Most lines of a summary; `harness show NAME --all` shows the rest."""
_FEWEST = 2
"""Entries of a shortened table."""
_PROSE = 3
"""Most lines of a description."""
_INDENT = "  "


@dataclass
class _Table:
    """A field of the card with several entries."""

    name: str
    entries: list[str]
    shown: int

    def lines(self) -> list[str]:
        more = [f"{_INDENT}... and {len(self.entries) - self.shown} more"] if self.shown < len(self.entries) else []
        return [f"{self.name}:", *(_INDENT + entry for entry in self.entries[: self.shown]), *more]


def summary(fields: Mapping[str, Any], width: int) -> str:
    """The card in at most LINES lines, if its tables can be shortened that much.

    Args:
        fields: The card's fields as plain values.
        width: Characters in a line.
    """
    head = textwrap.wrap(f"{fields['name']}: {fields['title']}", width)
    head += _wrapped(str(fields.get("description") or ""), width, "", _PROSE)
    plain: list[str] = []
    tables: list[_Table] = []
    for key, value in fields.items():
        if key in ("name", "title", "description") or not (key in ALWAYS or _says(value)):
            continue
        if isinstance(value, Mapping) and not any(isinstance(one, Mapping) for one in value.values()):
            plain += _wrapped(_settings(value), width, f"{key}: ", _PROSE)
        elif entries := _entries(key, value):
            cut = [shortened(" ".join(entry.split()), width - len(_INDENT)) for entry in entries]
            tables.append(_Table(key, cut, len(cut)))
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            plain += _wrapped(shown, width, f"{key}: ", 2)
    long = len(head) + len(plain) + 3
    while long + sum(len(table.lines()) for table in tables) > LINES and any(table.shown > _FEWEST for table in tables):
        max(tables, key=lambda table: table.shown).shown -= 1
    foot = f"`harness show {fields['name']} --all` shows every field in full."
    return "\n".join([*head, "", *plain, *(line for table in tables for line in table.lines()), "", foot])


def _says(value: Any) -> bool:
    return value not in ("", (), [], {}, None, 0)


def _wrapped(text: str, width: int, first: str, most: int) -> list[str]:
    """`text` after the word `first`, in at most `most` lines, an ellipsis where it is cut."""
    rest = _INDENT if first else ""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, max_lines=most, placeholder=" …", break_on_hyphens=False
    )


def _settings(table: Mapping[str, Any]) -> str:
    shown = {key.rstrip("_"): value for key, value in table.items() if _says(value) or value == 0}
    return ", ".join(f"{key}={_value(value)}" for key, value in shown.items())


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + _settings(value) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _entries(key: str, value: Any) -> list[str]:
    """The lines of a field that holds tables: a card's weights, published figures, protocols, phases, ...; else none."""
    if isinstance(value, Mapping):
        return [f"{name}: {_settings(one) if isinstance(one, Mapping) else _value(one)}" for name, one in value.items()]
    if not (isinstance(value, list | tuple) and value and isinstance(value[0], Mapping)):
        return []
    entry = {"weights": _weights, "published": _published}.get(key, _settings)
    return [entry(one) for one in value]


def _weights(entry: Mapping[str, Any]) -> str:
    size = f"{entry['bytes'] / 1e6:,.1f} MB" if entry["bytes"] else "size not known"
    use = "" if entry["use"] == "always" else f", only with --weights {entry['use']}"
    return f"{entry['name']}{use}: {entry['tag'] or entry['file']}, {size}, licence {entry['licence'] or 'not known'}"


def _published(entry: Mapping[str, Any]) -> str:
    from harness.results.tables import number

    names = {"srcc": "SRCC", "plcc": "PLCC", "krcc": "KRCC", "main": "main", "rmse": "RMSE"}
    figures = ", ".join(f"{name} {number(entry[key], 4)}" for key, name in names.items() if entry.get(key) is not None)
    where = ", ".join(filter(None, (entry["dataset"], entry["protocol"], entry["variant"])))
    doubt = "" if entry["status"] == "read" else f" ({entry['status']})"
    return f"{where}: {figures}{doubt}; {entry['source']}"
