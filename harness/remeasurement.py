"""A committed record's figures, made anew from its scores and the dataset's labels: nothing is scored or trained.

Raw scores are kept so that what is computed from them can change: a new statistic, a mended one.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.files.atomic import write_json
from harness.measurement import controls, measured
from harness.results.conditions import libraries
from harness.results.record import read_record
from harness.results.run_scores import ScoreFile
from harness.run import SCORED_PARTS, Request, plan
from harness.runtime.errors import Fault, HarnessError
from harness.verification import identity_differences, own_contradictions, request_of

_SAME = 1e-9


def measure_again(folder: str | Path, *, root: str | None = None, cards: Sequence[str] = ()) -> list[str]:
    """Replace the figures in a record; returns a line for each number that is another than before.

    Raises Fault, and changes nothing, when the scores are not the ones that were measured or the labels, the split, the card
    or the weights are others than the record's; BadRequest where the dataset is not at hand.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is None:
        raise Fault(f"{folder}: no record.json there")
    if record["repeats"] is not None:
        raise Fault(f"{folder}: a record of repeats; run its command again: {record['command']}")
    todo = plan(Request(**request_of(record), root=root, cards=tuple(cards), mlflow_uri="off", offline=True, quiet=True))
    problems = [*own_contradictions(folder, record), *identity_differences(record, todo)]
    if problems:
        raise Fault("\n".join(f"{folder}: {problem.what}: {problem.text}" for problem in problems))
    scores = ScoreFile(folder).read()
    found = {part: measured(todo.card, todo.data, [(n, s) for n, s, p in scores if p == part]) for part in SCORED_PARTS}
    figures = {part: values.figures if values else None for part, values in found.items()}
    changed = list(_changes(record["metrics"], figures))
    fresh = {
        "metrics": figures,
        "without_each_reference": found["test"].without_each_reference if found["test"] else None,
        "controls": controls(todo.data, todo.rows("test")),
    }
    now = {"at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "libraries": libraries()}
    # New entries stand beside the figures that they belong to.
    order = [key for old in record for key in ((old, "without_each_reference") if old == "metrics" else (old,))]
    write_json(folder / "record.json", {k: fresh.get(k, record.get(k)) for k in dict.fromkeys(order)} | {"measured_again": now})
    return changed


def measure_all_again(
    folders: Sequence[Path], *, root: str | None = None, cards: Sequence[str] = ()
) -> Iterator[tuple[Path, list[str]]]:
    """`measure_again` for each folder in turn; the faults of all are raised together at the end."""
    problems = []
    for folder in folders:
        try:
            yield folder, measure_again(folder, root=root, cards=cards)
        except HarnessError as error:
            problems.append(str(error))
    if problems:
        raise Fault("\n".join(problems))


def _changes(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """`test.srcc was 0.5, is 0.6` for what both documents have and what differs by more than rounding."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in before:
            if key in now:
                yield from _changes(before[key], now[key], f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _changes(old, new, f"{path}[{i}]")
    elif isinstance(before, float) and isinstance(now, float):
        if abs(before - now) > _SAME * max(1.0, abs(before)):
            yield f"{path} was {before!r}, is {now!r}"
    elif before != now:
        yield f"{path} was {before!r}, is {now!r}"
