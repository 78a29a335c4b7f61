"""How often a truly best model is left out of the group of the best, and how large groups are.

    nice -n 15 python benchmarks/familywise.py                      # the whole grid; most of an hour on one core
    python benchmarks/familywise.py --models 2 10 --references 25   # a part of it

A draw is a table of m models on the same images of k references, eight images each. A reference shifts and stretches each
model's scores; images add noise. "independent" models share none of that, "correlated" ones nine tenths of its variance. In
"equal" all models are equally good; in "half worse" half of them (rounded down) have more noise. The figure is PLCC, with each
reference left out exactly. `--figure srcc` takes SRCC through the harness's own code, which is slower.

Rules: `flips` is the harness's (`harness.statistics.best_group`); `pairs` Holm's correction of the harness's paired tests
(jackknife on Fisher's z) over all pairs; `range` the studentized range of k - 1 degrees over the same t; `best` Holm's
correction of the tests against the observed best alone, which the harness used to take. Printed: per cent of draws in which at
least one truly best model is left out, and the mean size of the group in per cent of the models. The simulation error is 1.96
standard errors.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr
from scipy.stats import studentized_range

from harness.statistics.best_group import p_of_being_best, pseudo_values, signs_for
from harness.statistics.correlations import spearman
from harness.statistics.reference_resampling import ClusteredPairs

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
IMAGES = 8
LEVEL = 0.05
WORSE_NOISE = 0.35
RULES = ("flips", "pairs", "range", "best")
SIGNS = 499
"""Random changes of signs in the simulation; the harness takes more, which changes the level by nothing."""


@dataclass(frozen=True)
class Cell:
    """One kind of table."""

    models: int
    references: int
    correlated: bool
    half_worse: bool

    @property
    def best(self) -> Flags:
        """(models,): the truly best ones."""
        worse = self.models // 2 if self.half_worse else 0
        return np.arange(self.models) < self.models - worse


def draw(rng: np.random.Generator, cell: Cell) -> tuple[Floats, Floats]:
    """Scores (models, references, images) and labels (references, images) of one table."""
    m, k = cell.models, cell.references
    shared = 0.9 if cell.correlated else 0.0

    def effect(*shape: int) -> Floats:
        own = rng.standard_normal((m, *shape))
        return np.asarray(np.sqrt(1 - shared) * own + (np.sqrt(shared) * rng.standard_normal(shape) if shared else 0.0))

    quality = np.linspace(-1, 1, IMAGES) + 0.2 * rng.standard_normal((k, IMAGES))
    labels = quality + 0.2 * rng.standard_normal((k, 1)) + 0.15 * rng.standard_normal((k, IMAGES))
    scores = quality * np.exp(0.25 * effect(k, 1)) + 0.3 * effect(k, 1) + 0.3 * effect(k, IMAGES)
    scores[~cell.best] += WORSE_NOISE * rng.standard_normal((int((~cell.best).sum()), k, IMAGES))
    return scores, labels


def plcc(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """PLCC (models,) and without each reference (models, references), from sums over each reference."""
    y = labels - labels.mean()
    x = scores - scores.mean(axis=(1, 2), keepdims=True)
    sums = [x.sum(axis=2), (x * x).sum(axis=2), (x * y).sum(axis=2), y.sum(axis=1), (y * y).sum(axis=1)]

    def of(sx: Floats, sxx: Floats, sxy: Floats, sy: Floats, syy: Floats, n: int) -> Floats:
        return np.asarray((sxy - sx * sy / n) / np.sqrt((sxx - sx * sx / n) * (syy - sy * sy / n)))

    whole = [s.sum(axis=-1, keepdims=True) for s in sums]
    n = labels.size
    sx, sxx, sxy, sy, syy = (w - s for w, s in zip(whole, sums, strict=True))
    return of(*whole, n)[:, 0], of(sx, sxx, sxy, sy, syy, n - IMAGES)


def srcc(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """SRCC (models,) and without each reference (models, references), as the harness computes them."""
    unit = np.repeat(np.arange(len(labels)), IMAGES)
    y = labels.ravel()
    flat = scores.reshape(len(scores), -1)
    without = [ClusteredPairs(x, y, unit, len(labels)).srcc_without_each() for x in flat]
    return np.array([spearman(x, y) for x in flat]), np.stack(without)


def groups(values: Floats, deleted: Floats, signs: Floats, critical: float) -> dict[str, Flags]:
    """(models,) by rule: who is in the group."""
    m = len(deleted)
    left, right = np.triu_indices(m, 1)
    t, degrees = paired(np.arctanh(values), np.arctanh(deleted), left, right)
    p = 2 * stdtr(degrees, -np.abs(t))
    worse = np.where(t < 0, left, right)
    inside = {"flips": p_of_being_best(pseudo_values(values, deleted), signs) > LEVEL}
    inside |= {rule: np.ones(m, dtype=bool) for rule in RULES[1:]}
    inside["pairs"][worse[holm_rejects(p)]] = False
    inside["range"][worse[np.abs(t) > critical]] = False
    with_top = np.flatnonzero((left == values.argmax()) | (right == values.argmax()))
    inside["best"][worse[with_top[holm_rejects(p[with_top])]]] = False
    return inside


def paired(z: Floats, deleted: Floats, left: NDArray[np.intp], right: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """t and degrees of freedom of pairs of models, as `harness.statistics.intervals.jackknife` has them, of all pairs at once."""
    k = deleted.shape[1]
    estimate = z[left] - z[right]
    pseudo = k * estimate[:, None] - (k - 1) * (deleted[left] - deleted[right])
    mean, spread = pseudo.mean(axis=1), pseudo.std(axis=1)
    error = spread / np.sqrt(k - 1)
    centre = estimate + np.clip(mean - estimate, -error / 2, error / 2)
    squares = ((pseudo - mean[:, None]) / spread[:, None]) ** 2
    excess = (squares * squares).mean(axis=1) - 3
    kurtosis = 3 + (k - 1) / ((k - 2) * (k - 3)) * ((k + 1) * excess + 6)
    relative = (kurtosis - (k - 3) / (k - 1)) / k
    degrees = np.minimum(k - 1.0, np.maximum(2.0, 2 / np.maximum(relative, 2 / k**2)))
    return centre / error, degrees


def holm_rejects(p: Floats) -> Flags:
    """Which of the hypotheses Holm's correction rejects."""
    order = np.argsort(p)
    passed = np.minimum.accumulate(p[order] * (len(p) - np.arange(len(p))) <= LEVEL)
    rejected = np.zeros(len(p), dtype=bool)
    rejected[order[passed]] = True
    return rejected


