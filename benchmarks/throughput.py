"""How fast `harness run psnr ssim` goes through 3,000 pairs of 512x384, and what bounds it.

    python benchmarks/throughput.py [--pairs 3000] [--kinds bmp,png] [--models psnr,ssim] [--workers 0]

Images like a dataset's (25 references, 120 distorted images of each) are made in a temporary folder, as BMP, which
TID2013, LIVE and PIPAL use, and as PNG, as KADID-10k and CSIQ. For each kind and model: wall-clock time and processor
time of a whole run by the command line (start of Python, record and report included), the share of all cores that was
used, and the processor time that only reading, hashing and decoding the same chunks takes, measured right after it.
Where `decoding` is above a half, the run is bound by decoding.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tabulate import tabulate

from harness.cards.schema import Cropping
from harness.datasets import load_dataset
from harness.engine.scorer import Scorer, pairs_of
from harness.imaging import decode

HEIGHT, WIDTH, REFERENCES = 384, 512, 25


def make(folder: Path, kind: str, pairs: int) -> Path:
    """A table of `pairs` pairs over 25 references: blur and noise of growing strength on images with much detail."""
    rows: list[list[object]] = []
    each = -(-pairs // REFERENCES)
    for number in range(REFERENCES):
        draw = np.random.default_rng(number)
        coarse, fine = (cv2.resize(draw.uniform(0, 255, (*size, 3)), (WIDTH, HEIGHT)) for size in ((12, 16), (96, 128)))
        picture = 0.6 * coarse + 0.4 * fine
        picture[100:200, 150:300] = 255 - picture[100:200, 150:300]
        reference = f"r{number:02d}.{kind}"
        cv2.imwrite(str(folder / reference), np.rint(picture).clip(0, 255).astype(np.uint8))
        noise = draw.normal(0, 1, picture.shape)
        for step in range(each):
            strength = 1 + step * 20 / each
            moved = picture + noise * strength if step % 2 else cv2.GaussianBlur(picture, (0, 0), 0.3 + strength / 6)
            name = f"r{number:02d}_{step:03d}.{kind}"
            cv2.imwrite(str(folder / name), np.rint(moved).clip(0, 255).astype(np.uint8))
            rows.append([name, reference, -strength])
    table = folder / "table.csv"
    with open(table, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["distorted", "reference", "score"], *rows[:pairs]])
    return table


def decode_only(table: Path, workers: int) -> float:
    """Processor seconds of reading, hashing and decoding every chunk, in the threads that a run uses."""

    def read(chunk: list[str]) -> None:
        for path in chunk:
            decode.read_hashed(path)

    scorer = Scorer(None, Cropping("whole"), workers=workers)
    chunks = [[c[0].reference, *(pair.distorted for pair in c)] for c in scorer.chunks(pairs_of(load_dataset(str(table)).table))]
    read(chunks[0])
    begun = time.process_time()
    with ThreadPoolExecutor(scorer.threads) as pool:
        list(pool.map(read, chunks))
    return time.process_time() - begun


def whole_run(table: Path, model: str, runs: Path, workers: int) -> tuple[float, float]:
    """(wall-clock seconds, processor seconds) of `harness run` as a process of its own."""
    words = [sys.executable, "-m", "harness", "run", model, "--dataset", str(table), "--runs", str(runs)]
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*words, "--workers", str(workers), "--mlflow-uri", "off", "--quiet"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begun, sum(after[:2]) - sum(before[:2])


@contextlib.contextmanager
def world(kind: str, pairs: int) -> Iterator[tuple[Path, Path]]:
    """A table of images, and a place for runs."""
    with tempfile.TemporaryDirectory() as folder:
        yield make(Path(folder), kind, pairs), Path(folder) / "runs"


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--kinds", default="bmp,png")
    parser.add_argument("--models", default="psnr,ssim")
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    cores = arguments.workers or os.cpu_count() or 1
    rows = []
    for kind in arguments.kinds.split(","):
        with world(kind, arguments.pairs) as (table, runs):
            start = fixed_cost(runs)
            for model in arguments.models.split(","):
                wall, spent = whole_run(table, model, runs, arguments.workers)
                decoding = decode_only(table, arguments.workers)
                work = spent - start
                rows.append(
                    [
                        kind.upper(),
                        model,
                        f"{wall:.1f}",
                        f"{arguments.pairs / wall:,.0f}",
                        f"{spent:.1f}",
                        f"{spent / wall / cores:.0%}",
                        f"{decoding:.1f}",
                        f"{decoding / work:.0%}",
                    ]
                )
    print(
        f"{processor()}, {cores} cores, {arguments.pairs:,} pairs of {WIDTH}x{HEIGHT}; a process that does nothing: {start:.1f} s"
    )
    headers = ["pictures", "model", "seconds", "pairs/s", "CPU s", "cores used", "CPU s decoding", "decoding of the work"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


def fixed_cost(runs: Path) -> float:
    """Processor seconds of a run over 50 pairs: what is there whatever the number of pairs."""
    with tempfile.TemporaryDirectory() as folder:
        return whole_run(make(Path(folder), "bmp", 50), "psnr", runs, 1)[1]


def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
