"""Agreement of scores with labels (MOS, DMOS): SRCC, PLCC, KRCC, PLCC and RMSE after a fit, main, and their intervals.

    >>> agreement([1, 2, 3, 4], [1.1, 1.9, 3.2, 3.9]).srcc
    1.0

Scores and labels must have the same polarity (higher is better in both, or lower in both), so that the agreement of a good
metric is positive; a negative sign is kept.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.runtime.errors import UsageError, listed, near
from harness.statistics.correlations import Floats, Ints, kendall, numbered, pearson, spearman, spearman_within
from harness.statistics.curve_fitting import FITS, Fit, fit_curve
from harness.statistics.intervals import Interval, fisher_interval, is_perfect
from harness.statistics.leave_one_out import LeaveOneOut, groups
from harness.statistics.reference_resampling import ClusteredPairs

FEW_REFERENCES = 10


@dataclass(frozen=True)
class Agreement:
    """Agreement of n scores with n labels. An undefined figure is None, and `notes` says why."""

    n: int
    """Images."""
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
    """Confidence intervals of srcc, plcc, plcc_fitted, krcc and main."""
    confidence: float = 0.95
    """The intervals' level."""
    fit: str = "logistic4"
    """The curve of plcc_fitted and rmse."""
    fit_parameters: tuple[float, ...] | None = None
    """beta_1.. of the formula in `fit_curve`, in the units of scores and labels."""
    fit_problem: str | None = None
    """Why there is no curve."""
    few_references: bool = False
    """Fewer than ten references: intervals are wide and rough."""
    srcc_within: float | None = None
    """Mean over references of the SRCC among a reference's own images."""
    notes: tuple[str, ...] = ()
    """Why figures or intervals are not defined, or rough."""
    left_out: LeaveOneOut | None = None
    """srcc, plcc and krcc without each reference, for a later paired comparison. Not part of `json`."""

    def json(self) -> dict[str, Any]:
        """Plain values for JSON: numbers, text, lists, null; never NaN."""
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items() if name != "left_out"}
        last = {name: plain.pop(name) for name in ("few_references", "fit", "fit_parameters", "fit_problem", "notes")}
        return {**plain, "ci": {name: None if ends is None else list(ends) for name, ends in self.ci.items()}, **last}


def agreement(
    scores: ArrayLike,
    labels: ArrayLike,
    reference_ids: Sequence[Hashable] | Literal["images"] | None = None,
    *,
    fit: Fit = "logistic4",
    confidence: float = 0.95,
    intervals: bool = True,
) -> Agreement:
    """Agreement of a metric's scores with labels: correlations, and their intervals over references.

    Intervals are a delete-one-reference jackknife on the Fisher-z scale (of main on atanh(main / 2)) with t quantiles of at most
    (references - 1) degrees. Above 250 references the jackknife may leave out groups of references instead of single ones, to
    bound its cost. The interval of plcc_fitted keeps the curve: at the fit's optimum the correlation does not change, to first
    order, with the curve.

    Args:
        scores: (n,), finite, in any unit.
        labels: (n,), finite, oriented as the scores are: higher is better in both, or lower in both.
        reference_ids: (n,), each image's reference, needed for the intervals. None: no intervals, because distorted images of
            one reference are not independent. "images": the images are independent, each is its own reference.
        fit: the curve of plcc_fitted and rmse (`harness.statistics.curve_fitting.fit_curve`).
        confidence: the intervals' level, between 0 and 1.
        intervals: whether they are computed; without them it is much faster.

    Returns:
        The figures. An undefined one is None, and `notes` says why.

    Raises:
        UsageError: values that are not finite, lengths that differ, no rows, missing reference ids, an unknown fit, masked
            arrays, complex numbers.
    """
    unknown = [] if fit in FITS else [f"fit {fit!r}: expected one of {listed(FITS)}{near(fit, FITS)}"]
    columns = checked_columns({"scores": scores, "labels": labels}, reference_ids, confidence, unknown)
    x, y, cluster, clusters = columns.values["scores"], columns.values["labels"], columns.cluster, columns.clusters
    known = reference_ids is not None and not isinstance(reference_ids, str)
    constant = {"scores": x.min() == x.max(), "labels": y.min() == y.max()}
    notes = [f"{what} are constant: correlations are not defined" for what, true in constant.items() if true]
    notes = ["correlations need at least two images"] if len(x) < 2 else notes
    srcc, plcc = spearman(x, y), pearson(x, y)
    whole: ClusteredPairs | None = None
    if intervals and cluster is not None and clusters >= 2:
        left, names = groups(cluster, columns.ids)
        whole = ClusteredPairs(x, y, left, len(names))
    krcc = kendall(x, y) if whole is None else whole.krcc()
    curve = fit_curve(x, y, fit)
    fitted = plcc_fitted = rmse = None
    if not isinstance(curve, str):
        rises = (x - x.mean()) @ (curve.values - curve.values.mean()) >= 0
        fitted = curve.values if rises else -curve.values
        plcc_fitted, rmse = pearson(fitted, y), float(np.sqrt(np.mean((curve.values - y) ** 2)))
        notes += [f"the best {fit} is {curve.note}"] if curve.note else []
    ci: dict[str, Interval | None] = dict.fromkeys(("srcc", "plcc", "plcc_fitted", "krcc", "main"))
    left_out = None
    if intervals and cluster is None:
        notes.append("no intervals: they need the reference of every image (reference_id)")
    elif intervals and clusters < 2:
        notes.append("no intervals: they need at least two references")
    elif whole is not None:
        if not known:
            notes.append("intervals take every image as independent")
        deleted = {"srcc": whole.srcc_without_each(), "plcc": whole.plcc_without_each(), "krcc": whole.krcc_without_each()}
        left_out = LeaveOneOut.of(names, deleted)
        figures = {"srcc": srcc, "plcc": plcc, "krcc": krcc, "main": plcc + srcc}
        without = deleted | {"main": deleted["plcc"] + deleted["srcc"]}
        if fitted is not None and plcc_fitted is not None:
            figures |= {"plcc_fitted": plcc_fitted}
            without |= {"plcc_fitted": ClusteredPairs(fitted, y, left, len(names)).plcc_without_each()}
        reach = {"main": 2.0}
        ci |= {name: fisher_interval(v, without[name], confidence, reach.get(name, 1.0)) for name, v in figures.items()}
        # Notes on defined figures without an interval.
        missing = [name for name in ci if ci[name] is None and np.isfinite(figures.get(name, np.nan))]
        perfect = [name for name in missing if is_perfect(figures[name], reach.get(name, 1.0))]
        if perfect:
            why = "agreement is perfect, and how far other references would differ is not known"
            notes.append(f"no interval of {', '.join(perfect)}: {why}")
        if other := [name for name in missing if name not in perfect]:
            notes.append(f"no interval of {', '.join(other)}: without one of the references, agreement is perfect or not defined")
    within: float | None = None
    if known and cluster is not None:
        each = spearman_within(x, y, cluster, clusters)
        within = float(np.nanmean(each)) if np.isfinite(each).any() else None
        if undefined := np.count_nonzero(np.isnan(each)):
            notes.append(f"srcc_within leaves out {undefined} of {clusters} references: one image, or constant scores or labels")
    return Agreement(
        n=len(x),
        references=clusters if known else None,
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
        few_references=cluster is not None and clusters < FEW_REFERENCES,
        srcc_within=within,
        notes=tuple(notes),
        left_out=left_out if known else None,
    )


