"""The request of a record, to repeat its work safely: an untrusted record does not choose code or files.

Cards are looked up by name among the built-in ones and those that the caller names. Files (a table of pairs, weights, scores)
are used when the caller gives them again or has named the same path before on this machine. Settings that name files or
programs are used when the caller repeats them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cards.loading import UnknownCard, find_dataset
from harness.cards.overrides import names_code
from harness.files.named import remembered
from harness.files.names import name_problem
from harness.models import find_model
from harness.results.record import Record
from harness.runtime.errors import UsageError, listed


@dataclass(frozen=True)
class Repeated:
    """Files and settings that the caller gives again, because a record alone is not trusted to name them."""

    dataset: str | None = None
    weights: str | None = None
    init: str | None = None
    scores: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def _text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("model", "dataset"), (_text, "text")),
    **dict.fromkeys(("protocol", "weights", "init", "scores"), (lambda v: v is None or _text(v), "text or null")),
    "settings": (lambda v: isinstance(v, dict), "a table"),
    **dict.fromkeys(("seed", "repeat"), (_count, "a whole number")),
    **dict.fromkeys(("limit", "splits"), (lambda v: v is None or (_count(v) and v > 0), "a positive whole number or null")),
    "batch": (lambda v: _count(v) and v > 0, "a positive whole number"),
    **dict.fromkeys(("lower_is_better", "inner", "object"), (lambda v: isinstance(v, bool), "true or false")),
    "exclude": (lambda v: isinstance(v, list) and all(map(_text, v)), "a list of text"),
    "remark": (_text, "text"),
}
"""The fields of a record's request: a check of the value, and the description of valid values."""


def request_of(folder: str | Path, record: Record, cards: Sequence[str] = (), again: Repeated | None = None) -> dict[str, Any]:
    """Fields of a Request (`harness.engine.request`) that repeats the record's work.

    Raises UsageError, listing all problems, for an invalid request, for cards that are neither built in nor the caller's, and
    for files and settings that the caller has not named.
    """
    again = again or Repeated()
    asked = checked(folder, record)
    problems: list[str] = []
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in asked.items() if k != "object"}
    for name, found in (("model", model_of), ("dataset", dataset_of)):
        try:
            fields[name] = found(folder, record, cards, again)
        except UsageError as error:
            problems.append(str(error).removeprefix(f"{folder}: "))
    words = [] if asked.get("scores") or problems else [w.use for w in find_model(str(fields["model"]), cards).weights]
    for name in ("weights", "init", "scores"):
        value, given = asked.get(name), getattr(again, name)
        fields[name] = value if value is None or given is None else given
        if value is None and given is not None:
            problems.append(f"--{name} {given}: the record was made without")
        elif value is not None and given is None and not ((name == "weights" and value in words) or remembered(value)):
            problems.append(f"its record names a file, {value}: give it again to use it: --{name} FILE")
    fields["settings"] = _settings(asked.get("settings") or {}, again.settings, problems)
    if problems:
        raise UsageError("\n".join(f"{folder}: {problem}" for problem in problems))
    return fields


def checked(folder: str | Path, record: Record) -> Mapping[str, Any]:
    """The record's request, with every field known and of the right type. Raises UsageError listing the others."""
    asked = record.request
    if not asked:
        raise UsageError(f"{folder}: its record has no request, so it cannot be repeated")
    problems = [f"it has no field {name}" for name in ("model", "dataset") if name not in asked]
    problems += [f"{name} is not a field of a request" for name in asked if name not in _FIELDS]
    problems += [f"{name} is not {_FIELDS[name][1]}" for name, v in asked.items() if name in _FIELDS and not _FIELDS[name][0](v)]
    if problems:
        raise UsageError(f"{folder}: its record's request cannot be repeated: {listed(problems)}")
    return asked


def model_of(folder: str | Path, record: Record, cards: Sequence[str] = (), again: Repeated | None = None) -> str:
    """The name of the record's model among the built-in and the caller's cards. Raises UsageError."""
    asked = checked(folder, record)
    if asked.get("scores"):
        name = asked["model"]
        if problem := name_problem(name):
            raise UsageError(f"{folder}: its model's name {problem}")
        return str(name)
    return _known(folder, record, "model", record.cards.model.name, lambda name: find_model(name, cards))


def dataset_of(folder: str | Path, record: Record, cards: Sequence[str] = (), again: Repeated | None = None) -> str:
    """The record's dataset: a card's name as above, or a table that the caller named. Raises UsageError."""
    asked = checked(folder, record)
    if again and again.dataset:
        return again.dataset
    if str(asked["dataset"]).lower().endswith((".csv", ".tsv")):
        if remembered(asked["dataset"]):
            return str(asked["dataset"])
        raise UsageError(f"{folder}: its dataset is the table {asked['dataset']}: give it again to use it: --dataset FILE")
    return _known(folder, record, "dataset", record.cards.dataset.name, lambda name: find_dataset(name, cards))


def _known(folder: str | Path, record: Record, kind: str, own: str, find: Callable[[str], object]) -> str:
    """The card's name; for a card that was given as a file, `own`, the name in that file."""
    given = record.request[kind]
    name = own if given.endswith(".toml") or name_problem(given) else given
    try:
        if not name_problem(name) and not name.endswith(".toml"):
            find(name)
            return str(name)
    except UnknownCard:
        pass
    where = f" (the run was given {given})" if given != name else ""
    raise UsageError(
        f"{folder}: its {kind} is the card {name!r}{where}, which is neither built in nor in your folders of cards; "
        "if you trust it, name its folder: --cards DIR (or $HARNESS_CARDS)"
    )


def _settings(asked: Mapping[str, Any], again: Mapping[str, Any], problems: list[str]) -> Mapping[str, Any]:
    """The record's settings, with the values that the caller has given again."""
    problems += [f"--set {path}: the record was made without" for path in again if path not in asked]
    for path, value in asked.items():
        if path in again:
            if str(again[path]) != str(value):
                problems.append(f"--set {path}={again[path]}: the record was made with {value}")
        elif not _plain(value):
            problems.append(f"its setting {path} is neither a number, a word nor a list of these")
        elif names_code(path) or _names_file(value):
            problems.append(f"its setting {path}={value} names a file or a program: give it again to use it: --set {path}=...")
    return {path: again.get(path, value) for path, value in asked.items()}


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_plain(entry) and not isinstance(entry, list) for entry in value)
    return value is None or isinstance(value, bool | int | float) or _text(value)


def _names_file(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_names_file, value))
    if not isinstance(value, str):
        return False
    there = os.path.lexists(value) and not os.path.isdir(value)
    return there or any(c in value for c in "/\\~ ") or re.fullmatch(r"\.\D\w*", Path(value).suffix) is not None
