"""How well scores agree with people: SRCC, PLCC, KRCC, PLCC and RMSE after a fit, the main score, and how sure that is.

    >>> agreement([1, 2, 3, 4], [1.1, 1.9, 3.2, 3.9]).srcc
    1.0

Scores and labels come oriented the same way (higher is better in both, or lower in both), so that agreement is positive
when a metric is right; a wrong sign is shown and never hidden.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.correlations import Clustered, Floats, Ints, numbered, pearson, spearman
from harness.errors import BadRequest, listed, near
from harness.fits import FITS, Fit, fit_curve
from harness.intervals import fisher_interval, pooled_units

Interval = tuple[float, float]
FEW_REFERENCES = 10
_JACKKNIFE_WORK = 50_000_000
"""Images x units that the jackknife may cost; more units than that allows (and than 250) are pooled."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of n scores with n labels. A figure that is not defined is None, and `notes` says why."""

    n: int
    references: int | None
    """Distinct references; None when they are not known."""
    srcc: float | None
    """Spearman's rank correlation."""
    plcc: float | None
    """Pearson's correlation of the raw scores."""
    plcc_fitted: float | None
    """Pearson's correlation after the fit; negative where the fitted curve falls."""
    krcc: float | None
    """Kendall's tau-b."""
    rmse: float | None
    """Root of the mean squared residual of the fit, in the labels' units, over n."""
    main: float | None
    """plcc + srcc (the NTIRE 2021 and 2022 main score without their absolute values)."""
    ci: dict[str, Interval | None] = field(default_factory=dict)
    """Intervals of srcc, plcc, plcc_fitted, krcc and main."""
    confidence: float = 0.95
    fit: str = "logistic4"
    fit_parameters: tuple[float, ...] | None = None
    """beta_1.. of the formula in `fit_curve`, in the units of scores and labels."""
    fit_problem: str | None = None
    few_references: bool = False
    """Fewer than ten references: intervals are wide and rough."""
    srcc_within: float | None = None
    """Mean over references of the SRCC among a reference's own images."""
    notes: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """Plain values for JSON: numbers, text, lists, null; never NaN."""
        return {
            "n": self.n,
            "references": self.references,
            "srcc": self.srcc,
            "plcc": self.plcc,
            "plcc_fitted": self.plcc_fitted,
            "krcc": self.krcc,
            "rmse": self.rmse,
            "main": self.main,
            "ci": {name: None if interval is None else list(interval) for name, interval in self.ci.items()},
            "confidence": self.confidence,
            "srcc_within": self.srcc_within,
            "few_references": self.few_references,
            "fit": self.fit,
            "fit_parameters": None if self.fit_parameters is None else list(self.fit_parameters),
            "fit_problem": self.fit_problem,
            "notes": list(self.notes),
        }


