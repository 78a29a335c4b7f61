"""SRCC, PLCC and KRCC, exactly, and again and again with references left out or drawn several times.

Everything here is numpy on float64 arrays of one length; a figure that is not defined (constant values, fewer than two
images) is NaN. Point values equal scipy.stats' `spearmanr`, `pearsonr` and `kendalltau` (tau-b) to rounding, without the
1.4 s that importing scipy.stats costs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from harness.runtime.python37 import cached_property

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
else:  # numpy 1.17 has no numpy.typing
    Floats = Ints = np.ndarray


_MOST_CLUSTERS = 256
"""Up to here, sums over units are made once for many rows of weights: three times units^3 numbers."""


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
    return ClusteredPairs(x, y, np.zeros(len(x), np.int64), 1).krcc()


def standardised(x: Floats) -> Floats:
    """`x` with mean 0 and standard deviation 1 (population); `x` must not be constant."""
    # Squares of 1e200 overflow and those of 1e-200 vanish; a power of two scales without rounding.
    centred = np.ldexp(x, -int(np.frexp(np.abs(x).max())[1]))
    centred = centred - centred.mean()
    centred /= np.abs(centred).max()
    centred -= centred.mean()
    return np.asarray(centred / np.sqrt(np.mean(centred**2)))


def codes(x: Floats | Ints) -> Ints:
    """Each value's place among the distinct values, from 0."""
    return np.unique(x, return_inverse=True)[1].astype(np.int64)


def numbered(ids: Iterable[Hashable]) -> tuple[Ints, list[Hashable]]:
    """Each id's number in order of first appearance, and the distinct ids."""
    known: dict[Hashable, int] = {}
    numbers = [known.setdefault(i, len(known)) for i in ids]
    return np.array(numbers, dtype=np.int64), list(known)


def _tau_b(n: Floats, counts: Floats) -> Floats:
    """tau-b from n (k,) and pair counts (4, k): discordant, tied in x, tied in y, tied in both."""
    discordant, tied_x, tied_y, tied_both = counts
    pairs = n * (n - 1) / 2
    balance = pairs - tied_x - tied_y + tied_both - 2 * discordant
    untied_x, untied_y = pairs - tied_x, pairs - tied_y
    with np.errstate(invalid="ignore", divide="ignore"):
        # Of equal numbers the root of the product is known without rounding, so that perfect agreement is 1.
        scale = np.where(untied_x == untied_y, untied_x, np.sqrt(untied_x) * np.sqrt(untied_y))
        return np.asarray(np.clip(balance / scale, -1.0, 1.0))


