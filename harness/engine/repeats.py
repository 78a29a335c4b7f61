"""Repeated splits: a protocol's seeded repeats as one record of medians and ranges.

A model that is trained is trained and tested once for each split, each a run of its own. A model that is not trained gives an
image one score whatever the split: all images are scored once, by the protocol `full`. scores.csv of the record has a row for
each tested image of each split (part `test@0`, `test@1`, ...) and, where all were scored once, for every image (part `all`).
"""

from __future__ import annotations

import datetime
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from harness.cards.schema import ModelCard
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
"""Raised by hand whenever a record of repeats says something else of the same scores; finished ones are then made again."""
_FULL = "full"


class Split(NamedTuple):
    """One of a protocol's seeded splits."""

    number: int
    names: list[str]
    """Of the tested images."""
    training_references: int
    split: str
    """Its hash (`harness.datasets.splits.split_hash`)."""
    table: str
    """The hash of the rows that take part."""


def split_of(plan: Plan, number: int) -> Split:
    """The split of a plan that was made for repeat `number`."""
    references = plan.data.table["reference_id"][plan.parts == "train"].nunique()
    return Split(number, list(plan.rows("test")["name"]), int(references), plan.identity.split, plan.identity.table)


def repeated(plan: Plan, repeats: int, together: Together | None = None) -> Outcome:
    """A protocol's seeded repeats as one record: medians, ranges, and every repeat's own figures."""
    request = plan.request
    plans = [plan, *(make_plan(replace(request, repeat=r), plan.data) for r in range(1, repeats))]
    splits = [split_of(one, r) for r, one in enumerate(plans)]
    whole = _scored_once(plan, splits)
    children = [execute(whole, together)] if whole else _each(plans)
    identity: dict[str, Any] = {"repeats": [child.folder.name for child in children], "first": dict(plan.facts)}
    if repeats < plan.data.card.protocols[plan.protocol].repeats:
        # Where all images were scored once, only this tells some splits from all.
        identity["splits"] = repeats
    key = key_of(identity)
    folder = folder_of(request.runs, plan.data.name, plan.card.name, key)
    stamp = stamp_of(plan.data)
    if not request.force and (record := finished(folder)) is not None and record.figures == stamp:
        with Tracker(request.mlflow_uri, request.runs, folder) as tracker:
            tracker.catch_up(record, _mlflow_facts(plan, key))
        return Outcome(folder, record, found=True)
    rows: list[tuple[str, float, str]] = []
    pictures: dict[str, tuple[str, str, str]] = {}
    for split in splits:
        child = children[0 if whole else split.number]
        tested = set(split.names)
        rows += [
            (n, s, split_part(split.number)) for n, s, part in ScoreFile(child.folder).read() if part == "test" and n in tested
        ]
        pictures |= {row[0]: row for row in ScoreFile(child.folder).picture_hashes() if row[0] in tested}
    images = sorted(pictures.values())
    if whole:
        rows += [(n, s, ALL) for n, s, part in ScoreFile(children[0].folder).read() if part == "test"]
        pictures |= {row[0]: row for row in ScoreFile(children[0].folder).picture_hashes()}
    lines = [[n, repr(s), part] for n, s, part in rows]
    first = children[0].record
    with locked(folder), Tracker(request.mlflow_uri, request.runs, folder) as tracker:
        tracker.begin(*_mlflow_facts(plan, key))
        write_text(folder / "scores.csv", csv_text([ScoreFile.HEADER, *lines]))
        write_text(folder / "pictures.csv", csv_text([ScoreFile.PICTURES, *pictures.values()]))
        tables = list(dict.fromkeys(split.table for split in splits))
        document = {
            **first.to_json(),
            **repeats_figures(plan.card, plan.data, splits, rows, [child.folder.name for child in children]),
            "key": key,
            "protocol": plan.protocol,
            "request": request_facts(request),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "partial": first.partial or len(splits) < plan.data.card.protocols[plan.protocol].repeats,
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
                "split": sha256_json([split.split for split in splits]),
                # Where the splits leave out rows of their own, each has a table of its own.
                "table": tables[0] if len(tables) == 1 else sha256_json(tables),
                "images": plan.data.images or (sha256_json(images) if plan.content else None),
                "pictures": sha256_json(sorted(pictures.values())),
                "trained_weights": None,
            },
        }
        record = of_document(document, folder)
        _report(folder, record, plan.data)
        write_json(folder / "record.json", record.to_json())
        tracker.end(record)
    return Outcome(folder, record, found=False)


