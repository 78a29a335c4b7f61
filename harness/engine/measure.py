"""A record's figures from its scores and the dataset's labels, and from nothing else.

Scores and labels are turned to higher-is-better by their cards before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.cards.schema import ModelCard
from harness.datasets import Dataset
from harness.files.atomic import sha256_json
from harness.runtime.errors import UsageError
from harness.statistics.agreement import Agreement, agreement
from harness.statistics.correlations import Floats, numbered
from harness.statistics.discrimination import agreeing, monotonicity, outlier_ratio, pair_analysis
from harness.statistics.intervals import jackknife
from harness.statistics.leave_one_out import LeaveOneOut, groups

if TYPE_CHECKING:
    import pandas as pd

Scores = Sequence[tuple[str, float]]
"""(name, score) as scores.csv holds them."""


class _Labelled(NamedTuple):
    rows: pd.DataFrame
    """The table's rows that have a label, in the scores' order."""
    scores: Floats
    labels: Floats


def _labelled(card: ModelCard, data: Dataset, scores: Scores) -> _Labelled | None:
    if not scores:
        return None
    rows = data.table.set_index("name", drop=False).loc[[name for name, _ in scores]]
    known = rows["score"].notna().to_numpy()
    if not known.any():
        return None
    sign = 1.0 if card.higher_is_better else -1.0
    values = sign * np.array([score for _, score in scores])
    return _Labelled(rows[known], values[known], oriented_labels(data, rows[known]))


def oriented_labels(data: Dataset, rows: pd.DataFrame) -> Floats:
    """(n,): labels of these rows, higher is better."""
    labels = rows["score"].to_numpy(dtype=float)
    return labels if data.higher_is_better else -labels


def measure(card: ModelCard, data: Dataset, scores: Scores) -> Agreement | None:
    """Agreement of the scores with the dataset's labels; None where no labels are known."""
    found = _labelled(card, data, scores)
    return None if found is None else agreement(found.scores, found.labels, _references(found.rows))


def _references(rows: pd.DataFrame) -> list[str] | None:
    """The rows' reference ids; None where a table of labels alone does not give them."""
    return rows["reference_id"].tolist() if (rows["reference_id"] != "").any() else None


class Measured(NamedTuple):
    """What a record says about one part, as plain values."""

    figures: Mapping[str, Any]
    """Agreement, the 2AFC score, and `discrimination`."""
    without_each_reference: Mapping[str, object] | None
    """`LeaveOneOut.json` of the same figures."""


def measured(card: ModelCard, data: Dataset, scores: Scores) -> Measured | None:
    """Every figure of the scores; None where no labels are known."""
    found = _labelled(card, data, scores)
    if found is None:
        return None
    ids = _references(found.rows)
    figures = agreement(found.scores, found.labels, ids)
    left_out = figures.left_out
    document = figures.json() | {"score_2afc": None}
    if ids is not None and (pairs := _shares(found)) is not None:
        first, shares = pairs
        cluster, names = groups(*numbered(ids))
        mine = cluster[first]
        count = len(mine) - np.bincount(mine, minlength=len(names))
        with np.errstate(invalid="ignore"):
            deleted = np.asarray((shares.sum() - np.bincount(mine, shares, len(names))) / count)
        score, known = float(shares.mean()), len(deleted) > 1 and np.isfinite(deleted).all()
        document["score_2afc"] = score
        document["ci"]["score_2afc"] = list(jackknife(score, deleted).interval(0.95)) if known else None
        left_out = LeaveOneOut.of(names, {**(left_out.figures if left_out else {}), "score_2afc": deleted})
    document["discrimination"] = discrimination(data, found.rows, found.scores)
    return Measured(document, left_out.json() if left_out else None)


def _shares(found: _Labelled) -> tuple[NDArray[np.int64], Floats] | None:
    """Of each pair of distorted images that people chose between: its first row, and the share of raters who agree with the
    scores. None where there are no pairs."""
    if "pair" not in found.rows:
        return None
    pair, _ = numbered(found.rows["pair"])
    order = np.argsort(pair, kind="stable")
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
    # `--limit` may cut a pair in two.
    whole = starts[np.diff(starts, append=len(order)) == 2]
    if not len(whole):
        return None
    first, second = order[whole], order[whole + 1]
    return first, agreeing(-found.scores[first], -found.scores[second], found.labels[second])


FIGURES_VERSION = 2
"""Raised by hand whenever a figure of a record is computed in another way. They are not in a run's key."""


def figures_stamp(data: Dataset, rows: pd.DataFrame) -> dict[str, str | int]:
    """What figures were computed with: the version of their code, and a hash of every column used next to the labels."""
    columns = [c for c in ("name", "std", "raters", "distortion", "level", "pair") if c in rows]
    values = [[None if v != v else v for v in row] for row in rows[columns].astype(object).to_numpy().tolist()]
    used = {"columns": columns, "rows": sorted(values, key=lambda row: str(row[0])), "raters": data.card.raters}
    used |= {"deviation": data.card.deviation} if "std" in columns else {}
    return {"version": FIGURES_VERSION, "columns": sha256_json([used, list(data.card.controls)])[:16]}


def discrimination(data: Dataset, rows: pd.DataFrame, scores: Floats) -> dict[str, object]:
    """Figures that need more than labels, as plain values (`harness.statistics.discrimination` computes them).

    Args:
        data: the dataset, whose card says how deviations were computed and how many raters there were.
        rows: n labelled rows of its table.
        scores: (n,) the rows' scores, higher is better.

    Returns:
        `pair_analysis`, `outlier_ratio` and `monotonicity`; one that the dataset does not have the data for is None, and
        `not_defined` lists why.
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
        steps = monotonicity(scores, list(rows["reference_id"]), list(rows["distortion"]), rows["level"].to_numpy(dtype=float))
    else:
        missing.append("monotonicity: the dataset does not give every image a kind and a level of distortion")
    return {
        "pair_analysis": pairs and pairs.json(),
        "outlier_ratio": outliers,
        "monotonicity": steps and steps.json(),
        "not_defined": missing,
    }


def controls(data: Dataset, rows: pd.DataFrame) -> Mapping[str, Mapping[str, Any]]:
    """What the table alone achieves on these rows: rows that show how much of the labels needs no picture.

    `cell`: an oracle that knows each image's kind and level and answers with that cell's mean label;
    `level`: the level's number alone, mildest first.
    """
    figures = {}
    ids = rows["reference_id"].tolist()
    for control in data.card.controls:
        if control == "cell":
            guess = data.table.groupby(["distortion", "level"])["score"].mean()
            values = guess.loc[list(zip(rows["distortion"], rows["level"], strict=True))].to_numpy()
            values = values if data.higher_is_better else -values
        elif control == "level":
            values = -rows["level"].to_numpy(dtype=float)
        else:
            raise UsageError(f"{data.card.path}: no control called {control!r} (there are cell and level)")
        figures[control] = agreement(values, oriented_labels(data, rows), ids).json()
    return figures
