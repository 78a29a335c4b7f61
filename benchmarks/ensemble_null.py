"""How often a gain is claimed for an ensemble whose members have nothing to gain from each other.

    nice -n 15 python benchmarks/ensemble_null.py DIR               # 2,000 runs over stored scores; some ten minutes on one core

DIR holds `csiq.VQMT.csv` (github.com/SmilingWolf/VQMTCrossVal). The members are DSSIM on CSIQ's images and three that say nothing
of them: noise twice, and noise that the images of a reference share. A run draws the noise again and deals the references into
halves: everything is fitted on one half, as `harness ensemble` does it, with the blends out of fold there, and the other half is
tested. Any of the four blends that is shown as a "gain" is a false claim, because noise adds nothing to a score. Printed: per
cent of runs with a false gain in any blend, by figure and part, with the upper limit of its one-sided 95 % interval (Clopper and
Pearson 1934).
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from harness.ensembles.assess import (
    GAINS,
    LEVEL,
    METHODS,
    Baseline,
    Scored,
    baseline,
    corrected,
    gains,
    out_of_fold,
    rescaled_member,
    scored,
)
from harness.ensembles.blends import Blend
from harness.ensembles.members import Images
from harness.ensembles.weight_candidates import Chain, Sample, as_blend, folds, planned, sample
from harness.models.score_scaling import KINDS
from harness.statistics.correlations import Floats, Ints

MEMBER_OF = (0, 1, 2, 3)


def stored(folder: Path) -> tuple[Floats, Floats, NDArray[np.str_]]:
    """DSSIM and CSIQ's labels, both higher is better, and each image's reference."""
    with open(folder / "csiq.VQMT.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    dssim, labels = (-np.array([float(r[c]) for r in rows]) for c in ("DSSIM", "dmos"))
    return dssim, labels, np.array([r["image"] for r in rows])


def members(rng: np.random.Generator, score: Floats, references: NDArray[np.str_]) -> Floats:
    """(4, n): the score, noise twice, and noise that is alike within a reference."""
    _, unit = np.unique(references, return_inverse=True)
    shared = rng.standard_normal(unit.max() + 1)[unit] + 0.5 * rng.standard_normal(len(unit))
    return np.stack([score, *rng.standard_normal((2, len(unit))), shared])


def images(part: str, rows: Ints, scores: Floats, labels: Floats, references: NDArray[np.str_]) -> Images:
    """The chosen rows as the harness's own type."""
    return Images("csiq", part, [str(i) for i in rows], labels[rows], references[rows].tolist(), scores[:, rows])


def searched(samples: list[Sample], trials: int, seed: int) -> list[Blend]:
    """The search's blend on each sample, by its own chains in this process."""
    chains = []
    plan = planned(trials)
    for number in range(len(plan.sizes)):
        chain = Chain(seed, number, plan, samples, "main")
        while not chain.done:
            chain.advance()
        chains.append(chain)
    tops = [max(chains, key=lambda chain: chain.figures[place]) for place in range(len(samples))]
    return [as_blend(top.best[place], s.columns) for place, (top, s) in enumerate(zip(tops, samples, strict=True))]


def run(seed: int, score: Floats, labels: Floats, references: NDArray[np.str_], trials: int) -> dict[tuple[str, str], bool]:
    """Whether any blend is called a gain, by part and figure, as `harness.ensembles.build` finds it."""
    rng = np.random.default_rng([20, seed])
    scores = members(rng, score, references)
    dealt = rng.permutation(np.unique(references))
    inside = np.isin(references, dealt[: len(dealt) // 2])
    fitting = images("fitting", np.flatnonzero(inside), scores, labels, references)
    tested = images("test", np.flatnonzero(~inside), scores, labels, references)
    held_out = folds(fitting.references, seed)
    everything = np.arange(len(fitting.labels))
    outside = [np.setdiff1d(everything, fold) for fold in held_out]
    samples = [sample(fitting.scores[:, r], fitting.labels[r], MEMBER_OF, KINDS, "main") for r in (everything, *outside)]
    found = searched(samples, trials, seed)
    parts = [everything, *outside]
    found = [b.calibrated(fitting.scores[:, r], fitting.labels[r]) for b, r in zip(found, parts, strict=True)]
    simple = {method: [s.simple[method] for s in samples] for method in METHODS[:-1]} | {"searched": found}
    # The best member is DSSIM in all runs: noise does not come near it.
    alone = rescaled_member(0, fitting, held_out, outside)
    base = baseline(fitting, 0, alone.fitting)
    inner = {method: out_of_fold(blends[1:], held_out, fitting.scores) for method, blends in simple.items()}
    outer = {method: scored(blends[0], tested.scores) for method, blends in simple.items()}
    on_test = replace(base, scaled=scored(alone.blend, tested.scores))
    return claims("out of fold", fitting, inner, base) | claims("test", tested, outer, on_test)


def claims(part: str, on: Images, blended: dict[str, Scored], base: Baseline) -> dict[tuple[str, str], bool]:
    """Whether any blend is shown as a gain, by part and figure."""
    tests = gains(on, blended, base)
    claimed = {(part, figure): False for figure in GAINS}
    for method in METHODS:
        for figure, p in corrected(tests, method).items():
            difference = tests[method][figure].difference
            claimed[part, figure] |= p <= LEVEL and difference is not None and difference > 0
    return claimed


def upper(count: int, runs: int) -> float:
    """The one-sided 95 % upper limit of a share."""
    return 1.0 if count == runs else float(betaincinv(count + 1, runs - count, 0.95))


def main() -> None:
    """Print a line per part and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=200, help="candidates of each search")
    parser.add_argument("--first", type=int, default=0, help="the first run's seed")
    options = parser.parse_args()
    start = time.process_time()
    found: dict[tuple[str, str], int] = {}
    anywhere = 0
    for seed in range(options.first, options.first + options.runs):
        claimed = run(seed, *stored(options.source), options.trials)
        found = {key: found.get(key, 0) + value for key, value in claimed.items()}
        anywhere += any(claimed.values())
        if (done := seed - options.first + 1) % 50 == 0:
            # A run that is cut off has told what it had found.
            print(f"{done} runs: a false gain anywhere in {anywhere}", file=sys.stderr, flush=True)
    print(f"{options.runs} runs, {options.trials} candidates a search, {time.process_time() - start:.0f} s\n")
    print("| part | figure | false gains | per cent | upper 95 % limit |\n|---|---|---|---|---|")
    for (part, figure), count in [*found.items(), (("either", "any"), anywhere)]:
        print(f"| {part} | {figure} | {count} | {100 * count / options.runs:.1f} | {100 * upper(count, options.runs):.1f} |")


if __name__ == "__main__":
    main()
