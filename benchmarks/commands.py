"""Whole commands, two states of the harness side by side.

    git worktree add /tmp/before COMMIT
    python benchmarks/commands.py --before /tmp/before [--pairs 1000] [--rounds 3] [--only run,score,...]

`run` (psnr ssim ms-ssim) and `score` (psnr ssim) work on PNG pairs of 512x384 over 25 references; `take` reads 700,000 rows by
--scores; `compare` compares two models on 232,000 rows of 200 references and 40 kinds; `workers` trains the demonstration's
network for 120 steps on two workers; `small` is a run that is refused because its images are too small; `doctor` and `models`
are what their names say.

Each command runs in both states by turns, each time from nothing. A figure is the median over the rounds of the processor time
of the whole command and the processes it waits for (start of Python, records and reports included), next to it wall time and
the greatest memory of one process. `decoding` is the processor time of reading, hashing and decoding each image once, in as
many threads as a run has.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from tabulate import tabulate
from throughput import make, processor

from harness.imaging import decode

HERE = Path(__file__).parents[1]
RUN = "--runs {out} --mlflow-uri off"
COMMANDS = {
    "run": f"run psnr ssim ms-ssim --dataset {{images}}/table.csv --protocol full {RUN}",
    "score": "score psnr ssim --pairs {images}/table.csv --out {out}/scores.csv",
    "take": f"run --scores {{take}}/a.csv --name a --dataset rows --cards {{take}} {RUN}",
    "compare": "compare {compare}/a.csv {compare}/b.csv --dataset rows --cards {compare}",
    "workers": f"run ahiq-tiny --dataset demo --workers 2 --set recipe.epochs=1 --set recipe.steps_per_epoch=120 {RUN}",
    "small": f"run ms-ssim --dataset {{small}}/table.csv --protocol full {RUN}",
    "doctor": "doctor",
    "models": "list models",
}
ROWS = {"take": 700_000, "compare": 232_000}
CARD = """name = "rows"
title = "Made-up rows"
reader = "harness.datasets:read_table"
higher_is_better = true
default_protocol = "full"
[layout]
table = "rows.csv"
[protocols.full]
split = "full"
"""


def make_rows(folder: Path, rows: int) -> None:
    """A table of `rows` labels over 200 references and 40 kinds, its card, and two files of scores."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    reference, kind = np.arange(rows) // (rows // 200), draw.integers(0, 40, rows)
    labels = draw.normal(size=rows) + 0.3 * draw.normal(size=200)[reference]
    names = [f"i{i:06d}.png" for i in range(rows)]
    cells = zip(names, labels, reference, kind, strict=True)
    lines = [f"{name},{label:.4f},r{r:03d},k{k}" for name, label, r, k in cells]
    (folder / "rows.csv").write_text("\n".join(["name,score,reference_id,distortion", *lines]) + "\n", encoding="utf-8")
    (folder / "rows.toml").write_text(CARD, encoding="utf-8")
    for member, noise in (("a", 1.0), ("b", 1.1)):
        scores = zip(names, labels + noise * draw.normal(size=rows), strict=True)
        lines = [f"{name},{score!r}" for name, score in ((n, float(s)) for n, s in scores)]
        (folder / f"{member}.csv").write_text("\n".join(["name,score", *lines]) + "\n", encoding="utf-8")


def make_small(folder: Path) -> None:
    """Fifty pairs that are too small for MS-SSIM's five scales."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(51):
        cv2.imwrite(str(folder / f"{number}.png"), draw.integers(0, 256, (96, 96, 3), np.uint8))
    rows = [f"{number}.png,0.png,{number}" for number in range(1, 51)]
    (folder / "table.csv").write_text("\n".join(["distorted,reference,score", *rows]) + "\n", encoding="utf-8")


def decoding(table: Path) -> float:
    """Processor seconds to decode every image once."""
    paths = sorted(table.parent.glob("*.png"))
    begun = time.process_time()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda path: decode.read_hashed(path).sha256, paths):
            pass
    return time.process_time() - begun


def command(name: str, state: Path, places: dict[str, Path]) -> tuple[float, float, float]:
    """Processor seconds, wall seconds and greatest memory (MB) of a command in one state of the harness."""
    out = places["out"]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    words = [word.format(**places) for word in COMMANDS[name].split()]
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "harness", *words, *(["--quiet"] if words[0] in ("run", "score") else [])],
        env={**os.environ, "PYTHONPATH": str(state), "HARNESS_CACHE": str(places["cache"] / state.name)},
        cwd=out,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != (2 if name == "small" else 0):
        raise SystemExit(f"{' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}: {told.decode()[-500:]}")
    return used.ru_utime + used.ru_stime, time.monotonic() - begun, used.ru_maxrss / 1024


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the earlier state")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="run,score")
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    rows, notes = [], [f"{processor()}, {os.cpu_count()} cores, {asked.rounds} rounds"]
    with tempfile.TemporaryDirectory() as scratch:
        places = {name: Path(scratch) / name for name in ("images", "small", "take", "compare", "out", "cache")}
        if {"run", "score"} & set(wanted):
            places["images"].mkdir()
            table = make(places["images"], "png", asked.pairs)
            alone = median(decoding(table) for _ in range(asked.rounds))
            notes.append(f"{asked.pairs:,} PNG pairs of 512x384, decoding: {alone:.1f} s")
        if "small" in wanted:
            make_small(places["small"])
        for name in set(wanted) & set(ROWS):
            make_rows(places[name], ROWS[name])
        states = {"before": asked.before.absolute(), "after": HERE}
        for name in wanted:
            found: dict[str, list[tuple[float, float, float]]] = {state: [] for state in states}
            # The first of each is not counted: it makes caches and reads files that the others find in memory.
            for turn in range(asked.rounds + 1):
                for state, tree in states.items():
                    once = command(name, tree, places)
                    found[state] += [once] if turn else []
            for state, each in found.items():
                cpu, wall, memory = (median(one[i] for one in each) for i in range(3))
                rows.append([name, state, f"{cpu:.2f}", f"{wall:.2f}", f"{memory:.0f}"])
                print(f"{name}, {state}: {cpu:.2f} {wall:.2f} {memory:.0f}", file=sys.stderr, flush=True)
    print("; ".join(notes))
    headers = ["command", "state", "CPU s", "wall s", "MB"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
