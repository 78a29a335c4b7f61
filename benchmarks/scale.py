"""What sharing out the scoring costs and gains on this machine: overhead per shard, efficiency of several workers, starts.

    python benchmarks/scale.py [--workers 2] [--rounds 5] [--references 16] [--images 8]

One process with one thread, one worker with one thread, and N workers with one thread each score the same chunks,
interleaved, round by round; workers are warm. Efficiency is the wall time of one process divided by N times that of N
workers (a machine that does other work at the same time shows less); the overhead per shard is what one worker needs
more for a shard per reference than for all of them as one shard. Figures are medians over the rounds of each round's
ratio or difference.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tabulate import tabulate

from harness import models
from harness.engine.distributed import worker_pool
from harness.engine.distributed.inside_worker import Job
from harness.engine.distributed.session import kept, session
from harness.engine.distributed.start_workers import start_workers
from harness.engine.scorer import Pair, Scorer
from harness.models import find_model, weights
from harness.runtime.machine import processor

HEIGHT, WIDTH = 288, 288


def pictures(folder: Path, references: int, images: int) -> list[Pair]:
    """Pairs of smooth images with noise, as large as PIPAL's, as PNG."""
    draw = np.random.default_rng(0)
    pairs = []
    for r in range(references):
        coarse = draw.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
        still = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        Image.fromarray(still).save(folder / f"r{r}.png")
        for i in range(images):
            moved = np.clip(still + draw.normal(0, 4 * (i + 1), still.shape), 0, 255).astype(np.uint8)
            Image.fromarray(moved).save(folder / f"r{r}_{i}.png")
            pairs.append(Pair(f"r{r}_{i}", str(folder / f"r{r}_{i}.png"), str(folder / f"r{r}.png"), f"r{r}"))
    return pairs


def job_of(name: str, folder: Path) -> Job:
    """The card's model; a network with random weights, which cost what trained ones cost."""
    card = replace(find_model(name), recipe=None)
    found = weights.find(card)
    if any(entry.use == "always" for entry in card.weights) or name.startswith("ahiq"):
        file = folder / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in models.build(card, found).state_dict().items()}, file)
        found = replace(found, file=file)
    return Job(card, found, 0, 8)


def wall(scorer: Any, chunks: Mapping[int, Sequence[Pair]]) -> float:
    """Seconds until every chunk is back."""
    begun = time.perf_counter()
    for _ in scorer.each(chunks):
        pass
    return time.perf_counter() - begun


def measure(name: str, folder: Path, pairs: list[Pair], workers: int, rounds: int) -> list[Any]:
    """One row of the table."""
    job = job_of(name, folder)
    model = models.build(job.card, job.weights)
    here = Scorer(model, job.card.protocol, job.card.identical, workers=1)
    chunks = dict(enumerate(here.chunks(pairs)))
    shards = len({pair.reference for pair in pairs})
    with contextlib.ExitStack() as stack:

        def pool(count: int) -> Any:
            found = stack.enter_context(start_workers(model, None, count, "cpu"))
            one_thread = replace(found, share=replace(found.share, threads=1))
            return stack.enter_context(one_thread.pool(job))

        begun = time.perf_counter()
        many = pool(workers)
        started = time.perf_counter() - begun
        for scorer in (here, many):
            wall(scorer, chunks)
        alone, shared = [], []
        for _ in range(rounds):
            alone.append(wall(here, chunks))
            shared.append(wall(many, chunks))
        many.stop()
        single = pool(1)
        wall(single, chunks)
        whole, cut = [], []
        for _ in range(rounds):
            with mock.patch.object(worker_pool, "_SHARDS_PER_WORKER", 1):
                whole.append(wall(single, chunks))
            with mock.patch.object(worker_pool, "_SHARDS_PER_WORKER", shards):
                cut.append(wall(single, chunks))
    efficiency = median(a / (workers * s) for a, s in zip(alone, shared, strict=True))
    overhead = median((c - w) / (shards - 1) for c, w in zip(cut, whole, strict=True))
    worker = median(w / a for w, a in zip(whole, alone, strict=True))
    return [name, len(pairs), median(alone) / len(pairs) * 1e3, efficiency, worker, overhead * 1e3, started]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--references", type=int, default=16)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--models", default="ssim,ahiq-tiny")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as place, kept():
        pairs = pictures(Path(place), asked.references, asked.images)
        begun = time.perf_counter()
        with session():
            print(f"Ray started in {time.perf_counter() - begun:.1f} s")
        rows = [measure(name, Path(place), pairs, asked.workers, asked.rounds) for name in asked.models.split(",")]
    headers = ["model", "pairs", "ms a pair, one process", f"efficiency of {asked.workers}", "one worker / one process",
               "ms a shard", "s to build the workers"]  # fmt: skip
    print(tabulate(rows, headers, floatfmt=("", "", ".1f", ".2f", ".2f", ".1f", ".1f")))


if __name__ == "__main__":
    main()
