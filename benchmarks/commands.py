"""Whole commands, two states of the harness side by side.

    git worktree add /tmp/before COMMIT
    python benchmarks/commands.py --before /tmp/before [--pairs 1000] [--rounds 3] [--only run,score,...|all]

`run` (psnr ssim ms-ssim) and `score` (psnr ssim) work on PNG pairs of 512x384 over 25 references; `take` reads 700,000 rows by
--scores; `compare` compares two models on 232,000 rows of 200 references and 40 kinds; `train` trains the demonstration's network
and scores it, `workers` does so on two workers for 120 steps; `found` finds a finished run of that network; `mlflow` runs PSNR on
50 pairs with MLflow, `plain` without; `small` is refused because its images are too small; `board` shows 2,000 records;
`boards` shows the committed records, `doctor` and `models` list what there is. `two` compares two small score files.

Each command runs in both states by turns. What it needs is made before, by the same state. A figure is the median over the rounds
of the processor time of the whole command and the processes it waits for (start of Python, records and reports included), next to
it wall time, the greatest memory of one process, and for `mlflow`, `plain` and `workers` the seconds until scores were in a
file. An earlier state may do less: `score` once scored the first model alone. `decoding` is the processor time of reading,
hashing and decoding each image once, in as many threads as a run has.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import cv2
import numpy as np
from tabulate import tabulate
from throughput import make, processor

from harness.imaging import decode

HERE = Path(__file__).parents[1]
RUN = "--runs {out} --mlflow-uri off"
SHORT = "--set recipe.epochs=1 --set recipe.steps_per_epoch=120"
COMMANDS = {
    "run": f"run psnr ssim ms-ssim --dataset {{images}}/table.csv --protocol full {RUN}",
    "score": "score psnr ssim --pairs {images}/table.csv --out {out}/scores.csv",
    "train": f"run ahiq-tiny --dataset demo {RUN}",
    "workers": f"run ahiq-tiny --dataset demo --workers 2 {SHORT} {RUN}",
    "found": f"run ahiq-tiny --dataset demo --set recipe.epochs=1 --set recipe.steps_per_epoch=2 {RUN}",
    "mlflow": "run psnr --dataset {few}/table.csv --protocol full --runs {out}",
    "plain": f"run psnr --dataset {{few}}/table.csv --protocol full {RUN}",
    "small": f"run ms-ssim --dataset {{few}}/table.csv --protocol full {RUN}",
    "take": f"run --scores {{take}}/a.csv --name a --dataset rows --cards {{take}} {RUN}",
    "compare": "compare {compare}/a.csv {compare}/b.csv --dataset rows --cards {compare}",
    "two": "compare {two}/a.csv {two}/b.csv --dataset rows --cards {two}",
    "board": "leaderboard demo --runs {out} --boards {nothing}",
    "boards": "leaderboard demo --runs {nothing} --boards {state}/leaderboards",
    "doctor": "doctor",
    "models": "list models",
}
PREPARED = {"found": COMMANDS["found"], "board": f"run psnr ssim --dataset demo {RUN}"}
"""Commands that make what others then find."""
MODELS = 2000
ROWS = {"take": 700_000, "compare": 232_000, "two": 3_000}
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


def multiply(runs: Path) -> None:
    """Copy the records in a folder of runs until there are MODELS of them, each of a model of its own."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(runs.rglob("record.json"))]
    for number in range(len(documents), MODELS):
        document = json.loads(json.dumps(documents[number % len(documents)]))
        # Wherever a state of the harness keeps the model's name.
        name = f"m{number:04d}"
        for place in (document, document["cards"]["model"], document.get("identity", {}).get("card", {})):
            place.update({key: name for key in ("model", "name") if isinstance(place.get(key), str)})
        folder = runs / document["dataset"] / name / document["key"]
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(document), encoding="utf-8")


def decoding(table: Path) -> float:
    """Processor seconds to decode every image once."""
    paths = sorted(table.parent.glob("*.png"))
    begun = time.process_time()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda path: decode.read_hashed(path).sha256, paths):
            pass
    return time.process_time() - begun


