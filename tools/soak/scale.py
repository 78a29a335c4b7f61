"""CPU time and memory for large inputs, each part in a separate process.

python tools/soak/scale.py [--pairs 20000] [--records 500] [--rows 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from worlds import environment, table

Measured = list[list[Any]]


def peak() -> float:
    """Largest resident memory of this process since `timed` last began, MB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def resident() -> float:
    import psutil

    return psutil.Process().memory_info().rss / (1 << 20)


def timed(what: str, work: Callable[[], Any], rows: Measured) -> Any:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the largest memory so far
    begun = time.process_time()
    result = work()
    rows.append([what, f"{time.process_time() - begun:.2f}", f"{peak():.0f}"])
    return result


def pairs(count: int, folder: Path) -> Measured:
    """Tiny pairs through the whole of a run; memory is looked at while they are scored."""
    import numpy as np
    from miniatures import bmp

    from harness.engine.request import Request
    from harness.engine.run import run
    from harness.engine.scorer import Scorer

    draw = np.random.default_rng(0)
    lines = ["distorted,reference,score,reference_id"]
    each = 100
    for r in range(-(-count // each)):
        still = draw.integers(0, 256, (16, 16, 3), np.uint8)
        (folder / f"r{r}.bmp").write_bytes(bmp(still))
        for d in range(each):
            name = f"r{r}_{d}.bmp"
            moved = np.clip(still + draw.normal(0, 1 + d / 3, still.shape), 0, 255).astype(np.uint8)
            (folder / name).write_bytes(bmp(moved))
            lines.append(f"{name},r{r}.bmp,{100 - d + draw.normal():.4f},r{r}")
    (folder / "table.csv").write_text("\n".join(lines[: count + 1]) + "\n", encoding="utf-8")
    seen: list[tuple[int, float]] = []
    score = Scorer.score

    def watched(scorer: Any, chunks: Any) -> Any:
        done = 0
        for results in score(scorer, chunks):
            yield results
            done += len(results)
            if not seen or done - seen[-1][0] >= count // 20:
                seen.append((done, resident()))

    Scorer.score = watched  # type: ignore[method-assign]
    rows: Measured = []
    asked = Request("psnr", str(folder / "table.csv"), runs=str(folder / "runs"), mlflow_uri="off")
    timed(f"{count:,} pairs of 16x16: read, scored, measured, recorded", lambda: run(asked), rows)
    early = [rss for done, rss in seen if done <= count // 4][-1]
    late = max(rss for done, rss in seen)
    rows.append([f"memory while scoring: at a quarter {early:.0f} MB, largest later {late:.0f} MB", "", f"{late - early:+.1f}"])
    return rows


def records(count: int, folder: Path) -> Measured:
    import record_factory

    for number in range(count):
        record_factory.make(folder / "records", f"model-{number:03d}", noise=0.2 + number / count)
    rows: Measured = []
    for what, more in (("shown", []), ("as a page", ["--html", str(folder / "page")])):
        code = (
            "import time, resource, sys, io, contextlib\nfrom harness.cli.main import main\n"
            "sys.stdout = io.StringIO()\ntry: main(sys.argv[1:])\nexcept SystemExit as end: assert not end.code, end.code\n"
            "use, status = resource.getrusage(resource.RUSAGE_SELF), open('/proc/self/status').read()\n"
            "print(use.ru_utime + use.ru_stime, int(status.split('VmHWM:')[1].split()[0]) / 1024, file=sys.__stdout__)"
        )
        line = ["leaderboard", "toy", "--runs", str(folder / "records"), "--boards", str(folder / "none"), *more]
        done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, check=True, env=environment())
        seconds, memory = map(float, done.stdout.split())
        rows.append([f"{count} records of a dataset {what}, all of the command", f"{seconds:.2f}", f"{memory:.0f}"])
    return rows


def rows_of_labels(count: int, folder: Path) -> Measured:
    """A table of labels without images, as large as no dataset is."""
    import numpy as np

    draw = np.random.default_rng(0)
    reference = np.arange(count) // 200
    label = np.round(draw.normal(3, 1, count), 3)
    score = label + draw.normal(0, 1, count)
    for name, values in (("labels.csv", label), ("scores.csv", score)):
        lines = (f"n{i},{v!r},r{r}" for i, (v, r) in enumerate(zip(values.tolist(), reference.tolist(), strict=True)))
        (folder / name).write_text("name,score,reference_id\n" + "\n".join(lines) + "\n", encoding="utf-8")
    del reference, label, score
    from harness import datasets
    from harness.datasets import splits
    from harness.datasets.table import table_hash
    from harness.files.score_table import read_scores
    from harness.statistics.agreement import agreement

    rows: Measured = []
    data = timed(f"{count:,} rows listed", lambda: datasets.load_dataset(str(folder / "labels.csv")), rows)
    parts = timed("split by reference", lambda: splits.split(data.table, data.card.protocols["by-reference"]), rows)
    timed("hashes of table and split", lambda: (table_hash(data.table), splits.split_hash(data.table, parts)), rows)
    given = timed("as many scores read", lambda: read_scores(folder / "scores.csv"), rows)
    figures = timed(
        "agreement with intervals",
        lambda: agreement(given["score"].to_numpy(float), data.table["score"].to_numpy(float), list(data.table["reference_id"])),
        rows,
    )
    assert figures.references == -(-count // 200)
    return rows


PARTS = {"pairs": pairs, "records": records, "rows": rows_of_labels}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--part", choices=list(PARTS), help="one part alone, as JSON")
    asked = parser.parse_args()
    if asked.part:
        with tempfile.TemporaryDirectory(prefix="harness-scale-") as folder:
            print(json.dumps(PARTS[asked.part](getattr(asked, asked.part), Path(folder))))
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    every: Measured = []
    for part in PARTS:
        words = [sys.executable, __file__, "--part", part, f"--{part}", str(getattr(asked, part))]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment())
        every += json.loads(done.stdout)
    print(table(every, ["what", "CPU s", "peak memory, MB"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
