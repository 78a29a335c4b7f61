"""Least-squares fits of logistics and a cubic from scores to labels, deterministic and independent of starting values.

A logistic has two parameters that enter linearly once its place and width are known, so only those two are searched
(variable projection, Golub & Pereyra 1973): over a fixed grid of places and widths, then by Levenberg-Marquardt from the best
few. On skewed scores the best logistic often has a plateau infinitely far beyond the data, so a general optimizer does not
converge; here place and width are bounded by a box so wide that its edge equals that limit (an exponential or a straight line)
to six digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.runtime.python37 import Literal
from harness.statistics.correlations import Floats, standardised

Fit = Literal["logistic4", "logistic5", "poly3"]
FITS: tuple[str, ...] = ("logistic4", "logistic5", "poly3")

_BEYOND = 12.0
"""How many widths a logistic's place may be outside the data; its tail there equals an exponential to e^-12."""
_WIDEST = 100.0
"""Largest width, in ranges of the data; the curve then equals a straight line to 1e-6."""
_GRID_IMAGES = 2000
_STEPS = 200
_STARTS = 5


@dataclass(frozen=True)
class Curve:
    """A fitted curve."""

    values: Floats
    """(n,): the curve at each score, in the labels' units."""
    parameters: tuple[float, ...]
    """b1, b2, .. of the formula in `fit_curve`, in the scores' and labels' units."""
    note: str = ""
    """A note where the best curve is a limit of the family."""


def fit_curve(x: Floats, y: Floats, fit: Fit) -> Curve | str:
    """The least-squares curve from scores to labels.

    logistic4   b2 + (b1 - b2) / (1 + exp(-(x - b3) / b4)), b4 > 0; VQEG FR-TV Phase II (2003)
    logistic5   b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5; Sheikh, Sabir & Bovik (2006)
    poly3       b1 + b2 x + b3 x^2 + b4 x^3; NTIRE 2021

    Deterministic, and independent of the units of `x` and `y`, because it works on standardised values.

    Args:
        x: (n,), finite scores.
        y: (n,), finite labels.
        fit: One of the curves above.

    Returns:
        The curve, or a message of one line that says why there is none.
    """
    count = 5 if fit == "logistic5" else 4
    if len(x) <= count:
        return f"{fit} needs more than {count} images, there are {len(x)}"
    if x.min() == x.max() or y.min() == y.max():
        return f"{fit}: scores or labels are constant"
    distinct = len(np.unique(x))
    if distinct < count:
        return f"{fit} needs at least {count} distinct scores, there are {distinct}"
    u, v = standardised(x), standardised(y)
    return _polynomial(x, y, u, v) if fit == "poly3" else _logistic(x, y, u, v, with_line=fit == "logistic5")


def _polynomial(x: Floats, y: Floats, u: Floats, v: Floats) -> Curve | str:
    (cx, wx), (cy, wy) = _affine(x, u), _affine(y, v)
    powers = np.vander(u, 4, increasing=True)
    b, _, rank, _ = np.linalg.lstsq(powers, v, rcond=None)
    if rank < 4:
        return "poly3: the scores are too unevenly spread to determine four coefficients"
    in_units = np.polynomial.Polynomial(b * wy, domain=[cx - wx, cx + wx], window=[-1, 1]).convert().coef
    in_units = np.append(in_units, np.zeros(4 - len(in_units)))
    in_units[0] += cy
    return Curve(powers @ b * wy + cy, tuple(float(c) for c in in_units))


def _logistic(x: Floats, y: Floats, u: Floats, v: Floats, with_line: bool) -> Curve | str:
    box = _Box(u)
    order = np.argsort(u, kind="stable")
    few = np.sort(order[np.linspace(0, len(u) - 1, min(len(u), _GRID_IMAGES)).round().astype(np.int64)])
    found = [_descend(u[few], v[few], box, start, with_line) for start in _starts(u[few], v[few], box, with_line)]
    best = min((point for point in found if point is not None), key=lambda point: point.error, default=None)
    if best is not None and len(few) < len(u):
        best = _descend(u, v, box, best.at, with_line)
    if best is None:
        return f"logistic{5 if with_line else 4}: no minimum found in {_STEPS} steps"
    place, log_width = best.at
    centre, width = box.centre(place, log_width), float(np.exp(log_width))
    (cx, wx), (cy, wy) = _affine(x, u), _affine(y, v)
    note = ""
    if width < 1.01 * box.narrowest:
        note = "a step, the limit of narrow logistics"
    elif width > 0.99 * box.widest:
        note = "a straight line, the limit of wide logistics"
    elif abs(place) > 0.99:
        note = "an exponential, the limit of logistics with one plateau beyond the data"
    place_in_units, width_in_units = centre * wx + cx, width * wx
    low, high = best.constant * wy + cy, (best.constant + best.rise) * wy + cy
    if with_line:
        slope = best.slope * wy / wx
        parameters = [high - low, 1 / width_in_units, place_in_units, slope, (low + high) / 2 - slope * cx]
    else:
        parameters = [high, low, place_in_units, width_in_units]
    return Curve(best.values * wy + cy, tuple(float(p) for p in parameters), note)


