"""Whole commands, two states of the harness side by side: `harness run psnr ssim ms-ssim` and `harness score psnr ssim`.

    git worktree add /tmp/before COMMIT
    python benchmarks/commands.py --before /tmp/before [--pairs 1000] [--rounds 3] [--only run,score]

Makes PNG pairs of 512x384 over 25 references, and runs each command in both states by turns, each time from nothing. A figure is
the median over the rounds of the processor time of the whole command (start of Python, records and reports included), next to it
wall time and the greatest memory. `decoding` is the processor time of reading, hashing and decoding each image once, in as many
threads as a run has.
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

from tabulate import tabulate
from throughput import make, processor

from harness.imaging import decode

HERE = Path(__file__).parents[1]
COMMANDS = {
    "run": [
        "run",
        "psnr",
        "ssim",
        "ms-ssim",
        "--dataset",
        "{table}",
        "--protocol",
        "full",
        "--runs",
        "{out}",
        "--mlflow-uri",
        "off",
    ],
    "score": ["score", "psnr", "ssim", "--pairs", "{table}", "--out", "{out}/scores.csv"],
}


def decoding(table: Path) -> float:
    """Processor seconds to decode every image once."""
    paths = sorted(table.parent.glob("*.png"))
    begun = time.process_time()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda path: decode.read_hashed(path).sha256, paths):
            pass
    return time.process_time() - begun


def command(name: str, state: Path, table: Path, out: Path) -> tuple[float, float, float]:
    """Processor seconds, wall seconds and greatest memory (MB) of a command in one state of the harness."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    words = [word.format(table=table, out=out) for word in COMMANDS[name]]
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "harness", *words, "--quiet"],
        env={**os.environ, "PYTHONPATH": str(state), "HARNESS_CACHE": str(out / "cache")},
        cwd=out,
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, time.monotonic() - begun, used.ru_maxrss / 1024


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the earlier state")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="run,score")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        folder.mkdir()
        table = make(folder, "png", asked.pairs)
        alone = median(decoding(table) for _ in range(asked.rounds))
        for name in asked.only.split(","):
            states = {"before": asked.before.absolute(), "after": HERE}
            found: dict[str, list[tuple[float, float, float]]] = {state: [] for state in states}
            for _ in range(asked.rounds):
                for state, tree in states.items():
                    found[state].append(command(name, tree, table, Path(scratch) / "out"))
            for state, each in found.items():
                cpu, wall, memory = (median(one[i] for one in each) for i in range(3))
                rows.append(
                    [" ".join(COMMANDS[name][: 4 if name == "run" else 3]), state, f"{cpu:.1f}", f"{wall:.1f}", f"{memory:.0f}"]
                )
    machine = f"{processor()}, {os.cpu_count()} cores"
    print(f"{machine}, {asked.pairs:,} PNG pairs of 512x384, {asked.rounds} rounds; decoding: {alone:.1f} s")
    headers = ["command", "state", "CPU s", "wall s", "MB"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
