"""Repeated splits: one record with medians and ranges over a protocol's seeded repeats.

A model with training is trained and tested once for each split, in a separate run. A model without training gives an image the
same score in every split: all images are scored once, by the protocol `full`. scores.csv of the record has a row for each tested
image of each split (part `test@0`, `test@1`, ...) and, where all were scored once, for every image (part `all`).
"""

from __future__ import annotations

import datetime
import logging
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pandas as pd

from harness.datasets import Dataset
from harness.engine.measure import figures_stamp, measured
from harness.engine.mlflow_facts import mlflow_facts
from harness.engine.request import Plan, make_plan, request_facts
from harness.engine.run import Outcome, execute
from harness.engine.scoring import Together
from harness.files.atomic import sha256_json, write_json, write_text
from harness.results.key import key_of
from harness.results.mlflow_mirror import Tracker
from harness.results.record import Record, of_document
from harness.results.run_folder import finished, folder_of, locked
from harness.results.run_scores import ALL, ScoreFile, csv_text, split_part
from harness.runtime.progress import duration

_log = logging.getLogger(__name__)
FIGURES = ("n", "references", "srcc", "plcc", "plcc_fitted", "krcc", "rmse", "main", "srcc_within", "score_2afc")
VERSION = 2
"""To be raised whenever a record of repeats changes for the same scores; finished ones are then made again."""
_FULL = "full"


def repeated(plan: Plan, repeats: int, together: Together | None = None) -> Outcome:
    """A protocol's seeded repeats as one record: medians, ranges, and every repeat's own figures."""
    from harness.results import report

    request = plan.request
    plans = [plan, *(make_plan(replace(request, repeat=r), plan.data) for r in range(1, repeats))]
    whole = _scored_once(plans)
    children = [execute(whole, together)] if whole else _each(plans)
    identity: dict[str, object] = {"repeats": [child.folder.name for child in children], "first": dict(plan.facts)}
    if repeats < plan.data.card.protocols[plan.protocol].repeats:
        # Where all images were scored once, only this shows whether some splits or all were made.
        identity["splits"] = repeats
    key = key_of(identity)
    folder = folder_of(request.runs, plan.data.name, plan.card.name, key)
    stamp = stamp_of(plan.data)
    if not request.force and (record := finished(folder)) is not None and record.figures == stamp:
        with Tracker(request.mlflow_uri, request.runs, folder) as tracker:
            tracker.catch_up(record, mlflow_facts(plan, repeated=key))
        return Outcome(folder, record, found=True)
    rows: list[tuple[str, float, str]] = []
    hashed: dict[str, tuple[str, str, str]] = {}
    for number, one in enumerate(plans):
        file, tested = ScoreFile(children[0 if whole else number].folder), set(one.rows("test")["name"])
        rows += [(n, s, split_part(number)) for n, s, part in file.read() if part == "test" and n in tested]
        hashed |= {row[0]: row for row in file.picture_hashes() if row[0] in tested}
    images = sorted(hashed.values())
    if whole:
        file = ScoreFile(children[0].folder)
        rows += [(n, s, ALL) for n, s, part in file.read() if part == "test"]
        hashed |= {row[0]: row for row in file.picture_hashes()}
    lines = [[n, repr(s), part] for n, s, part in rows]
    first = children[0].record
    with locked(folder), Tracker(request.mlflow_uri, request.runs, folder) as tracker:
        tracker.begin(*mlflow_facts(plan, repeated=key))
        write_text(folder / "scores.csv", csv_text([ScoreFile.HEADER, *lines]))
        write_text(folder / "pictures.csv", csv_text([ScoreFile.PICTURES, *hashed.values()]))
        tables = list(dict.fromkeys(one.identity.table for one in plans))
        document = {
            **first.to_json(),
            **repeats_figures(
                plans,
                pd.DataFrame(rows, columns=list(ScoreFile.HEADER)),
                [children[0 if whole else r].folder.name for r in range(repeats)],
            ),
            "key": key,
            "protocol": plan.protocol,
            "request": request_facts(request),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "partial": first.partial or repeats < plan.data.card.protocols[plan.protocol].repeats,
            "incomplete": any(child.record.incomplete for child in children),
            "identical_pairs": first.identical_pairs if whole else max(child.record.identical_pairs for child in children),
            "training": _training([child.record for child in children]),
            "history": None,
            "seconds": sum(child.record.seconds or 0.0 for child in children),
            "note": ". ".join(filter(None, (plan.data.card.note, plan.data.card.protocols[plan.protocol].note, request.remark))),
            "identity": identity,
            "hashes": {
                **msgspec.to_builtins(first.hashes),
                "scores": sha256_json(lines),
                "split": sha256_json([one.identity.split for one in plans]),
                # Where splits leave out different rows, each has its own table.
                "table": tables[0] if len(tables) == 1 else sha256_json(tables),
                "images": plan.data.images or (sha256_json(images) if plan.content else None),
                "pictures": sha256_json(sorted(hashed.values())),
                "trained_weights": None,
            },
        }
        record = of_document(document, folder)
        report.of_run(folder, record, plan.data.table, None)
        write_json(folder / "record.json", record.to_json())
        tracker.end(record)
    return Outcome(folder, record, found=False)


