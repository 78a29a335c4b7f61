"""From records to the rows of a table: grouped by protocol, ranked, and marked with what a reader must know.

A row is ranked only when it can be compared: partial records, records of incomplete datasets, records on other pairs or
labels than those of the group, weights that have seen the dataset and records without figures are shown, unranked, and never
averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec import UNSET

from harness.cards.schema import DatasetCard
from harness.files.atomic import sha256_json
from harness.leaderboard.best_group import with_best
from harness.leaderboard.board import FIGURES, Begun, Board, Group, Reported, Row
from harness.results.marks import (
    CONTROLS,
    FEW,
    LEGEND,
    ONE_SPLIT,
    OTHER_IMAGES,
    OTHER_SPLIT,
    OTHER_TABLE,
    PARTIAL,
    UNFINISHED,
    marks_of,
)
from harness.results.published import source_of
from harness.results.record import Figures, Record, RepeatFigures, RepeatsRecord
from harness.runtime.text import command
from harness.statistics.leave_one_out import LeaveOneOut


def board(records: Sequence[tuple[Path | None, Record | Begun]], dataset: str, records_folder: Path | None = None) -> Board:
    """The tables of one dataset from its records (each with its folder, where it has one), in any order.

    Folders under `records_folder` become relative links.
    """
    mine = [(folder, record) for folder, record in records if record.dataset == dataset]
    finished = [record for _, record in mine if isinstance(record, Record)]
    card = max(finished, key=_age).cards.dataset if finished else None
    known = list(card.protocols) if card else []
    protocols = sorted({record.protocol for _, record in mine}, key=lambda p: (known.index(p) if p in known else len(known), p))
    return Board(
        dataset=dataset,
        title=(card and card.title) or dataset,
        note=card.note if card else "",
        label=card.label if card else "",
        groups=tuple(_group(dataset, card, p, [m for m in mine if m[1].protocol == p], records_folder) for p in protocols),
        reported=_reported(finished, dataset),
    )


def _age(record: Record) -> tuple[str, str]:
    return record.created, record.key


def _group(
    dataset: str,
    card: DatasetCard | None,
    protocol: str,
    found: Sequence[tuple[Path | None, Record | Begun]],
    records_folder: Path | None,
) -> Group:
    about = card.protocols.get(protocol) if card else None
    seeded = about is not None and about.split == "random"
    # The first split's own run of a model that is not trained, as ensembles make it, tells nothing next to its medians.
    behind = {key for _, record in found if isinstance(record, RepeatsRecord) for key in record.runs_behind}
    found = [(folder, record) for folder, record in found if record.key not in behind]
    finished = [(folder, record) for folder, record in found if isinstance(record, Record)]
    records = [record for _, record in finished]
    over_splits = [r for r in records if isinstance(r, RepeatsRecord)]
    usual = _usual([r for r in over_splits or records if _whole_run(r)], seeded_splits=seeded, over_splits=bool(over_splits))
    rows = [_row(record, _relative(folder, records_folder), usual) for folder, record in finished]
    rows = _with_means(rows, records, seeded_splits=seeded)
    rows += [_begun_row(record) for _, record in found if isinstance(record, Begun)]
    rows += _controls(dataset, protocol, [r for r in records if not _differs(r, usual)])
    confidence = next((r.test.confidence for r in records if r.test and r.test.confidence), 0.95)
    headline = "score_2afc" if any(row.figures.get("score_2afc") is not None for row in rows if row.ranked) else "main"
    rows = with_best(_ranked(rows, headline), headline, confidence)
    description, note = (about.description, about.note) if about else ("", "")
    return Group(dataset, protocol, description, note, tuple(rows), confidence, headline)


class _Usual(NamedTuple):
    """What most records of a group were measured on; None where it varies by design or is not known."""

    table: str | None
    split: str | None
    n: float | None
    images: str | None
    over_splits: bool = False
    """Whether the group's figures are medians over splits."""


def _usual(records: Sequence[Record], *, seeded_splits: bool, over_splits: bool = False) -> _Usual:
    table = _most_common([_hash(r, "table") for r in records])
    here = [r for r in records if _hash(r, "table") == table]
    # Seeded splits differ from seed to seed by design; all others are one list of images.
    split = None if seeded_splits else _most_common([_hash(r, "split") for r in here])
    counts = [r.test.n for r in here if r.test and r.test.n is not None and _hash(r, "split") == split]
    images = _most_common([_hash(r, "images") for r in here if _hash(r, "split") == split]) if split is not None else None
    return _Usual(table, split, max(counts, default=None), images, over_splits)


def _differs(record: Record, usual: _Usual) -> str | None:
    """The mark of a record that was measured on something else than its group, or None."""
    if record.incomplete:  # a mark of its own, which says why the table is another one
        return PARTIAL if record.partial else None
    table, split, n = _hash(record, "table"), _hash(record, "split"), record.test.n if record.test else None
    if None not in (table, usual.table) and table != usual.table:
        return OTHER_TABLE
    if None not in (split, usual.split) and split != usual.split:
        return OTHER_SPLIT
    images = _hash(record, "images")
    if record.partial or (n is not None and usual.n is not None and n < usual.n):
        return PARTIAL
    if usual.over_splits and not isinstance(record, RepeatsRecord):
        return ONE_SPLIT
    if None not in (images, usual.images) and images != usual.images:
        return OTHER_IMAGES
    return None


