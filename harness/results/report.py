"""The report of one run: plots, and report.html, a page without external files.

`rows` is always a pandas frame of the scored rows with the columns name, score (as in scores.csv), label (NaN if withheld),
distortion, level, reference_id, part, and, if the images are available, reference and distorted (paths).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from harness.files.atomic import atomic, write_text
from harness.results.marks import FEW, LEGEND, PARTIAL, marks_of, sentences
from harness.results.record import Figures, Record, RepeatsRecord
from harness.results.run_scores import ALL, ScoreFile
from harness.runtime.errors import Unwritable

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.breakdown import Part, Points

_log = logging.getLogger(__package__)

PAGE, SCATTER, KINDS, TRAINING, SPLITS = "report.html", "scatter.png", "kinds.png", "training.png", "splits.png"
_DRAWN = {"srcc": "SRCC", "plcc": "PLCC", "krcc": "KRCC"}
_MOST_KINDS = 60
_MOST_REFERENCES = 20
_WIDTH = 160


def of_run(
    folder: Path, record: Record, table: pd.DataFrame, model: Any = None, scores: pd.DataFrame | None = None
) -> list[Path]:
    """Write the report of the finished run in `folder`; `table` is the dataset's table (`harness.datasets.table`).

    `scores`: its scores.csv (`ScoreFile.table`), if it was read already.

    An error in the report gives a warning only. Raises Unwritable if files cannot be written: the record could not be either.
    """
    try:
        return write(folder, record, frame(table, ScoreFile(folder).table() if scores is None else scores), model)
    except Unwritable:
        raise
    except Exception as error:
        _log.warning(f"no report was written to {folder}: {type(error).__name__}: {error}".splitlines()[0])
        return []


def frame(table: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """`rows` from a dataset's table and the columns name, score and part of scores.csv, in the order of scores.csv."""
    return scores.merge(table.drop(columns="part").rename(columns={"score": "label"}), on="name", how="left")


def plots(folder: Path, record: Record, p: Points | None) -> list[Path]:
    """Write the run's plots, of `p` (`breakdown.points`), into `folder`: scatter.png, kinds.png, training.png and, for repeated
    splits, splits.png. A plot without data is left out."""
    from harness.results import plots as drawing
    from harness.results.tables import count, number

    drawn: dict[str, bytes] = {}
    if p is not None and len(p.score) > 1:
        figures, whole = record.test, ""
        if isinstance(record, RepeatsRecord) and record.all_images:
            figures, whole = record.all_images, "all images, "
        figures = figures or Figures(n=None)
        headline = f"{whole}SRCC {number(figures.srcc)}, PLCC {number(figures.plcc)}, n = {count(figures.n)}"
        drawn[SCATTER] = drawing.scatter(p, f"{record.model} on {record.dataset}, {record.protocol}: {headline}")
        kinds = sorted(map(str, p.kinds[1]))
        if 1 < len(kinds) <= _MOST_KINDS:
            drawn[KINDS] = drawing.by_kind(p, kinds)
    if isinstance(record, RepeatsRecord):
        # SRCC, PLCC and KRCC of each split, if every split has them.
        found = {name: [getattr(repeat, key) for repeat in record.repeats] for key, name in _DRAWN.items()}
        if values := {name: each for name, each in found.items() if each and None not in each}:
            drawn[SPLITS] = drawing.splits(values)
    if record.history:
        drawn[TRAINING] = drawing.training(record.history)
    for name, data in drawn.items():
        with atomic(folder / name) as stream:
            stream.write(data)
    return [folder / name for name in drawn]


