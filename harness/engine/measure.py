"""The figures of a record, computed from its scores and the dataset's table only.

Before the computation, the signs of scores and labels are changed where their cards say that lower is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.cards.schema import ModelCard
from harness.datasets import Dataset
from harness.files.atomic import sha256_json
from harness.files.table_rows import rows_of
from harness.runtime.errors import UsageError
from harness.statistics.agreement import Agreement, agreement
from harness.statistics.correlations import Floats, numbered
from harness.statistics.discrimination import agreeing, monotonicity, outlier_ratio, pair_analysis
from harness.statistics.intervals import jackknife
from harness.statistics.leave_one_out import LeaveOneOut, groups

if TYPE_CHECKING:
    import pandas as pd


class _Labelled(NamedTuple):
    rows: pd.DataFrame
    """The table's rows with a label, in the order of the scores."""
    scores: Floats
    labels: Floats


def _labelled(card: ModelCard, data: Dataset, scores: pd.DataFrame) -> _Labelled | None:
    if scores.empty:
        return None
    rows = data.table
    if not rows["name"].equals(scores["name"]):
        rows = rows.set_index("name", drop=False).loc[scores["name"]]
    known = rows["score"].notna().to_numpy()
    if not known.any():
        return None
    sign = 1.0 if card.higher_is_better else -1.0
    values = sign * scores["score"].to_numpy(dtype=float)
    rows, values = (rows, values) if known.all() else (rows[known], values[known])
    return _Labelled(rows, values, oriented_labels(data, rows))


def oriented_labels(data: Dataset, rows: pd.DataFrame) -> Floats:
    """(n,): the labels of these rows, with signs such that higher is better."""
    labels = rows["score"].to_numpy(dtype=float)
    return labels if data.higher_is_better else -labels


def measure(card: ModelCard, data: Dataset, scores: pd.DataFrame) -> Agreement | None:
    """Agreement of the scores (columns name, score) with the dataset's labels; None if there are no labels."""
    labelled = _labelled(card, data, scores)
    return None if labelled is None else agreement(labelled.scores, labelled.labels, _references(labelled.rows))


def _references(rows: pd.DataFrame) -> list[str] | None:
    """The rows' reference ids; None if the table does not have them."""
    if not (rows["reference_id"] != "").any():
        return None
    # Each id once, however many rows have it: a column of Arrow gives every row a text of its own.
    number, ids = rows["reference_id"].factorize(use_na_sentinel=False)
    return np.asarray(ids, dtype=object)[number].tolist()  # type: ignore[no-any-return]


class Measured(NamedTuple):
    """The figures of one part in a record, as values for JSON."""

    figures: Mapping[str, Any]
    """Agreement, the 2AFC score, and `discrimination`."""
    without_each_reference: Mapping[str, object] | None
    """`LeaveOneOut.json` of the same figures."""


def measured(card: ModelCard, data: Dataset, scores: pd.DataFrame) -> Measured | None:
    """All figures of the scores (columns name, score); None if there are no labels."""
    labelled = _labelled(card, data, scores)
    if labelled is None:
        return None
    ids = _references(labelled.rows)
    figures = agreement(labelled.scores, labelled.labels, ids)
    left_out = figures.left_out
    document = figures.json() | {"score_2afc": None}
    if ids is not None and (pairs := _shares(labelled)) is not None:
        first, shares = pairs
        cluster, names = groups(*numbered(ids))
        of_pair = cluster[first]
        count = len(of_pair) - np.bincount(of_pair, minlength=len(names))
        with np.errstate(invalid="ignore"):
            deleted = np.asarray((shares.sum() - np.bincount(of_pair, shares, len(names))) / count)
        score, known = float(shares.mean()), len(deleted) > 1 and np.isfinite(deleted).all()
        document["score_2afc"] = score
        document["ci"]["score_2afc"] = list(jackknife(score, deleted).interval(0.95)) if known else None
        left_out = LeaveOneOut.of(names, {**(left_out.figures if left_out else {}), "score_2afc": deleted})
    document["discrimination"] = discrimination(data, labelled.rows, labelled.scores)
    return Measured(document, left_out.json() if left_out else None)


