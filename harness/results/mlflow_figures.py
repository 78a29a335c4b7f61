"""What MLflow shows of a record: its figures and marks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """A record's final numbers by dotted name: test.srcc, test.srcc_low, control.level.srcc, pairs_per_second."""
    found: dict[str, float] = {}
    tested = record.get("split") or "test"
    # MLflow lists figures in this order: what was tested comes first.
    groups = {
        tested: None,
        **(record.get("metrics") or {}),
        **{f"control.{k}": v for k, v in (record.get("controls") or {}).items()},
    }
    for group, values in groups.items():
        for name, value in (values or {}).items():
            if name == "ci":
                for figure, interval in value.items():
                    if interval is not None:
                        found[f"{group}.{figure}_low"], found[f"{group}.{figure}_high"] = map(float, interval)
            elif is_number(value):
                found[f"{group}.{name}"] = float(value)
    for name in ("seconds", "pairs_per_second", "identical_pairs"):
        if is_number(record.get(name)):
            found[name] = float(record[name])
    for name, value in (record.get("training") or {}).items():
        if is_number(value):
            found[f"training.{name}"] = float(value)
    return found


def marks(record: Mapping[str, Any]) -> dict[str, Any]:
    """What to filter and judge a run by: names, key, marks, conditions."""
    names = ("model", "dataset", "protocol", "key", "seed", "created", "command")
    marks = ("partial", "incomplete", "seen", "random_weights")
    found = {name: record[name] for name in (*names, *marks) if record.get(name) is not None}
    return found | {f"conditions.{k}": v for k, v in (record.get("conditions") or {}).items() if not isinstance(v, Mapping)}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