def _pair_counts(x: Ints, y: Ints) -> list[Ints]:
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
    values of y part ways at their highest differing bit: level by level, the points that share all higher bits stand together
    in that order, and a running count of the ones among them gives every point's share.
    """
    n = len(x)
    # 32 bits hold every count within a level, and half the bytes is half the time.
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


class ClusteredPairs:
    """Scores `x` and labels `y` (n,) whose images belong to units 0..units-1 (references), under any weighting of the units.

    A weight is how often a unit is taken: 0 leaves it out, 2 takes it twice. Results are those of the correlation on the
    images so repeated, NaN where that is not defined.
    """

    def __init__(self, x: Floats, y: Floats, cluster: Ints, clusters: int):
        self.x, self.y, self.cluster, self.clusters = x, y, cluster, clusters
        self.size = np.bincount(cluster, minlength=clusters)
        self._order_x, self._order_y = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
        self._cluster_x, self._cluster_y = cluster[self._order_x], cluster[self._order_y]
        self._blocks_x, self._blocks_y = _tie_blocks(x[self._order_x]), _tie_blocks(y[self._order_y])
        place = np.empty(len(x), np.int64)
        place[self._order_y] = np.arange(len(x))
        self._y_in_x_order = place[self._order_x]

    def srcc(self, weights: Floats) -> Floats:
        """Spearman under each row of `weights` (k, units), in O(n) a row: mid-ranks are cumulative weights.

        For many rows, as a bootstrap's, from sums over units that are made once (`_rank_products`).
        """
        # A unit^3 of arithmetic costs as much as some images of sorting do.
        if len(weights) > 2 * self.clusters and self.clusters <= _MOST_CLUSTERS and self.clusters**3 < 250 * len(self.x):
            return self._srcc_from_products(weights)
        result = np.empty(len(weights))
        for row, w in enumerate(weights):
            weight_x = w[self._cluster_x]
            rank_x = _weighted_midranks(weight_x, self._blocks_x)
            rank_y = _weighted_midranks(w[self._cluster_y], self._blocks_y)[self._y_in_x_order]
            middle = (weight_x.sum() + 1) / 2
            rank_x -= middle
            rank_y -= middle
            weighted = weight_x * rank_x
            spread = (weighted @ rank_x) * ((weight_x * rank_y) @ rank_y)
            result[row] = (weighted @ rank_y) / np.sqrt(spread) if spread > 0 else np.nan
        return np.clip(result, -1.0, 1.0)

    def _srcc_from_products(self, weights: Floats) -> Floats:
        """As `srcc`. A centred mid-rank is linear in the weights, so the sums of products of ranks are cubic forms in them."""
        result = np.empty(len(weights))
        for rows in _batches(len(weights), max(1, 20_000_000 // self.clusters**2)):
            w = weights[rows]
            xy, xx, yy = (
                np.sum(w * ((w @ product).reshape(-1, self.clusters, self.clusters) @ w[:, :, None])[:, :, 0], axis=1)
                for product in self._rank_products
            )
            with np.errstate(invalid="ignore", divide="ignore"):
                result[rows] = np.where((xx > 0) & (yy > 0), xy / np.sqrt(xx * yy), np.nan)
        return np.clip(result, -1.0, 1.0)

    @cached_property
    def _rank_products(self) -> list[Floats]:
        """(units, units * units) each, of x with y, x with x, y with y: [g, (u, v)] sums over the images of unit g the product of
        what unit u adds to the centred rank of one and unit v to that of the other. Halves of whole numbers, so exact."""
        ranks = []
        for order, cluster, blocks in (
            (self._order_x, self._cluster_x, self._blocks_x),
            (self._order_y, self._cluster_y, self._blocks_y),
        ):
            added = np.empty((len(self.x), self.clusters), np.float32)
            for u in range(self.clusters):
                # A mid-rank's constant half and the middle's cancel.
                added[order, u] = _weighted_midranks((cluster == u).astype(np.float64), blocks) - 0.5 - self.size[u] / 2
            ranks.append(added)
        products = [np.empty((self.clusters, self.clusters**2)) for _ in range(3)]
        members = np.split(np.argsort(self.cluster, kind="stable"), np.cumsum(self.size)[:-1])
        for g, rows in enumerate(members):
            x, y = (added[rows].astype(np.float64) for added in ranks)
            for product, (left, right) in zip(products, ((x, y), (x, x), (y, y))):
                product[g] = (left.T @ right).ravel()
        return products

    def plcc(self, weights: Floats) -> Floats:
        """Pearson under each row of `weights` (k, units), from sums per unit."""
        if self.x.min() == self.x.max() or self.y.min() == self.y.max():
            return np.full(len(weights), np.nan)
        x, y = standardised(self.x), standardised(self.y)
        parts = np.stack([np.bincount(self.cluster, v, self.clusters) for v in (np.ones_like(x), x, y, x * x, y * y, x * y)])
        n, sx, sy, sxx, syy, sxy = parts @ weights.T
        with np.errstate(invalid="ignore", divide="ignore"):
            vx, vy, cxy = sxx - sx * sx / n, syy - sy * sy / n, sxy - sx * sy / n
            result = cxy / np.sqrt(vx) / np.sqrt(vy)
            # Where little variance is left the sums have cancelled; those few rows are computed from the images.
            lost = ~((vx > 1e-7 * sxx) & (vy > 1e-7 * syy) & (sxx > 1e-7 * len(x)) & (syy > 1e-7 * len(x)))
        for row in np.flatnonzero(lost):
            times = weights[row][self.cluster].astype(np.int64)
            result[row] = pearson(np.repeat(self.x, times), np.repeat(self.y, times))
        return np.asarray(np.clip(result, -1.0, 1.0))

    def srcc_without_each(self) -> Floats:
        """(units,): Spearman without each unit in turn."""
        result = np.empty(self.clusters)
        weights = np.ones(self.clusters)
        for left_out in range(self.clusters):
            weights[left_out] = 0
            result[left_out] = self.srcc(weights[None])[0]
            weights[left_out] = 1
        return result

    def plcc_without_each(self) -> Floats:
        """(units,): Pearson without each unit in turn."""
        return np.concatenate([self.plcc(1.0 - np.eye(self.clusters)[rows]) for rows in _batches(self.clusters)])

    @cached_property
    def _pairs(self) -> list[Ints]:
        return _pair_counts(codes(self.x), codes(self.y))

    def krcc(self) -> float:
        """tau-b of all images."""
        if len(self.x) < 2:
            return float("nan")
        counts = np.array([[row.sum() / 2] for row in self._pairs])
        return float(_tau_b(np.array([float(len(self.x))]), counts)[0])

    def krcc_resampled(self, weights: Floats) -> Floats:
        """tau-b under each row of `weights` (k, units), from counts of pairs between units; copies of an image are ties."""
        balance, tied_x, tied_y = self._between
        taken = weights @ self.size
        # Each form counts ordered pairs, and an image's copy with itself, which is no pair.
        forms = [
            (np.einsum("ki,ij,kj->k", weights, m, weights, optimize=True) - own) / 2
            for m, own in ((balance, 0.0), (tied_x, taken), (tied_y, taken))
        ]
        pairs = taken * (taken - 1) / 2
        untied_x, untied_y = pairs - forms[1], pairs - forms[2]
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(untied_x == untied_y, untied_x, np.sqrt(untied_x) * np.sqrt(untied_y))
            return np.asarray(np.clip(forms[0] / scale, -1.0, 1.0))

    @cached_property
    def _between(self) -> tuple[Floats, Floats, Floats]:
        """(units, units) each: concordant less discordant ordered pairs of images, pairs tied in x, pairs tied in y."""
        x, y = codes(self.x), codes(self.y)
        balance, tied_x, tied_y = (np.empty((self.clusters, self.clusters)) for _ in range(3))
        order = np.argsort(self.cluster, kind="stable")
        for g, members in enumerate(np.split(order, np.cumsum(self.size)[:-1])):
            place_x, own_x, count_x = _places(x, members)
            place_y, own_y, count_y = _places(y, members)
            balance[g] = np.bincount(self.cluster, _balances(place_x, place_y, own_x, own_y), self.clusters)
            tied_x[g] = np.bincount(self.cluster, count_x[place_x], self.clusters)
            tied_y[g] = np.bincount(self.cluster, count_y[place_y], self.clusters)
        return balance, tied_x, tied_y

    def krcc_without_each(self) -> Floats:
        """(units,): tau-b without each unit in turn, exactly, in O(n log n) for all of them.

        Pairs without unit g = all pairs - those that touch g, and those that touch g are the sum of its points' counts less
        the pairs inside g, which that sum counts twice.
        """
        # Coded unit after unit, points of different units are neither tied nor discordant.
        inside = _pair_counts(_codes_by_cluster(self.x, self.cluster), _codes_by_cluster(self.y, self.cluster))
        remaining = np.empty((4, self.clusters))
        for row, (everywhere, within) in enumerate(zip(self._pairs, inside)):
            touching = np.bincount(self.cluster, everywhere, self.clusters) - np.bincount(self.cluster, within, self.clusters) / 2
            remaining[row] = everywhere.sum() / 2 - touching
        return _tau_b(len(self.x) - self.size.astype(np.float64), remaining)


def _places(code: Ints, members: Ints) -> tuple[Ints, Ints, Ints]:
    """Where all images stand among the distinct values of some: 2 i + 1 on the i-th of them, 2 i just below it.

    Returns the places (n,) of all, the members' places, and for each of the 2 k + 1 places how many members stand there.
    """
    present = np.zeros(int(code.max()) + 1, np.int64)
    present[code[members]] = 1
    place = (2 * np.cumsum(present) - present)[code]
    return place, place[members], np.bincount(place[members], minlength=2 * int(present.sum()) + 1)


def _balances(place_x: Ints, place_y: Ints, own_x: Ints, own_y: Ints) -> Floats:
    """(n,): for each image the members that it is concordant with less those that it is discordant with.

    `place_x`, `place_y` (n,) and the members' `own_x`, `own_y` (m,) are places as `_places` gives them. Members are counted
    below and to the left of every corner of a grid of their distinct values, so that four look-ups serve an image.
    """
    across, down = int(own_x.max()) // 2 + 1, int(own_y.max()) // 2 + 1
    below = np.zeros((across + 1, down + 1), np.int32)
    below[1:, 1:] = np.bincount((own_x // 2) * down + own_y // 2, minlength=across * down).reshape(across, down)
    np.cumsum(below, axis=0, out=below)
    np.cumsum(below, axis=1, out=below)
    # Values below the image's, and values not above it: between the two lie those that it is tied with.
    low_x, low_y, high_x, high_y = place_x // 2, place_y // 2, (place_x + 1) // 2, (place_y + 1) // 2
    in_x, in_y = below[:, -1].astype(np.int64), below[-1].astype(np.int64)
    both_low, both_high = below[low_x, low_y].astype(np.int64), below[high_x, high_y]
    low_high, high_low = below[low_x, high_y], below[high_x, low_y]
    concordant = both_low + len(own_x) - in_x[high_x] - in_y[high_y] + both_high
    discordant = in_x[low_x] - low_high + in_y[low_y] - high_low
    return np.asarray(concordant - discordant, dtype=np.float64)


def _codes_by_cluster(x: Floats, cluster: Ints) -> Ints:
    """Codes by (unit, value): equal within a unit only, and growing from unit to unit."""
    order = np.lexsort((x, cluster))
    new = (np.diff(x[order]) != 0) | (np.diff(cluster[order]) != 0)
    result = np.zeros(len(x), np.int64)
    result[order[1:]] = np.cumsum(new)
    return result


def _batches(count: int, size: int = 256) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def _tie_blocks(ordered: Floats) -> tuple[Ints, Ints] | None:
    """For each place of a sorted array, where its run of equal values starts and ends; None without ties."""
    new = np.concatenate(([True], ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, bool)
    if new.all():
        return None
    starts = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    return starts[run], np.append(starts[1:], len(ordered))[run]


def _weighted_midranks(weight: Floats, blocks: tuple[Ints, Ints] | None) -> Floats:
    """Mid-ranks of sorted values, the i-th taken `weight[i]` times."""
    if blocks is None:
        return np.cumsum(weight) - (weight - 1) / 2
    total = np.concatenate(([0.0], np.cumsum(weight)))
    return np.asarray((total[blocks[0]] + total[blocks[1]] + 1) / 2)
