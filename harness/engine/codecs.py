"""Comparing codecs on the same images from a table of scores (`harness codecs`, `harness compare --by`).

The table has a row per distorted image, as `harness score --out` writes it: reference, codec, setting, bytes, and a column per
metric.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.files.table_paths import TablePaths
from harness.files.text_table import convert_numbers, read_text_columns
from harness.imaging import file_headers
from harness.models import find_model
from harness.runtime.errors import UsageError, listed, near
from harness.statistics.bd_rate import Interpolation, MeanOver, Place, mean_over, places, rate_difference
from harness.statistics.comparison import natural

if TYPE_CHECKING:
    import pandas as pd

_SETTINGS = ("quality", "setting", "qp", "crf", "q", "level", "preset")
_NOT_METRICS = ("name", "reference", "distorted", "reference_id", "bytes", "pixels")


@dataclass(frozen=True)
class Metric:
    """A column of scores."""

    name: str
    higher_is_better: bool


@dataclass(frozen=True)
class ScoreTable:
    """A table of scores, checked."""

    path: str
    rows: pd.DataFrame
    """The columns `_image`, `_codec`, `_setting` (text, empty without one), `_rate`, and the metrics as numbers."""
    metrics: tuple[Metric, ...]
    codecs: tuple[str, ...]
    by: str
    setting: str | None
    rate: str
    """The rate's description, for messages."""


@dataclass(frozen=True)
class ImageDifference:
    """The rate difference on one image."""

    image: str
    percent: float | None
    reason: str
    overlap: float


@dataclass(frozen=True)
class AtSetting:
    """The difference of a codec from the anchor at one setting, paired by image."""

    setting: str
    quality: MeanOver
    """Difference of the metric, in its own unit."""
    rate_percent: MeanOver
    """Difference of the rate in percent of the anchor's."""


@dataclass(frozen=True)
class CodecResult:
    """A codec against the anchor, by one metric."""

    codec: str
    metric: str
    higher_is_better: bool
    rate: MeanOver
    """Bjontegaard's rate difference in percent, mean over images; negative: the codec needs less rate."""
    gaining: int
    """Images on which the codec needs less rate than the anchor."""
    images: tuple[ImageDifference, ...]
    at_settings: tuple[AtSetting, ...]

    @property
    def left_out(self) -> list[ImageDifference]:
        """Images without a rate difference."""
        return [image for image in self.images if image.percent is None]


@dataclass(frozen=True)
class CodecComparison:
    """All codecs of a table against the anchor."""

    anchor: str
    method: Interpolation
    table: ScoreTable
    results: tuple[CodecResult, ...]

    def json(self) -> dict[str, object]:
        """Plain values for JSON; undefined figures are null."""
        about = {"anchor": self.anchor, "method": self.method, "rate": self.table.rate, "setting": self.table.setting}
        return {**about, "results": [asdict(result) for result in self.results]}


@dataclass(frozen=True)
class Ranking:
    """The alternatives of a column by one metric, on the images (and settings) that all of them have."""

    metric: str
    higher_is_better: bool
    images: int
    cells: int
    """Pairs of image and setting that all have."""
    places: tuple[Place, ...]


