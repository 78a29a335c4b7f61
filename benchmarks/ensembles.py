"""What the search adds to what has a closed form, on real scores, in sample and out of fold, with the CPU time of each.

    OMP_NUM_THREADS=1 python benchmarks/ensembles.py DIR [--out FOLDER] [--trials N,N] [--objective main|srcc|plcc]
                                                         [--fit kadid-scores|csiq-scores]

DIR as for `benchmarks/crossval.py`. Nothing here needs Ray: chains are walked one after another, which gives the same blends
as `harness ensemble` does; `benchmarks/crossval.py` runs the whole of it and reports on the other dataset. Seconds are of this
process's CPU, for all fitting images and the five folds together; scalings are fitted once, before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import crossval
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=Path("ensembles"))
    parser.add_argument("--trials", default="1000,20000")
    parser.add_argument("--objective", default="main", choices=("main", "srcc", "plcc"))
    parser.add_argument("--fit", default="kadid-scores", choices=[card for card, _ in crossval.LABELS.values()])
    asked = parser.parse_args()

    from harness.engine.request import Request
    from harness.ensembles import blends
    from harness.ensembles.assess import out_of_fold
    from harness.ensembles.blends import Blend, Fits
    from harness.ensembles.members import gather
    from harness.ensembles.objective import objective_values
    from harness.ensembles.weight_candidates import Chain, Sample, as_blend, folds, planned, powell
    from harness.models.score_scaling import KINDS

    files = crossval.prepare(asked.source, asked.out)
    request = Request("", asked.fit, cards=(str(asked.out),), runs=str(asked.out / "runs"), mlflow_uri="off")
    gathered = gather(files, request, test_on=(), crops=(), lower=crossval.METRICS)
    images = gathered.fitting
    held_out = folds(images.references, 0)
    outside = [np.setdiff1d(np.arange(len(images.names)), rows) for rows in held_out]
    started = time.process_time()
    each = [Fits(images.scores[:, rows], images.labels[rows]) for rows in (np.arange(len(images.names)), *outside)]
    columns = [blends.columns(fits, gathered.member_of, KINDS) for fits in each]
    print(f"{asked.fit}: {len(images.names)} images, {time.process_time() - started:.1f} s for scalings\n")
    print(
        f"| | {asked.objective} in sample | out of fold SRCC | PLCC | {asked.objective} | CPU s |\n|---|---|---|---|---|---|",
        flush=True,
    )

    def show(name: str, find: Callable[[], list[Blend]]) -> list[Blend]:
        before = time.process_time()
        found = find()
        seconds = time.process_time() - before
        inside = objective_values(asked.objective, found[0](images.scores)[None], images.labels)[0]
        folded = [b.calibrated(images.scores[:, r], images.labels[r]) for b, r in zip(found[1:], outside, strict=True)]
        beyond = out_of_fold(folded, held_out, images.scores).values[None]
        srcc, plcc, aimed = (objective_values(f, beyond, images.labels)[0] for f in ("srcc", "plcc", asked.objective))
        print(f"| {name} | {inside:.5f} | {srcc:.4f} | {plcc:.4f} | {aimed:.4f} | {seconds:.2f} |", flush=True)
        return found

    own = list(range(len(images.scores)))
    mean = show("mean", lambda: [blends.mean(fits, own) for fits in each])
    greedy = show("greedy", lambda: [blends.greedy(fits, own, asked.objective) for fits in each])
    closed = show("least squares (NNLS)", lambda: [blends.least_squares(fits, own, KINDS) for fits in each])
    show(
        "NNLS, then Powell",
        lambda: [powell(b, c, f.labels, asked.objective) for b, c, f in zip(closed, columns, each, strict=True)],
    )
    samples = [
        Sample(c, f.labels, {"mean": m, "greedy": g, "least-squares": n})
        for c, f, m, g, n in zip(columns, each, mean, greedy, closed, strict=True)
    ]

    def searched(trials: int) -> list[Blend]:
        plan = planned(trials)
        chains = [Chain(0, number, plan, samples, asked.objective) for number in range(len(plan.sizes))]
        for chain in chains:
            while not chain.done:
                chain.advance()
        tops = [max(chains, key=lambda chain: chain.figures[place]) for place in range(len(samples))]
        return [as_blend(top.best[place], part.columns) for place, (top, part) in enumerate(zip(tops, samples, strict=True))]

    for trials in map(int, asked.trials.split(",")):
        show(f"searched, {trials:,} trials", lambda trials=trials: searched(trials))  # type: ignore[misc]


if __name__ == "__main__":
    main()
