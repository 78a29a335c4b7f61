"""Soak test of MLflow's database: killed during its creation, incomplete, and created by several runs at once.

    python tools/soak/mirror.py [--kills 20] [--half-made 10] [--rounds 4] [--seed 0]

Whatever happens, after one more command every finished record is one finished MLflow run with the record's figures, none
pretends to run, and nothing is left over but what was set aside by name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from worlds import Child, damage, environment, fresh, scratch, spread, table

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
AT_ONCE = 5
MAKE = "import sys; from mlflow.tracking import MlflowClient; MlflowClient(tracking_uri=sys.argv[1]).search_experiments()"


def wrong(folder: Path) -> list[str]:
    """What of the finished records below `folder` the database does not show, or shows twice or otherwise."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("runs/table/*/*/record.json")]
    keyed = "select r.run_uuid, r.status from runs r join tags t using (run_uuid) where t.key = 'harness.key' and t.value = ?"
    figure = "select value from latest_metrics where run_uuid = ? and key = 'test.srcc'"
    found = [] if records else ["no record"]
    with contextlib.closing(sqlite3.connect(folder / "runs" / "mlflow.db")) as database:
        for record in records:
            mine = database.execute(keyed, [record["key"]]).fetchall()
            if [status for _, status in mine] != ["FINISHED"]:
                found.append(f"{record['model']}: MLflow has {mine}")
            elif database.execute(figure, [mine[0][0]]).fetchall() != [(record["metrics"]["test"]["srcc"],)]:
                found.append(f"{record['model']}: another SRCC in MLflow")
        found += [f"{row} pretends to run" for row in database.execute("select run_uuid from runs where status = 'RUNNING'")]
    return found + [f"left over: {path.name}" for path in folder.rglob("*.making*")] + damage(folder)


def completed(words: list[str], folder: Path) -> list[str]:
    """Run a command to its end; what is wrong with how it ended."""
    (folder / "output.txt").unlink(missing_ok=True)
    return unwell(fresh(words, folder))


def unwell(child: Child) -> list[str]:
    """What is wrong with how a command ends that should end well, and without a warning."""
    status, text = child.wait(300), child.output.read_text(encoding="utf-8")
    reported = [line for line in text.splitlines() if "warning" in line or "Traceback" in line] or [text[-300:]]
    return [] if status == 0 and "warning" not in text and "Traceback" not in text else [f"status {status}: {reported}"]


def begun(child: Child, runs: Path) -> bool:
    """Wait until the database is being made; False where the command ended before."""
    while child.poll() is None:
        if any(runs.glob("mlflow.db*")):
            return True
        time.sleep(0.002)
    return False


def kills(base: Path, words: list[str], count: int, draw: random.Random) -> tuple[int, list[str]]:
    """Signals to a first run while it makes the database: the next command is another one, then the same again."""
    folder = base / "undisturbed"
    folder.mkdir()
    child = fresh(words, folder)
    begun(child, folder / "runs")
    first = time.monotonic()
    while not (folder / "runs" / "mlflow.db").exists():
        time.sleep(0.002)
    seconds, losses = time.monotonic() - first, wrong(folder) if child.wait(180) == 0 else ["the undisturbed run failed"]
    print(f"making the database takes {seconds:.1f} s", file=sys.stderr, flush=True)
    hit = 0
    for number, moment in enumerate(spread(draw, count)):
        folder = base / f"kill-{number}"
        folder.mkdir()
        child = fresh(words, folder)
        begun(child, folder / "runs")
        time.sleep(moment * seconds)
        hit += not (folder / "runs" / "mlflow.db").exists()
        child.send(SIGNALS[number % 3])
        problems = [] if child.wait() is not None else ["did not stop"]
        problems += completed(["run", "ssim", *words[2:]], folder) + wrong(folder)
        problems += completed(words, folder) + wrong(folder)
        losses += [f"kill {number} at {moment:.2f}: {problem}" for problem in problems]
    print(f"{hit} of {count} signals came before the database was in its place", file=sys.stderr, flush=True)
    return count, losses


def half_made(base: Path, words: list[str], count: int, draw: random.Random) -> tuple[int, list[str]]:
    """Databases that MLflow itself was making when it was killed, as its own page leaves them."""
    losses: list[str] = []
    for number, moment in enumerate(spread(draw, count)):
        folder = base / f"half-{number}"
        (folder / "runs").mkdir(parents=True)
        path = folder / "runs" / "mlflow.db"
        command = [sys.executable, "-c", MAKE, f"sqlite:///{path}"]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not path.exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moment)
        process.kill()
        process.wait()
        problems = completed(words, folder) + wrong(folder)
        losses += [f"half-made {number} at {moment:.2f} s: {problem}" for problem in problems]
    return count, losses


def at_once(base: Path, words: list[str], rounds: int) -> tuple[int, list[str]]:
    """Five first runs over one runs folder, each of another model or seed; then one more command."""
    losses: list[str] = []
    for number in range(rounds):
        folder = base / f"round-{number}"
        (folder / "runs").mkdir(parents=True)
        children = []
        for other in range(AT_ONCE):
            (folder / f"{other}").mkdir()
            mine = [str(folder / "runs") if word == "runs" else word for word in words]
            children.append(fresh([*mine, "--limit", str(4 + other)], folder / f"{other}"))
        for other, child in enumerate(children):
            losses += [f"round {number}, run {other}: {problem}" for problem in unwell(child)]
        there = len(list(folder.glob("runs/table/*/*/record.json")))
        losses += [] if there == AT_ONCE else [f"round {number}: {there} records"]
        losses += [f"round {number}: {problem}" for problem in wrong(folder)]
        losses += [f"round {number}, afterwards: {p}" for p in completed(["run", "ssim", *words[2:]], folder) + wrong(folder)]
    return rounds * AT_ONCE, losses


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--half-made", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=4, help=f"of {AT_ONCE} first runs at once")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    from small import write_table

    with scratch("harness-mirror-") as base:
        words = ["run", "psnr", "--dataset", str(write_table(base / "data")), "--protocol", "parts", "--runs", "runs"]
        draw = random.Random(asked.seed)
        tried = {
            "MLflow's database, killed while it is made": kills(base, words, asked.kills, draw),
            "MLflow's database, found half-made": half_made(base, words, asked.half_made, draw),
            "five first runs at once": at_once(base, words, asked.rounds),
        }
    losses = [loss for _, found in tried.values() for loss in found]
    print(table([[name, count, len(found)] for name, (count, found) in tried.items()], ["fault", "trials", "losses"]))
    print("\n".join(losses), file=sys.stderr)
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
