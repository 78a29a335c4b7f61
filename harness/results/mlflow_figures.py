"""A record's figures and marks in the form of MLflow's metrics and tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from harness.results.record import Figures, Record, RepeatsRecord

SOURCE = {"mlflow.source.name": "harness", "mlflow.source.type": "LOCAL"}
"""The tags that name the harness as a run's source."""


@dataclass(frozen=True)
class FamilyRun:
    """A parent or child run in MLflow."""

    name: str
    parameters: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, Any]]
    """Figures by group, such as `test`, and name."""


def figures(record: Record) -> dict[str, float]:
    """A record's final numbers by dotted name: test.srcc, test.srcc_low, control.level.srcc, pairs_per_second."""
    # MLflow lists figures in this order: the test part comes first.
    groups: dict[str, Figures | None] = {record.split: None, **record.metrics}
    groups |= {f"control.{name}": values for name, values in (record.controls or {}).items()}
    if isinstance(record, RepeatsRecord) and record.all_images:
        groups["all_images"] = record.all_images
    found = by_group({group: msgspec.to_builtins(values or {}) for group, values in groups.items()})
    for name in ("seconds", "pairs_per_second", "identical_pairs"):
        if is_number(value := getattr(record, name)):
            found[name] = float(value)
    for name, value in msgspec.to_builtins(record.training or {}).items():
        if is_number(value):
            found[f"training.{name}"] = float(value)
    return found


def by_group(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers among groups of figures, by dotted name; an interval's ends are `_low` and `_high`, a range's
    `_smallest` and `_largest`."""
    found: dict[str, float] = {}
    ends_of = {"ci": ("low", "high"), "range": ("smallest", "largest")}
    for group, values in groups.items():
        for name, value in values.items():
            for figure, ends in value.items() if name in ends_of else ():
                if ends is not None:
                    found |= {f"{group}.{figure}_{word}": float(end) for word, end in zip(ends_of[name], ends, strict=True)}
            if is_number(value):
                found[f"{group}.{name}"] = float(value)
    return found


def marks(record: Record) -> dict[str, object]:
    """Tags for filtering runs: names, key, marks, conditions."""
    names = ("model", "dataset", "protocol", "key", "seed", "created", "command")
    marks = ("partial", "incomplete", "seen", "random_weights")
    found = {name: getattr(record, name) for name in (*names, *marks)}
    return found | {f"conditions.{k}": v for k, v in record.conditions.items() if not isinstance(v, Mapping)}


def is_number(value: Any) -> bool:
    """Whether MLflow accepts a value as a metric."""
    return isinstance(value, int | float) and not isinstance(value, bool)


_VALUE_LENGTH, _KEY_LENGTH = 500, 250
"""MLflow's limits; older servers accept 500 characters of a value."""


def key_text(name: str) -> str:
    """A name in a form that MLflow accepts."""
    return re.sub(r"[^\w. /-]", "-", name)[:_KEY_LENGTH]


def value_text(value: Any) -> str:
    """A value in a form that MLflow accepts, without user names and passwords of addresses."""
    text = re.sub(r"//[^/@\s]*@", "//", str(value))
    return text if len(text) <= _VALUE_LENGTH else text[: _VALUE_LENGTH - 1] + "…"
