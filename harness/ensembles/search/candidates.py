"""Candidates of the search: drawn in batches from a seed, judged in batches, and never depending on who is judged first.

The search is a number of chains. A chain's first batch is drawn at random; each further batch varies the chain's best blend so
far, less and less. Chains know nothing of each other, so that what comes out is a function of the seed alone, however many of
them run side by side. The same is done on every resampling of the fitting images, for the estimate of what was really gained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from harness.ensembles.blends import Blend, Columns
from harness.ensembles.objective import Objective, objective
from harness.statistics.correlations import Floats, Ints
from harness.statistics.intervals import generator

_AT_ONCE = 1 << 20
"""Blended scores that are held at once."""
_STEPS = 4


class Batch(NamedTuple):
    """Candidates: for each member the column it takes part with (candidates, members), and its share (0: left out)."""

    column: Ints
    share: Floats


@dataclass(frozen=True)
class Plan:
    """How many candidates are judged in which chain and step."""

    sizes: tuple[tuple[int, ...], ...]
    """sizes[chain][step]"""

    @property
    def total(self) -> int:
        return sum(map(sum, self.sizes))


def planned(trials: int, chains: int = 4) -> Plan:
    """`trials` candidates spread over chains and steps as evenly as they go."""
    chains = max(1, min(chains, trials // 50))
    cells = chains * _STEPS
    each = [trials // cells + (i < trials % cells) for i in range(cells)]
    return Plan(tuple(tuple(each[c::chains]) for c in range(chains)))


def first(seed: int, chain: int, size: int, columns: Columns, given: Sequence[Blend] = ()) -> Batch:
    """A chain's first batch: `given` blends, then random subsets, columns and shares (uniform on the simplex)."""
    draw = generator(seed, f"ensemble|{chain}|0")
    members = len(columns.by_member)
    usable = np.array([bool(c) for c in columns.by_member])
    count = 1 + draw.integers(0, usable.sum(), size)
    order = np.argsort(np.where(usable, draw.random((size, members)), 2.0), axis=1)
    inside = np.zeros((size, members), dtype=bool)
    np.put_along_axis(inside, order, np.arange(members) < count[:, None], axis=1)
    share = np.where(inside, draw.exponential(size=(size, members)), 0.0)
    batch = Batch(_columns_drawn(draw, size, columns), share / share.sum(axis=1, keepdims=True))
    for row, blend in enumerate(given[:size]):
        _write(batch, row, blend, columns)
    return batch


def varied(seed: int, chain: int, step: int, size: int, columns: Columns, best: Batch) -> Batch:
    """A later batch: the best candidate (a batch of one) with shares, columns and membership varied, by less in each step."""
    draw = generator(seed, f"ensemble|{chain}|{step}")
    members = len(columns.by_member)
    usable = np.array([bool(c) for c in columns.by_member])
    share = best.share * np.exp(draw.normal(0, 2.0**-step, (size, members)))
    flips = (draw.random((size, members)) < 0.5 / members) & usable
    joined = draw.exponential(0.2, (size, members))
    share = np.where(flips, np.where(best.share > 0, 0.0, joined), share)
    empty = share.sum(axis=1) == 0
    share[empty] = best.share
    others = _columns_drawn(draw, size, columns)
    column = np.where(draw.random((size, members)) < 1 / members, others, best.column)
    return Batch(column, share / share.sum(axis=1, keepdims=True))


def judge(batch: Batch, columns: Columns, labels: Floats, aim: Objective) -> Floats:
    """The objective (candidates,) of each candidate on the images that the columns hold."""
    figures = np.empty(len(batch.share))
    size = max(1, _AT_ONCE // columns.values.shape[1])
    for start in range(0, len(figures), size):
        rows = slice(start, start + size)
        figures[rows] = objective(aim, _weights(Batch(batch.column[rows], batch.share[rows]), columns) @ columns.values, labels)
    return figures


def _weights(batch: Batch, columns: Columns) -> Floats:
    """(candidates, columns): shares as weights; a share is of what the member adds to the spread of the sum."""
    weights = np.zeros((len(batch.share), len(columns.spread)))
    rows = np.repeat(np.arange(len(weights)), batch.column.shape[1])
    flat, share = batch.column.ravel(), batch.share.ravel()
    np.add.at(weights, (rows, flat), share / columns.spread[flat])
    return weights


def as_blend(batch: Batch, columns: Columns) -> Blend:
    """The only candidate of a batch of one as a blend."""
    kept = [(int(c), float(s)) for c, s in zip(batch.column[0], batch.share[0], strict=True) if s > 0]
    return Blend(
        tuple(int(columns.source[c]) for c, _ in kept),
        tuple(columns.scalings[c] for c, _ in kept),
        tuple(s / float(columns.spread[c]) for c, s in kept),
    )


def _columns_drawn(draw: np.random.Generator, size: int, columns: Columns) -> Ints:
    """(size, members): for each member one of its columns, 0 where it has none."""
    drawn = draw.random((size, len(columns.by_member)))
    picked = [np.array(own or (0,))[(drawn[:, m] * max(1, len(own))).astype(np.int64)] for m, own in enumerate(columns.by_member)]
    return np.stack(picked, axis=1)


def _write(batch: Batch, row: int, blend: Blend, columns: Columns) -> None:
    """Put a blend in place of a candidate, as far as its scalings are among the columns."""
    place = {(int(s), scale): c for c, (s, scale) in enumerate(zip(columns.source, columns.scalings, strict=True))}
    member_of = {c: m for m, own in enumerate(columns.by_member) for c in own}
    found = [place.get(pair) for pair in zip(blend.sources, blend.scalings, strict=True)]
    if any(c is None for c in found):
        return
    batch.share[row] = 0.0
    for c, weight in zip(found, blend.weights, strict=True):
        assert c is not None
        batch.column[row, member_of[c]] = c
        batch.share[row, member_of[c]] = weight * columns.spread[c]
    batch.share[row] /= batch.share[row].sum()