def agreement(
    scores: ArrayLike,
    labels: ArrayLike,
    reference_ids: Sequence[Hashable] | Literal["images"] | None = None,
    *,
    fit: Fit = "logistic4",
    confidence: float = 0.95,
    intervals: bool = True,
) -> Agreement:
    """Agreement of `scores` with `labels`, both (n,), finite and oriented the same way.

    `reference_ids` (n,) names each image's reference and is what intervals rest on: a delete-one-reference jackknife on the
    Fisher-z scale (Efron & Stein 1981; Fisher 1921), of main on atanh(main / 2), with t quantiles of (references - 1) degrees.
    Without it there are no intervals, because distorted images of one reference are not independent; "images" says that they
    are. Above 250 references the jackknife may leave out groups of references instead of single ones, to bound its cost. The
    interval of plcc_fitted keeps the curve: at the fit's optimum the correlation does not change, to first order, with the curve.

    `fit` is the curve of `fit_curve`. Raises BadRequest for values that are not finite, lengths that differ, no rows, missing
    reference ids, an unknown fit.
    """
    x, y, unit, units = _checked(scores, labels, reference_ids, fit, confidence)
    known = reference_ids is not None and not isinstance(reference_ids, str)
    notes = _constant_notes(x, y)
    whole = Clustered(x, y, unit if unit is not None else np.zeros(len(x), np.int64), max(units, 1))
    srcc, plcc, krcc = spearman(x, y), pearson(x, y), whole.krcc()
    curve = fit_curve(x, y, fit)
    fitted = plcc_fitted = rmse = None
    if not isinstance(curve, str):
        fitted = curve.values if _rises(x, curve.values) else -curve.values
        plcc_fitted, rmse = pearson(fitted, y), float(np.sqrt(np.mean((curve.values - y) ** 2)))
        notes += [f"the best {fit} is {curve.note}"] if curve.note else []
    ci: dict[str, Interval | None] = dict.fromkeys(("srcc", "plcc", "plcc_fitted", "krcc", "main"))
    if intervals and unit is None:
        notes.append("no intervals: they need the reference of every image (reference_id)")
    elif intervals and units < 2:
        notes.append("no intervals: they need at least two references")
    elif intervals and unit is not None:
        if not known:
            notes.append("intervals take every image as independent")
        limit = max(250, _JACKKNIFE_WORK // len(x))
        if units > limit:
            unit_pooled, units_pooled = pooled_units(unit, units, limit)
            whole = Clustered(x, y, unit_pooled, units_pooled)
        ci = _intervals(whole, fitted, (srcc, plcc, plcc_fitted, krcc), confidence)
        if np.isfinite(srcc) and ci["srcc"] is None:
            notes.append("no intervals: without one of the references, scores or labels are constant")
    within, undefined = _within(x, y, unit, units) if known and unit is not None else (float("nan"), 0)
    if known and undefined:
        notes.append(f"srcc_within leaves out {undefined} of {units} references: one image, or constant scores or labels")
    return Agreement(
        n=len(x),
        references=units if known else None,
        srcc=_defined(srcc),
        plcc=_defined(plcc),
        plcc_fitted=_defined(plcc_fitted),
        krcc=_defined(krcc),
        rmse=rmse,
        main=_defined(plcc + srcc),
        ci=ci,
        confidence=confidence,
        fit=fit,
        fit_parameters=None if isinstance(curve, str) else curve.parameters,
        fit_problem=curve if isinstance(curve, str) else None,
        few_references=unit is not None and units < FEW_REFERENCES,
        srcc_within=_defined(within),
        notes=tuple(notes),
    )


def _defined(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _rises(x: Floats, curve: Floats) -> bool:
    return bool((x - x.mean()) @ (curve - curve.mean()) >= 0)


def _checked(
    scores: ArrayLike, labels: ArrayLike, reference_ids: Sequence[Hashable] | str | None, fit: str, confidence: float
) -> tuple[Floats, Floats, Ints | None, int]:
    """Both columns as float64, the unit of each image and their number; every problem in one BadRequest."""
    problems = []
    columns = {}
    for what, values in (("scores", scores), ("labels", labels)):
        try:
            column = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            problems.append(f"{what}: not all are numbers")
            continue
        if column.ndim != 1:
            problems.append(f"{what}: expected one value per image, got shape {column.shape}")
        elif not (finite := np.isfinite(column)).all():
            rows = listed([int(i) for i in np.flatnonzero(~finite)[:21]], 20)
            problems.append(f"{what}: {np.count_nonzero(~finite)} of {len(column)} are NaN or infinite (rows {rows}, from 0)")
        columns[what] = column
    if len(columns) == 2 and columns["scores"].shape != columns["labels"].shape:
        problems.append(f"{len(columns['scores'])} scores and {len(columns['labels'])} labels: expected one of each per image")
    n = len(columns.get("scores", ()))
    if len(columns) == 2 and n == 0 and not problems:
        problems.append("no scores: nothing to compare")
    unit, units = None, 0
    if isinstance(reference_ids, str):
        if reference_ids != "images":
            problems.append(f"reference_ids: expected one id per image or 'images', got {reference_ids!r}")
        unit, units = np.arange(n), n
    elif reference_ids is not None:
        unit, ids = numbered(reference_ids)
        units = len(ids)
        missing = [i for i, r in enumerate(ids) if r is None or r == "" or r != r]
        if missing:
            problems.append(
                f"reference_ids: {int(np.isin(unit, missing).sum())} images have none; give every image its reference"
            )
        if len(unit) != n and "scores" in columns:
            problems.append(f"reference_ids: {len(unit)} for {n} scores")
    if fit not in FITS:
        problems.append(f"fit {fit!r}: expected one of {listed(FITS)}{near(fit, FITS)}")
    if not 0 < confidence < 1:
        problems.append(f"confidence {confidence!r}: expected a share between 0 and 1, such as 0.95")
    if problems:
        raise BadRequest("\n".join(problems))
    return columns["scores"], columns["labels"], unit, units


def _constant_notes(x: Floats, y: Floats) -> list[str]:
    if len(x) < 2:
        return ["correlations need at least two images"]
    named = (("scores", x), ("labels", y))
    return [f"{what} are constant: correlations are not defined" for what, v in named if v.min() == v.max()]


def _intervals(
    whole: Clustered, fitted: Floats | None, figures: tuple[float, float, float | None, float], confidence: float
) -> dict[str, Interval | None]:
    srcc, plcc, plcc_fitted, krcc = figures
    srcc_without, plcc_without = whole.srcc_without_each(), whole.plcc_without_each()
    ci = {"srcc": fisher_interval(srcc, srcc_without, confidence), "plcc": fisher_interval(plcc, plcc_without, confidence)}
    ci["plcc_fitted"] = None
    if fitted is not None and plcc_fitted is not None:
        without = Clustered(fitted, whole.y, whole.unit, whole.units).plcc_without_each()
        ci["plcc_fitted"] = fisher_interval(plcc_fitted, without, confidence)
    ci["krcc"] = fisher_interval(krcc, whole.krcc_without_each(), confidence)
    ci["main"] = fisher_interval(plcc + srcc, plcc_without + srcc_without, confidence, reach=2.0)
    return ci


def _within(x: Floats, y: Floats, unit: Ints, units: int) -> tuple[float, int]:
    """Mean SRCC within units, and the number of units that have none."""
    order = np.argsort(unit, kind="stable")
    ends = np.cumsum(np.bincount(unit, minlength=units))
    values = np.array([spearman(x[rows], y[rows]) for rows in np.split(order, ends[:-1])])
    defined = np.isfinite(values)
    return (float(values[defined].mean()) if defined.any() else float("nan")), int((~defined).sum())