def _report(folder: Any, record: Record, data: Dataset) -> None:
    from harness.results import report

    report.of_run(folder, record, data.table, None)


def stamp_of(data: Dataset) -> dict[str, Any]:
    """What the figures of a record of repeats were computed with (`harness.engine.measure.figures_stamp`)."""
    return figures_stamp(data, data.table) | {"repeats": VERSION}


def _scored_once(plan: Plan, splits: Sequence[Split]) -> Plan | None:
    """The plan that scores all images once, for a model that is not trained; None where the splits are scored one by one."""
    request, protocols = plan.request, plan.data.card.protocols
    if plan.trained or request.limit is not None or _FULL not in protocols or protocols[_FULL].split != _FULL:
        return None
    whole = make_plan(replace(request, protocol=_FULL), plan.data)
    scored = set(whole.rows("test")["name"])
    return whole if all(scored.issuperset(split.names) for split in splits) else None


def _each(plans: Sequence[Plan]) -> list[Outcome]:
    """A run for each split; before the first training, how many there are."""
    plan, known = plans[0], [finished(one.folder) if not one.request.force else None for one in plans]
    left = len(plans) - sum(record is not None for record in known)
    if plan.trained and left:
        there = f", {len(plans) - left} of them are there already" if left < len(plans) else ""
        took = [r.training.seconds for r in known if r is not None and r.training and r.training.seconds]
        each = max(1.0, statistics.mean(took)) if took else None
        time = f"one took {duration(each)}, the rest takes about {duration(each * left)}" if each else ""
        _log.info(
            f"{plan.card.name}: {len(plans)} trainings, one for each split of {plan.protocol}{there}; "
            + (time or "the first steps tell how long one and all take")
        )
    outcomes = []
    told = False
    for one, record in zip(plans, known, strict=True):
        first = plan.trained and record is None and not told
        told = told or first
        # The first training tells how long all take: its trainer knows after a few steps.
        outcomes.append(execute(replace(one, request=replace(one.request, trainings=left)) if first else one))
    return outcomes


def _training(children: Sequence[Record]) -> dict[str, Any] | None:
    """What all trainings together cost."""
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


def _mlflow_facts(plan: Plan, key: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    name, parameters, dataset = mlflow_facts(plan)
    return f"{name}, repeated", parameters | {"key": key}, dataset


def repeats_figures(
    card: ModelCard, data: Dataset, splits: Sequence[Split], rows: Sequence[tuple[str, float, str]], runs: Sequence[str]
) -> dict[str, Any]:
    """The fields of a record of repeats that are computed from its scores and the dataset's labels.

    Args:
        card: the model's card.
        data: the dataset with its labels.
        splits: in the order of their numbers.
        rows: (name, score, part) as scores.csv of the record has them.
        runs: the key of each split's run, or of the one run that scored all images.
    """
    by_part: dict[str, list[tuple[str, float]]] = {}
    for name, score, part in rows:
        by_part.setdefault(part, []).append((name, score))
    each: list[dict[str, Any]] = []
    for split in splits:
        found = measured(card, data, by_part.get(split_part(split.number), []))
        about = {"repeat": split.number, "run": runs[min(split.number, len(runs) - 1)], "split": split.split}
        each.append({**about, "training_references": split.training_references, **(found.figures if found else {"n": None})})
    computed = {
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


def _medians(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and range over repeats; no intervals, because repeats share their images and are not independent."""
    known = {f: [e[f] for e in each if e.get(f) is not None] for f in FIGURES}
    medians: dict[str, Any] = {f: statistics.median(v) if len(v) == len(each) else None for f, v in known.items()}
    for count in ("n", "references"):
        # The median of an even number of counts is a mean of two: 40.0 is 40.
        if isinstance(medians[count], float) and medians[count].is_integer():
            medians[count] = int(medians[count])
    return {**medians, "ci": {}, "range": {f: [min(v), max(v)] for f, v in known.items() if v}, "few_references": False}