def read_score_table(
    path: str,
    *,
    by: str = "codec",
    rate: str | None = None,
    setting: str | None = None,
    image: str | None = None,
    metrics: Sequence[str] = (),
    lower: Sequence[str] = (),
    cards: Sequence[str] = (),
    anchor: str | None = None,
    rates: bool = True,
    inner: bool = False,
) -> ScoreTable:
    """Read and check a table of scores.

    Args:
        path: a table as `harness score --out` writes it, or any with such columns.
        by: the column that names the codec.
        rate: the column of rates; None: bits per pixel from the columns bytes and pixels, else from the files themselves.
        setting: the column of the setting; None: quality, setting, qp, crf, q, level or preset, where there is one.
        image: the column of the image; None: reference_id, reference or image.
        metrics: columns of scores; None: those with a model's name.
        lower: metrics without a card for which lower is better.
        cards: folders of the caller's own cards.
        anchor: the codec that the table must have.
        rates: whether rates are needed.
        inner: leave out images that the anchor or a codec lacks, instead of refusing them.

    Raises:
        UsageError: listing every problem.
    """
    frame = read_text_columns(Path(path), (by,))
    if frame.empty:
        raise UsageError(f"{path}: no rows")
    columns = list(frame.columns)
    problems = []
    for option, name in (("--by" if not anchor else "--codec", by), ("--rate", rate), ("--setting", setting), ("--image", image)):
        if name is not None and name.lower() not in columns:
            problems.append(f"{path}: no column {name!r} ({option}){near(name.lower(), columns)} (it has {', '.join(columns)})")
    by, rate, setting, image = (None if n is None else n.lower() for n in (by, rate, setting, image))  # type: ignore[assignment]
    image = image or next((c for c in ("reference_id", "image", "reference") if c in columns), None)
    if image is None:
        problems.append(f"{path}: no column names each row's image (reference_id, image, reference, or --image COLUMN)")
    setting = setting or next((c for c in _SETTINGS if c in columns and c != by), None)
    chosen, wrong = _metrics(path, columns, metrics, lower, cards, {by, rate, setting, image, *_NOT_METRICS})
    problems += wrong
    if problems:
        raise UsageError("\n".join(problems))
    assert image is not None
    for metric in chosen:
        problems += convert_numbers(frame, metric.name, path)
    for what, column in (("codec", by), ("image", image)):
        blank = [line for line, value in zip(frame.index, frame[column], strict=True) if not value]
        problems += [f"{path}: no {what} ({column}) in {frame.index.name}s {listed(blank)}"] if blank else []
    rows = frame.assign(_image=frame[image], _codec=frame[by], _setting=frame[setting] if setting else "")
    word = ""
    if rates:
        word = rate or "bits per pixel"
        rows["_rate"], wrong = _rates(path, frame, rate, word)
        problems += wrong
    codecs = tuple(dict.fromkeys(rows["_codec"]))
    if anchor is not None and anchor not in codecs:
        problems.append(f"{path}: no {by} {anchor!r}{near(anchor, codecs)} (it has {listed(codecs)})")
    elif len(codecs) < 2:
        problems.append(f"{path}: only one {by}, {listed(codecs)}; a comparison needs two")
    if setting and not problems:
        cells = rows.groupby(["_codec", "_image", "_setting"]).size()
        again = [" ".join(map(str, cell)) for cell in cells.index[cells > 1]]
        problems += [f"{path}: several rows for one {by}, {image} and {setting}: {listed(again)}"] if again else []
    lacking, keep = _coverage(rows, codecs, anchor)
    if lacking and not inner:
        problems += [*(f"{path}: {line}" for line in lacking), "--inner uses the images that all have"]
    if problems:
        raise UsageError("\n".join(problems))
    rows = rows[rows["_image"].isin(keep)] if inner else rows
    if rows.empty:
        raise UsageError(f"{path}: no image has a row for every {by}")
    return ScoreTable(path, rows, tuple(chosen), codecs, by, setting, word)


def _metrics(
    path: str, columns: Sequence[str], wanted: Sequence[str], lower: Sequence[str], cards: Sequence[str], others: set[str | None]
) -> tuple[list[Metric], list[str]]:
    """The columns of scores, and problems."""
    problems = []
    for option, words in (("--metrics", wanted), ("--lower-is-better", lower)):
        absent = [n for n in words if n.lower() not in columns]
        problems += [f"{path}: no column {n!r} ({option}){near(n.lower(), columns)}" for n in absent]
    found, unknown = [], []
    for column in [n.lower() for n in wanted if n.lower() in columns] or [c for c in columns if c not in others]:
        if column in [n.lower() for n in lower]:
            found.append(Metric(column, False))
            continue
        try:
            if column.endswith(".toml"):
                raise UsageError("a column of a table cannot name the file of a card")
            found.append(Metric(column, find_model(column, cards).higher_is_better))
        except UsageError:
            if wanted or column == "score":
                found.append(Metric(column, True))
            else:
                unknown.append(column)
    if not found and not problems:
        left = listed(unknown) or "no column is left"
        problems.append(f"{path}: no column has the name of a model ({left}); name them with --metrics")
    return found, problems


def _rates(path: str, frame: pd.DataFrame, rate: str | None, word: str) -> tuple[list[float], list[str]]:
    """Rates by rows, and problems; `word`: the rates' description for messages."""
    table = frame.copy()
    problems, values = [], []
    if rate is not None:
        problems = convert_numbers(table, rate, path)
        values = list(table[rate])
    elif "bytes" in table and "pixels" in table:
        problems = [*convert_numbers(table, "bytes", path), *convert_numbers(table, "pixels", path)]
        if not problems:
            none = [line for line, v in zip(table.index, table["pixels"], strict=True) if v <= 0]
            problems += [f"{path}: no pixels in {table.index.name}s {listed(none)}"] if none else []
            values = [8 * b / p if p > 0 else float("nan") for b, p in zip(table["bytes"], table["pixels"], strict=True)]
    elif "distorted" in table:
        paths = TablePaths(Path(path).parent)
        for value in table["distorted"]:
            file = value if os.path.isfile(value) else paths.find(value)
            try:
                header = file_headers.look(file)
                values.append(8 * header.size / (header.height * header.width))
            except UsageError as error:
                problems.append(f"{file}: {error}")
        problems = problems[:20] + ([f"and {len(problems) - 20} more"] if len(problems) > 20 else [])
    else:
        problems = [f"{path}: no rate: --rate COLUMN, or columns bytes and pixels, or distorted (the files)"]
    if values and not problems:
        zero = [f"{table.index.name} {line}" for line, v in zip(table.index, values, strict=True) if not v > 0]
        problems += [f"{path}: a rate ({word}) that is not above 0 in {len(zero)} rows: {listed(zero)}"] if zero else []
    return values if len(values) == len(table) else [float("nan")] * len(table), problems


