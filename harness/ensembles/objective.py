"""The objective of a search (SRCC, PLCC or main) of many blends at once: rows of one matrix against the same labels."""

from __future__ import annotations

from typing import Literal

import numpy as np

from harness.statistics.correlations import Floats, Ints, midranks

Objective = Literal["main", "srcc", "plcc"]
OBJECTIVES: tuple[Objective, ...] = ("main", "srcc", "plcc")


def objective_values(name: Objective, values: Floats, labels: Floats, ranked: Floats | None = None) -> Floats:
    """The objective (rows,) of `values` (rows, n) against `labels` (n,); -inf where it is not defined (constant values).

    `ranked`: the labels' mid-ranks, where the caller has them already.
    """
    total = np.zeros(len(values))
    if name in ("main", "plcc"):
        total += correlation(values, labels)
    if name in ("main", "srcc"):
        total += rank_correlation(values, midranks(labels) if ranked is None else ranked)
    return np.where(np.isfinite(total), total, -np.inf)


def rank_correlation(values: Floats, ranked: Floats) -> Floats:
    """Spearman's correlation (rows,) of each row of `values` (rows, n) with labels whose mid-ranks are `ranked` (n,)."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    # Without ties the ranks in increasing order are 1 to n, so they need not be reordered.
    place = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    target = ranked - ranked.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (target[order] @ place) / np.sqrt((target @ target) * (place @ place))
    if tied.any():
        found[tied] = correlation(_midranks(order[tied], ordered[tied]), ranked)
    return np.asarray(found)


def correlation(values: Floats, labels: Floats) -> Floats:
    """Pearson's correlation (rows,) of each row of `values` (rows, n) with `labels` (n,); NaN for a constant row."""
    centred = values - values.mean(axis=1, keepdims=True)
    target = labels - labels.mean()
    squares = np.einsum("ij,ij->i", centred, centred)
    # A constant row's mean may differ from its value by rounding, which must not count as variation.
    squares[squares <= 1e-24 * np.einsum("ij,ij->i", values, values)] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(centred @ target / np.sqrt(squares * (target @ target)))


def ranks(values: Floats) -> Floats:
    """Mid-ranks within each row of `values` (rows, n)."""
    order = np.argsort(values, axis=1)
    return _midranks(order, np.take_along_axis(values, order, axis=1))


def _midranks(order: Ints, ordered: Floats) -> Floats:
    """Mid-ranks (rows, n) of rows whose rising `order` is known, and which are `ordered` so."""
    new = np.ones(ordered.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(new)
    length = np.diff(starts, append=new.size)
    middle = starts % ordered.shape[1] + (length + 1) / 2
    out = np.empty(ordered.shape)
    np.put_along_axis(out, order, np.repeat(middle, length).reshape(ordered.shape), axis=1)
    return out
