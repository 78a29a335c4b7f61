"""Candidates of the weight search: drawn, varied and evaluated in chains of batches (without Ray).

A candidate is a non-negative share of every column (a member's source under one scaling). Chain 0 starts from blends without a
search: non-negative least squares over all members and scalings, the same improved by Powell's method (Powell 1964) in the
objective itself, greedy selection and the mean. The other chains start from random blends. Each further batch varies the
chain's best blend so far, by less in each step. Chains are independent of each other, so the result is a function of the seed
only, for any number of parallel chains. The same is done on every fold of the fitting images, to estimate the gain out of
fold; there the chains have that start in turn, because Powell's method takes longer than the rest of a chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from harness.ensembles import blends
from harness.ensembles.blends import Blend, Columns
from harness.ensembles.objective import Objective, objective_values
from harness.models.score_scaling import Scaling, weighted
from harness.statistics.correlations import Floats, Ints, midranks
from harness.statistics.intervals import generator

FOLDS = 5
_AT_ONCE = 1 << 20
"""The largest number of blended scores in memory."""
_STEPS = 4
_POWELL_EVALUATIONS = 1000
"""Evaluations of the objective by Powell's method, for each sample."""


@dataclass(frozen=True)
class Plan:
    """The number of candidates in each chain and step."""

    sizes: tuple[tuple[int, ...], ...]
    """sizes[chain][step]"""

    @property
    def total(self) -> int:
        """Candidates in all."""
        return sum(map(sum, self.sizes))


