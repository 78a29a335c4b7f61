"""Paired comparison of two models: differences of their figures with intervals and p-values, paired by reference.

Both models are measured on the same images, so common effects (easy and hard references) cancel in the difference. Scores and
labels have the same polarity, as in `harness.statistics.agreement`; every difference is a - b.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.runtime.errors import UsageError
from harness.statistics.agreement import FEW_REFERENCES, Columns, checked_columns
from harness.statistics.correlations import (
    Floats,
    Ints,
    codes,
    midranks,
    numbered,
    pearson,
    spearman_within,
)
from harness.statistics.intervals import (
    Interval,
    Jackknife,
    bootstrap_interval,
    cluster_draws,
    cluster_limit,
    fisher,
    holm,
    is_perfect,
    jackknife,
    pooled_clusters,
)
from harness.statistics.reference_resampling import LARGEST_CLUSTER, Figures, figures_of

Statistic = Literal["srcc", "plcc", "krcc", "main"]
Method = Literal["auto", "jackknife", "bootstrap"]
STATISTICS: tuple[str, ...] = ("srcc", "plcc", "krcc", "main")
REACH = {"srcc": 1.0, "plcc": 1.0, "krcc": 1.0, "main": 2.0}
"""Largest absolute value of the figures that have a Fisher scale."""
BOOTSTRAP_FROM = 100
"""References from which `auto` draws bootstrap samples instead of leaving out one reference at a time."""
MOST_CLUSTERS = 1000
_ROUNDING = 1e-12
"""Figures closer than this, with any reference left out, are equal: their difference is rounding."""


@dataclass(frozen=True)
class Difference:
    """One figure of two models, and their difference a - b. Undefined values are None."""

    statistic: str
    a: float | None
    b: float | None
    difference: float | None
    ci: Interval | None = None
    p_value: float | None = None
    """Two-sided p-value of no difference."""
    method: str | None = None
    """`jackknife` (on the difference of Fisher's z), `bootstrap` (paired, of references), `t` (mean over references)."""
    error: float | None = None
    """Jackknife standard error of the difference of Fisher's z; None where there is no such scale."""
    references: int = 0


@dataclass(frozen=True)
class Group:
    """SRCC of two models on a part of the images: one kind of distortion, one level, or one reference."""

    name: str
    n: int
    references: int
    srcc: Difference
    p_holm: float | None = None
    """The p-value after Holm's correction over the groups of the table."""


@dataclass(frozen=True)
class Independent:
    """Tests that assume independent images, although the distorted images of one reference are dependent."""

    statistic: str
    williams_t: float
    williams_p: float
    """Williams (1959), as Steiger (1980) recommends; n - 3 degrees of freedom."""
    steiger_z: float
    steiger_p: float
    """Steiger (1980), equation 14 with the mean correlation."""
    assumption: str = "assumes independent images"


@dataclass(frozen=True)
class Disagreement:
    """An image that two models rank differently; ranks are shares of the images, 1 is the highest value."""

    row: int
    rank_a: float
    rank_b: float
    rank_label: float


@dataclass(frozen=True)
class PairedComparison:
    """Models a and b on the same n images."""

    n: int
    references: int
    differences: dict[str, Difference]
    """srcc, plcc, krcc, main, and srcc_within: the mean over references of the SRCC among a reference's own images."""
    independent: tuple[Independent, ...]
    by_distortion: tuple[Group, ...]
    by_level: tuple[Group, ...]
    by_reference: tuple[Group, ...]
    """Largest difference first; a single reference has no interval."""
    disagreements: tuple[Disagreement, ...]
    confidence: float
    few_references: bool
    notes: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """Plain values for JSON: undefined values are null, never NaN."""
        return asdict(self)


def compare(
    a: ArrayLike,
    b: ArrayLike,
    labels: ArrayLike,
    reference_ids: Sequence[Hashable] | Literal["images"],
    *,
    distortions: Sequence[Hashable] | None = None,
    levels: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    method: Method = "auto",
    draws: int = 2000,
    seed: int = 0,
    top: int = 20,
    orders: tuple[ArrayLike, ArrayLike] | None = None,
    statistics: Sequence[str] = STATISTICS,
) -> PairedComparison:
    """Compare two models on the same images: differences of their agreement with the labels, paired by reference.

    Below 100 references: the jackknife on the difference of Fisher's z (main: of atanh(main / 2)), whose interval is transformed
    back to the figure's own scale at the mean of both models' z. From 100 on: `draws` bootstrap samples of references, the same
    for both models, BCa intervals. Tables by kind, level and reference always use the jackknife, whose p-values have no floor
    that Holm's correction would lift above any level.

    Args:
        a: (n,), scores of the first model, with the labels' polarity; differences are a minus b.
        b: (n,), scores of the second model.
        labels: (n,).
        reference_ids: (n,), each image's reference; "images": all images are independent.
        distortions: (n,), kinds of distortion, for a table by kind.
        levels: (n,), levels of distortion, for a table by level; None where one is not known.
        confidence: The intervals' level, between 0 and 1.
        method: `jackknife`, `bootstrap`, or `auto`: chosen by the number of references, as above.
        draws: Number of bootstrap samples.
        seed: Seed of the bootstrap.
        top: How many of the images with the largest rank differences are listed.
        orders: Scores of both models, (n,) each, for SRCC and KRCC in place of `a` and `b`, where these are rescalings whose
            plateaus tie images.
        statistics: Which of the four figures are compared.

    Returns:
        A difference with interval and p-value for each figure, the tables, and the images on which the models disagree.

    Raises:
        UsageError: Values that are not finite, or lengths that differ.
    """
    columns = checked_columns(
        {"a": a, "b": b, "labels": labels}, reference_ids, confidence, _table_problems(b, distortions, levels)
    )
    x, y, z = columns.values["a"], columns.values["b"], columns.values["labels"]
    cluster, clusters = clusters_of(columns)
    notes = [f"{what} are constant: their correlations are not defined" for what, v in columns.values.items() if np.ptp(v) == 0]
    if clusters < 2:
        notes.append("no intervals: they need at least two references")
    bootstrap = method == "bootstrap" or (method == "auto" and clusters >= BOOTSTRAP_FROM)
    pooled = pooled_clusters(cluster, clusters, min(cluster_limit(len(x)), MOST_CLUSTERS))
    weights = cluster_draws(pooled[1], draws, seed) if bootstrap and clusters > 1 else None
    ordered = (x, y) if orders is None else tuple(checked_columns({"order": o}, None).values["order"] for o in orders)
    figures_a, figures_b = figures_of((x, y), z, *pooled, statistics, weights, ordered)
    differences = {s: _difference(s, figures_a, figures_b, confidence, clusters) for s in statistics}
    within_a, within_b = (spearman_within(v, z, cluster, clusters) for v in (x, y))
    differences["srcc_within"] = _difference_within(within_a, within_b, confidence)
    if bootstrap and "krcc" in differences and differences["krcc"].method == "jackknife":
        notes.append(f"krcc: by the jackknife, because a reference has more than {LARGEST_CLUSTER} images")
    return PairedComparison(
        n=len(x),
        references=clusters,
        differences=differences,
        independent=tuple(
            t for t in (_independent("srcc", midranks(x), midranks(y), midranks(z)), _independent("plcc", x, y, z)) if t
        ),
        by_distortion=_groups(x, y, z, cluster, distortions, confidence),
        by_level=_groups(x, y, z, cluster, levels, confidence),
        by_reference=_by_reference(within_a, within_b, columns),
        disagreements=_disagreements(x, y, z, top),
        confidence=confidence,
        few_references=clusters < FEW_REFERENCES,
        notes=tuple(notes),
    )


def _table_problems(b: ArrayLike, *tables: Sequence[Hashable] | None) -> list[str]:
    named = zip(("distortions", "levels"), tables, strict=True)
    n = len(np.asarray(b, dtype=object))
    return [f"{what}: {len(t)} for {n} images" for what, t in named if t is not None and len(t) != n]


def clusters_of(columns: Columns) -> tuple[Ints, int]:
    """The cluster of every image, (n,), and the number of clusters; raises UsageError where references are not known."""
    if columns.cluster is None:
        raise UsageError("a comparison needs the reference of every image (reference_id); 'images' if all are independent")
    return columns.cluster, columns.clusters


def _difference(statistic: str, a: Figures, b: Figures, confidence: float, references: int) -> Difference:
    va, vb, reach = a.estimate[statistic], b.estimate[statistic], REACH.get(statistic)
    known = Difference(statistic, _defined(va), _defined(vb), _defined(va - vb), references=references)
    da, db = a.deleted[statistic], b.deleted[statistic]
    if known.difference is None or len(da) < 2 or not (np.isfinite(da).all() and np.isfinite(db).all()):
        return known
    if reach is not None and all(is_perfect(d, reach) for d in (*da, *db)):
        # Figures of two images per reference are always 1 or -1: they say nothing about other references.
        return known
    if max(abs(va - vb), float(np.abs(da - db).max())) < _ROUNDING:
        return _with(known, (0.0, 0.0), 1.0, "jackknife", None)
    error = None
    # Perfect agreement has no finite z: then the figures themselves are compared.
    on_z = reach is not None and not (is_perfect(va, reach) or is_perfect(vb, reach))
    if reach is not None and on_z:
        za, zb = fisher(va, da, reach), fisher(vb, db, reach)
        left_out = jackknife(za[0] - zb[0], za[1] - zb[1])
        error = left_out.error
    if statistic in a.drawn:
        drawn = a.drawn[statistic] - b.drawn[statistic]
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) >= len(a.drawn[statistic]) / 2:
            ci, p_value = bootstrap_interval(va - vb, drawn, da - db, confidence)
            return _with(known, ci, p_value, "bootstrap", error)
    if reach is None or not on_z:
        left_out = jackknife(va - vb, da - db)
        return _with(known, left_out.interval(confidence), left_out.p_value(), "jackknife", None)
    middle = (za[0] + zb[0]) / 2
    low, high = (reach * (np.tanh(middle + d / 2) - np.tanh(middle - d / 2)) for d in left_out.interval(confidence))
    return _with(known, (float(low), float(high)), left_out.p_value(), "jackknife", error)


