"""How often the intervals hold the truth, when references differ as they do in IQA datasets.

    python benchmarks/coverage.py                        # 1,000 draws at 5, 10, 25, 200 references; some minutes on one core
    python benchmarks/coverage.py --bootstrap --references 200       # differences by the bootstrap; much longer
    python benchmarks/coverage.py --plain                # the plain jackknife, for comparison

A draw is a set of references with five kinds of distortion at four levels each. A reference shifts all its labels (people find
some contents harder to spoil) and all its scores, changes how fast the score falls with the level, and treats each kind in its
own way; kinds are fixed. The truth is the figure over 40,000 references. Model b is model a with more noise of its own and less
of the reference's. Printed: per cent of draws whose 95 % interval holds the truth, with its simulation error.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.statistics.agreement import agreement
from harness.statistics.comparison import compare
from harness.statistics.correlations import pearson, spearman
from harness.statistics.intervals import fisher, t_quantile
from harness.statistics.reference_resampling import ClusteredPairs

Floats = NDArray[np.float64]
KINDS, LEVELS = 5, 4
Method = Literal["jackknife", "bootstrap", "plain"]


@dataclass(frozen=True)
class Setting:
    """Standard deviations of what a reference does; the spread of quality over kinds and levels is about 0.4."""

    label_shift: float
    score_shift: float
    slope: float
    kind: float
    noise: float
    normal: bool = True
    """Otherwise a reference's effects have Student's t with 5 degrees: now and then one is far out."""


SETTINGS = {
    "mild effects": Setting(0.10, 0.10, 0.10, 0.10, 0.20),
    "strong effects": Setting(0.25, 0.40, 0.40, 0.30, 0.20),
    "hardly any noise": Setting(0.10, 0.05, 0.05, 0.02, 0.05),
    "far-out references": Setting(0.15, 0.20, 0.15, 0.15, 0.20, normal=False),
}


def draw(rng: np.random.Generator, references: int, s: Setting) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Scores of models a and b, labels, reference numbers, each (references * 20,)."""
    kind, level = np.divmod(np.arange(KINDS * LEVELS), LEVELS)
    quality = -(level + 1.0) / LEVELS * (1 + 0.15 * kind)
    kind_bias = np.array([0.1, -0.2, 0.2, 0.0, -0.1])

    def effect(*shape: int) -> Floats:
        return rng.normal(size=shape) if s.normal else rng.standard_t(5, shape) * np.sqrt(0.6)

    def noise() -> Floats:
        return rng.normal(size=(references, KINDS * LEVELS))

    slope, shift, by_kind = np.exp(s.slope * effect(references, 1)), effect(references, 1), effect(references, KINDS)
    labels = quality + s.label_shift * effect(references, 1) + 0.15 * noise()
    shared = s.noise * noise()
    a = quality * slope + kind_bias[kind] + s.score_shift * shift + s.kind * by_kind[:, kind] + shared
    b = quality + 1.5 * kind_bias[kind] + s.score_shift * (0.5 * shift + 0.5 * effect(references, 1)) + shared + 0.2 * noise()
    ids = np.repeat(np.arange(references), KINDS * LEVELS)
    return a.ravel(), b.ravel(), labels.ravel(), ids


def figures(a: Floats, b: Floats, labels: Floats) -> dict[str, float]:
    """The truth's figures of model a, and the differences a - b."""
    one, other = (agreement(x, labels, intervals=False) for x in (a, b))
    truth = {name: getattr(one, name) for name in ("srcc", "plcc", "plcc_fitted", "krcc", "main")}
    return truth | {f"{name} a-b": getattr(one, name) - getattr(other, name) for name in ("srcc", "plcc", "krcc", "main")}


def coverage(s: Setting, references: int, draws: int, seed: int, method: Method, truth: dict[str, float]) -> dict[str, float]:
    """Share of draws whose interval holds the truth, by figure."""
    held = dict.fromkeys(truth, 0)
    rng = np.random.default_rng([seed, references])
    for _ in range(draws):
        a, b, labels, ids = draw(rng, references, s)
        if method == "plain":
            for name in held:
                low, high = plain_interval(a, labels, ids, name)
                held[name] += low <= truth[name] <= high
            continue
        intervals = dict(agreement(a, labels, ids.tolist()).ci)
        both = compare(a, b, labels, ids.tolist(), method=method, top=0)
        intervals |= {f"{name} a-b": d.ci for name, d in both.differences.items() if name != "srcc_within"}
        for name, interval in intervals.items():
            held[name] += interval is not None and interval[0] <= truth[name] <= interval[1]
    return {name: count / draws for name, count in held.items()}


def plain_interval(x: Floats, labels: Floats, ids: NDArray[np.int64], statistic: str) -> tuple[float, float]:
    """The textbook's: atanh(r) -+ t(references - 1) times the jackknife's error."""
    units = int(ids.max()) + 1
    whole = ClusteredPairs(x, labels, ids, units)
    estimate, deleted = {"srcc": (spearman, whole.srcc_without_each), "plcc": (pearson, whole.plcc_without_each)}[statistic]
    z, without = fisher(estimate(x, labels), deleted())
    half = t_quantile(0.95, units - 1) * np.sqrt((units - 1) / units * np.sum((without - without.mean()) ** 2))
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def main() -> None:
    """Print one table per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--references", type=int, nargs="+", default=[5, 10, 25, 200])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bootstrap", action="store_true", help="intervals of differences by the bootstrap")
    parser.add_argument("--plain", action="store_true", help="only srcc and plcc, by the plain jackknife")
    options = parser.parse_args()
    method: Method = "plain" if options.plain else "bootstrap" if options.bootstrap else "jackknife"
    for name in options.settings:
        start = time.process_time()
        truth = figures(*draw(np.random.default_rng([options.seed, 1]), 40_000, SETTINGS[name])[:3])
        truth = {k: v for k, v in truth.items() if method != "plain" or k in ("srcc", "plcc")}
        columns = {k: coverage(SETTINGS[name], k, options.draws, options.seed, method, truth) for k in options.references}
        print(f"\n{name} (method of differences: {method}; {options.draws} draws; {time.process_time() - start:.0f} s)")
        print(f"{'figure':14}{'truth':>8}" + "".join(f"{k:>8}" for k in columns) + "   references")
        for figure in truth:
            print(f"{figure:14}{truth[figure]:8.3f}" + "".join(f"{100 * c[figure]:8.1f}" for c in columns.values()))
        sys.stdout.flush()
    print(f"\nsimulation error of 95 %: +-{196 * np.sqrt(0.95 * 0.05 / options.draws):.1f}")


if __name__ == "__main__":
    main()