def _whole_run(record: Record) -> bool:
    return not record.partial and not record.incomplete


def _hash(record: Record, what: Literal["table", "split", "images"]) -> str | None:
    found: str | None = getattr(record.hashes, what)
    if what == "table" and record.first_identity.get("labels_higher_is_better") is False:
        # The same labels read the other way round are other labels.
        found = found and f"{found} lower is better"
    return found


def _most_common(values: Sequence[str | None]) -> str | None:
    counts = Counter(v for v in values if v is not None)
    return min(counts, key=lambda v: (-counts[v], v)) if counts else None


def _relative(folder: Path | None, records_folder: Path | None) -> str:
    if folder is None or records_folder is None or not folder.is_relative_to(records_folder):
        return ""
    return folder.relative_to(records_folder).as_posix()


def _row(record: Record, folder: str, usual: _Usual) -> Row:
    figures = record.test or Figures(n=None)
    spread = {} if figures.range is UNSET else figures.range
    repeats = record.repeats if isinstance(record, RepeatsRecord) else []
    whole = (record.all_images if isinstance(record, RepeatsRecord) else None) or Figures(n=None)
    return Row(
        kind="measured",
        name=record.model,
        dataset=record.dataset,
        protocol=record.protocol,
        figures={name: getattr(figures, name) for name in FIGURES},
        ci=figures.ci,
        spread={name: ends for name, ends in spread.items() if ends is not None},
        title=record.cards.model.title,
        n=_whole(figures.n),
        references=_whole(figures.references),
        pairs_per_second=record.pairs_per_second,
        device=str(record.conditions.get("device") or ""),
        seeds=(record.seed,),
        repeats=len(repeats),
        splits=_by_split(repeats),
        test_share=record.test_share if isinstance(record, RepeatsRecord) else None,
        used_references=record.used_references if isinstance(record, RepeatsRecord) else None,
        whole={name: getattr(whole, name) for name in FIGURES},
        whole_ci=whole.ci,
        marks=marks_of(record, _differs(record, usual)),
        left_out=LeaveOneOut.read(record.without_each_reference),
        images=(_hash(record, "table"), _hash(record, "split"), _hash(record, "images")),
        trained_on=tuple(record.trained_on),
        settings=_settings(record),
        key=record.key,
        folder=folder,
        command=command(record.command),
        created=record.created,
    )


def _by_split(repeats: Sequence[RepeatFigures]) -> dict[str, tuple[float, ...]]:
    """Each figure's value on every split, of figures that every split has."""
    values = {name: [getattr(repeat, name) for repeat in repeats] for name in FIGURES}
    return {name: tuple(found) for name, found in values.items() if found and None not in found}


def _begun_row(run: Begun) -> Row:
    return Row(
        "measured",
        run.model,
        run.dataset,
        run.protocol,
        dict.fromkeys(FIGURES),
        seeds=(run.seed,),
        marks=(UNFINISHED,),
        key=run.key,
    )


def _settings(record: Record) -> tuple[str, ...]:
    """What tells two records of one card apart: weights, and settings of the user's."""
    passed = [(name, record.request.get(name)) for name in ("weights", "init")]
    settings = record.request.get("settings")
    changed = [f"{key}={value}" for key, value in settings.items()] if isinstance(settings, dict) else []
    return (*(f"{name}={Path(value).name}" for name, value in passed if isinstance(value, str)), *changed)


def _whole(count: float | None) -> int | None:
    """A count; medians over splits may fall between two."""
    return None if count is None else round(count)


def _with_means(rows: list[Row], records: Sequence[Record], *, seeded_splits: bool) -> list[Row]:
    """The rows, and a row with the mean for each set of comparable records that differ in nothing but the seed."""
    alike: dict[str, list[Row]] = {}
    for row, record in zip(rows, records, strict=True):
        if row.ranked:
            # Under repeated splits the first split's identity stands for all.
            left_out = {"seed", "split"} if seeded_splits else {"seed"}
            settings = [row.repeats, {k: v for k, v in record.first_identity.items() if k not in left_out}]
            alike.setdefault(sha256_json(settings), []).append(row)
    several = [group for group in alike.values() if len(group) > 1]
    # Records of one seed on several splits are a repeat that has not been put together yet, not several seeds.
    return rows + [_mean(group) for group in several if len({row.seeds for row in group}) == len(group)]


