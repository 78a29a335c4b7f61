"""Metrics on 8-bit images in memory: how a thread for each core compares with one thread, and with a process for each core.

    python benchmarks/small_images.py [--rounds 7] [--cores 0] [--models ssim,ms-ssim,psnr] [--sides 64,176,288,512]
                                      [--before CHECKOUT]

Wall and CPU milliseconds a pair, eight distorted images of one reference at a time, as `harness run` scores them, without
decoding. The three ways are interleaved; a figure is the median of the rounds. Threads should never be slower than one thread,
and near the processes. `--before`: the same in an earlier state of the harness (5f140e0), by turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from statistics import median

import numpy as np
from tabulate import tabulate

HERE = Path(__file__).resolve().parents[1]
AT_LEAST = 0.5
"""Seconds that each way works in each round."""
PAIRS = 8


def scoring(name: str, side: int) -> Callable[[], object]:
    """A function that scores eight distorted images of one reference, in whichever state of the harness this process imports."""
    draw = np.random.default_rng(0)
    reference = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
    moved = [np.clip(reference + draw.normal(0, 4 + i, reference.shape), 0, 255).astype(np.uint8) for i in range(PAIRS)]
    from harness.models import load_model

    try:
        from harness.cards.schema import Cropping
        from harness.engine.scorer import DecodedChunk, Pair, Scorer
        from harness.imaging.decode import Decoded
    except ImportError:  # as 5f140e0 named them
        Decoded, Cropping = import_module("harness.images").Decoded, import_module("harness.registry").Cropping
        Pair, Scorer = import_module("harness.scoring").Pair, import_module("harness.scoring").Scorer
        DecodedChunk = None
    model = load_model(name)
    scorer = Scorer(getattr(model, "model", model), Cropping("whole"))
    pairs = [Pair(str(i), str(i), "r", "r") for i in range(PAIRS)]
    images = Decoded(reference, ""), [Decoded(pixels, "") for pixels in moved]
    if DecodedChunk is None:
        return lambda: scorer.score_decoded(pairs, *images)
    chunk = DecodedChunk(pairs, *images)
    return lambda: scorer.score_decoded(chunk)


def work(name: str, side: int, threads: int) -> tuple[float, float]:
    """Wall and CPU milliseconds a pair in this process."""
    once = scoring(name, side)

    def score(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            once()
            done += PAIRS
        return done

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(score, [time.perf_counter() + 0.05] * threads))
        begun, spent = time.perf_counter(), time.process_time()
        done = sum(pool.map(score, [begun + AT_LEAST] * threads))
        return 1e3 * (time.perf_counter() - begun) / done, 1e3 * (time.process_time() - spent) / done


def processes(state: Path, name: str, side: int, threads: int, count: int) -> tuple[float, float]:
    """Wall and CPU milliseconds a pair of `count` processes of `threads` threads each, in one state of the harness."""
    words = [sys.executable, "-W", "ignore", __file__, "--work", json.dumps([name, side, threads])]
    environment = {**os.environ, "PYTHONPATH": str(state)}
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(count)]
    each = [json.loads(process.communicate()[0]) for process in started]
    return 1 / sum(1 / wall for wall, _ in each), sum(cpu for _, cpu in each) / count


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, default=0)
    parser.add_argument("--models", default="ssim,ms-ssim,psnr")
    parser.add_argument("--sides", default="64,176,288,512")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        print(json.dumps(work(*json.loads(asked.work))))
        return
    cores = asked.cores or os.cpu_count() or 1
    from throughput import processor

    states = {"before": asked.before.absolute(), "after": HERE} if asked.before else {"": HERE}
    ways = (1, 1), (cores, 1), (1, cores)
    rows = []
    for name in asked.models.split(","):
        for side in map(int, asked.sides.split(",")):
            if name == "ms-ssim" and side < 161:
                continue
            found = [(state, way, []) for state in states for way in ways]
            for _ in range(asked.rounds):
                for state, way, each in found:
                    each.append(processes(states[state], name, side, *way))
            for state in states:
                own = [each for one, _, each in found if one == state]
                cells = [f"{median(w for w, _ in each):.3f} ({median(c for _, c in each):.3f})" for each in own]
                rows.append([name, f"{side}x{side}", state, *cells])
    print(f"{processor()}, {cores} cores, {asked.rounds} rounds; wall (CPU) milliseconds a pair")
    headers = ["model", "images", "state", "one thread", f"{cores} threads", f"{cores} processes"]
    print(tabulate(rows, headers=headers, tablefmt="github"))


if __name__ == "__main__":
    main()