def _affine(x: Floats, u: Floats) -> tuple[float, float]:
    """centre and width with x = centre + width * u, where u is x standardised."""
    low, high = int(x.argmin()), int(x.argmax())
    width = float((x[high] - x[low]) / (u[high] - u[low]))
    return float(x[low] - u[low] * width), width


def _nearest_quantiles(u: Floats, count: int) -> Floats:
    """`count` quantiles from the smallest value to the largest, each a value of `u`; `np.quantile` calls this "nearest"."""
    return np.asarray(np.sort(u)[np.around(np.linspace(0, 1, count) * (len(u) - 1)).astype(np.int64)])


class _Box:
    """The bounds of a logistic on scores `u`: place in [-1, 1], from far left of the data to far right, and log width."""

    def __init__(self, u: Floats):
        self.low, self.high = float(u.min()), float(u.max())
        self.widest = _WIDEST * (self.high - self.low)
        self.quantiles = np.unique(_nearest_quantiles(u, 21))
        self.many = np.unique(_nearest_quantiles(u, 201))
        # A logistic much narrower than the gap between two images is a step of any width.
        self.narrowest = max(float(np.diff(self.many).min()) / 16, 1e-9 * (self.high - self.low))

    def centre(self, place: float, log_width: float) -> float:
        return (self.low + self.high) / 2 + place * self.reach(log_width)

    def reach(self, log_width: float) -> float:
        return (self.high - self.low) / 2 + _BEYOND * float(np.exp(log_width))

    def clipped(self, at: Floats) -> Floats:
        return np.asarray(np.clip(at, [-1.0, np.log(self.narrowest)], [1.0, np.log(self.widest)]))

    def grid(self) -> Floats:
        """(k, 2) places and log widths."""
        narrow = max(float(np.diff(self.quantiles).min()) / 8, self.narrowest)
        steps = int(np.ceil(np.log(self.widest / narrow) / np.log(2.5))) + 1
        centres, widths = [], []
        for width in np.geomspace(narrow, self.widest, steps):
            beyond = width * np.array([2.0, 5.0, _BEYOND])
            centres.append(np.concatenate((self.low - beyond, self.quantiles, self.high + beyond)))
            widths.append(np.full(len(centres[-1]), width))
        # Also steps between neighbours, which a descent cannot find: their gradient is zero.
        centres.append((self.many[1:] + self.many[:-1]) / 2)
        widths.append(np.maximum(np.diff(self.many) / 16, self.narrowest))
        centre, width = np.concatenate(centres), np.concatenate(widths)
        place = (centre - (self.low + self.high) / 2) / ((self.high - self.low) / 2 + _BEYOND * width)
        return np.stack([place, np.log(width)], axis=1)


def _starts(u: Floats, v: Floats, box: _Box, with_line: bool) -> Floats:
    """(k, 2): the best points of the grid, no two of them neighbours."""
    grid = box.grid()
    centres = np.array([box.centre(place, log_width) for place, log_width in grid])
    t = (u - centres[:, None]) / np.exp(grid[:, 1:])
    # The tail is computed from its own small values, as in _projected.
    side = np.where(grid[:, :1] < 0, -1.0, 1.0)
    s = _sigmoid(side * t)
    s /= s.max(axis=1, keepdims=True)
    s = _without_line(s.T, u, with_line).T
    squares = np.sum(s**2, axis=1)
    gain = np.where(squares > 1e-24 * len(u), (s @ v) ** 2 / np.maximum(squares, 1e-300), 0.0)
    chosen: list[int] = []
    for i in np.argsort(-gain, kind="stable"):
        apart = np.abs(grid[chosen] - grid[i]) > [0.05, 1.5]
        if apart.any(axis=1).all():
            chosen.append(int(i))
        if len(chosen) == _STARTS:
            break
    return np.asarray(grid[chosen])


