"""Metrics on 8-bit images in memory: how a thread for each core compares with one thread, and with a process for each core.

    python benchmarks/small_images.py [--rounds 7] [--cores 0] [--models ssim,ms-ssim,psnr] [--sides 64,176,288,512]

Wall and CPU milliseconds a pair, eight distorted images of one reference at a time, as `harness run` scores them, without
decoding. The three ways are interleaved; a figure is the median of the rounds. Threads should never be slower than one thread,
and near the processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np
from tabulate import tabulate

from harness.cards.schema import Cropping
from harness.engine.scorer import DecodedChunk, Pair, Scorer
from harness.imaging.decode import Decoded
from harness.models import load_model
from harness.results.conditions import processor

AT_LEAST = 0.5
"""Seconds that each way works in each round."""


def work(name: str, side: int, threads: int) -> tuple[float, float]:
    """Wall and CPU milliseconds a pair in this process."""
    draw = np.random.default_rng(0)
    reference = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
    moved = [np.clip(reference + draw.normal(0, 4 + i, reference.shape), 0, 255).astype(np.uint8) for i in range(8)]
    scorer = Scorer(load_model(name).model, Cropping("whole"))
    pairs = [Pair(str(i), str(i), "r", "r") for i in range(8)]
    chunk = DecodedChunk(pairs, Decoded(reference, ""), [Decoded(pixels, "") for pixels in moved])

    def score(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            scorer.score_decoded(chunk)
            done += len(pairs)
        return done

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(score, [time.perf_counter() + 0.05] * threads))
        begun, spent = time.perf_counter(), time.process_time()
        done = sum(pool.map(score, [begun + AT_LEAST] * threads))
        return 1e3 * (time.perf_counter() - begun) / done, 1e3 * (time.process_time() - spent) / done


def processes(name: str, side: int, threads: int, count: int) -> tuple[float, float]:
    """Wall and CPU milliseconds a pair of `count` processes of `threads` threads each."""
    words = [sys.executable, "-W", "ignore", __file__, "--work", json.dumps([name, side, threads])]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    each = [json.loads(process.communicate()[0]) for process in started]
    return 1 / sum(1 / wall for wall, _ in each), sum(cpu for _, cpu in each) / count


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, default=0)
    parser.add_argument("--models", default="ssim,ms-ssim,psnr")
    parser.add_argument("--sides", default="64,176,288,512")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        print(json.dumps(work(*json.loads(asked.work))))
        return
    cores = asked.cores or os.cpu_count() or 1
    rows = []
    for name in asked.models.split(","):
        for side in map(int, asked.sides.split(",")):
            if name == "ms-ssim" and side < 161:
                continue
            ways: list[list[tuple[float, float]]] = [[], [], []]
            for _ in range(asked.rounds):
                for way, (threads, count) in zip(ways, ((1, 1), (cores, 1), (1, cores)), strict=True):
                    way.append(processes(name, side, threads, count))
            cells = [f"{median(w for w, _ in way):.3f} ({median(c for _, c in way):.3f})" for way in ways]
            rows.append([name, f"{side}x{side}", *cells])
    print(f"{processor()}, {cores} cores, {asked.rounds} rounds; wall (CPU) milliseconds a pair")
    print(tabulate(rows, headers=["model", "images", "one thread", f"{cores} threads", f"{cores} processes"], tablefmt="github"))


if __name__ == "__main__":
    main()