def _with(known: Difference, ci: Interval, p_value: float, method: str, error: float | None) -> Difference:
    return Difference(known.statistic, known.a, known.b, known.difference, ci, p_value, method, error, known.references)


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _difference_within(a: Floats, b: Floats, confidence: float) -> Difference:
    """`a` and `b`: SRCC within each reference."""
    both = np.isfinite(a) & np.isfinite(b)
    k = int(both.sum())
    if not k:
        return Difference("srcc_within", None, None, None)
    d = a[both] - b[both]
    known = Difference("srcc_within", float(a[both].mean()), float(b[both].mean()), float(d.mean()), references=k)
    if k < 2:
        return known
    paired = Jackknife(float(d.mean()), float(d.std(ddof=1) / np.sqrt(k)), k - 1)
    return _with(known, paired.interval(confidence), paired.p_value(), "t", None)


def _independent(statistic: str, x: Floats, y: Floats, labels: Floats) -> Independent | None:
    figures = pearson(x, labels), pearson(y, labels), pearson(x, y)
    return williams_steiger(statistic, *figures, len(x)) if len(x) > 3 and np.isfinite(figures).all() else None


def williams_steiger(statistic: str, r_a: float, r_b: float, r_ab: float, n: int) -> Independent | None:
    """Tests of two dependent correlations (Williams 1959; Steiger 1980), which assume independent images.

    Args:
        statistic: Its name, kept in the result.
        r_a: The first model's correlation with the labels, in [-1, 1].
        r_b: The second model's.
        r_ab: The models' correlation with each other.
        n: Images.

    Returns:
        Both tests; None where they are not defined: n <= 3, or two of the three variables perfectly correlated.
    """
    from scipy.special import ndtr, stdtr

    if n <= 3 or any(is_perfect(r) for r in (r_a, r_b, r_ab)):
        return None
    mean = (r_a + r_b) / 2
    determinant = 1 - r_a**2 - r_b**2 - r_ab**2 + 2 * r_a * r_b * r_ab
    spread = 2 * (n - 1) / (n - 3) * max(determinant, 0.0) + mean**2 * (1 - r_ab) ** 3
    t = (r_a - r_b) * np.sqrt((n - 1) * (1 + r_ab) / spread)
    covariance = r_ab * (1 - 2 * mean**2) - mean**2 / 2 * (1 - 2 * mean**2 - r_ab**2)
    z = (np.arctanh(r_a) - np.arctanh(r_b)) * np.sqrt((n - 3) / (2 - 2 * covariance / (1 - mean**2) ** 2))
    return Independent(statistic, float(t), float(2 * stdtr(n - 3, -abs(t))), float(z), float(2 * ndtr(-abs(z))))


