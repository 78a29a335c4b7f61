"""How often the corrected resampled t test finds a difference that is not there, with models trained again on every split.

    nice -n 15 python benchmarks/resampled.py                        # the whole grid; an hour or so on one core
    python benchmarks/resampled.py --references 25 --draws 500       # a part of it

A draw is a data set of references with twelve images each. An image has features, and its label is a weighted sum of them; each
reference has weights of its own around common ones, shifts its labels, and adds noise. As in the datasets' default protocols, ten
seeded splits train on 60 %, validate on 20 % (unused here) and test on 20 % of the references. On each split every model is
trained again. Model i sees its own noisy copy of the features, so that all models are equally good by construction and what
they learn differs. Learners: `linear` (ridge regression), `neighbours` (the mean label of the five nearest training images; it
hangs on its training data most), and `fixed` (no training: a fixed weighting of each model's features, scored once).

Printed: per cent of draws in which two equally good models are called different at the 5 % level, by the corrected test
(`corrected`), by the same test with n_test / (references - n_test) (`all others`), and by a plain t test over the splits
(`plain`); then of a table of models the per cent in which at least one truly best model is left out of the group of the best,
where all are equally good (`equal`) and where half are worse (`half`), and the mean size of the group in per cent there. The
simulation error is 1.96 standard errors.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from harness.statistics.resampled_t_test import corrected_resampled, standings_over_splits

Floats = NDArray[np.float64]
IMAGES, FEATURES, SPLITS, LEVEL = 12, 5, 10, 0.05
LEARNERS = ("linear", "neighbours", "fixed")
WORSE = 2.0
"""How much noisier the copies of the features of worse models are."""


@dataclass(frozen=True)
class Cell:
    """One kind of data set and learner."""

    learner: str
    references: int
    models: int = 2
    half_worse: bool = False
    figure: str = "srcc"

    @property
    def best(self) -> NDArray[np.bool_]:
        """(models,): the truly best ones."""
        return np.arange(self.models) < self.models - (self.models // 2 if self.half_worse else 0)

    @property
    def counts(self) -> tuple[int, int]:
        """References trained on and tested, of one split."""
        test = max(1, round(0.2 * self.references))
        return self.references - 2 * test, test


def draw(rng: np.random.Generator, cell: Cell) -> tuple[Floats, Floats]:
    """Each model's features (models, references, IMAGES, FEATURES) and labels (references, IMAGES) of one data set."""
    k = cell.references
    features = rng.standard_normal((k, 1, FEATURES)) * 0.5 + rng.standard_normal((k, IMAGES, FEATURES))
    weights = 1.0 + 0.5 * rng.standard_normal((k, 1, FEATURES))
    labels = (features * weights).sum(axis=-1) + 0.5 * rng.standard_normal((k, 1)) + rng.standard_normal((k, IMAGES))
    noise = np.where(cell.best, 0.5, 0.5 * WORSE)[:, None, None, None]
    # What a reference's images have in common blurs a model's view of them too, so that errors are alike within a reference.
    blur = rng.standard_normal((cell.models, k, 1, FEATURES)) + rng.standard_normal((cell.models, k, IMAGES, FEATURES))
    return features + noise * blur, labels


def scores_of(learner: str, x: Floats, labels: Floats, train: NDArray[np.int64], test: NDArray[np.int64]) -> Floats:
    """(test references * IMAGES,): what the learner, trained on `train`, says of the images of `test`."""
    given, wanted = x[train].reshape(-1, FEATURES), x[test].reshape(-1, FEATURES)
    if learner == "fixed":
        return np.asarray(wanted.sum(axis=1))
    target = labels[train].ravel()
    mean = target.mean()
    if learner == "linear":
        weights = np.linalg.solve(given.T @ given + np.eye(FEATURES), given.T @ (target - mean))
        return np.asarray(wanted @ weights)
    distance = (wanted**2).sum(axis=1)[:, None] - 2 * wanted @ given.T + (given**2).sum(axis=1)[None]
    nearest = np.argpartition(distance, 5, axis=1)[:, :5]
    return np.asarray(target[nearest].mean(axis=1))


