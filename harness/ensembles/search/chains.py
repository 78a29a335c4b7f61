"""A chain of the search: batches judged on all fitting images and on every resampling of them, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from harness.ensembles import blends
from harness.ensembles.blends import Blend, Columns
from harness.ensembles.objective import Objective
from harness.ensembles.search import candidates
from harness.ensembles.search.candidates import Batch
from harness.statistics.correlations import Floats, Ints
from harness.statistics.intervals import generator

FOLDS = 5


class Sample(NamedTuple):
    """What is fitted to: all fitting images, or those outside a fold. `simple` are the blends that need no search."""

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


def sample(scores: Floats, labels: Floats, member_of: Sequence[int], kinds: Sequence[str], aim: Objective) -> Sample:
    """What a search over `scores` (sources, n) and `labels` (n,) starts from."""
    own = [list(member_of).index(m) for m in range(max(member_of) + 1)]
    fits = blends.Fits(scores, labels)
    simple = {
        "mean": blends.mean(fits, own),
        "greedy": blends.greedy(fits, own, aim),
        "least-squares": blends.least_squares(fits, own),
    }
    return Sample(blends.columns(fits, member_of, kinds), labels, simple)


@dataclass
class Chain:
    """One chain on all samples. `best` and `figures` hold its best candidate on each, `trace` every figure on the first."""

    seed: int
    number: int
    sizes: Sequence[int]
    samples: Sequence[Sample]
    aim: Objective
    step: int = 0
    best: list[Batch] = field(default_factory=list)
    figures: list[float] = field(default_factory=list)
    trace: list[list[float]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.step == len(self.sizes)

    def advance(self) -> None:
        """Judge the next batch of each sample."""
        size = self.sizes[self.step]
        for place, (columns, labels, simple) in enumerate(self.samples):
            if self.step == 0:
                # Only the first chain starts from what needs no search; the others are to find their own way.
                batch = candidates.first(self.seed, self.number, size, columns, list(simple.values()) if self.number == 0 else ())
                self.best.append(Batch(batch.column[:1], batch.share[:1]))
                self.figures.append(-np.inf)
            else:
                batch = candidates.varied(self.seed, self.number, self.step, size, columns, self.best[place])
            figures = candidates.judge(batch, columns, labels, self.aim)
            top = int(figures.argmax()) if len(figures) else 0
            if len(figures) and figures[top] > self.figures[place]:
                self.best[place] = Batch(batch.column[top : top + 1], batch.share[top : top + 1])
                self.figures[place] = float(figures[top])
            if place == 0:
                self.trace.append([float(f) for f in figures])
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Where it stands, as plain values."""
        return {
            "step": self.step,
            "column": [b.column[0].tolist() for b in self.best],
            "share": [b.share[0].tolist() for b in self.best],
            "figures": list(self.figures),
            "trace": self.trace,
        }

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.step, self.figures, self.trace = state["step"], list(state["figures"]), [list(t) for t in state["trace"]]
        self.best = [
            Batch(np.array([c], dtype=np.int64), np.array([s])) for c, s in zip(state["column"], state["share"], strict=True)
        ]
