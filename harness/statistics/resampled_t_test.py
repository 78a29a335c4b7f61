"""The corrected resampled t test for models over repeated splits, and groups of the best by it.

Repeated splits share images. Their figures vary less than those of as many independent test sets would, so that a plain t test
over them finds false differences. Nadeau & Bengio (Inference for the Generalization Error, Machine Learning 52,
2003) therefore take the variance of the mean over J splits as (1 / J + n_test / n_train) times the variance between splits, with
J - 1 degrees of freedom. n_test and n_train are numbers of references here, because references are the sampling units.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.statistics.best_group import Standing
from harness.statistics.correlations import Floats
from harness.statistics.intervals import Interval, holm, t_quantile

METHOD = "corrected resampled t"
_ROUNDING = 1e-12
"""Differences closer than this are equal, up to rounding."""


@dataclass(frozen=True)
class Resampled:
    """The mean of a difference over repeated splits."""

    mean: float
    error: float
    """Standard error of the mean, corrected for the images that splits share."""
    degrees: int
    """Splits less one."""

    def interval(self, confidence: float) -> Interval:
        """`mean` -+ t * `error`."""
        half = t_quantile(confidence, self.degrees) * self.error
        return self.mean - half, self.mean + half

    def p_value(self) -> float:
        """Two-sided p-value of no difference."""
        from scipy.special import stdtr

        return 1.0 if self.error == 0 else float(2 * stdtr(self.degrees, -abs(self.mean) / self.error))


def corrected_resampled(differences: ArrayLike, ratio: float) -> Resampled | None:
    """The corrected resampled t test of a difference over splits.

    Args:
        differences: (J,) the difference of two models' figures on the test part of each split, the same parts for both.
        ratio: the number of test references divided by the number of training references of a split; finite, above 0.

    Returns:
        The mean with its error. None where it is not defined: with fewer than two splits, with a value that is not finite, or
        where all splits give the same difference other than 0, because then the variance is unknown.
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2 or not np.isfinite(d).all() or not 0 < ratio < np.inf:
        return None
    if np.ptp(d) <= _ROUNDING:
        return Resampled(0.0, 0.0, len(d) - 1) if abs(d[0]) <= _ROUNDING else None
    error = float(d.std(ddof=1) * np.sqrt(1 / len(d) + ratio))
    return Resampled(float(d.mean()), error, len(d) - 1)


def standings_over_splits(figures: Mapping[str, ArrayLike], ratio: float, *, confidence: float = 0.95) -> list[Standing]:
    """The group of the best over repeated splits: models without a significantly better one.

    All pairs of models are tested, and their p-values corrected by Holm (1979) over all pairs. The chance that any truly best
    model is left out is then as low as that of any false finding among all pairs, whichever models are the best.

    Args:
        figures: by model, (J,) its figure on the test part of each split, the same parts for all.
        ratio: as in `corrected_resampled`.
        confidence: one less the level.

    Returns:
        The models by their median, the best first. `p_adjusted` is the smallest corrected p-value by which another model is above
        a model; None for the first while it is in the group.
    """
    known = {name: np.asarray(values, dtype=np.float64) for name, values in figures.items()}
    order = sorted(known, key=lambda name: -float(np.median(known[name])))
    pairs = list(itertools.combinations(order, 2))
    tests = [corrected_resampled(known[a] - known[b], ratio) for a, b in pairs]
    p_values = dict.fromkeys(order, 1.0)
    for (a, b), test, p in zip(pairs, tests, holm([t.p_value() if t else 1.0 for t in tests]), strict=True):
        if test is not None and test.mean != 0:
            worse = b if test.mean > 0 else a
            p_values[worse] = min(p_values[worse], p)
    found = []
    for name in order:
        inside = p_values[name] > 1 - confidence
        alone = name == order[0] and inside
        found.append(Standing(name, float(np.median(known[name])), None if alone else p_values[name], inside))
    return found


def median(values: Floats) -> float | None:
    """The median; None where a value is not finite, because a figure that one split does not have has no median."""
    return float(np.median(values)) if len(values) and np.isfinite(values).all() else None