def stamp_of(data: Dataset) -> dict[str, str | int]:
    """The versions with which the figures of a record of repeats were computed (`harness.engine.measure.figures_stamp`)."""
    return figures_stamp(data, data.table) | {"repeats": VERSION}


def _scored_once(plans: Sequence[Plan]) -> Plan | None:
    """The plan that scores all images once, for a model without training; None where the splits are scored one by one."""
    plan = plans[0]
    request, protocols = plan.request, plan.data.card.protocols
    if plan.trained or request.limit is not None or _FULL not in protocols or protocols[_FULL].split != _FULL:
        return None
    whole = make_plan(replace(request, protocol=_FULL), plan.data)
    scored = set(whole.rows("test")["name"])
    return whole if all(scored.issuperset(one.rows("test")["name"]) for one in plans) else None


def _each(plans: Sequence[Plan]) -> list[Outcome]:
    """A run for each split; the number of trainings is logged first."""
    plan, known = plans[0], [finished(one.folder) if not one.request.force else None for one in plans]
    left = len(plans) - sum(record is not None for record in known)
    if plan.trained and left:
        there = f", {len(plans) - left} of them are there already" if left < len(plans) else ""
        took = [r.training.seconds for r in known if r is not None and r.training and r.training.seconds]
        each = max(1.0, statistics.mean(took)) if took else None
        time = f"one took {duration(each)}, the rest takes about {duration(each * left)}" if each else ""
        _log.info(
            f"{plan.card.name}: {len(plans)} trainings, one for each split of {plan.protocol}{there}; "
            + (time or "an estimate of the time follows after the first steps")
        )
    # The trainer of the first split estimates the time of all after a few steps.
    first = next((one for one, record in zip(plans, known, strict=True) if plan.trained and record is None), None)
    return [execute(replace(one, request=replace(one.request, trainings=left)) if one is first else one) for one in plans]


def _training(children: Sequence[Record]) -> dict[str, int | float | None] | None:
    """The total steps, epochs and seconds of all trainings."""
    each = [child.training for child in children if child.training is not None]
    if len(each) < len(children):
        return None
    seconds = [one.seconds for one in each if one.seconds is not None]
    return {
        "steps": sum(one.steps for one in each),
        "epochs": sum(one.epochs for one in each),
        "best_epoch": None,
        "seconds": sum(seconds) if len(seconds) == len(each) else None,
    }


def repeats_figures(plans: Sequence[Plan], scores: pd.DataFrame, runs: Sequence[str]) -> dict[str, Any]:
    """The fields of a record of repeats that are computed from its scores and the dataset's labels.

    Args:
        plans: of each split, with its labels.
        scores: the columns name, score and part as scores.csv of the record has them.
        runs: the keys of the splits' runs.
    """
    card, data = plans[0].card, plans[0].data
    by_part: dict[Hashable, pd.DataFrame] = dict(iter(scores.groupby("part")))
    each: list[Mapping[str, Any]] = []
    for number, plan in enumerate(plans):
        found = measured(card, data, by_part.get(split_part(number), scores[:0]))
        training = int(data.table["reference_id"][plan.parts == "train"].nunique())
        about = {"repeat": number, "run": runs[number], "split": plan.identity.split}
        each.append({**about, "training_references": training, **(found.figures if found else {"n": None})})
    computed: dict[str, object] = {
        "metrics": {"validation": None, "test": _medians(each) if any(e["n"] is not None for e in each) else None},
        "without_each_reference": None,
        "repeats": each,
        "controls": {},
        "figures": stamp_of(data),
    }
    if ALL in by_part:
        found = measured(card, data, by_part[ALL])
        computed["all_images"] = found.figures if found else None
    return computed


def _medians(each: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Median and range over repeats; no intervals, because repeats share their images and are not independent."""
    known = {f: [e[f] for e in each if e.get(f) is not None] for f in FIGURES}
    medians: dict[str, float | None] = {f: statistics.median(v) if len(v) == len(each) else None for f, v in known.items()}
    for count in ("n", "references"):
        # The median of an even number of counts is a mean of two: 40.0 is written as 40.
        if isinstance(median := medians[count], float) and median.is_integer():
            medians[count] = int(median)
    return {**medians, "ci": {}, "range": {f: [min(v), max(v)] for f, v in known.items() if v}, "few_references": False}
