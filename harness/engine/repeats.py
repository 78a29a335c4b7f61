"""Repeated splits: a protocol's seeded repeats as one record of medians and ranges."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from harness.engine.measure import figures_stamp, measured
from harness.engine.mlflow_facts import mlflow_facts
from harness.engine.request import Plan, plan
from harness.engine.run import Outcome, execute
from harness.engine.scoring import Together
from harness.files.atomic import sha256_json, write_json, write_text
from harness.results.key import key_of
from harness.results.mlflow_mirror import Tracker
from harness.results.record import of_document, read_record
from harness.results.run_folder import folder_of, locked
from harness.results.run_scores import ScoreFile, csv_text

FIGURES = ("n", "references", "srcc", "plcc", "plcc_fitted", "krcc", "rmse", "main", "srcc_within", "score_2afc")


def repeated(todo: Plan, repeats: int, together: Together | None = None) -> Outcome:
    """A protocol's seeded repeats as one record: medians, ranges, and every repeat's own figures."""
    request = todo.request
    if todo.trained:
        children = [execute(plan(replace(request, repeat=r), todo.data)) for r in range(repeats)]
    else:
        # A model that is not trained gives an image one score whatever the split: all are scored once, by `full`.
        children = [execute(plan(replace(request, protocol="full"), todo.data), together)]
    identity = {"repeats": [child.folder.name for child in children], "first": dict(todo.facts)}
    key = key_of(identity)
    folder = folder_of(request.runs, todo.data.name, todo.card.name, key)
    stamp = figures_stamp(todo.data, todo.data.table)
    if not request.force and (record := read_record(folder)) is not None and record.figures == stamp:
        with Tracker(request.mlflow_uri, request.runs, folder) as tracker:
            tracker.catch_up(record, _mlflow_facts(todo, key))
        return Outcome(folder, record, found=True)
    each, rows = [], []
    for repeat in range(repeats):
        child = children[repeat if todo.trained else 0]
        now = plan(replace(request, repeat=repeat), todo.data)
        tested = set(now.rows("test")["name"])
        scores = [(n, s) for n, s, part in ScoreFile(child.folder).read() if part == "test" and n in tested]
        rows += [[n, repr(s), f"test@{repeat}"] for n, s in scores]
        found = measured(todo.card, todo.data, scores)
        each.append({"repeat": repeat, "run": child.folder.name, "split": now.identity.split, **(found.figures if found else {})})
    with locked(folder), Tracker(request.mlflow_uri, request.runs, folder) as tracker:
        tracker.begin(*_mlflow_facts(todo, key))
        write_text(folder / "scores.csv", csv_text([ScoreFile.HEADER, *rows]))
        document = {
            **children[0].record.to_json(),
            "key": key,
            "protocol": todo.protocol,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "metrics": {"validation": None, "test": _medians(each)},
            "without_each_reference": None,
            "repeats": each,
            "controls": {},
            "figures": stamp,
            "history": None,
            "seconds": sum(child.record.seconds or 0.0 for child in children),
            "identity": identity,
            "hashes": {
                **msgspec.to_builtins(children[0].record.hashes),
                "scores": sha256_json(rows),
                "split": sha256_json([e["split"] for e in each]),
            },
        }
        record = of_document(document, folder)
        write_json(folder / "record.json", record.to_json())
        tracker.end(record)
    return Outcome(folder, record, found=False)


def _mlflow_facts(todo: Plan, key: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    name, parameters, dataset = mlflow_facts(todo)
    return f"{name}, repeated", parameters | {"key": key}, dataset


def _medians(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and range over repeats; no intervals, because repeats share their images and are not independent."""
    known = {f: [e[f] for e in each if e.get(f) is not None] for f in FIGURES}
    medians: dict[str, Any] = {f: statistics.median(v) if len(v) == len(each) else None for f, v in known.items()}
    return {**medians, "ci": {}, "range": {f: [min(v), max(v)] for f, v in known.items() if v}, "few_references": False}