@dataclass(frozen=True)
class Outcome:
    """Shares of draws in which a truly best model was left out, and mean shares of the models in the group, by rule."""

    left_out: dict[str, float]
    size: dict[str, float]


def simulate(cell: Cell, draws: int, seed: int, figure: str = "plcc") -> Outcome:
    """Both shares over `draws` tables of the cell."""
    rng = np.random.default_rng([seed, cell.models, cell.references, cell.correlated, cell.half_worse])
    everything = signs_for(cell.references)
    critical = float(studentized_range.ppf(1 - LEVEL, cell.models, cell.references - 1)) / np.sqrt(2)
    left_out, size = dict.fromkeys(RULES, 0), dict.fromkeys(RULES, 0.0)
    of = srcc if figure == "srcc" else plcc
    for _ in range(draws):
        values, deleted = of(*draw(rng, cell))
        signs = everything
        if len(signs) > SIGNS + 1:
            changed = 1.0 - 2.0 * rng.integers(0, 2, (SIGNS, cell.references))
            signs = np.concatenate([everything[:1], changed])
        for rule, inside in groups(values, deleted, signs, critical).items():
            left_out[rule] += not inside[cell.best].all()
            size[rule] += float(inside.mean())
    return Outcome({r: v / draws for r, v in left_out.items()}, {r: v / draws for r, v in size.items()})


def truth(seed: int) -> tuple[float, float]:
    """PLCC of a best and of a worse model over 20,000 references."""
    found = plcc(*draw(np.random.default_rng([seed, 1]), Cell(2, 20_000, False, True)))[0]
    return float(found[0]), float(found[1])


def main() -> None:
    """Print a line per cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--models", type=int, nargs="+", default=[2, 5, 10, 20, 50])
    parser.add_argument("--references", type=int, nargs="+", default=[10, 25, 81, 200])
    parser.add_argument("--figure", choices=("plcc", "srcc"), default="plcc")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    good, bad = truth(options.seed)
    print(
        f"{options.figure}, {options.draws} draws a cell, seed {options.seed}; true PLCC {good:.3f} and {bad:.3f} of worse models"
    )
    print(f"simulation error of 5 %: +-{196 * np.sqrt(0.05 * 0.95 / options.draws):.1f}\n")
    heads = [f"{rule}" for rule in RULES] + [f"size {rule}" for rule in RULES]
    print("| models are | truth | m | references | " + " | ".join(heads) + " | s |")
    print("|---|---|" + "---|" * (len(heads) + 3), flush=True)
    for correlated in (False, True):
        for half_worse in (False, True):
            for m in options.models:
                for k in options.references:
                    start = time.process_time()
                    cell = Cell(m, k, correlated, half_worse)
                    found = simulate(cell, options.draws, options.seed, options.figure)
                    cells = [f"{100 * found.left_out[r]:.1f}" for r in RULES] + [f"{100 * found.size[r]:.0f}" for r in RULES]
                    kind = "correlated" if correlated else "independent"
                    situation = "half worse" if half_worse else "equal"
                    spent = f"{time.process_time() - start:.0f}"
                    print(f"| {kind} | {situation} | {m} | {k} | " + " | ".join(cells) + f" | {spent} |", flush=True)


if __name__ == "__main__":
    main()
