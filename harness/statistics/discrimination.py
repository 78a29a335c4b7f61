"""Figures that need more than mean labels: pair analysis, outlier ratio, 2AFC score, monotonicity over levels.

Scores and labels have the same polarity (higher is better in both). Where a dataset lacks the data of a figure, the figure is
None.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from harness.runtime.errors import UsageError, listed
from harness.statistics.agreement import checked_columns
from harness.statistics.correlations import Floats, Ints, numbered
from harness.statistics.curve_fitting import Fit, fit_curve
from harness.statistics.intervals import generator

_MOST_PAIRS = 12_500_000
"""The most pairs of images (those of 5,000 images, three seconds); of larger sets a fixed random sample is used."""


@dataclass(frozen=True)
class PairAnalysis:
    """Krasula, Fliegel, Le Callet & Klima, QoMEX 2016. Shares in [0, 1] of pairs of images; None where there are none."""

    different_similar: float | None
    """Area under the ROC curve of |score difference| as a classifier of significantly different pairs."""
    better_worse: float | None
    """Area under the ROC curve of the score difference as a classifier of the better of two different images."""
    correct: float | None
    """Share of the different pairs whose better image has the higher score."""
    pairs: int
    different: int
    note: str = ""

    def json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def pair_analysis(
    scores: ArrayLike,
    labels: ArrayLike,
    deviations: ArrayLike | None,
    raters: ArrayLike | None,
    *,
    significance: float = 0.95,
    population: bool = False,
) -> PairAnalysis | None:
    """How well score differences classify different and similar pairs, and better and worse (Krasula et al., QoMEX 2016).

    A pair is different when normal cdf(|label difference| / sqrt(s1^2 / n1 + s2^2 / n2)) >= `significance` (ITU-T J.149, as in
    the authors' code).

    Args:
        scores: (n,), higher is better.
        labels: (n,), higher is better.
        deviations: (n,), the standard deviation of each image's ratings.
        raters: (n,) or one number: how many ratings there were.
        significance: The probability from which two images count as different, between 0 and 1.
        population: The deviations divide by n, and n - 1 takes the place of n here.

    Returns:
        Two areas under ROC and the share of better images found, each in [0, 1]; None without deviations and raters.
    """
    if deviations is None or raters is None:
        return None
    x, y, error, _ = _with_errors(scores, labels, deviations, raters, population)
    note = ""
    most = int((1 + np.sqrt(1 + 8 * _MOST_PAIRS)) / 2)
    if len(x) > most:
        note = f"from a fixed random part of {most} of the {len(x)} images"
        part = np.sort(generator(0, f"pair analysis|{len(x)}").permutation(len(x))[:most])
        x, y, error = x[part], y[part], error[part]
    similar, better = _differences(x, y, error, significance)
    pairs = len(similar) + len(better)
    ds = _area(np.abs(better), similar) if len(better) and len(similar) else None
    bw = _area(better, -better) if len(better) else None
    correct = float(np.count_nonzero(better > 0) / len(better)) if len(better) else None
    return PairAnalysis(ds, bw, correct, pairs, len(better), note)


class _Rated(NamedTuple):
    """Scores and labels of images with the labels' errors, (n,) each."""

    scores: Floats
    labels: Floats
    squared_error: Floats
    """The label's squared error: the squared sample deviation over the number of raters."""
    raters: Floats


def _with_errors(scores: ArrayLike, labels: ArrayLike, deviations: ArrayLike, raters: ArrayLike, population: bool) -> _Rated:
    n = np.asarray(labels, dtype=object).size
    counts = np.broadcast_to(np.asarray(raters), n) if np.ndim(raters) == 0 else raters
    columns = checked_columns({"scores": scores, "labels": labels, "deviations": deviations, "raters": counts}, None).values
    problems = []
    if (bad := np.flatnonzero(columns["deviations"] < 0)).size:
        problems.append(f"deviations: {bad.size} are negative (rows {listed(bad.tolist())}, from 0)")
    fewest = 2 if population else 1
    if (bad := np.flatnonzero(columns["raters"] < fewest)).size:
        problems.append(f"raters: {bad.size} are below {fewest} (rows {listed(bad.tolist())}, from 0)")
    if problems:
        raise UsageError("\n".join(problems))
    # A population deviation divides by n: s^2 / n of the sample deviation s is its square over n - 1.
    squared = columns["deviations"] ** 2 / (columns["raters"] - population)
    return _Rated(columns["scores"], columns["labels"], squared, columns["raters"])


def _differences(x: Floats, y: Floats, squared_error: Floats, significance: float) -> tuple[Floats, Floats]:
    """|score difference| of similar pairs, and score of the better less score of the worse image of different pairs."""
    from scipy.special import ndtri

    limit = float(ndtri(significance))
    similar, better = [], []
    for i in range(len(x) - 1):
        dy, dx = y[i + 1 :] - y[i], x[i + 1 :] - x[i]
        error = np.sqrt(squared_error[i + 1 :] + squared_error[i])
        error[error == 0] = 1e-6
        different = np.abs(dy) >= limit * error
        similar.append(np.abs(dx[~different]))
        better.append((dx * np.sign(dy))[different])
    return np.concatenate([*similar, np.empty(0)]), np.concatenate([*better, np.empty(0)])


def _area(positive: Floats, negative: Floats) -> float:
    """P(positive > negative) + P(equal) / 2: the area under the ROC curve."""
    ordered = np.sort(negative)
    total = 0.0
    for block in np.array_split(np.sort(positive), max(1, len(positive) // 1_000_000)):
        total += np.searchsorted(ordered, block, "left").sum() / 2 + np.searchsorted(ordered, block, "right").sum() / 2
    return float(total / len(positive) / len(negative))


def outlier_ratio(
    scores: ArrayLike,
    labels: ArrayLike,
    deviations: ArrayLike | None,
    raters: ArrayLike | None,
    *,
    fit: Fit = "logistic4",
    population: bool = False,
) -> float | None:
    """Share of images whose label's 95 % interval does not hold the fitted curve (ITU-T P.1401 (01/2020), clause 7.5.2.2).

    The interval is label -+ t s / sqrt(M), with the sample deviation s of M ratings and Student's t quantile of M - 1 degrees.

    Args:
        scores: (n,) higher is better.
        labels: (n,) with the scores' polarity.
        deviations: (n,) standard deviation of each image's ratings, in the labels' units.
        raters: (n,) or one number, how many ratings there were.
        fit: the mapping from scores to labels.
        population: the deviations divide by M, not by M - 1.

    Returns:
        The share in [0, 1]. None without deviations and raters, with a single rater, or when there is no fit.
    """
    if deviations is None or raters is None:
        return None
    from scipy.special import stdtrit

    rated = _with_errors(scores, labels, deviations, raters, population)
    curve = fit_curve(rated.scores, rated.labels, fit)
    if isinstance(curve, str) or rated.raters.min() < 2:
        return None
    half = stdtrit(rated.raters - 1, 0.975) * np.sqrt(rated.squared_error)
    return float(np.mean(np.abs(rated.labels - curve.values) > half))


def score_2afc(distance_0: ArrayLike, distance_1: ArrayLike, judge: ArrayLike) -> float:
    """BAPPS's 2AFC score (Zhang et al., CVPR 2018) in [0, 1]: the mean share of raters who agree with the model.

    Args:
        distance_0: (n,), the model's distance of patch 0 to the reference; higher is worse.
        distance_1: (n,), that of patch 1.
        judge: (n,), the share of raters who found patch 1 closer, in [0, 1].

    Returns:
        The mean over the triplets; equal distances count one half.

    Raises:
        UsageError: as `agreeing`.
    """
    return float(agreeing(distance_0, distance_1, judge).mean())


def agreeing(distance_0: ArrayLike, distance_1: ArrayLike, judge: ArrayLike) -> Floats:
    """The share of each triplet's raters who agree with the model; `score_2afc` is their mean.

    Args:
        distance_0: (n,), the model's distance of patch 0 to the reference; higher is worse.
        distance_1: (n,), that of patch 1.
        judge: (n,), the share of raters who found patch 1 closer, in [0, 1].

    Returns:
        (n,) in [0, 1]; equal distances count one half.

    Raises:
        UsageError: values that are not finite, lengths that differ, shares outside [0, 1].
    """
    columns = checked_columns({"distance_0": distance_0, "distance_1": distance_1, "judge": judge}, None).values
    d0, d1, j = columns["distance_0"], columns["distance_1"], columns["judge"]
    if not ((j >= 0) & (j <= 1)).all():
        raise UsageError("judge: expected shares of raters between 0 and 1")
    return np.where(d0 < d1, 1 - j, np.where(d1 < d0, j, 0.5))


@dataclass(frozen=True)
class Monotonicity:
    """Whether scores fall as a distortion gets stronger."""

    steps: float | None
    """Share of steps (two levels of one reference and kind) on which the stronger one scores lower; ties count one half."""
    series: float | None
    """Share of series (reference and kind) that fall strictly from the weakest to the strongest level."""
    count: int
    """Series with at least two levels."""
    by_kind: dict[str, float]
    """`steps` of each kind: contrast changes, for one, may have levels that are not ordered by strength."""

    def json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def monotonicity(
    scores: ArrayLike, reference_ids: Sequence[Hashable], distortions: Sequence[Hashable], levels: ArrayLike
) -> Monotonicity:
    """How often the score falls where the distortion gets stronger, over all pairs of levels of each reference and kind.

    Args:
        scores: (n,), higher is better.
        reference_ids: (n,), each image's reference.
        distortions: (n,), each image's kind of distortion; a series is one kind on one reference.
        levels: (n,), higher is stronger. Images of equal level in one series make no step.

    Returns:
        Shares of steps and of whole series on which the score falls, over all and by kind, each in [0, 1].

    Raises:
        UsageError: values that are not finite, lengths that differ.
    """
    columns = checked_columns({"scores": scores, "levels": levels}, reference_ids)
    x, level, cluster = columns.values["scores"], columns.values["levels"], columns.cluster
    kind, kinds = numbered(distortions)
    if len(kind) != len(x):
        raise UsageError(f"distortions: {len(kind)} for {len(x)} images")
    assert cluster is not None
    series, _ = numbered(zip(cluster.tolist(), kind.tolist(), strict=True))
    order = np.argsort(series, kind="stable")
    right = np.zeros(len(kinds))
    total = np.zeros(len(kinds))
    falling = count = 0
    for rows in np.split(order, np.cumsum(np.bincount(series))[:-1]):
        good, steps = _steps(x[rows], level[rows])
        right[kind[rows[0]]] += good
        total[kind[rows[0]]] += steps
        count += steps > 0
        falling += steps > 0 and good == steps
    return Monotonicity(
        steps=float(right.sum() / total.sum()) if total.sum() else None,
        series=falling / count if count else None,
        count=int(count),
        by_kind={str(name): float(right[i] / total[i]) for i, name in enumerate(kinds) if total[i]},
    )


def _steps(x: Floats, level: Floats) -> tuple[float, int]:
    """Steps on which the stronger image scores lower (ties one half), and all steps."""
    stronger: Ints = (level[:, None] > level[None, :]).astype(np.int64)
    lower = np.where(x[:, None] < x[None, :], 1.0, np.where(x[:, None] == x[None, :], 0.5, 0.0))
    return float((stronger * lower).sum()), int(stronger.sum())