def figures(rng: np.random.Generator, cell: Cell) -> Floats:
    """(models, SPLITS): the figure of every model on the test part of every split of one data set."""
    x, labels = draw(rng, cell)
    _, test_count = cell.counts
    found = np.empty((cell.models, SPLITS))
    for j in range(SPLITS):
        order = rng.permutation(cell.references)
        test, train = order[:test_count], order[2 * test_count :]
        y = labels[test].ravel()
        for m in range(cell.models):
            s = scores_of(cell.learner, x[m], labels, train, test)
            a, b = (rankdata(s), rankdata(y)) if cell.figure == "srcc" else (s, y)
            found[m, j] = np.corrcoef(a, b)[0, 1]
    return found


def level(cell: Cell, draws: int, seed: int) -> dict[str, float]:
    """Shares of draws in which two equally good models are called different, by rule."""
    rng = np.random.default_rng([seed, LEARNERS.index(cell.learner), cell.references])
    train, test = cell.counts
    ratios = {"corrected": test / train, "all others": test / (cell.references - test), "plain": 1e-12}
    wrong = dict.fromkeys(ratios, 0)
    for _ in range(draws):
        a, b = figures(rng, cell)
        for rule, ratio in ratios.items():
            found = corrected_resampled(a - b, ratio)
            wrong[rule] += found is not None and found.p_value() <= LEVEL
    return {rule: count / draws for rule, count in wrong.items()}


def left_out(cell: Cell, draws: int, seed: int) -> tuple[float, float]:
    """Share of draws in which a truly best model is left out of the group, and the group's mean share of the models."""
    rng = np.random.default_rng([seed, LEARNERS.index(cell.learner), cell.references, cell.models, cell.half_worse])
    train, test = cell.counts
    wrong, size = 0, 0.0
    for _ in range(draws):
        values = figures(rng, cell)
        found = standings_over_splits({str(m): v for m, v in enumerate(values)}, test / train, confidence=1 - LEVEL)
        inside = {int(s.name) for s in found if s.best}
        wrong += not set(np.flatnonzero(cell.best)) <= inside
        size += len(inside) / cell.models
    return wrong / draws, size / draws


def main() -> None:
    """Print a line per cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--models", type=int, nargs="*", default=[5, 10])
    parser.add_argument("--references", type=int, nargs="+", default=[10, 25, 81])
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--figure", choices=("srcc", "plcc"), default="srcc")
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    print(f"{o.figure}, {o.draws} draws a cell, seed {o.seed}; error of 5 %: +-{196 * np.sqrt(0.05 * 0.95 / o.draws):.1f}\n")
    print("| learner | references | corrected | all others | plain | s |\n|---|---|---|---|---|---|", flush=True)
    for learner in o.learners:
        for k in o.references:
            start = time.process_time()
            found = level(Cell(learner, k, figure=o.figure), o.draws, o.seed)
            cells = " | ".join(f"{100 * share:.1f}" for share in found.values())
            print(f"| {learner} | {k} | {cells} | {time.process_time() - start:.0f} |", flush=True)
    if o.models:
        print("\n| learner | references | models | equal | half | size, half | s |\n|---|---|---|---|---|---|---|", flush=True)
    for learner in o.learners if o.models else ():
        for k in o.references:
            for m in o.models:
                start = time.process_time()
                equal, _ = left_out(Cell(learner, k, m, figure=o.figure), o.draws, o.seed)
                half, size = left_out(Cell(learner, k, m, half_worse=True, figure=o.figure), o.draws, o.seed)
                spent = time.process_time() - start
                print(
                    f"| {learner} | {k} | {m} | {100 * equal:.1f} | {100 * half:.1f} | {100 * size:.0f} | {spent:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
