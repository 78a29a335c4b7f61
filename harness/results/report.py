"""What one run found, to look at: images of its agreement, and report.html, one page that needs nothing but itself.

`rows` everywhere is a pandas frame of the scored rows with the columns name, score (as in scores.csv), label (people's; NaN
where withheld), distortion, level, reference_id, part, and, where the images are at hand, reference and distorted (paths).
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

from harness.cards.schema import ModelCard
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


def of_run(folder: Path, record: Record, table: pd.DataFrame, model: Any = None) -> list[Path]:
    """The report of the finished run in `folder`; `table` is the dataset's (`harness.datasets.table`).

    A report that cannot be made costs a warning; raises Unwritable where it cannot be written, as the record then cannot either.
    """
    try:
        return write(folder, record, frame(table, ScoreFile(folder).read()), model)
    except Unwritable:
        raise
    except Exception as error:
        _log.warning(f"no report of {folder}: {type(error).__name__}: {error}".splitlines()[0])
        return []


def frame(table: pd.DataFrame, scores: Sequence[tuple[str, float, str]]) -> pd.DataFrame:
    """`rows` from a dataset's table and (name, score, part) of scores.csv, in the latter's order."""
    import pandas as pd

    given = pd.DataFrame(scores, columns=["name", "score", "part"])
    return given.merge(table.drop(columns="part").rename(columns={"score": "label"}), on="name", how="left")


def plots(folder: Path, record: Record, rows: pd.DataFrame) -> list[Path]:
    """Write the run's images into `folder`: scatter.png, kinds.png, training.png and, of repeated splits,
    splits.png, each where there is something to draw."""
    from harness.results import plots as drawing
    from harness.results.breakdown import points

    drawn: dict[str, bytes] = {}
    p = points(record, rows)
    if p is not None and len(p.score) > 1:
        drawn[SCATTER] = drawing.scatter(p, f"{record.model} on {record.dataset}, {record.protocol}: {_headline(record)}")
        kinds = sorted(set(p.distortion))
        if 1 < len(kinds) <= _MOST_KINDS:
            drawn[KINDS] = drawing.by_kind(p, kinds)
    if isinstance(record, RepeatsRecord) and (values := _by_split(record)):
        drawn[SPLITS] = drawing.splits(values)
    if record.history:
        drawn[TRAINING] = drawing.training(record.history)
    for name, data in drawn.items():
        with atomic(folder / name) as stream:
            stream.write(data)
    return [folder / name for name in drawn]


def write(folder: Path, record: Record, rows: pd.DataFrame, model: Any = None) -> list[Path]:
    """Write the run's images and report.html into `folder`; returns all of them.

    `model`, ready to score, is asked for `score_maps` of the worst pairs if it has that ability; it may take ten seconds.
    """
    from harness.results.breakdown import by_kind, by_kind_over_splits, by_level, by_reference, points
    from harness.results.html import render
    from harness.results.thumbnails import data_uri

    written = plots(folder, record, rows)
    p = points(record, rows)
    over = record if isinstance(record, RepeatsRecord) else None
    if over is not None:
        trained_parts = by_kind_over_splits(over, rows) if over.training else []
        rows = rows[rows["part"] == ALL]
    parts = [] if p is None else [("kind of distortion", by_kind(p)), ("level", by_level(p)), ("reference", by_reference(p))]
    parts += [("kind of distortion", trained_parts)] if over is not None and trained_parts else []
    page = render(
        "report.html",
        record=record,
        title=record.cards.model.title,
        note=sentences(*record.note.split(". ")),
        marks=_marks(record),
        width=_WIDTH,
        figures=_figures(record),
        pictures={path.name: data_uri(path.read_bytes(), "image/png") for path in written},
        **_further(record),
        parts=[_part_table(what, found) for what, found in parts if found],
        splits=_split_rows(over) if over is not None else [],
        all_images=over is not None and bool(over.all_images),
        part_ends="Range" if over is not None and p is None else "95% interval",
        worst=[] if p is None else _worst(p, rows, model),
        curve=p is not None and p.curve is not None,
        recipe=_settings(record.cards.model, trained=record.training is not None),
        training=[(k.replace("_", " "), _short(v)) for k, v in _plain(record.training).items() if v is not None],
        environment=_environment(record),
        hashes=[(k, v) for k, v in _flat(_plain(record.hashes)) if v and "pictures_by_reference" not in k],
    )
    write_text(folder / PAGE, page)
    return [*written, folder / PAGE]


def _plain(part: Any) -> dict[str, Any]:
    """A part of a record as plain values; empty for none."""
    return {} if part is None else dict(msgspec.to_builtins(part))


def _headline(record: Record) -> str:
    from harness.results.tables import count, number

    figures, whole = record.test, ""
    if isinstance(record, RepeatsRecord) and record.all_images:
        figures, whole = record.all_images, "all images, "
    figures = figures or Figures(n=None)
    return f"{whole}SRCC {number(figures.srcc)}, PLCC {number(figures.plcc)}, n = {count(figures.n)}"


def _marks(record: Record) -> dict[str, str]:
    """What a reader must know of this record, in the words of the leaderboards."""
    own = {*marks_of(record, PARTIAL if record.partial else None)}
    own |= {FEW} if any(figures.few_references for figures in (record.controls or {}).values()) else set()
    return {mark: text for mark, text in LEGEND.items() if mark in own}


def _figures(record: Record) -> list[dict[str, Any]]:
    """Each figure with its interval, drawn from -1 (or the lowest end, in halves) to 1; main over twice that.

    Of repeated splits: the medians with their ranges, and next to them the figures over all images with intervals.
    """
    from harness.results.tables import count, figure, number

    over = isinstance(record, RepeatsRecord)
    whole = (record.all_images if isinstance(record, RepeatsRecord) else None) or Figures(n=None)
    test, names = (
        record.test or Figures(n=None),
        {"srcc": "SRCC", "plcc": "PLCC", "plcc_fitted": "PLCC fitted", "krcc": "KRCC", "main": "Main"},
    )
    rows: list[dict[str, Any]] = []
    for key, name in names.items():
        value, interval = getattr(test, key), (({} if test.range is UNSET else test.range) if over else test.ci).get(key)
        reach = 2.0 if key == "main" else 1.0
        drawn = None if value is None else _drawn(value / reach, [end / reach for end in interval] if interval else None)
        shown = f"{number(interval[0])} to {number(interval[1])}" if interval else ""
        ends = whole.ci.get(key)
        beside = {
            "whole": number(getattr(whole, key)),
            "whole_interval": f"{number(ends[0])} to {number(ends[1])}" if ends else "",
        }
        rows.append({"name": name, "value": number(value), "interval": shown, "drawn": drawn, **beside})
    for key, name in {"rmse": "RMSE", "srcc_within": "SRCC within references", "n": "pairs", "references": "references"}.items():
        written = [count(v) if key in ("n", "references") else figure(key, v) for v in (getattr(test, key), getattr(whole, key))]
        rows.append({"name": name, "value": written[0], "interval": "", "drawn": None, "whole": written[1], "whole_interval": ""})
    return rows


def _by_split(record: RepeatsRecord) -> dict[str, list[float]]:
    """SRCC, PLCC and KRCC of each split, of those that every split has."""
    found = {name: [getattr(repeat, key) for repeat in record.repeats] for key, name in _DRAWN.items()}
    return {name: values for name, values in found.items() if values and None not in values}


def _split_rows(record: RepeatsRecord) -> list[list[str]]:
    """Number, counts, figures and run of each split."""
    from harness.results.tables import count, number

    return [
        [
            *(str(repeat.repeat), count(repeat.n), count(repeat.references)),
            *(number(getattr(repeat, key)) for key in (*_DRAWN, "main")),
            repeat.run,
        ]
        for repeat in record.repeats
    ]


def _further(record: Record) -> dict[str, Any]:
    """Figures beyond correlations; those that are not defined, as the dataset lacks what they need, by name, and why."""
    from harness.results.tables import number

    found = record.test and record.test.discrimination
    if isinstance(record, RepeatsRecord):
        found = record.all_images.discrimination if record.all_images else None
    if not record.test or not found:
        return {"further": [], "undefined_figures": [], "why_not": []}
    pairs: Mapping[str, Any] = found.pair_analysis or {}
    steps: Mapping[str, Any] = found.monotonicity or {}
    rows = {
        "different against similar pairs, AUC": pairs.get("different_similar"),
        "better against worse, AUC": pairs.get("better_worse"),
        "better image found": pairs.get("correct"),
        "outlier ratio": found.outlier_ratio,
        "steps of level on which the score falls": steps.get("steps"),
        "series of levels that fall throughout": steps.get("series"),
    }
    rows = {"2AFC score": record.test.score_2afc, **rows} if record.test.score_2afc is not None else rows
    return {
        "further": [(name, number(value)) for name, value in rows.items() if value is not None],
        "undefined_figures": [name for name, value in rows.items() if value is None],
        "why_not": found.not_defined,
    }


def _drawn(value: float, interval: Sequence[float] | None, low: float = -1.0) -> tuple[float, ...]:
    """Where a correlation and its interval lie on a line from `low` to 1, in pixels."""
    ends = [value, *(interval or ())]
    return tuple(round(4 + (min(max(end, low), 1.0) - low) / (1 - low) * (_WIDTH - 8), 1) for end in ends)


def _part_table(what: str, parts: Sequence[Part]) -> dict[str, Any]:
    from harness.results.tables import number

    shown = parts[:_MOST_REFERENCES] if what == "reference" else parts
    return {
        "what": what,
        "left_out": len(parts) - len(shown),
        "rows": [
            {
                "name": part.name,
                "n": part.n,
                "references": part.references,
                "value": number(part.srcc),
                "residual": "" if part.residual is None else f"{part.residual:+.3g}",
                "interval": f"{number(part.interval[0])} to {number(part.interval[1])}" if part.interval else "",
                "drawn": None if part.srcc is None else _drawn(part.srcc, part.interval),
            }
            for part in shown
        ],
    }


def _worst(p: Points, rows: pd.DataFrame, model: Any) -> list[dict[str, Any]]:
    from harness.results.breakdown import worst
    from harness.results.thumbnails import Shown, show

    chosen = worst(p)
    places = rows.set_index("name")
    at_hand = {"reference", "distorted"} <= set(rows.columns)
    pairs = [(str(places.at[p.name[i], "reference"]), str(places.at[p.name[i], "distorted"])) for i in chosen] if at_hand else []
    pictures = show(pairs, model) if pairs else [Shown(None, None)] * len(chosen)
    fitted, off = p.fitted, p.misjudgement
    return [
        {
            "name": p.name[i],
            "about": " ".join(filter(None, [p.distortion[i], "" if p.level[i] != p.level[i] else f"level {p.level[i]:g}"])),
            "score": f"{p.score[i]:.4g}",
            "label": f"{p.label[i]:.4g}",
            "fitted": None if fitted is None else f"{fitted[i]:.4g}",
            "off": f"{off[i]:+.3g}" if fitted is not None else f"{off[i]:+.0%}",
            "better": (off[i] * p.label_sign if fitted is not None else off[i]) > 0,
            "pictures": shown,
        }
        for i, shown in zip(chosen, pictures, strict=True)
    ]


def _settings(card: ModelCard, *, trained: bool) -> list[tuple[str, str]]:
    groups = {"model": dict(card.model), "protocol": asdict(card.protocol)}
    groups |= {"recipe": asdict(card.recipe)} if trained and card.recipe else {}
    found = {f"{group}.{k}": v for group, table in groups.items() for k, v in table.items()}
    return [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in found.items()]


def _environment(record: Record) -> list[tuple[str, str]]:
    facts = [("seed", record.seed), ("created", record.created), *_flat(record.conditions)]
    facts += [("seconds of scoring", record.seconds), ("pairs per second", record.pairs_per_second)]
    return [(k, _short(v)) for k, v in facts if v is not None]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return found