def planned(trials: int, chains: int = 4) -> Plan:
    """`trials` candidates divided among chains and steps as evenly as possible."""
    chains = max(1, min(chains, trials // 50))
    cells = chains * _STEPS
    each = [trials // cells + (i < trials % cells) for i in range(cells)]
    return Plan(tuple(tuple(each[c::chains]) for c in range(chains)))


def first(seed: int, chain: int, size: int, columns: Columns, given: Sequence[Blend] = ()) -> Floats:
    """A chain's first batch (size, columns): `given` blends, then random subsets of the members with one column each."""
    draw = generator(seed, f"ensemble|{chain}|0")
    usable = np.array([bool(own) for own in columns.by_member])
    members = len(usable)
    count = 1 + draw.integers(0, usable.sum(), size)
    order = np.argsort(np.where(usable, draw.random((size, members)), 2.0), axis=1)
    inside = np.zeros((size, members), dtype=bool)
    np.put_along_axis(inside, order, np.arange(members) < count[:, None], axis=1)
    drawn = np.where(inside, draw.exponential(size=(size, members)), 0.0)
    shares = np.zeros((size, len(columns.spread)))
    shares[np.arange(size)[:, None], _columns_drawn(draw, size, columns)] += drawn
    for row, blend in enumerate(given[:size]):
        if (found := shares_of(blend, columns)) is not None:
            shares[row] = found
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def varied(seed: int, chain: int, step: int, size: int, columns: Columns, best: Floats) -> Floats:
    """A later batch (size, columns): `best` (columns,) with shares, columns and membership varied, by less in each step."""
    draw = generator(seed, f"ensemble|{chain}|{step}")
    members = len(columns.by_member)
    shares = best * np.exp(draw.normal(0, 2.0**-step, (size, len(best))))
    leaves_or_joins = draw.random((size, members)) < 0.5 / members
    moves = draw.random((size, members)) < 1 / members
    joined = draw.exponential(0.2, (size, members))
    others = _columns_drawn(draw, size, columns)
    for member, own in enumerate(columns.by_member):
        if not own:
            continue
        each = list(own)
        held = shares[:, each].sum(axis=1)
        takes_part = bool(best[each].sum() > 0)
        # A member that moves to another column keeps its share; one that was left out joins with a random one.
        new = np.where(takes_part, held, joined[:, member])
        rows = leaves_or_joins[:, member] | (moves[:, member] & takes_part)
        shares[np.ix_(rows, np.array(each))] = 0.0
        stays = rows & ~(leaves_or_joins[:, member] & takes_part)
        shares[stays, others[stays, member]] = new[stays]
    shares[shares.sum(axis=1) == 0] = best
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def judge(shares: Floats, columns: Columns, labels: Floats, name: Objective) -> Floats:
    """The objective (candidates,) of each candidate (candidates, columns) on the images that the columns hold."""
    figures = np.empty(len(shares))
    size = max(1, _AT_ONCE // columns.values.shape[1])
    for start in range(0, len(figures), size):
        rows = slice(start, start + size)
        figures[rows] = objective_values(name, (shares[rows] / columns.spread) @ columns.values, labels)
    return figures


def powell(start: Blend, columns: Columns, labels: Floats, name: Objective) -> Blend:
    """`start` improved by Powell's method in the objective itself, with weights of at least 0; `start` if there is no gain."""
    from scipy.optimize import minimize

    begun = shares_of(start, columns)
    if begun is None:
        return start
    inside = np.flatnonzero(begun)
    values, ranked = columns.values[inside] / columns.spread[inside, None], midranks(labels)

    def loss(shares: Floats) -> float:
        figure = float(objective_values(name, (np.abs(shares) @ values)[None], labels, ranked)[0])
        return -figure if np.isfinite(figure) else 1e9

    found = minimize(loss, begun[inside], method="Powell", options={"maxfev": _POWELL_EVALUATIONS, "xtol": 1e-5, "ftol": 1e-9})
    if not found.fun < loss(begun[inside]):
        return start
    better = np.zeros(len(begun))
    better[inside] = np.abs(np.atleast_1d(found.x))
    return as_blend(better / better.sum(), columns)


def as_blend(shares: Floats, columns: Columns) -> Blend:
    """A candidate (columns,) as a blend: a member with several scalings has their weighted sum."""
    parts: dict[int, list[tuple[Scaling, float]]] = {}
    for column in np.flatnonzero(shares > 0):
        weight = float(shares[column] / columns.spread[column])
        parts.setdefault(int(columns.source[column]), []).append((columns.scalings[column], weight))
    return blends.of_parts(parts)


def shares_of(blend: Blend, columns: Columns) -> Floats | None:
    """The candidate (columns,) that is `blend`, summing to one; None where its scalings are not among the columns."""
    place = {(int(s), scale): c for c, (s, scale) in enumerate(zip(columns.source, columns.scalings, strict=True))}
    shares = np.zeros(len(columns.spread))
    for source, scaling, weight in zip(blend.sources, blend.scalings, blend.weights, strict=True):
        for part, own in weighted(scaling):
            column = place.get((source, part))
            if column is None:
                return None
            shares[column] += weight * own * columns.spread[column]
    return np.asarray(shares / shares.sum())


def _columns_drawn(draw: np.random.Generator, size: int, columns: Columns) -> Ints:
    """(size, members): for each member one of its columns, 0 where it has none."""
    drawn = draw.random((size, len(columns.by_member)))
    picked = [np.array(own or (0,))[(drawn[:, m] * max(1, len(own))).astype(np.int64)] for m, own in enumerate(columns.by_member)]
    return np.stack(picked, axis=1)


class Sample(NamedTuple):
    """Data for fitting: all fitting images, or those outside a fold. `simple` are the blends without a search."""

    columns: Columns
    labels: Floats
    simple: Mapping[str, Blend]


def folds(reference_ids: Sequence[str], seed: int) -> list[Ints]:
    """Positions held out by each fold: whole references, at most `FOLDS` groups of them; none where there is one reference."""
    known = sorted(set(reference_ids))
    if len(known) < 2:
        return []
    count = min(FOLDS, len(known))
    order = generator(seed, "ensemble folds").permutation(len(known))
    fold_of = {known[i]: place % count for place, i in enumerate(order)}
    each = np.array([fold_of[r] for r in reference_ids])
    return [np.flatnonzero(each == fold) for fold in range(count)]


def sample(
    scores: Floats, labels: Floats, member_of: Sequence[int], kinds: Sequence[str], name: Objective, *, one_scaling: bool = False
) -> Sample:
    """The start of a search over `scores` (sources, n) and `labels` (n,)."""
    own = [list(member_of).index(m) for m in range(max(member_of) + 1)]
    fits = blends.Fits(scores, labels)
    simple = {
        "mean": blends.mean(fits, own),
        "greedy": blends.greedy(fits, own, name),
        "least-squares": blends.least_squares(fits, own, ("logistic",) if one_scaling else tuple(kinds)),
    }
    return Sample(blends.columns(fits, member_of, kinds), labels, simple)


@dataclass(frozen=True)
class ChainState:
    """The state of a chain as plain values: the steps made and its fields."""

    step: int
    best: list[list[float]]
    figures: list[float]
    trace: list[list[float]]


@dataclass
class Chain:
    """One chain on all samples. `best` and `figures` hold its best candidate on each, `trace` every figure on the first."""

    seed: int
    number: int
    plan: Plan
    samples: Sequence[Sample]
    objective: Objective
    step: int = 0
    best: list[Floats] = field(default_factory=list)
    figures: list[float] = field(default_factory=list)
    trace: list[list[float]] = field(default_factory=list)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many candidates each step has."""
        return self.plan.sizes[self.number]

    @property
    def done(self) -> bool:
        """Whether all steps were made."""
        return self.step == len(self.sizes)

    def advance(self) -> None:
        """Evaluate the next batch of each sample."""
        size = self.sizes[self.step]
        for place, (columns, labels, _) in enumerate(self.samples):
            if self.step == 0:
                batch = first(self.seed, self.number, size, columns, self._start(place) if size else ())
                self.best.append(batch[0] if size else first(self.seed, self.number, 1, columns)[0])
                self.figures.append(-np.inf)
            else:
                batch = varied(self.seed, self.number, self.step, size, columns, self.best[place])
            figures = judge(batch, columns, labels, self.objective)
            top = int(figures.argmax()) if len(figures) else 0
            if len(figures) and figures[top] > self.figures[place]:
                self.best[place], self.figures[place] = batch[top], float(figures[top])
            if place == 0:
                self.trace.append([float(f) for f in figures])
        self.step += 1

    def _start(self, place: int) -> list[Blend]:
        """The initial blends of one chain of each sample, the best first; the other chains start from random blends."""
        if self.number != place % len(self.plan.sizes):
            return []
        columns, labels, simple = self.samples[place]
        return [powell(simple["least-squares"], columns, labels, self.objective), *reversed(list(simple.values()))]

    def state(self) -> ChainState:
        """The chain's state."""
        return ChainState(self.step, [shares.tolist() for shares in self.best], list(self.figures), [list(t) for t in self.trace])

    def take_up(self, state: ChainState) -> None:
        """Continue from `state`."""
        self.step, self.figures, self.trace = state.step, list(state.figures), [list(figures) for figures in state.trace]
        self.best = [np.array(shares) for shares in state.best]