@dataclass(frozen=True)
class _Point:
    """The best curve with a given place and width: constant + slope * u + rise * sigmoid."""

    at: Floats
    error: float
    constant: float
    slope: float
    rise: float
    values: Floats
    direction: Floats
    """(n,): the sigmoid less what constant and slope take up, of unit length (zeros where nothing is left)."""
    t: Floats
    """(n,): distance from the place in widths."""


def _sigmoid(t: Floats) -> Floats:
    # exp of the negative magnitude never overflows, and both tails keep their relative precision.
    e = np.exp(-np.abs(t))
    return np.asarray(np.where(t >= 0, 1.0, e) / (1 + e), dtype=np.float64)


def _without_line(columns: Floats, u: Floats, with_line: bool) -> Floats:
    """Columns less their mean, and less their share of `u` (standardised) where the curve has a straight line of its own."""
    columns = columns - columns.mean(axis=0)
    return columns - np.multiply.outer(u, u @ columns / len(u)) if with_line else columns


def _projected(u: Floats, v: Floats, box: _Box, at: Floats, with_line: bool) -> _Point:
    t = (u - box.centre(*at)) / np.exp(at[1])
    # The tail that lies in the data carries the shape: left of the centre s, right of it 1 - s.
    side = -1.0 if at[0] < 0 else 1.0
    s = side * _sigmoid(side * t)
    top = float(np.abs(s).max())
    s /= top
    ahead = _without_line(s, u, with_line)
    length = float(np.sqrt(ahead @ ahead))
    direction = ahead / length if length > 1e-12 * np.sqrt(len(u)) else np.zeros_like(u)
    amount = float(direction @ v) / length if direction.any() else 0.0
    values = amount * ahead + (float(u @ v) / len(u) * u if with_line else 0.0)
    residual = v - values
    rise = amount / top
    slope = float(u @ (v - amount * s)) / len(u) if with_line else 0.0
    constant = -amount * float(s.mean()) - (rise if side < 0 else 0.0)
    return _Point(at, float(residual @ residual), constant, slope, rise, values, direction, t)


def _descend(u: Floats, v: Floats, box: _Box, start: Floats, with_line: bool) -> _Point | None:
    """Levenberg-Marquardt in (place, log width); None when it still gains after `_STEPS` steps."""
    here = _projected(u, v, box, box.clipped(start), with_line)
    halfway = np.inf
    damping = 1e-3
    for taken in range(_STEPS):
        jacobian = _jacobian(u, box, here, with_line)
        residual = v - here.values
        # A coordinate at its bound whose gradient points outwards is fixed; otherwise the other's steps would be wrong.
        outwards = box.clipped(here.at + np.sign(jacobian.T @ residual) * 1e-9) == here.at
        jacobian[:, outwards] = 0.0
        lengths = np.sqrt(np.sum(jacobian**2, axis=0))
        lengths[lengths == 0] = np.inf
        pull, bend = jacobian.T @ residual / lengths, jacobian.T @ jacobian / np.multiply.outer(lengths, lengths)
        while True:
            step = np.linalg.solve(bend + damping * np.eye(2), pull)
            there = _projected(u, v, box, box.clipped(here.at + step / lengths), with_line)
            # `step @ pull` is the predicted gain; once that is zero, shorter steps do not help.
            if there.error < here.error or step @ pull <= 1e-11 * here.error:
                break
            damping *= 8
        gain = here.error - there.error
        if gain > 0:
            here = there
        if gain <= 1e-10 * here.error or here.error <= 1e-24 * len(u):
            return here
        damping = max(damping / 8, 1e-12)
        if taken == _STEPS // 2:
            halfway = here.error
    # Near a limit of the family every step gains almost nothing.
    return here if halfway - here.error <= 1e-4 * here.error else None


def _jacobian(u: Floats, box: _Box, here: _Point, with_line: bool) -> Floats:
    """(n, 2) derivatives of the curve by place and log width, less what the linear parameters take up (Kaufman 1975)."""
    slope = here.rise * _sigmoid(here.t) * _sigmoid(-here.t)
    by_place = -slope * (box.reach(here.at[1]) / np.exp(here.at[1]))
    by_log_width = -slope * (here.t + here.at[0] * _BEYOND)
    columns = _without_line(np.stack([by_place, by_log_width], axis=1), u, with_line)
    return columns - np.multiply.outer(here.direction, here.direction @ columns)
