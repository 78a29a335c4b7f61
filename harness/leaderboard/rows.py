"""`board`: makes the rows of a leaderboard from records, grouped by protocol, with ranks and marks.

Only comparable rows are ranked. Partial records, records of incomplete datasets, records on other pairs or labels than the
group, weights trained on the dataset and records without figures are shown without a rank, and never averaged.
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
from harness.leaderboard.board_document import FIGURES, Begun, Board, Group, Reported, Row
from harness.leaderboard.row_groups import with_best
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
from harness.results.record import Figures, Record, RepeatsRecord
from harness.statistics.leave_one_out import LeaveOneOut

_SHARED = ("n", "references", "device", "images", "test_share", "whole")
"""Fields that a mean over seeds has only if they are equal in all of its records."""


def board(records: Sequence[tuple[Path | None, Record | Begun]], dataset: str, records_folder: Path | None = None) -> Board:
    """The tables of one dataset from its records (with their folders, if any), in any order.

    Folders under `records_folder` become relative links.
    """
    chosen = [(folder, record) for folder, record in records if record.dataset == dataset]
    finished = [record for _, record in chosen if isinstance(record, Record)]
    card = max(finished, key=_age).cards.dataset if finished else None
    known = list(card.protocols) if card else []
    protocols = sorted({record.protocol for _, record in chosen}, key=lambda p: (known.index(p) if p in known else len(known), p))
    return Board(
        dataset=dataset,
        title=(card and card.title) or dataset,
        note=card.note if card else "",
        label=card.label if card else "",
        groups=tuple(_group(dataset, card, p, [m for m in chosen if m[1].protocol == p], records_folder) for p in protocols),
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
    # Leave out single-split runs whose results are in a record of repeated splits.
    included = {key for _, record in found if isinstance(record, RepeatsRecord) for key in record.runs_behind}
    found = [(folder, record) for folder, record in found if record.key not in included]
    finished = [(folder, record) for folder, record in found if isinstance(record, Record)]
    records = [record for _, record in finished]
    usual = _usual(records, seeded_splits=seeded)
    rows = []
    for folder, record in finished:
        place = ""
        if folder is not None and records_folder is not None and folder.is_relative_to(records_folder):
            place = folder.relative_to(records_folder).as_posix()
        rows.append(_row(record, place, usual))
    # The mean of each set of comparable records that differ only in the seed.
    alike: dict[str, list[Row]] = {}
    for row, record in zip(rows, records, strict=True):
        if row.ranked:
            # For repeated splits, the identity of the first split is used for all.
            left_out = {"seed", "split"} if seeded else {"seed"}
            settings = [row.repeats, {k: v for k, v in record.first_identity.items() if k not in left_out}]
            alike.setdefault(sha256_json(settings), []).append(row)
    # Records of one seed on several splits are an unfinished record of repeated splits, not several seeds.
    rows += [_mean(same) for same in alike.values() if len(same) > 1 and len({row.seeds for row in same}) == len(same)]
    for _, run in found:
        if isinstance(run, Begun):
            named = (run.model, run.dataset, run.protocol, dict.fromkeys(FIGURES))
            rows.append(Row("measured", *named, seeds=(run.seed,), marks=(UNFINISHED,), key=run.key))
    # The controls of the newest complete record: they are equal for all records on the same pairs and labels.
    controlled = [r for r in records if r.controls and _whole_run(r) and not _differs(r, usual)]
    for name, figures in (max(controlled, key=_age).controls or {}).items() if controlled else ():
        n, references, marks = _whole(figures.n), _whole(figures.references), (FEW,) if figures.few_references else ()
        known = (CONTROLS.get(name, name), dataset, protocol, _known(figures))
        rows.append(Row("control", *known, ci=figures.ci, n=n, references=references, marks=marks))
    confidence = next((r.test.confidence for r in records if r.test and r.test.confidence), 0.95)
    headline = "score_2afc" if any(row.figures.get("score_2afc") is not None for row in rows if row.ranked) else "main"
    rows = with_best(_in_order(rows, headline), headline, confidence)
    description, note = (about.description, about.note) if about else ("", "")
    return Group(dataset, protocol, description, note, tuple(rows), confidence, headline)


class _Usual(NamedTuple):
    """The data on which most records of a group were measured; None if it varies by design or is unknown."""

    table: str | None
    split: str | None
    n: float | None
    images: str | None
    over_splits: bool = False
    """Whether the figures of the group are medians over splits."""


def _usual(records: Sequence[Record], *, seeded_splits: bool) -> _Usual:
    over_splits = [r for r in records if isinstance(r, RepeatsRecord)]
    whole = [r for r in over_splits or records if _whole_run(r)]
    table = _most_common([_hash(r, "table") for r in whole])
    here = [r for r in whole if _hash(r, "table") == table]
    # Seeded splits differ between seeds by design; other splits are a fixed list of images.
    split = None if seeded_splits else _most_common([_hash(r, "split") for r in here])
    same = [r for r in here if _hash(r, "split") == split]
    images = _most_common([_hash(r, "images") for r in same]) if split is not None else None
    counts = [r.test.n for r in same if r.test and r.test.n is not None]
    return _Usual(table, split, max(counts, default=None), images, bool(over_splits))


def _differs(record: Record, usual: _Usual) -> str | None:
    """The mark of a record that was measured on other data than its group, or None."""
    if record.incomplete:  # has its own mark, which explains the different table
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
        # The same labels with the opposite polarity count as other labels.
        found = found and f"{found} lower is better"
    return found


def _most_common(values: Sequence[str | None]) -> str | None:
    counts = Counter(v for v in values if v is not None)
    return min(counts, key=lambda v: (-counts[v], v)) if counts else None


def _row(record: Record, folder: str, usual: _Usual) -> Row:
    figures = record.test or Figures(n=None)
    spread = {} if figures.range is UNSET else figures.range
    over = record if isinstance(record, RepeatsRecord) else None
    repeats, whole = over.repeats if over else [], (over and over.all_images) or Figures(n=None)
    by_split = {name: [getattr(repeat, name) for repeat in repeats] for name in FIGURES}
    # Differences between records of one card: weights, and the user's settings.
    passed = {name: record.request.get(name) for name in ("weights", "init")}
    changed = record.request.get("settings")
    settings = [f"{name}={Path(value).name}" for name, value in passed.items() if isinstance(value, str)]
    settings += [f"{key}={value}" for key, value in changed.items()] if isinstance(changed, dict) else []
    return Row(
        kind="measured",
        name=record.model,
        dataset=record.dataset,
        protocol=record.protocol,
        figures=_known(figures),
        ci=figures.ci,
        spread={name: ends for name, ends in spread.items() if ends is not None},
        title=record.cards.model.title,
        n=_whole(figures.n),
        references=_whole(figures.references),
        pairs_per_second=record.pairs_per_second,
        device=str(record.conditions.get("device") or ""),
        seeds=(record.seed,),
        repeats=len(repeats),
        splits={name: tuple(values) for name, values in by_split.items() if values and None not in values},
        test_share=over.test_share if over else None,
        used_references=over.used_references if over else None,
        whole=_known(whole),
        whole_ci=whole.ci,
        marks=marks_of(record, _differs(record, usual)),
        left_out=LeaveOneOut.read(record.without_each_reference),
        images=(_hash(record, "table"), _hash(record, "split"), _hash(record, "images")),
        trained_on=tuple(record.trained_on),
        settings=tuple(settings),
        key=record.key,
        folder=folder,
        recorded_command=record.command,
        created=record.created,
    )


def _known(figures: Figures) -> dict[str, float | None]:
    return {name: getattr(figures, name) for name in FIGURES}


def _whole(count: float | None) -> int | None:
    """A count as an integer; a median over splits may be between two integers."""
    return None if count is None else round(count)


def _mean(rows: Sequence[Row]) -> Row:
    """A row with the mean over records that differ only in the seed; other fields are empty unless they are equal."""
    rows = sorted(rows, key=lambda row: row.seeds)
    first = rows[0]
    alike = {name for name in _SHARED if all(getattr(row, name) == getattr(first, name) for row in rows)}
    known = {name: [row.figures[name] for row in rows] for name in FIGURES}
    # A figure has a mean only if all seeds have it.
    whole = {name: [v for v in values if v is not None] for name, values in known.items() if None not in values}
    speeds = [row.pairs_per_second for row in rows if row.pairs_per_second]
    # For repeated splits: the values on the splits of all seeds, and hashes that show whether two means are of the same parts.
    splits = {name: tuple(v for row in rows for v in row.splits[name]) for name in FIGURES if all(name in r.splits for r in rows)}
    images: tuple[str | None, ...] = first.images if "images" in alike else (None, None, None)
    if "images" not in alike and all(row.splits and row.images[1] for row in rows) and len({row.images[0] for row in rows}) == 1:
        images = (first.images[0], *(sha256_json([row.images[i] for row in rows]) for i in (1, 2)))
    # The mean figures without each reference, if all rows have them for the same references of the same images.
    left_out, means = [row.left_out for row in rows if row.left_out is not None], None
    if "images" in alike and len(left_out) == len(rows) and len({one.references for one in left_out}) == 1:
        shared = set.intersection(*(set(one.figures) for one in left_out))
        each = {f: [sum(v) / len(v) for v in zip(*(one.figures[f] for one in left_out), strict=True)] for f in shared}
        means = LeaveOneOut.of(left_out[0].references, each)
    return Row(
        kind="seeds",
        name=first.name,
        dataset=first.dataset,
        protocol=first.protocol,
        figures={name: sum(whole[name]) / len(rows) if name in whole else None for name in FIGURES},
        spread={name: (min(values), max(values)) for name, values in whole.items()},
        title=first.title,
        n=first.n if "n" in alike else None,
        references=first.references if "references" in alike else None,
        pairs_per_second=sum(speeds) / len(speeds) if len(speeds) == len(rows) else None,
        device=first.device if "device" in alike else "",
        seeds=tuple(seed for row in rows for seed in row.seeds),
        repeats=first.repeats,
        marks=tuple(mark for mark in LEGEND if any(mark in row.marks for row in rows)),
        left_out=means,
        images=images,
        splits=splits,
        used_references=min((r.used_references for r in rows if r.used_references is not None), default=None),
        test_share=first.test_share if "test_share" in alike else None,
        whole=first.whole if "whole" in alike else {},
        whole_ci=first.whole_ci if "whole" in alike else {},
        trained_on=first.trained_on,
        settings=first.settings,
        members=tuple(row.key for row in rows),
    )


def _in_order(rows: Sequence[Row], headline: str) -> list[Row]:
    """Rows by headline figure, the best first; equal ones share a rank. The records of a mean follow it, without ranks."""

    def sort_key(row: Row) -> tuple[bool, float, str, str]:
        value = row.figures.get(headline)
        return not (row.ranked or row.kind == "control"), -value if value is not None else float("inf"), row.name, row.key

    members = {key for row in rows for key in row.members}
    ordered: list[Row] = []
    place, rank, figure = 0, 0, None
    for row in sorted((row for row in rows if not row.key or row.key not in members), key=sort_key):
        if row.ranked:
            place += 1
            # Equal figures share a rank; the rank of the next row counts all of them.
            rank = rank if place > 1 and row.figures[headline] == figure else place
            figure = row.figures[headline]
        ordered.append(replace(row, rank=rank if row.ranked else None))
        if row.members:
            ordered += sorted((r for r in rows if r.key in row.members), key=lambda r: (r.seeds, r.key))
    return ordered


def _reported(records: Sequence[Record], dataset: str) -> tuple[Reported, ...]:
    """Published results of the models in these records, once for each model, from the card of its newest record."""
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