def _defined(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


@dataclass(frozen=True)
class Columns:
    """Checked input: float64 columns of one length, and the unit (reference) of each image."""

    values: dict[str, Floats]
    cluster: Ints | None
    clusters: int
    ids: list[Hashable]
    """The units' names, by number."""


def checked_columns(
    columns: Mapping[str, ArrayLike],
    reference_ids: Sequence[Hashable] | str | None,
    confidence: float = 0.95,
    problems: Sequence[str] = (),
) -> Columns:
    """Named columns of numbers and their reference ids, checked.

    Args:
        columns: by name, (n,) finite numbers.
        reference_ids: (n,) each image's reference; "images": each its own; None: not known.
        confidence: the level of intervals, from 0.5 to below 1.
        problems: problems that the caller has found already.

    Returns:
        The columns as float64, and the references numbered from 0.

    Raises:
        UsageError: all problems at once: values that are not finite numbers, lengths that differ, no rows, ids that are missing.
    """
    found = list(problems)
    values: dict[str, Floats] = {}
    for what, given in columns.items():
        if refusal := _refused(given):
            found.append(f"{what}: {refusal}")
            continue
        try:
            column = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            found.append(f"{what}: not all are numbers")
            continue
        if column.ndim != 1:
            found.append(f"{what}: expected one value per image, got shape {column.shape}")
            continue
        if not (finite := np.isfinite(column)).all():
            rows = listed([int(i) for i in np.flatnonzero(~finite)])
            found.append(f"{what}: {np.count_nonzero(~finite)} of {len(column)} are NaN or infinite (rows {rows}, from 0)")
        values[what] = column
    lengths = {what: len(column) for what, column in values.items()}
    if len(set(lengths.values())) > 1:
        found.append(" and ".join(f"{k} {what}" for what, k in lengths.items()) + ": expected one of each per image")
    n = max(lengths.values(), default=0)
    if not n and not found:
        found.append("no scores: nothing to compare")
    cluster, ids = None, list[Hashable]()
    if isinstance(reference_ids, str):
        if reference_ids != "images":
            found.append(f"reference_ids: expected one id per image or 'images', got {reference_ids!r}")
        cluster, ids = np.arange(n), list(range(n))
    elif reference_ids is not None:
        cluster, ids = numbered(reference_ids)
        missing = [i for i, name in enumerate(ids) if name is None or name == "" or name != name]
        if missing:
            count = np.count_nonzero(np.isin(cluster, missing))
            found.append(f"reference_ids: {count} images have none; give every image its reference")
        if len(cluster) != n and lengths:
            found.append(f"reference_ids: {len(cluster)} for {n} images")
    if not 0.5 <= confidence < 1:
        found.append(f"confidence {confidence!r}: expected a share from 0.5 to below 1, such as 0.95")
    if found:
        raise UsageError("\n".join(found))
    return Columns(values, cluster, len(ids), ids)


def _refused(given: ArrayLike) -> str:
    """Why values are refused that NumPy would convert to floats with loss (masked, complex); empty where there is no loss."""
    if isinstance(given, np.ma.MaskedArray) or (
        isinstance(given, list | tuple) and any(value is np.ma.masked or isinstance(value, np.ma.MaskedArray) for value in given)
    ):
        return "a masked array; leave the masked images out of scores and labels (x.compressed()), or fill them"
    try:
        values = np.asarray(given)
    except (TypeError, ValueError):
        return ""
    if np.iscomplexobj(values) or (
        values.dtype == object and any(isinstance(v, complex | np.complexfloating) for v in values.flat)
    ):
        return "complex numbers; scores and labels are real"
    return ""