def _shares(labelled: _Labelled) -> tuple[NDArray[np.int64], Floats] | None:
    """For each pair of distorted images that raters compared: its first row, and the share of raters who agree with the
    scores. None if there are no pairs."""
    if "pair" not in labelled.rows:
        return None
    pair, _ = numbered(labelled.rows["pair"])
    order = np.argsort(pair, kind="stable")
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
    # `--limit` may leave only one row of a pair.
    whole = starts[np.diff(starts, append=len(order)) == 2]
    if not len(whole):
        return None
    first, second = order[whole], order[whole + 1]
    return first, agreeing(-labelled.scores[first], -labelled.scores[second], labelled.labels[second])


FIGURES_VERSION = 2
"""To be raised whenever the computation of a figure changes. It is not part of a run's key."""


def figures_stamp(data: Dataset, rows: pd.DataFrame) -> dict[str, str | int]:
    """The version of the figures' code, and a hash of every column that they use in addition to the labels."""
    columns = [c for c in ("name", "std", "raters", "distortion", "level", "pair") if c in rows]
    values = ([None if v != v else v for v in row] for row in rows_of(rows[columns].sort_values("name")))
    used = {"columns": columns, "rows": values, "raters": data.card.raters}
    used |= {"deviation": data.card.deviation} if "std" in columns else {}
    return {"version": FIGURES_VERSION, "columns": sha256_json([used, list(data.card.controls)])[:16]}


def discrimination(data: Dataset, rows: pd.DataFrame, scores: Floats) -> dict[str, object]:
    """Figures that need more data than labels, as values for JSON (`harness.statistics.discrimination` computes them).

    Args:
        data: the dataset, whose card gives the kind of standard deviation and the number of raters.
        rows: n rows of its table with labels.
        scores: (n,) the scores of the rows, higher is better.

    Returns:
        `pair_analysis`, `outlier_ratio` and `monotonicity`; a figure without the necessary data is None, and `not_defined`
        lists the reasons.
    """
    labels, missing = oriented_labels(data, rows), []
    deviations, raters = rows.get("std"), rows.get("raters")
    counts = raters if raters is not None else data.card.raters or None
    pairs = outliers = steps = None
    needed = (("each label's standard deviation over raters", deviations), ("the number of raters", counts))
    absent = [what for what, values in needed if values is None or not (isinstance(values, int) or values.notna().all())]
    if absent:
        missing.append(f"pair analysis and outlier ratio: the dataset does not give {' and '.join(absent)}")
    else:
        population = data.card.deviation == "population"
        pairs = pair_analysis(scores, labels, deviations, counts, population=population)
        outliers = outlier_ratio(scores, labels, deviations, counts, population=population)
    if rows["level"].notna().all() and (rows[["distortion", "reference_id"]] != "").all(axis=None):
        references, kinds = rows["reference_id"].tolist(), rows["distortion"].tolist()
        steps = monotonicity(scores, references, kinds, rows["level"].to_numpy(dtype=float))
    else:
        missing.append("monotonicity: the dataset does not give every image a kind and a level of distortion")
    return {
        "pair_analysis": pairs and pairs.json(),
        "outlier_ratio": outliers,
        "monotonicity": steps and steps.json(),
        "not_defined": missing,
    }


def controls(data: Dataset, rows: pd.DataFrame) -> Mapping[str, Mapping[str, Any]]:
    """Agreement of controls, which predict labels from the table without images.

    `cell`: the mean label of all images with the same kind and level of distortion;
    `level`: the number of the level, mildest first.
    """
    figures = {}
    ids = rows["reference_id"].tolist()
    for control in data.card.controls:
        if control == "cell":
            means = data.table.groupby(["distortion", "level"])["score"].mean()
            values = means.loc[list(zip(rows["distortion"], rows["level"], strict=True))].to_numpy()
            values = values if data.higher_is_better else -values
        elif control == "level":
            values = -rows["level"].to_numpy(dtype=float)
        else:
            raise UsageError(f"{data.card.path}: unknown control {control!r}; use cell or level")
        figures[control] = agreement(values, oriented_labels(data, rows), ids).json()
    return figures