def write(folder: Path, record: Record, rows: pd.DataFrame, model: Any = None) -> list[Path]:
    """Write the run's plots and report.html into `folder`; returns all paths.

    If `model`, which must be ready to score, has `score_maps`, the maps of the worst pairs are drawn in at most ten seconds.
    """
    from harness.results.breakdown import by_kind, by_kind_over_splits, by_level, by_reference, points, worst
    from harness.results.tables import count, figure, number
    from harness.results.templates import render
    from harness.results.thumbnails import Shown, data_uri, show

    p, test, card = points(record, rows), record.test or Figures(n=None), record.cards.model
    written = plots(folder, record, p)
    marks = {*marks_of(record, PARTIAL if record.partial else None)}
    marks |= {FEW} if any(figures.few_references for figures in (record.controls or {}).values()) else set()
    # For repeated splits: medians with their ranges, and the figures over all images with their intervals.
    over = record if isinstance(record, RepeatsRecord) else None
    whole, ends = (over and over.all_images) or None, test.ci
    trained_parts: Sequence[Part] = []
    if over is not None:
        ends = {} if test.range is UNSET else test.range
        trained_parts = by_kind_over_splits(over, rows) if over.training else []
        rows = rows[rows["part"] == ALL]
    parts = [] if p is None else [("kind of distortion", by_kind(p)), ("level", by_level(p)), ("reference", by_reference(p))]
    parts += [("kind of distortion", list(trained_parts))]
    # The pairs with the largest errors, with their images if these are available.
    chosen = [] if p is None else worst(p)
    images = [Shown(None, None)] * len(chosen)
    if p is not None and chosen and {"reference", "distorted"} <= set(rows.columns):
        names, places = [p.name[i] for i in chosen], rows.set_index("name")
        images = show([(str(places.at[name, "reference"]), str(places.at[name, "distorted"])) for name in names], model)
    beyond, not_defined = _beyond_correlations(record)
    settings = {"model": card.model, "protocol": asdict(card.protocol)}
    settings |= {"recipe": asdict(card.recipe)} if record.training is not None and card.recipe else {}
    environment = [("seed", record.seed), ("created", record.created), *_flat(record.conditions)]
    environment += [("seconds of scoring", record.seconds), ("pairs per second", record.pairs_per_second)]
    training = msgspec.to_builtins(record.training or {}).items()
    page = render(
        "report.html",
        record=record,
        title=card.title,
        note=sentences(*record.note.split(". ")),
        marks={mark: text for mark, text in LEGEND.items() if mark in marks},
        width=_WIDTH,
        test=test,
        ends=ends,
        whole=whole,
        pictures={path.name: data_uri(path.read_bytes(), "image/png") for path in written},
        further=[(name, number(value)) for name, value in beyond.items() if value is not None],
        undefined_figures=[name for name, value in beyond.items() if value is None],
        why_not=not_defined,
        parts=[(what, found) for what, found in parts if found],
        most_references=_MOST_REFERENCES,
        splits=over.repeats if over is not None else [],
        part_ends="Range" if over is not None and p is None else "95% interval",
        points=p,
        worst=list(zip(chosen, images, strict=True)),
        curve=p is not None and p.curve is not None,
        recipe=[(k, v if isinstance(v, str) else json.dumps(v)) for k, v in _flat(settings, depth=1)],
        training=[(k.replace("_", " "), _short(v)) for k, v in training if v is not None],
        environment=[(k, _short(v)) for k, v in environment if v is not None],
        hashes=[(k, v) for k, v in _flat(msgspec.to_builtins(record.hashes)) if v and "pictures_by_reference" not in k],
        drawn_at=_drawn_at,
        **{each.__name__: each for each in (count, figure, number)},
    )
    write_text(folder / PAGE, page)
    return [*written, folder / PAGE]


def _beyond_correlations(record: Record) -> tuple[dict[str, float | None], Sequence[str]]:
    """Figures other than correlations, None if the dataset lacks the necessary data, and the reasons."""
    found = record.test and record.test.discrimination
    if isinstance(record, RepeatsRecord):
        found = record.all_images.discrimination if record.all_images else None
    if not record.test or not found:
        return {}, ()
    pairs: Mapping[str, Any] = found.pair_analysis or {}
    steps: Mapping[str, Any] = found.monotonicity or {}
    afc = record.test.score_2afc
    return {
        **({} if afc is None else {"2AFC score": afc}),
        "different against similar pairs, AUC": pairs.get("different_similar"),
        "better against worse, AUC": pairs.get("better_worse"),
        "better image found": pairs.get("correct"),
        "outlier ratio": found.outlier_ratio,
        "steps of level on which the score falls": steps.get("steps"),
        "series of levels that fall throughout": steps.get("series"),
    }, found.not_defined


def _drawn_at(value: float | None, ends: Sequence[float] | None, reach: float = 1.0) -> list[float]:
    """The positions in pixels of a figure and its interval on an axis from -`reach` to `reach`; empty without a figure."""
    inside = [min(max(v / reach, -1.0), 1.0) for v in (value, *(ends or ())) if v is not None]
    return [round(4 + (v + 1) / 2 * (_WIDTH - 8), 1) for v in inside] if value is not None else []


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(table: Mapping[str, Any], prefix: str = "", depth: int = -1) -> list[tuple[str, Any]]:
    """The values of nested tables by dotted name; `depth`: how many levels of tables are flattened, -1 for all."""
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        deeper = isinstance(value, Mapping) and depth
        found += _flat(value, f"{prefix}{key}.", depth - 1) if deeper else [(prefix + key, value)]
    return found
