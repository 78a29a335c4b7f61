"""SRCC, PLCC and KRCC under resampling of references: each left out (jackknife), or drawn several times (bootstrap).

Everything here is numpy on float64 arrays of one length; a figure that is not defined (constant values, fewer than two
images) is NaN, as in `harness.statistics.correlations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.runtime.python37 import cached_property
from harness.statistics.correlations import codes, pair_counts, pearson, spearman, standardised, tau_b, tau_b_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.statistics.correlations import Floats, Ints

_MOST_CLUSTERS = 256
"""Up to this number of units, sums over units are computed once for many rows of weights: units^3 / 2 numbers."""
LARGEST_CLUSTER = 1500
"""Largest number of images per reference for a bootstrap of tau-b; its tables grow with the square."""


class ClusteredValues:
    """One variable (n,) whose images belong to units 0..units-1: its order, and each unit's contribution to the ranks."""

    def __init__(self, values: Floats, cluster: Ints, clusters: int):
        self.values, self.cluster, self.clusters = values, cluster, clusters
        self.order = np.argsort(values, kind="stable")
        self.cluster_in_order = cluster[self.order]
        self.blocks = _tie_blocks(values[self.order])
        self.place = np.empty(len(values), np.int64)
        self.place[self.order] = np.arange(len(values))

    @cached_property
    def codes(self) -> Ints:
        """Each value's place among the distinct values, from 0."""
        return codes(self.values)

    @cached_property
    def _ties(self) -> tuple[Ints, Ints, Ints]:
        """How many images of each unit (units,) are tied with none; of the others (m,) their values, numbered, and units."""
        starts, ends = (np.arange(len(self.order)) + i for i in (0, 1)) if self.blocks is None else self.blocks
        tied = ends - starts > 1
        alone = np.bincount(self.cluster_in_order[~tied], minlength=self.clusters)
        return alone, codes(starts[tied]), self.cluster_in_order[tied]

    def squares(self, weights: Floats) -> Floats:
        """(k,): the sum of squares of centred mid-ranks under each row of `weights` (k, units).

        It is (N^3 - sum of t^3) / 12 for N images of which t have the same value: whole numbers that 6 divides, so exact.
        """
        alone, tied, cluster = self._ties
        times = weights.astype(np.int64)
        cubes = times**3 @ alone
        for first in range(0, int(tied.max(initial=-1)) + 1, 1024):
            start, stop = np.searchsorted(tied, (first, first + 1024))
            cells = (tied[start:stop] - first) * self.clusters + cluster[start:stop]
            counts = np.bincount(cells, minlength=1024 * self.clusters).reshape(1024, self.clusters)
            equal = (counts.astype(np.float64) @ weights.T).astype(np.int64)
            cubes += np.einsum("ij,ij,ij->j", equal, equal, equal)
        size = np.bincount(self.cluster, minlength=self.clusters)
        return np.asarray(((times @ size) ** 3 - cubes) // 3 / 4)


class ClusteredPairs:
    """Scores `x` and labels `y` (n,) whose images belong to units 0..units-1 (references), under any weighting of the units.

    A weight is how often a unit is drawn: 0 leaves it out, 2 uses it twice. Results are those of the correlation on the
    repeated images, NaN where that is undefined. `same_labels`: other scores with the same labels, to share their sums.
    """

    def __init__(self, x: Floats, y: Floats, cluster: Ints, clusters: int, same_labels: ClusteredPairs | None = None):
        self.x, self.y, self.cluster, self.clusters = x, y, cluster, clusters
        self.size = np.bincount(cluster, minlength=clusters)
        self._scores = ClusteredValues(x, cluster, clusters)
        self._labels: ClusteredValues = ClusteredValues(y, cluster, clusters) if same_labels is None else same_labels._labels
        self._y_in_x_order = self._labels.place[self._scores.order]

    def srcc(self, weights: Floats) -> Floats:
        """Spearman under each row of `weights` (k, units), in O(n) a row: mid-ranks are cumulative weights.

        For many rows, as in a bootstrap, from sums over units that are computed once (`_rank_products`).
        """
        # The cost of unit^3 operations is compared with that of sorting the images.
        few = self.clusters <= _MOST_CLUSTERS and self.clusters**3 < 250 * len(self.x) and self.clusters * self.size.max() < 2e6
        if "_products" in vars(self) or (few and len(weights) > 2 * self.clusters):
            return self._srcc_from_products(weights)
        result = np.empty(len(weights))
        for row, w in enumerate(weights):
            weight_x = w[self._scores.cluster_in_order]
            rank_x = _weighted_midranks(weight_x, self._scores.blocks)
            rank_y = _weighted_midranks(w[self._labels.cluster_in_order], self._labels.blocks)[self._y_in_x_order]
            middle = (weight_x.sum() + 1) / 2
            rank_x -= middle
            rank_y -= middle
            weighted = weight_x * rank_x
            spread = (weighted @ rank_x) * ((weight_x * rank_y) @ rank_y)
            result[row] = (weighted @ rank_y) / np.sqrt(spread) if spread > 0 else np.nan
        return np.clip(result, -1.0, 1.0)

    @cached_property
    def _products(self) -> Floats:
        return _rank_products(self._scores, self._labels)

    def _srcc_from_products(self, weights: Floats) -> Floats:
        """As `srcc`. A centred mid-rank is linear in the weights, so the sums of products of ranks are cubic forms in them."""
        result = np.empty(len(weights))
        first, second = np.triu_indices(self.clusters)
        for rows in _batches(len(weights), max(1, 20_000_000 // self.clusters**2)):
            w = weights[rows]
            xy = np.einsum("ij,ij->i", w @ self._products, w[:, first] * w[:, second])
            xx, yy = self._scores.squares(w), self._labels.squares(w)
            with np.errstate(invalid="ignore", divide="ignore"):
                result[rows] = np.where((xx > 0) & (yy > 0), xy / np.sqrt(xx * yy), np.nan)
        return np.clip(result, -1.0, 1.0)

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
            # Where little variance is left the sums lose precision; those few rows are computed from the images.
            lost = ~((vx > 1e-7 * sxx) & (vy > 1e-7 * syy) & (sxx > 1e-7 * len(x)) & (syy > 1e-7 * len(x)))
        for row in np.flatnonzero(lost):
            times = weights[row][self.cluster].astype(np.int64)
            result[row] = pearson(np.repeat(self.x, times), np.repeat(self.y, times))
        return np.asarray(np.clip(result, -1.0, 1.0))

    def srcc_without_each(self) -> Floats:
        """(units,): Spearman without each unit in turn."""
        return np.concatenate([self.srcc(1.0 - np.eye(self.clusters)[rows]) for rows in _batches(self.clusters)])

    def plcc_without_each(self) -> Floats:
        """(units,): Pearson without each unit in turn."""
        return np.concatenate([self.plcc(1.0 - np.eye(self.clusters)[rows]) for rows in _batches(self.clusters)])

    @cached_property
    def _pairs(self) -> list[Ints]:
        return pair_counts(self._scores.codes, self._labels.codes)

    def krcc(self) -> float:
        """tau-b of all images."""
        return tau_b_of(len(self.x), self._pairs)

    def krcc_resampled(self, weights: Floats) -> Floats:
        """tau-b under each row of `weights` (k, units), from counts of pairs between units; copies of an image are ties."""
        balance, tied_x, tied_y = self._between
        taken = weights @ self.size
        # Each form counts ordered pairs, and an image's copies with themselves, which are not pairs.
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
        # 32 bits are enough for every index, and halve the time.
        x, y = self._scores.codes.astype(np.int32), self._labels.codes.astype(np.int32)
        balance, tied_x, tied_y = (np.zeros((self.clusters, self.clusters)) for _ in range(3))
        order = np.argsort(self.cluster, kind="stable")
        for g, members in enumerate(np.split(order, np.cumsum(self.size)[:-1])):
            place_x, place_y = _places(x, members), _places(y, members)
            balance[g] = np.bincount(self.cluster, _balances(place_x, place_y, members), self.clusters)
            for place, tied in ((place_x, tied_x), (place_y, tied_y)):
                rows = np.flatnonzero(place & 1)
                tied[g] = np.bincount(self.cluster[rows], np.bincount(place[members])[place[rows]], self.clusters)
        return balance, tied_x, tied_y

    def krcc_without_each(self) -> Floats:
        """(units,): tau-b without each unit in turn, exactly, in O(n log n) for all of them.

        Pairs without unit g = all pairs - those that touch g, and those that touch g are the sum of its points' counts less
        the pairs inside g, which that sum counts twice.
        """
        # Coded unit after unit, points of different units are neither tied nor discordant.
        inside = pair_counts(_codes_by_cluster(self.x, self.cluster), _codes_by_cluster(self.y, self.cluster))
        remaining = np.empty((4, self.clusters))
        for row, (everywhere, within) in enumerate(zip(self._pairs, inside)):
            touching = np.bincount(self.cluster, everywhere, self.clusters) - np.bincount(self.cluster, within, self.clusters) / 2
            remaining[row] = everywhere.sum() / 2 - touching
        return tau_b(len(self.x) - self.size.astype(np.float64), remaining)


def _places(code: NDArray[np.int32], members: Ints) -> NDArray[np.int32]:
    """(n,): each image's position among the distinct values of `members`: 2 i + 1 on the i-th of them, 2 i just below it."""
    present = np.zeros(int(code.max()) + 1, np.int32)
    present[code[members]] = 1
    return (2 * np.cumsum(present, dtype=np.int32) - present)[code]


def _balances(place_x: NDArray[np.int32], place_y: NDArray[np.int32], members: Ints) -> Ints:
    """(n,): for each image the members that it is concordant with less those that it is discordant with.

    `place_x`, `place_y` (n,) are places among the members' values. Members are counted below and to the left of every corner of
    a grid of their distinct values, so that four look-ups serve an image.
    """
    own_x, own_y, taken = place_x[members] // 2, place_y[members] // 2, len(members)
    across, stride = int(own_x.max()) + 1, int(own_y.max()) + 2
    below = np.zeros((across + 1, stride), np.int32)
    below[1:, 1:] = np.bincount(own_x * (stride - 1) + own_y, minlength=across * (stride - 1)).reshape(across, stride - 1)
    np.cumsum(below, axis=0, out=below)
    np.cumsum(below, axis=1, out=below)
    grid, in_x, in_y = below.ravel(), np.ascontiguousarray(below[:, -1]), below[-1]
    low_x, low_y = place_x // 2, place_y // 2
    # Concordant less discordant, where the image is tied with no member.
    balance = 4 * grid[low_x * stride + low_y] - 2 * in_x[low_x] - 2 * in_y[low_y] + taken
    # Values below the image's, and values not above it: between the two lie those that it is tied with.
    tied = np.flatnonzero((place_x | place_y) & 1)
    low_x, low_y = low_x[tied], low_y[tied]
    high_x, high_y = (place_x[tied] + 1) // 2, (place_y[tied] + 1) // 2
    corners = sum(grid[row * stride + column] for row in (low_x, high_x) for column in (low_y, high_y))
    balance[tied] = corners - in_x[low_x] - in_x[high_x] - in_y[low_y] - in_y[high_y] + taken
    return np.asarray(balance)


def _codes_by_cluster(x: Floats, cluster: Ints) -> Ints:
    """Codes by (unit, value): equal within a unit only, and growing from unit to unit."""
    order = np.lexsort((x, cluster))
    new = (np.diff(x[order]) != 0) | (np.diff(cluster[order]) != 0)
    result = np.zeros(len(x), np.int64)
    result[order[1:]] = np.cumsum(new)
    return result


@dataclass(frozen=True)
class Figures:
    """A model's figures: on all images, with each unit left out, and under resampling (empty when not drawn)."""

    estimate: dict[str, float]
    deleted: dict[str, Floats]
    drawn: dict[str, Floats]


def figures_of(
    scores: Sequence[Floats],
    labels: Floats,
    cluster: Ints,
    clusters: int,
    statistics: Sequence[str],
    weights: Floats | None = None,
    orders: Sequence[Floats] | None = None,
) -> list[Figures]:
    """Each model's figures on all images, with each cluster left out, and under bootstrap resampling of clusters.

    Args:
        scores: (n,) of each model.
        labels: (n,).
        cluster: (n,) each image's cluster (reference), from 0.
        clusters: how many there are.
        statistics: which of srcc, plcc, krcc and main.
        weights: (draws, clusters) how often each cluster is drawn; None: no bootstrap.
        orders: (n,) of each model, the scores for SRCC and KRCC; None: `scores`.

    Returns:
        For each model the figures by name; NaN where one is undefined.
    """
    needed = {"srcc", "plcc"} if "main" in statistics else set()
    needed |= set(statistics) - {"main"}
    found = []
    whole: ClusteredPairs | None = None
    for x, order in zip(scores, scores if orders is None else orders):
        whole = ClusteredPairs(x, labels, cluster, clusters, whole)
        ranked = whole if order is x else ClusteredPairs(order, labels, cluster, clusters, whole)
        estimate: dict[str, float] = {}
        deleted: dict[str, Floats] = {}
        drawn: dict[str, Floats] = {}
        # The sums for many draws are used for leaving out each unit, too.
        if weights is not None:
            drawn = {s: getattr(w, s)(weights) for s, w in (("srcc", ranked), ("plcc", whole)) if s in needed}
            if "krcc" in needed and whole.size.max() <= LARGEST_CLUSTER:
                drawn["krcc"] = ranked.krcc_resampled(weights)
        if "srcc" in needed:
            estimate["srcc"], deleted["srcc"] = spearman(order, labels), ranked.srcc_without_each()
        if "plcc" in needed:
            estimate["plcc"], deleted["plcc"] = pearson(x, labels), whole.plcc_without_each()
        if "krcc" in needed:
            estimate["krcc"], deleted["krcc"] = ranked.krcc(), ranked.krcc_without_each()
        if "main" in statistics:
            estimate["main"] = estimate["srcc"] + estimate["plcc"]
            deleted["main"] = deleted["srcc"] + deleted["plcc"]
            if drawn:
                drawn["main"] = drawn["srcc"] + drawn["plcc"]
        found.append(Figures(estimate, deleted, drawn))
    return found


def _rank_products(one: ClusteredValues, other: ClusteredValues) -> Floats:
    """(units, units (units + 1) / 2): [g, (u, v)] the sum over the images of unit g of the product of what unit u adds to the
    centred rank of `one` and unit v to that of `other`, and for u < v of the same with u and v exchanged. Halves of whole
    numbers, so exact."""
    clusters, upper = one.clusters, np.triu_indices(one.clusters)
    size = np.bincount(one.cluster, minlength=clusters)
    products = np.empty((clusters, len(upper[0])))
    both = (one, other)
    counts = [_members_before(each) for each in both]
    for g, rows in enumerate(np.split(np.argsort(one.cluster, kind="stable"), np.cumsum(size)[:-1])):
        added = []
        for each, before in zip(both, counts):
            starts, ends = (each.place, each.place + 1) if each.blocks is None else (block[each.place] for block in each.blocks)
            # A mid-rank's constant half and the middle's cancel.
            added.append((before[starts[rows]].astype(np.float64) + before[ends[rows]] - size) / 2)
        product = added[0].T @ added[1]
        product += np.triu(product.T, 1)
        products[g] = product[upper]
    return products


def _members_before(values: ClusteredValues) -> NDArray[np.int32]:
    """(n + 1, units): how many of each unit's images are before a position of the order."""
    before = np.zeros((len(values.order) + 1, values.clusters), np.int32)
    before[np.arange(1, len(before)), values.cluster_in_order] = 1
    for rows in _batches(len(before), 1 << 12):
        block = before[max(0, rows.start - 1) : rows.stop]
        np.cumsum(block, axis=0, out=block)
    return before


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
