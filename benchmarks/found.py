"""How long it takes to find a finished run of 23,200 pairs: with a warm index of file hashes, and the first time.

    python benchmarks/found.py [--references 200] [--distorted 116] [--side 288] [--folder DIR]

Makes BMPs of one size (23,400 files; 5.8 GB at 288 pixels a side), scores them once, and times whole commands that find the
run. `cold` is the same command after the index was deleted: every file is read once.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from harness.runtime.machine import processor


def make(folder: Path, references: int, distorted: int, side: int) -> Path:
    """A table of references x distorted pairs over BMPs of one size."""
    draw = np.random.default_rng(0)
    rows = []
    for r in range(references):
        image = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"r{r:03d}.bmp")
        for d in range(distorted):
            other = image.copy()
            other[d % side] = 255 - other[d % side]
            other[:, (7 * d) % side] //= 2
            name = f"r{r:03d}_{d:03d}.bmp"
            Image.fromarray(other).save(folder / name)
            rows.append((name, f"r{r:03d}.bmp", round(float(draw.uniform(1, 5)), 3)))
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("distorted", "reference", "score"), *rows])
    return folder / "table.csv"


def timed(words: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    environment = {**os.environ, "HARNESS_CACHE": str(folder / "cache")}
    before, begun = os.times(), time.perf_counter()
    subprocess.run(words, check=True, cwd=folder, env=environment, capture_output=True)
    wall, after = time.perf_counter() - begun, os.times()
    return wall, (after.children_user + after.children_system) - (before.children_user + before.children_system)


def main() -> None:
    """Print one line per state."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=200)
    parser.add_argument("--distorted", type=int, default=116)
    parser.add_argument("--side", type=int, default=288)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        table = folder / "table.csv"
        if not table.is_file():
            make(folder, asked.references, asked.distorted, asked.side)
        words = [sys.executable, "-m", "harness", "run", "psnr", "--dataset", str(table), "--protocol", "full"]
        words += ["--mlflow-uri", "off", "--quiet", "--runs", str(folder / "runs")]
        print(f"{asked.references * asked.distorted:,} pairs of {asked.side}x{asked.side} BMPs, {processor()}")
        print(f"scored, wall and CPU seconds: {timed(words, folder)[0]:.1f}")
        timed(words, folder)
        warm = sorted(timed(words, folder) for _ in range(asked.rounds))[asked.rounds // 2]
        print(f"found, warm index: {warm[0]:.2f} s, {warm[1]:.2f} s of CPU (median of {asked.rounds})")
        (folder / "cache" / "harness" / "hashes.sqlite").unlink(missing_ok=True)
        cold = timed(words, folder)
        print(f"found, first time (every file read once): {cold[0]:.2f} s, {cold[1]:.2f} s of CPU")


if __name__ == "__main__":
    main()
