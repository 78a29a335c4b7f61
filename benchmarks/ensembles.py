"""The search of ensembles against what has a closed form, on real scores, in sample and out of fold, with times.

    python benchmarks/ensembles.py DIR [--out FOLDER] [--trials N] [--objective main|srcc|plcc] [--fit kadid-scores|csiq-scores]

DIR as for `benchmarks/crossval.py`. Nothing here needs Ray: chains are walked one after another, which gives the same blends
as `harness ensemble` does; `benchmarks/crossval.py` runs the whole of it and reports on the other dataset.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import crossval
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=Path("ensembles"))
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--objective", default="main", choices=("main", "srcc", "plcc"))
    parser.add_argument("--fit", default="kadid-scores", choices=[card for card, _ in crossval.LABELS.values()])
    asked = parser.parse_args()

    from harness.engine.request import Request
    from harness.ensembles.assess import out_of_fold
    from harness.ensembles.members import gather
    from harness.ensembles.objective import objective
    from harness.ensembles.search import Chain, as_blend, folds, planned, powell, sample
    from harness.models.score_scaling import KINDS

    files = crossval.prepare(asked.source, asked.out)
    request = Request("", asked.fit, cards=(str(asked.out),), runs=str(asked.out / "runs"), mlflow_uri="off")
    gathered = gather(files, request, test_on=(), crops=(), lower=crossval.METRICS)
    images = gathered.fitting
    held_out = folds(images.references, 0)
    outside = [np.setdiff1d(np.arange(len(images.names)), rows) for rows in held_out]
    started = time.perf_counter()
    samples = [
        sample(images.scores[:, rows], images.labels[rows], gathered.member_of, KINDS, asked.objective)
        for rows in (np.arange(len(images.names)), *outside)
    ]
    print(f"{asked.fit}: {len(images.names)} images, {time.perf_counter() - started:.2f} s for scalings and closed forms")
    print(f"{'':14}{asked.objective + ' in sample':>17}{'out of fold SRCC':>18}{'PLCC':>8}{'seconds':>9}", flush=True)

    def show(name: str, blends: list, seconds: float) -> None:
        inside = objective(asked.objective, blends[0](images.scores)[None], images.labels)[0]
        each = [b.calibrated(images.scores[:, r], images.labels[r]) for b, r in zip(blends[1:], outside, strict=True)]
        beyond = out_of_fold(each, held_out, images.scores).values[None]
        srcc, plcc = (objective(figure, beyond, images.labels)[0] for figure in ("srcc", "plcc"))
        print(f"{name:14}{inside:17.5f}{srcc:18.4f}{plcc:8.4f}{seconds:9.2f}", flush=True)

    for name in samples[0].simple:
        show(name, [s.simple[name] for s in samples], 0.0)
    started = time.perf_counter()
    improved = [powell(s.simple["least-squares"], s.columns, s.labels, asked.objective) for s in samples]
    show("Powell", improved, time.perf_counter() - started)
    started = time.perf_counter()
    plan = planned(asked.trials)
    chains = [Chain(0, number, sizes, samples, asked.objective) for number, sizes in enumerate(plan.sizes)]
    for chain in chains:
        while not chain.done:
            chain.advance()
    found = []
    for place, part in enumerate(samples):
        best = max(chains, key=lambda chain: chain.figures[place])
        found.append(as_blend(best.best[place], part.columns))
    show(f"search {asked.trials:,}", found, time.perf_counter() - started)


if __name__ == "__main__":
    main()
