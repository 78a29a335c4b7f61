"""How fast `harness score psnr ssim` goes through folders of 1,000 pairs of 512x384, and what bounds it.

    python benchmarks/folders.py [--pairs 1000] [--kinds png,bmp,jpg] [--models psnr,ssim]

Images like a codec test's are made in a temporary folder: 25 references with `--pairs` distorted images over five settings.
For each kind: wall-clock time and processor time of the whole command (start of Python, pairing, headers and table included),
the share of all cores that was used, and the processor time that only reading, hashing and decoding every image once takes, in
as many threads. Where `decoding` is near 100 %, the command runs at decoding's speed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tabulate import tabulate

from harness.imaging import decode

HEIGHT, WIDTH, REFERENCES = 384, 512, 25


def make(folder: Path, kind: str, pairs: int) -> None:
    """`folder/refs` and `folder/dist/<setting>`: noise and blur of growing strength on images with much detail."""
    (folder / "refs").mkdir()
    each = -(-pairs // REFERENCES)
    for number in range(REFERENCES):
        draw = np.random.default_rng(number)
        coarse, fine = (cv2.resize(draw.uniform(0, 255, (*size, 3)), (WIDTH, HEIGHT)) for size in ((12, 16), (96, 128)))
        image = 0.6 * coarse + 0.4 * fine
        ending = "png" if kind == "jpg" else kind
        cv2.imwrite(str(folder / "refs" / f"r{number:02d}.{ending}"), np.rint(image).clip(0, 255).astype(np.uint8))
        noise = draw.normal(0, 1, image.shape)
        for step in range(min(each, pairs - number * each)):
            strength = 1 + step * 20 / each
            moved = image + noise * strength if step % 2 else cv2.GaussianBlur(image, (0, 0), 0.3 + strength / 6)
            place = folder / "dist" / f"{step:03d}"
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f"r{number:02d}.{kind}"), np.rint(moved).clip(0, 255).astype(np.uint8))


def decode_only(folder: Path) -> tuple[float, float]:
    """(wall-clock, processor) seconds of reading, hashing and decoding every image once, on every core."""
    paths = sorted(path for path in folder.rglob("r*.*") if path.is_file())
    decode.read_hashed(paths[0])
    begun, before = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(lambda path: decode.read_hashed(path) and None, paths):
            pass
    return time.monotonic() - begun, time.process_time() - before


def whole(folder: Path, models: list[str]) -> tuple[float, float]:
    """(wall-clock, processor) seconds of `harness score` as a process of its own."""
    words = [sys.executable, "-m", "harness", "score", *models, "--reference", "refs", "--distorted", "dist"]
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*words, "--pattern", "{setting}/{name}", "--out", "s.csv", "--quiet"], cwd=folder, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begun, sum(after[:2]) - sum(before[:2])


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--kinds", default="png,bmp,jpg")
    parser.add_argument("--models", default="psnr,ssim")
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    rows = []
    for kind in arguments.kinds.split(","):
        with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as small:
            make(Path(place), kind, arguments.pairs)
            make(Path(small), kind, REFERENCES)
            start = whole(Path(small), arguments.models.split(","))
            wall, spent = whole(Path(place), arguments.models.split(","))
            decoding = decode_only(Path(place))
        rows.append(
            [
                kind.upper(),
                f"{wall:.1f}",
                f"{arguments.pairs / wall:,.0f}",
                f"{spent / wall / cores:.0%}",
                f"{decoding[0]:.1f}",
                f"{decoding[1]:.1f}",
                f"{decoding[1] / spent:.0%}",
                f"{start[0]:.1f}",
            ]
        )
    print(f"{cores} cores, {arguments.pairs:,} pairs of {WIDTH}x{HEIGHT} through {arguments.models}")
    headers = [
        "images",
        "seconds",
        "pairs/s",
        "cores used",
        "s decoding alone",
        "CPU s decoding",
        "decoding of all CPU",
        "s for 25 pairs",
    ]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
