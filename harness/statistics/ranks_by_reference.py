"""Ranks of images that belong to references: order, ties and mid-ranks, and sums over references that make them quickly."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.runtime.python37 import cached_property
from harness.statistics.correlations import codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.statistics.correlations import Floats, Ints


class ClusteredValues:
    """One variable (n,) whose images belong to units 0..units-1: its order, and each unit's contribution to the ranks."""

    def __init__(self, values: Floats, cluster: Ints, clusters: int):
        self.values, self.cluster, self.clusters = values, cluster, clusters
        self.order = np.argsort(values, kind="stable")
        self.cluster_in_order = cluster[self.order]
        self.blocks = _tie_blocks(values[self.order])
        self._squares: tuple[Floats, Floats] | None = None
        """The weights of the last call of `squares`, and its result: models with the same labels ask again."""
        self._before: NDArray[np.signedinteger[Any]] | None = None
        self._lock = threading.Lock()
        """Held while something is computed that models in other threads ask for, too."""
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

    def members_before(self, *, keep: bool) -> NDArray[np.signedinteger[Any]]:
        """(n + 1, units): how many of each unit's images are before a position of the order. `keep` it for another model."""
        with self._lock:
            if self._before is not None:
                return self._before
            # In 16 bits where twice these numbers fit: half of the memory and of the time.
            narrow = np.bincount(self.cluster).max() < 1 << 14
            before = np.zeros((len(self.order) + 1, self.clusters), np.int16 if narrow else np.int32)
            before[np.arange(1, len(before)), self.cluster_in_order] = 1
            for rows in batches(len(before), 1 << 10):
                block = before[max(0, rows.start - 1) : rows.stop]
                np.cumsum(block, axis=0, out=block)
            self._before = before if keep else None
            return before

    def ranks_among(self, taken: Ints, ranks: Ints) -> int:
        """Put into `ranks` (n,), in order, twice the mid-ranks among the images taken (1, not 0), less what all have in common.

        Returns twice their mean, less the same.
        """
        np.cumsum(taken, out=ranks)
        count = int(ranks[-1])
        if self.blocks is None:
            ranks += ranks
            return count + 1
        total = np.concatenate(([0], ranks))
        np.add(total[self.blocks[0]], total[self.blocks[1]], out=ranks)
        return count

    def weighted_ranks(self, weights: NDArray[np.int32]) -> tuple[NDArray[np.int32], Floats]:
        """(k, n) each, in order: how often an image is taken under each row of `weights` (k, units), twice its centred rank."""
        times = np.take(weights, self.cluster_in_order, axis=1, mode="clip")
        total = np.cumsum(times, axis=1, dtype=np.int32)
        count = total[:, -1:]
        if self.blocks is None:
            return times, (2 * total - times - count).astype(np.float64)
        total = np.concatenate((np.zeros_like(count), total), axis=1)
        starts, ends = (np.take(total, places, axis=1, mode="clip") for places in self.blocks)
        return times, (starts + ends - count).astype(np.float64)

    def squares_without_each(self) -> Floats:
        """(units,): `squares` without each unit in turn."""
        times = np.bincount(self.codes)
        pairs, own = np.unique(self.codes * self.clusters + self.cluster, return_counts=True)
        value, cluster = np.divmod(pairs, self.clusters)
        cubes = np.full(self.clusters, np.sum(times**3))
        np.subtract.at(cubes, cluster, times[value] ** 3 - (times[value] - own) ** 3)
        left = len(self.values) - np.bincount(self.cluster, minlength=self.clusters)
        return np.asarray((left**3 - cubes) // 3 / 4)

    def squares(self, weights: Floats) -> Floats:
        """(k,): the sum of squares of centred mid-ranks under each row of `weights` (k, units).

        It is (N^3 - sum of t^3) / 12 for N images of which t have the same value: whole numbers that 6 divides, so exact.
        """
        with self._lock:
            if self._squares is None or self._squares[0] is not weights:
                self._squares = weights, self._squares_under(weights)
            return self._squares[1]

    def _squares_under(self, weights: Floats) -> Floats:
        alone, tied, cluster = self._ties
        times = weights.astype(np.int64)
        images = times @ np.bincount(self.cluster, minlength=self.clusters)
        # Single precision holds whole numbers up to 2^24, in half of the time.
        exact: Any = np.float32 if images.max(initial=0) < 1 << 24 else np.float64
        taken = times.T.astype(exact)
        cubes = times**3 @ alone
        for first in range(0, int(tied.max(initial=-1)) + 1, 1024):
            start, stop = np.searchsorted(tied, (first, first + 1024))
            cells = (tied[start:stop] - first) * self.clusters + cluster[start:stop]
            counts = np.bincount(cells, minlength=1024 * self.clusters).reshape(1024, self.clusters)
            equal = (counts.astype(exact) @ taken).astype(np.int64)
            cubes += np.einsum("ij,ij,ij->j", equal, equal, equal)
        return np.asarray((images**3 - cubes) // 3 / 4)


def rank_products(one: ClusteredValues, other: ClusteredValues) -> Floats:
    """(units, units (units + 1) / 2): [g, (u, v)] the sum over the images of unit g of the product of what unit u adds to the
    centred rank of `one` and unit v to that of `other`, and for u < v of the same with u and v exchanged. Quarters of
    whole numbers, so exact. `other` is the labels, whose counts further models use."""
    clusters, upper = one.clusters, np.triu_indices(one.clusters)
    size = np.bincount(one.cluster, minlength=clusters)
    products = np.empty((clusters, len(upper[0])))
    tables = one.members_before(keep=False), other.members_before(keep=True)
    for g, rows in enumerate(np.split(np.argsort(one.cluster, kind="stable"), np.cumsum(size)[:-1])):
        added = []
        for each, before in zip((one, other), tables):
            place = each.place[rows]
            starts, ends = (place, place + 1) if each.blocks is None else (block[place] for block in each.blocks)
            # Twice the rank; its constant part and the middle's cancel.
            twice = before[starts] + before[ends] - size.astype(before.dtype)
            added.append(twice.astype(np.float64))
        product = added[0].T @ added[1]
        product += np.triu(product.T, 1)
        products[g] = product[upper] / 4
    return products


def batches(count: int, size: int = 256) -> list[slice]:
    """Slices of at most `size` that cover `count` rows."""
    return [slice(start, start + size) for start in range(0, count, size)]


def _tie_blocks(ordered: Floats) -> tuple[Ints, Ints] | None:
    """For each place of a sorted array, where its run of equal values starts and ends; None without ties."""
    new = np.concatenate(([True], ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, bool)
    if new.all():
        return None
    starts = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    return starts[run], np.append(starts[1:], len(ordered))[run]