def _coverage(rows: pd.DataFrame, codecs: Sequence[str], anchor: str | None) -> tuple[list[str], set[str]]:
    """A line for each codec that lacks images, and the images that all have."""
    images = {codec: set(rows.loc[rows["_codec"] == codec, "_image"]) for codec in codecs}
    whole = set.intersection(*images.values()) if images else set()
    against = images.get(anchor, set()) if anchor is not None else set().union(*images.values())
    lines = []
    for codec in codecs:
        absent, extra = sorted(against - images[codec]), sorted(images[codec] - against)
        lines += [f"{codec} lacks {len(absent)} images{' of the anchor' if anchor else ''}: {listed(absent)}"] if absent else []
        lines += [f"{codec} has {len(extra)} images that the anchor lacks: {listed(extra)}"] if extra else []
    return lines, whole


def compare_codecs(table: ScoreTable, anchor: str, method: Interpolation = "akima") -> CodecComparison:
    """Every other codec of the table against the anchor, by every metric.

    Args:
        table: of `read_score_table`, with rates.
        anchor: the codec that the others are compared with.
        method: interpolation, `akima` or `pchip`.

    Returns:
        Per codec and metric the rate difference by image and its mean, and the differences at equal settings.
    """
    results = []
    for metric in table.metrics:
        turned = table.rows.assign(_q=table.rows[metric.name] * (1 if metric.higher_is_better else -1))
        by = dict(list(turned.groupby(["_codec", "_image"], sort=False)))
        for codec in (c for c in table.codecs if c != anchor):
            images = [i for i in dict.fromkeys(turned["_image"]) if (codec, i) in by and (anchor, i) in by]
            each = []
            for image in images:
                a, b = by[anchor, image], by[codec, image]
                found = rate_difference(a["_rate"], a["_q"], b["_rate"], b["_q"], method)
                each.append(ImageDifference(str(image), found.percent, found.reason, found.overlap))
            known = [e.percent for e in each if e.percent is not None]
            mean, gaining = mean_over(known), sum(percent < 0 for percent in known)
            settings = _at_settings(table, metric, codec, anchor)
            results.append(CodecResult(codec, metric.name, metric.higher_is_better, mean, gaining, tuple(each), settings))
    return CodecComparison(anchor, method, table, tuple(results))


def _at_settings(table: ScoreTable, metric: Metric, codec: str, anchor: str) -> tuple[AtSetting, ...]:
    if table.setting is None:
        return ()
    sides = [table.rows[table.rows["_codec"] == c].set_index(["_setting", "_image"]) for c in (codec, anchor)]
    both = sides[0].index.intersection(sides[1].index, sort=False)
    if not len(both):
        return ()
    mine, theirs = (side.loc[both] for side in sides)
    quality = mine[metric.name] - theirs[metric.name]
    rate = 100 * (mine["_rate"] / theirs["_rate"] - 1)
    names = sorted(set(both.get_level_values(0)), key=natural)
    return tuple(AtSetting(str(n), mean_over(quality.loc[[n]]), mean_over(rate.loc[[n]])) for n in names)


def rank(table: ScoreTable) -> list[Ranking]:
    """The codecs by every metric, paired by image: on the pairs of image and setting that all of them have.

    Raises UsageError where there is no such pair.
    """
    rankings = []
    for metric in table.metrics:
        cells = table.rows.pivot_table(index=["_image", "_setting"], columns="_codec", values=metric.name, aggfunc="mean")
        cells = cells.dropna()
        if cells.empty:
            raise UsageError(f"{table.path}: no image and {table.setting or 'setting'} has a row for every {table.by}")
        by_image = cells.groupby(level=0).mean()
        names = [str(name) for name in by_image.columns]
        found = places(names, np.asarray(by_image.T, dtype=np.float64), higher_is_better=metric.higher_is_better)
        rankings.append(Ranking(metric.name, metric.higher_is_better, len(by_image), len(cells), tuple(found)))
    return rankings


def curves(comparison: CodecComparison) -> Mapping[str, Mapping[str, list[tuple[str, list[float], list[float]]]]]:
    """By metric and codec: (image, rates, scores) of every image's curve, sorted by rate."""
    drawn: dict[str, dict[str, list[tuple[str, list[float], list[float]]]]] = {}
    for metric in comparison.table.metrics:
        for (codec, image), group in comparison.table.rows.sort_values("_rate").groupby(["_codec", "_image"], sort=False):
            drawn.setdefault(metric.name, {}).setdefault(str(codec), []).append(
                (str(image), list(group["_rate"]), list(group[metric.name]))
            )
    return drawn