class Used(NamedTuple):
    """What a command took."""

    cpu: float
    """Processor seconds."""
    wall: float
    """Seconds."""
    memory: float
    """The greatest of one process, MB."""
    begun: float
    """Seconds until scores were in a file; NaN where there are none."""


def command(name: str, state: Path, places: dict[str, Path]) -> Used:
    """Run a command in one state of the harness."""
    places["state"] = state
    out = places["out"] = places["scratch"] / f"{name}-{state.name}"
    if name in PREPARED and not out.exists():
        out.mkdir()
        execute(PREPARED[name], state, places)
        if name == "board":
            multiply(out)
    elif name not in PREPARED:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
    return execute(COMMANDS[name], state, places, status=2 if name == "small" else 0)


def execute(line: str, state: Path, places: dict[str, Path], status: int = 0) -> Used:
    """Run one command line of the harness."""
    words = [word.format(**places) for word in line.split()]
    # The entry point has had two names.
    module = tomllib.loads((state / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]["harness"]
    start = f"import sys; from {module.partition(':')[0]} import main; sys.exit(main())"
    caches = {"HARNESS_CACHE": "cache", "PYTHONPYCACHEPREFIX": "compiled"}
    own = {name: str(places["scratch"] / f"{folder}-{state.name}") for name, folder in caches.items()}
    # An installed harness is compiled once, too.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", start, *words, *(["--quiet"] if words[0] in ("run", "score") else [])],
        env={**inherited, **own, "PYTHONPATH": str(state)},
        cwd=places["out"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    first = math.nan
    # Without reaping the process, whose use of the processor is read below.
    look = os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
    while words[0] == "run" and math.isnan(first) and os.waitid(*look) is None:
        first = time.monotonic() - begun if any(places["out"].glob("*/*/*/scores.csv")) else math.nan
        time.sleep(0.01)
    told = process.stderr.read()
    _, ended, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(ended) != status:
        raise SystemExit(f"{' '.join(words)} ended with {os.waitstatus_to_exitcode(ended)}: {told.decode()[-500:]}")
    return Used(used.ru_utime + used.ru_stime, time.monotonic() - begun, used.ru_maxrss / 1024, first)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the earlier state")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="run,score")
    asked = parser.parse_args()
    wanted = list(COMMANDS) if asked.only == "all" else asked.only.split(",")
    rows, notes = [], [f"{processor()}, {os.cpu_count()} cores, {asked.rounds} rounds"]
    with tempfile.TemporaryDirectory() as scratch:
        names = ("images", "few", "nothing", "scratch", *ROWS)
        places = {name: Path(scratch) / name for name in names}
        for name in ("nothing", "scratch"):
            places[name].mkdir()
        if {"run", "score"} & set(wanted):
            places["images"].mkdir()
            table = make(places["images"], "png", asked.pairs)
            alone = median(decoding(table) for _ in range(asked.rounds))
            notes.append(f"{asked.pairs:,} PNG pairs of 512x384, decoding: {alone:.1f} s")
        if {"mlflow", "plain", "small"} & set(wanted):
            make_small(places["few"])
        for name in set(wanted) & set(ROWS):
            make_rows(places[name], ROWS[name])
        states = {"before": asked.before.absolute(), "after": HERE}
        for name in wanted:
            found: dict[str, list[Used]] = {state: [] for state in states}
            # The first of each is not counted: it makes caches and reads files that the others find in memory.
            for turn in range(asked.rounds + 1):
                for state, tree in states.items():
                    once = command(name, tree, places)
                    found[state] += [once] if turn else []
            for state, each in found.items():
                cpu, wall, memory, begun = (median(one[i] for one in each) for i in range(4))
                scored = f"{begun:.2f}" if name in ("mlflow", "plain", "workers") else ""
                rows.append([name, state, f"{cpu:.2f}", f"{wall:.2f}", f"{memory:.0f}", scored])
                print(*rows[-1], file=sys.stderr, flush=True)
    print("; ".join(notes))
    headers = ["command", "state", "CPU s", "wall s", "MB", "scores after s"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
