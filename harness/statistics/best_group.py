"""The group of the best: models not significantly worse than the best one, with strong control of the familywise error.

The observed best is chosen from the same data as the tests, so tests against it alone reject a truly best model too often. Here
all pairs are tested together: the probability that any truly best model is left out of the group is at most 1 - confidence, for
any other models (`benchmarks/familywise.py` simulates it).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.statistics.agreement import checked_columns
from harness.statistics.comparison import MOST_CLUSTERS, Statistic, clusters_of
from harness.statistics.correlations import Floats
from harness.statistics.intervals import cluster_limit, generator, pooled_clusters
from harness.statistics.reference_resampling import figures_of

FEWEST_REFERENCES = 6
"""With fewer references a sign-flip test cannot reach the 5 % level (2 of 2**5 are 6 %): no model can be left out."""
_MOST_SIGNS = 5000
_WORK = 20_000_000
"""Limit of sign flips times pairs of models: from about sixty models on fewer flips are drawn; power drops, the level holds."""
_FEWEST_SIGNS = 100
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Standing:
    """A model's position among others on the same images."""

    name: str
    value: float | None
    p_adjusted: float | None
    """P-value of being among the truly best, adjusted for all models; None for the observed best and where it is undefined."""
    best: bool
    """Whether it is not significantly below a better one."""


def best_group(
    scores: Mapping[str, ArrayLike],
    labels: ArrayLike,
    reference_ids: Sequence[Hashable] | Literal["images"],
    *,
    statistic: Statistic = "main",
    confidence: float = 0.95,
) -> list[Standing]:
    """Models from best to worst by `statistic`, marked when not significantly below a better one.

    Args:
        scores: by model, (n,) each, with the labels' polarity.
        labels: (n,).
        reference_ids: (n,) each image's reference, or "images" where all are independent.
        statistic: the figure that is compared.
        confidence: the least probability that all truly best models are in the group.

    Returns:
        The models, best first. With fewer than `FEWEST_REFERENCES` references no difference can be significant, and all models
        with a defined figure are in the group.
    """
    columns = checked_columns({**scores, "labels": labels}, reference_ids, confidence)
    cluster, clusters = clusters_of(columns)
    checked_labels = columns.values.pop("labels")
    pooled = pooled_clusters(cluster, clusters, min(cluster_limit(len(checked_labels)), MOST_CLUSTERS))
    found = dict(
        zip(columns.values, figures_of(list(columns.values.values()), checked_labels, *pooled, [statistic]), strict=True)
    )
    figures = {
        name: (f.estimate[statistic] if np.isfinite(f.estimate[statistic]) else None, f.deleted[statistic])
        for name, f in found.items()
    }
    return standings(figures, statistic, confidence=confidence)


def standings(figures: Mapping[str, tuple[float | None, Floats]], statistic: str, *, confidence: float = 0.95) -> list[Standing]:
    """`best_group` from each model's figure on all images and with each reference left out, the same references for all.

    Records keep these values. 2AFC scores, which are means and not correlations, are compared without a transformation.

    Args:
        figures: by model, its figure on all images (None: not defined) and (k,) the figure with each of k references left out.
        statistic: the figure that is compared.
        confidence: the least probability that all truly best models are in the group.

    Returns:
        The models, best first; those with an undefined figure last.
    """
    defined = sorted((name for name, (v, _) in figures.items() if v is not None), key=lambda name: -(figures[name][0] or 0.0))
    tested = [name for name in defined if len(figures[name][1]) >= FEWEST_REFERENCES and np.isfinite(figures[name][1]).all()]
    p_values: dict[str, float] = {}
    if len(tested) > 1:
        values = np.array([figures[name][0] for name in tested], dtype=np.float64)
        pseudo = pseudo_values(values, np.stack([figures[name][1] for name in tested]))
        p_values = dict(zip(tested, map(float, p_of_being_best(pseudo)), strict=True))
        # The observed best needs no test: no other model is above it.
        p_values.pop(tested[0])
    return [
        Standing(name, figures[name][0], p_values.get(name), name in defined and p_values.get(name, 1.0) > 1 - confidence)
        for name in (*defined, *(name for name in figures if name not in defined))
    ]


def pseudo_values(values: Floats, deleted: Floats) -> Floats:
    """Jackknife pseudo-values (k, m) of figures `values` (m,) from those with each reference left out, `deleted` (m, k).

        They are shifted so that their mean is the figure itself, and are on the figure's own scale: on Fisher's z, whose spread
    depends on the model's figure, sign flips left out truly best models in up to a quarter of the simulated
    tables (50 models, 10 references).
    """
    k = deleted.shape[1]
    pseudo = -(k - 1.0) * deleted.T
    return np.asarray(pseudo - pseudo.mean(axis=0) + values)


def p_of_being_best(pseudo: Floats, signs: Floats | None = None) -> Floats:
    """P-values (m,) of the hypotheses "no model is better than this one", adjusted for all m together.

    Each model's statistic is the largest paired t by which another model is above it. Their joint distribution comes from
    flipping the signs of all differences of a reference together: if models are equally good, a reference's differences are as
    likely as their opposites. That keeps all correlations between models, and needs no inverse of their covariance. Adjustment is
    by the step-down maxima of Westfall and Young (1993, algorithm 4.1): clearly worse models do not reduce the power for others.

    Args:
        pseudo: (k, m) a value for each of k references and m models, whose mean over references is the model's figure.
        signs: (b, k) sign flips, the first one flips none; by default all of them, or a random sample.

    Returns:
        (m,) in (0, 1]; small where another model is better.
    """
    changed = signs_for(*pseudo.shape) if signs is None else signs
    sums = changed @ (pseudo - pseudo.mean(axis=1, keepdims=True))
    largest = np.empty_like(sums)
    for i in range(pseudo.shape[1]):
        # A paired t increases with the sum over the root of the sum of squares, and sign flips do not change the latter.
        squares = ((pseudo - pseudo[:, [i]]) ** 2).sum(axis=0)
        scale = np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
        largest[:, i] = ((sums - sums[:, [i]]) * scale).max(axis=1)
    order = np.argsort(largest[0], kind="stable")
    steps = np.maximum.accumulate(largest[:, order], axis=1)
    p = (steps >= largest[0, order] - _ROUNDING).mean(axis=0)
    adjusted: Floats = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[::-1])[::-1]
    return np.asarray(adjusted)


def signs_for(references: int, models: int = 2) -> Floats:
    """(b, references) of 1 and -1: first no flip, then every combination, or random ones if there are too many."""
    most = min(_MOST_SIGNS, max(_FEWEST_SIGNS, _WORK // models**2))
    if references <= 20 and 2**references <= most:
        return np.asarray(1.0 - 2.0 * ((np.arange(2**references)[:, None] >> np.arange(references)) & 1))
    signs = np.ones((most, references))
    signs[1:] -= 2.0 * generator(0, f"group of the best|{references}").integers(0, 2, (most - 1, references))
    return signs
