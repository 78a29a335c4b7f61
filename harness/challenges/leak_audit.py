"""The leak audit: does a submission's score depend on the distortion id in the file's name?

Quality itself depends on the type, so ids that explain variance prove nothing. The sign of a leak is in the difference to the
model's own scores of the same images: a shift of one id that is the same in every reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from harness.cards.challenge import ChallengeCard
from harness.challenges.image_names import parts_of
from harness.statistics.correlations import Floats, Ints, numbered
from harness.statistics.intervals import generator

PERMUTATIONS = 999
LEVEL = 0.01
CONSTANT = 5.0
"""A shift counts as constant over references where its spread is less than the shift divided by this."""
SMALLEST = 1e-3
"""Shifts below this share of the scores' standard deviation are ignored."""


@dataclass(frozen=True)
class Shift:
    """The shift of one type id against the model's own scores."""

    type: str
    mean: float
    """Mean over references, in the submission's units."""
    spread: float
    """Standard deviation over references."""
    references: int
    p_value: float
    """Probability of a largest mean shift like this when ids are shuffled within references; 1 where no shift is constant."""
    flagged: bool


@dataclass(frozen=True)
class Audit:
    """The submission as an affine function of the record, slope * own + constant, plus a shift for each id."""

    slope: float
    constant: float
    shifts: tuple[Shift, ...]

    @property
    def flagged(self) -> tuple[Shift, ...]:
        """The ids whose shift is constant over references, the largest first."""
        return tuple(shift for shift in self.shifts if shift.flagged)

    def json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {"slope": self.slope, "constant": self.constant, "shifts": [asdict(shift) for shift in self.shifts]}

    def __str__(self) -> str:
        found = f"{len(self.flagged)} of {len(self.shifts)} type ids have their own shift"
        return f"leak audit: {found} (submission = {self.slope:.6g} x record {self.constant:+.6g})"


def audit(card: ChallengeCard, submitted: Sequence[float], own: Sequence[float], names: Sequence[str]) -> Audit:
    """Audit `submitted` scores (n,) against the model's `own` scores (n,) of the images `names` (n,).

    An id is flagged where its mean shift is significant against shuffled ids (p <= LEVEL over all ids at once), its spread over
    at least three references is less than a CONSTANT-th of it, and it is not a rounding error. `own` should come from the model
    of the submission: a nonlinear function of its scores looks like shifts where ids have narrow ranges of quality.
    """
    parts = [parts_of(card, name) for name in names]
    reference, references = numbered([p.reference for p in parts])
    kind, ids = numbered([p.type for p in parts])
    y, x = np.asarray(submitted, dtype=np.float64), np.asarray(own, dtype=np.float64)
    slope, constant = _affine(x, y)
    residual = y - (slope * x + constant)
    by_id = _by_id(residual, reference, kind, len(references), len(ids))
    size = np.abs(by_id.mean)
    constant_enough = (by_id.references >= 3) & (size > SMALLEST * y.std()) & (by_id.spread * CONSTANT < size)
    p_values, flagged = np.ones(len(ids)), np.zeros(len(ids), dtype=bool)
    found = constant_enough
    while found.any() and not flagged.all():
        # Step-down: again without the flagged ids, whose shifts would hide smaller ones.
        left = ~flagged
        rows, place = left[kind], np.cumsum(left) - 1
        kinds = place[kind[rows]]
        p_values[left] = _permuted(size[left], residual[rows], reference[rows], kinds, len(references), int(left.sum()))
        found = left & constant_enough & (p_values <= LEVEL)
        flagged |= found
    columns = (by_id.mean, by_id.spread, by_id.references.astype(int), p_values, flagged)
    shifts = [Shift(*row) for row in zip(map(str, ids), *(column.tolist() for column in columns), strict=True)]
    return Audit(slope, constant, tuple(sorted(shifts, key=lambda s: (not s.flagged, -abs(s.mean), s.type))))


def explained_by_type(card: ChallengeCard, scores: Mapping[str, float]) -> float | None:
    """The share of the variance within references that the type id explains; None where that variance is zero."""
    parts = [parts_of(card, name) for name in scores]
    if not all(p.type and p.reference for p in parts) or len(scores) < 3:
        return None
    reference, references = numbered([p.reference for p in parts])
    kind, ids = numbered([p.type for p in parts])
    y = np.array(list(scores.values()), dtype=np.float64)
    y -= (np.bincount(reference, y, len(references)) / np.bincount(reference))[reference]
    total = float(y @ y)
    if len(ids) < 2 or len(references) < 2 or total == 0:
        return None
    count = np.bincount(kind)
    return float(np.sum(np.bincount(kind, y) ** 2 / count) / total)


def _affine(x: Floats, y: Floats) -> tuple[float, float]:
    """A robust line from x to y: a minority of shifted images does not change it.

    Least absolute deviations, by iterative reweighting: shifted ids must not change the line that they are compared with.
    """
    if x.min() == x.max():
        return 0.0, float(np.median(y))
    weights = np.ones_like(x)
    slope = constant = 0.0
    scale = float(y.std()) or 1.0
    for _ in range(50):
        total = weights.sum()
        mx, my = float(weights @ x / total), float(weights @ y / total)
        spread = float(weights @ (x - mx) ** 2)
        slope = float(weights @ ((x - mx) * (y - my))) / spread if spread > 0 else 0.0
        constant = my - slope * mx
        weights = 1 / np.maximum(np.abs(y - slope * x - constant), 1e-9 * scale)
    return slope, constant


class _ById(NamedTuple):
    """For each id, (ids,): the mean and spread of its value over references, and their number."""

    mean: Floats
    spread: Floats
    references: Floats


def _by_id(values: Floats, reference: Ints, kind: Ints, references: int, ids: int) -> _ById:
    """Statistics of each id's value over references; an id may occur several times within one."""
    cell = kind * references + reference
    count = np.bincount(cell, minlength=ids * references).reshape(ids, references)
    total = np.bincount(cell, values, ids * references).reshape(ids, references)
    there = count > 0
    value = np.divide(total, count, out=np.zeros_like(total), where=there)
    n = there.sum(1).astype(np.float64)
    mean = value.sum(1) / n
    squares = np.where(there, (value - mean[:, None]) ** 2, 0.0).sum(1)
    return _ById(mean, np.sqrt(squares / np.maximum(n - 1, 1)), n)


def _permuted(observed: Floats, residual: Floats, reference: Ints, kind: Ints, references: int, ids: int) -> Floats:
    """For each id the probability of a largest absolute mean like `observed` when ids are shuffled within references."""
    draw = generator(0, "leak audit")
    by_reference = np.argsort(reference, kind="stable")
    largest = np.empty(PERMUTATIONS)
    for i in range(PERMUTATIONS):
        shuffled = np.empty_like(residual)
        # Sorted by reference and, within each, in random order.
        shuffled[by_reference] = residual[np.argsort(reference + draw.random(len(residual)))]
        largest[i] = np.abs(_by_id(shuffled, reference, kind, references, ids).mean).max()
    return np.asarray((1 + (largest[:, None] >= observed).sum(0)) / (PERMUTATIONS + 1), dtype=np.float64)
