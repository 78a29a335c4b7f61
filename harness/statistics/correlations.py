"""SRCC, PLCC and KRCC (tau-b) in numpy, exact.

Everything here is numpy on float64 arrays of one length; a figure that is not defined (constant values, fewer than two
images) is NaN. Point values equal scipy.stats' `spearmanr`, `pearsonr` and `kendalltau` (tau-b) to rounding, without the
1.4 s that importing scipy.stats costs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
else:  # numpy 1.17 has no numpy.typing
    Floats = Ints = np.ndarray


def midranks(x: Floats) -> Floats:
    """Ranks (n,) in 1..n of values (n,); equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def pearson(x: Floats, y: Floats) -> float:
    """Pearson's correlation of x (n,) and y (n,), in [-1, 1]; NaN when either is constant or there are fewer than two values."""
    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return float("nan")
    u, v = standardised(x), standardised(y)
    return float(np.clip(u @ v / len(x), -1.0, 1.0))


def spearman(x: Floats, y: Floats) -> float:
    """Spearman's rank correlation (1904) of x (n,) and y (n,), with mid-ranks, in [-1, 1]; NaN as for `pearson`."""
    return pearson(midranks(x), midranks(y))


def spearman_within(x: Floats, y: Floats, cluster: Ints, clusters: int) -> Floats:
    """Spearman's correlation among the images of each cluster.

    Args:
        x: (n,) scores.
        y: (n,) labels.
        cluster: (n,) each image's cluster (reference), from 0.
        clusters: how many there are.

    Returns:
        (clusters,) in [-1, 1], NaN as for `pearson`.
    """
    u, v = _centred_ranks_within(x, cluster, clusters), _centred_ranks_within(y, cluster, clusters)
    products, squares_u, squares_v = (np.bincount(cluster, w, clusters) for w in (u * v, u * u, v * v))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip(products / np.sqrt(squares_u) / np.sqrt(squares_v), -1.0, 1.0))


def _centred_ranks_within(x: Floats, cluster: Ints, clusters: int) -> Floats:
    """Mid-ranks among the images of the same unit, less their mean."""
    order = np.lexsort((x, cluster))
    new = np.ones(len(x), bool)
    new[1:] = (np.diff(x[order]) != 0) | (np.diff(cluster[order]) != 0)
    starts = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    ranks = np.empty(len(x))
    ranks[order] = ((starts + np.append(starts[1:], len(x)) + 1) / 2)[run]
    size = np.bincount(cluster, minlength=clusters)
    middle = np.cumsum(size) - size + (size + 1) / 2
    return np.asarray(ranks - middle[cluster])


def kendall(x: Floats, y: Floats) -> float:
    """Kendall's tau-b (1945, corrected for ties) of x (n,) and y (n,), in [-1, 1], in O(n log n); NaN as for `pearson`."""
    return tau_b_of(len(x), pair_counts(codes(x), codes(y)))


def standardised(x: Floats) -> Floats:
    """`x` with mean 0 and standard deviation 1 (population); `x` must not be constant."""
    # Squares of 1e200 overflow and those of 1e-200 vanish; a power of two scales without rounding.
    centred = np.ldexp(x, -int(np.frexp(np.abs(x).max())[1]))
    centred = centred - centred.mean()
    centred /= np.abs(centred).max()
    centred -= centred.mean()
    return np.asarray(centred / np.sqrt(np.mean(centred**2)))


def codes(x: Floats | Ints) -> Ints:
    """Each value's index among the distinct values, from 0."""
    return np.unique(x, return_inverse=True)[1].astype(np.int64)


def numbered(ids: Iterable[Hashable]) -> tuple[Ints, list[Hashable]]:
    """Each id's number in order of first appearance, and the distinct ids."""
    known: dict[Hashable, int] = {}
    numbers = [known.setdefault(i, len(known)) for i in ids]
    return np.array(numbers, dtype=np.int64), list(known)


def tau_b_of(n: int, pairs: Sequence[Ints]) -> float:
    """tau-b of n images from their `pair_counts`."""
    if n < 2:
        return float("nan")
    return float(tau_b(np.array([float(n)]), np.array([[row.sum() / 2] for row in pairs]))[0])


def tau_b(n: Floats, counts: Floats) -> Floats:
    """tau-b from n (k,) and pair counts (4, k): discordant, tied in x, tied in y, tied in both."""
    discordant, tied_x, tied_y, tied_both = counts
    pairs = n * (n - 1) / 2
    balance = pairs - tied_x - tied_y + tied_both - 2 * discordant
    untied_x, untied_y = pairs - tied_x, pairs - tied_y
    with np.errstate(invalid="ignore", divide="ignore"):
        # For equal numbers the root of their product is exact, so that perfect agreement is exactly 1.
        scale = np.where(untied_x == untied_y, untied_x, np.sqrt(untied_x) * np.sqrt(untied_y))
        return np.asarray(np.clip(balance / scale, -1.0, 1.0))


def pair_counts(x: Ints, y: Ints) -> list[Ints]:
    """For each point the numbers (n,) of points discordant with it, tied in x, tied in y, tied in both.

    `x` and `y` are codes: whole numbers from 0, without large gaps.
    """
    ties_x, ties_y = np.bincount(x)[x] - 1, np.bincount(y)[y] - 1
    if ties_x.any() and ties_y.any():
        both = codes(x * (int(y.max()) + 1) + y)
        ties_both = np.bincount(both)[both] - 1
    else:
        ties_both = np.zeros_like(ties_x)
    return [_discordant(x, y), ties_x, ties_y, ties_both]


def _discordant(x: Ints, y: Ints) -> Ints:
    """For each point the number of points that x and y order differently.

    With the points in order of (x, y), these are the earlier ones with a larger y and the later ones with a smaller y. Two
    values of y part ways at their highest differing bit: level by level, the points that share all higher bits are adjacent
    in that order, and a running count of the ones among them gives every point's count.
    """
    n = len(x)
    # 32 bits are enough for every count within a level, and halve the time.
    place = np.lexsort((y, x)).astype(np.int32)
    value = y[place].astype(np.int32)
    found = np.zeros(n, np.int32)
    position = np.arange(n, dtype=np.int32)
    for bit in reversed(range(int(value.max(initial=0)).bit_length())):
        one = (value >> bit) & 1
        ones = np.zeros(n + 1, np.int32)
        np.cumsum(one, out=ones[1:])
        # A run of points that share the higher bits: where it starts, how many zeros it has.
        run = value >> (bit + 1)
        starts = np.concatenate(([0], np.cumsum(np.bincount(run)))).astype(np.int32)
        zeros = np.diff(starts) - np.diff(ones[starts])
        start, zeros_here = starts[run], zeros[run]
        ones_before = ones[:-1] - ones[start]
        zeros_before = position - start - ones_before
        is_one = one.astype(bool)
        found[place] += np.where(is_one, zeros_here - zeros_before, ones_before)
        target = start + np.where(is_one, zeros_here + ones_before, zeros_before)
        place, value = _moved(place, target), _moved(value, target)
    return found.astype(np.int64)


def _moved(values: NDArray[np.int32], target: NDArray[np.int32]) -> NDArray[np.int32]:
    result = np.empty_like(values)
    result[target] = values
    return result