def _groups(
    x: Floats, y: Floats, labels: Floats, cluster: Ints, kinds: Sequence[Hashable] | None, confidence: float
) -> tuple[Group, ...]:
    if kinds is None:
        return ()
    number, names = numbered(kinds)
    known = [(str(name), i) for i, name in enumerate(names) if name is not None and name == name]
    groups = []
    for name, i in known:
        rows = np.flatnonzero(number == i)
        inside = codes(cluster[rows])
        clusters = int(inside.max()) + 1
        a, b = figures_of((x[rows], y[rows]), labels[rows], inside, clusters, ["srcc"])
        groups.append(Group(name, len(rows), clusters, _difference("srcc", a, b, confidence, clusters)))
    tested = [i for i, group in enumerate(groups) if group.srcc.p_value is not None]
    adjusted = dict(zip(tested, holm([groups[i].srcc.p_value or 0.0 for i in tested]), strict=True))
    groups = [Group(g.name, g.n, g.references, g.srcc, adjusted.get(i)) for i, g in enumerate(groups)]
    return tuple(sorted(groups, key=lambda g: natural(g.name)))


def natural(name: str) -> tuple[float, str]:
    """The sort key of names: numbers by their value, before all others."""
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name


def _by_reference(a: Floats, b: Floats, columns: Columns) -> tuple[Group, ...]:
    """`a` and `b`: SRCC within each reference."""
    cluster, clusters = clusters_of(columns)
    if clusters == len(cluster):
        return ()
    size = np.bincount(cluster, minlength=clusters)
    groups = [
        Group(
            str(columns.ids[i]),
            int(size[i]),
            1,
            Difference("srcc", _defined(a[i]), _defined(b[i]), _defined(a[i] - b[i]), references=1),
        )
        for i in range(clusters)
    ]
    return tuple(sorted(groups, key=lambda g: (-abs(g.srcc.difference or 0.0), g.name)))


def _disagreements(x: Floats, y: Floats, labels: Floats, top: int) -> tuple[Disagreement, ...]:
    a, b, label = (midranks(v) / len(v) for v in (x, y, labels))
    order = np.argsort(-np.abs(a - b), kind="stable")[:top]
    return tuple(Disagreement(int(i), float(a[i]), float(b[i]), float(label[i])) for i in order if a[i] != b[i])