def _mean(rows: Sequence[Row]) -> Row:
    rows = sorted(rows, key=lambda row: row.seeds)
    known = {name: [row.figures[name] for row in rows] for name in FIGURES}
    # A figure that one of the seeds does not have has no mean.
    whole = {name: [v for v in values if v is not None] for name, values in known.items() if None not in values}
    speeds = [row.pairs_per_second for row in rows if row.pairs_per_second]
    return Row(
        kind="seeds",
        name=rows[0].name,
        dataset=rows[0].dataset,
        protocol=rows[0].protocol,
        figures={name: sum(whole[name]) / len(rows) if name in whole else None for name in FIGURES},
        spread={name: (min(values), max(values)) for name, values in whole.items()},
        title=rows[0].title,
        n=rows[0].n if len({row.n for row in rows}) == 1 else None,
        references=rows[0].references if len({row.references for row in rows}) == 1 else None,
        pairs_per_second=sum(speeds) / len(speeds) if len(speeds) == len(rows) else None,
        device=rows[0].device if len({row.device for row in rows}) == 1 else "",
        seeds=tuple(seed for row in rows for seed in row.seeds),
        repeats=rows[0].repeats,
        marks=tuple(mark for mark in LEGEND if any(mark in row.marks for row in rows)),
        left_out=_mean_left_out(rows),
        images=rows[0].images if len({row.images for row in rows}) == 1 else _images_of_splits(rows),
        splits=_joined_splits(rows),
        used_references=min((r.used_references for r in rows if r.used_references is not None), default=None),
        test_share=rows[0].test_share if len({row.test_share for row in rows}) == 1 else None,
        whole=rows[0].whole if all(row.whole == rows[0].whole for row in rows) else {},
        whole_ci=rows[0].whole_ci if all(row.whole == rows[0].whole for row in rows) else {},
        trained_on=rows[0].trained_on,
        settings=rows[0].settings,
        members=tuple(row.key for row in rows),
    )


def _joined_splits(rows: Sequence[Row]) -> dict[str, tuple[float, ...]]:
    """The values on the splits of all seeds, one after the other."""
    shared = set.intersection(*(set(row.splits) for row in rows))
    return {name: tuple(value for row in rows for value in row.splits[name]) for name in FIGURES if name in shared}


def _images_of_splits(rows: Sequence[Row]) -> tuple[str | None, ...]:
    """What tells whether two means over seeds of repeated splits are of the same parts of the same images."""
    if not all(row.splits and row.images[1] for row in rows) or len({row.images[0] for row in rows}) > 1:
        return (None, None, None)
    return (rows[0].images[0], *(sha256_json([row.images[i] for row in rows]) for i in (1, 2)))


def _mean_left_out(rows: Sequence[Row]) -> LeaveOneOut | None:
    """The mean figures without each reference, where all rows have them for the same references."""
    known = [row.left_out for row in rows if row.left_out is not None]
    if len(known) < len(rows) or len({(row.images, found.references) for row, found in zip(rows, known, strict=True)}) > 1:
        return None
    shared = set.intersection(*(set(found.figures) for found in known))
    means = {f: [sum(v) / len(v) for v in zip(*(found.figures[f] for found in known), strict=True)] for f in shared}
    return LeaveOneOut.of(known[0].references, means)


def _controls(dataset: str, protocol: str, records: Sequence[Record]) -> list[Row]:
    complete = sorted((r for r in records if r.controls and _whole_run(r)), key=_age)
    if not complete:
        return []
    return [
        Row(
            kind="control",
            name=CONTROLS.get(name, name),
            dataset=dataset,
            protocol=protocol,
            figures={f: getattr(figures, f) for f in FIGURES},
            ci=figures.ci,
            n=_whole(figures.n),
            references=_whole(figures.references),
            marks=(FEW,) if figures.few_references else (),
        )
        for name, figures in (complete[-1].controls or {}).items()
    ]


def _ranked(rows: Sequence[Row], headline: str) -> list[Row]:
    """Best headline figure first, equal ones of one rank; the records behind a mean follow it, unranked."""
    behind = {key for row in rows for key in row.members}
    ordered: list[Row] = []
    place, rank, figure = 0, 0, None
    for row in sorted((row for row in rows if not row.key or row.key not in behind), key=lambda row: _height(row, headline)):
        if row.ranked:
            place += 1
            # Equal figures share a rank, and the next row's rank counts them all.
            rank = rank if place > 1 and row.figures[headline] == figure else place
            figure = row.figures[headline]
        ordered.append(replace(row, rank=rank if row.ranked else None))
        ordered += sorted((r for r in rows if r.key in row.members), key=lambda r: (r.seeds, r.key))
    return ordered


def _height(row: Row, headline: str) -> tuple[bool, float, str, str]:
    value = row.figures.get(headline)
    comparable = row.ranked or row.kind == "control"
    return (not comparable, -value if value is not None else float("inf"), row.name, row.key)


def _reported(records: Sequence[Record], dataset: str) -> tuple[Reported, ...]:
    """Published numbers of the models measured here, each once, as the newest record's card gives them."""
    newest = {record.model: record for record in sorted(records, key=_age)}
    return tuple(
        Reported(
            name=name,
            dataset=dataset,
            protocol=entry.protocol,
            figures={f: getattr(entry, f) for f in ("srcc", "plcc", "krcc", "main")},
            plcc_kind=entry.plcc_kind,
            variant=entry.variant,
            source=source_of(entry),
            status=entry.status,
            note="; ".join(filter(None, (entry.definition, entry.note))),
        )
        for name, record in sorted(newest.items())
        for entry in record.cards.model.published
        if entry.dataset == dataset
    )
