"""The group of the best: the models that the references cannot tell from the best one, with strong control.

The observed best is chosen from the same data that would then test the others against it, so tests against it alone call a truly
best model worse too often. Here the claim is about all pairs at once: the chance that any truly best model is left out of its
group is at most 1 - confidence, whatever the other models are (`benchmarks/familywise.py` simulates it).
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
"""Below this, no change of signs is rare enough for the 5 % level (2 of 2**5 are 6 %): nothing can be left out of the group."""
_MOST_SIGNS = 5000
_WORK = 20_000_000
"""Changes of signs times pairs of models: beyond some sixty models fewer changes are drawn, which costs power and no level."""
_FEWEST_SIGNS = 100
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Standing:
    """A model's place among others on the same images."""

    name: str
    value: float | None
    p_adjusted: float | None
    """Of being among the truly best, adjusted for all models; None for the observed best itself and where it is not defined."""
    best: bool
    """Not shown to be below a better one."""


def best_group(
    scores: Mapping[str, ArrayLike],
    labels: ArrayLike,
    reference_ids: Sequence[Hashable] | Literal["images"],
    *,
    statistic: Statistic = "main",
    confidence: float = 0.95,
) -> list[Standing]:
    """Models from best to worst by `statistic`, marked when not shown to be below a better one.

    Args:
        scores: by model, (n,) each, oriented like the labels.
        labels: (n,).
        reference_ids: (n,) each image's reference, or "images" where all are independent.
        statistic: the figure that is compared.
        confidence: the chance, at least, that all truly best models are in the group.

    Returns:
        The models, best first. With fewer than `FEWEST_REFERENCES` references nothing can be shown, and all defined figures are
        in the group.
    """
    columns = checked_columns({**scores, "labels": labels}, reference_ids, confidence)
    cluster, clusters = clusters_of(columns)
    people = columns.values.pop("labels")
    pooled = pooled_clusters(cluster, clusters, min(cluster_limit(len(people)), MOST_CLUSTERS))
    found = dict(zip(columns.values, figures_of(list(columns.values.values()), people, *pooled, [statistic]), strict=True))
    figures = {
        name: (f.estimate[statistic] if np.isfinite(f.estimate[statistic]) else None, f.deleted[statistic])
        for name, f in found.items()
    }
    return standings(figures, statistic, confidence=confidence)


def standings(figures: Mapping[str, tuple[float | None, Floats]], statistic: str, *, confidence: float = 0.95) -> list[Standing]:
    """`best_group` from each model's figure on all images and with each reference left out, the same references for all.

    This is all that a record needs to keep. 2AFC scores, which are means and no correlations, are compared as they are.

    Args:
        figures: by model, its figure on all images (None: not defined) and (k,) the figure with each of k references left out.
        statistic: the figure that is compared.
        confidence: the chance, at least, that all truly best models are in the group.

    Returns:
        The models, best first, and those whose figure is not defined last.
    """
    defined = sorted((name for name, (v, _) in figures.items() if v is not None), key=lambda name: -(figures[name][0] or 0.0))
    tested = [name for name in defined if len(figures[name][1]) >= FEWEST_REFERENCES and np.isfinite(figures[name][1]).all()]
    p_values: dict[str, float] = {}
    if len(tested) > 1:
        values = np.array([figures[name][0] for name in tested], dtype=np.float64)
        pseudo = pseudo_values(values, np.stack([figures[name][1] for name in tested]))
        p_values = dict(zip(tested, map(float, p_of_being_best(pseudo)), strict=True))
        # The observed best is above all others: there is nothing to test.
        p_values.pop(tested[0])
    return [
        Standing(name, figures[name][0], p_values.get(name), name in defined and p_values.get(name, 1.0) > 1 - confidence)
        for name in (*defined, *(name for name in figures if name not in defined))
    ]


def pseudo_values(values: Floats, deleted: Floats) -> Floats:
    """Jackknife pseudo-values (k, m) of figures `values` (m,) from those with each reference left out, `deleted` (m, k).

    They are moved so that their mean is the figure itself, and are on the figure's own scale: on Fisher's z, where a model's
    pseudo-values stretch with its own figure, changes of signs left out truly best models in up to a quarter of the
    simulated tables (50 models, 10 references).
    """
    k = deleted.shape[1]
    pseudo = -(k - 1.0) * deleted.T
    return np.asarray(pseudo - pseudo.mean(axis=0) + values)


def p_of_being_best(pseudo: Floats, signs: Floats | None = None) -> Floats:
    """P-values (m,) of the hypotheses "no model is better than this one", adjusted for all m together.

    Each model's statistic is the largest paired t by which another model is above it. Their joint distribution comes from
    changing the signs of whole references' differences: if models are equally good, a reference's differences are as likely as
    their opposites. That keeps all correlations between models, and needs no inverse of their covariance. Adjustment is by the
    step-down maxima of Westfall and Young (1993, algorithm 4.1): a model that is clearly worse does not make it harder to show
    that others are.

    Args:
        pseudo: (k, m) a value for each of k references and m models, whose mean over references is the model's figure.
        signs: (b, k) changes of signs, the first of which changes none; all of them, or a random part, by default.

    Returns:
        (m,) in (0, 1]; small where another model is better.
    """
    changed = signs_for(*pseudo.shape) if signs is None else signs
    sums = changed @ (pseudo - pseudo.mean(axis=1, keepdims=True))
    largest = np.empty_like(sums)
    for i in range(pseudo.shape[1]):
        # A paired t rises with the sum over the root of the sum of squares, which no change of signs changes.
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
    """(b, references) of 1 and -1: none changed first, then every change, or random ones where those are too many."""
    most = min(_MOST_SIGNS, max(_FEWEST_SIGNS, _WORK // models**2))
    if references <= 20 and 2**references <= most:
        return np.asarray(1.0 - 2.0 * ((np.arange(2**references)[:, None] >> np.arange(references)) & 1))
    signs = np.ones((most, references))
    signs[1:] -= 2.0 * generator(0, f"group of the best|{references}").integers(0, 2, (most - 1, references))
    return signs
