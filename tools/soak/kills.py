"""Soak test of kills at random moments: a rerun completes, bit for bit equal to an uninterrupted run.

    python tools/soak/kills.py [--trials 200] [--only NAME]... [--seed 0]

A trial is one signal (SIGKILL, SIGTERM, Ctrl-C or SIGHUP) to a command at work. Trials come in chains: up to three signals,
each to the same command started again, then a run to the end that is compared. Most commands run in forks of one process that has
imported everything, which takes seconds off each trial; the scenario `as started by a person` uses new interpreters.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from worlds import (
    Child,
    Scenario,
    Undisturbed,
    damage,
    differences,
    forked,
    fresh,
    little_demo,
    results,
    scratch,
    spread,
    table,
    undisturbed,
    warm,
)

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CHAIN = 3


def scenarios(base: Path, epochs: int = 25) -> list[Scenario]:
    """The commands that are disturbed, over worlds made below `base`."""
    from small import write_network, write_table

    data, cards = write_table(base / "däta"), write_network(base / "cards")
    common = ["--cards", str(cards), "--runs", "runs", "--quiet"]
    off = ["--mlflow-uri", "off"]
    small = ["run", "small", "--dataset", str(data), "--protocol", "parts", *common]
    longer = ["--set", f"recipe.epochs={epochs}"]
    run_files = ["runs/table/*/scores.csv", "runs/table/*/pictures.csv", "runs/table/*/record.json"]
    trained = [*run_files, "runs/table/*/weights.safetensors", "runs/table/*/log.jsonl"]
    large = write_table(base / "larger", references=4, levels=5, height=480, width=640)
    return [
        Scenario("training and testing", [*small, *longer, *off], essential=trained),
        Scenario(
            "scoring",
            [
                "run",
                "ssim",
                "--dataset",
                str(large),
                "--set",
                "protocol.crops=grid",
                "--set",
                "protocol.crop_size=64",
                *common,
                *off,
            ],
            essential=run_files,
        ),
        Scenario(
            "seeded repeats",
            ["run", "psnr", "--dataset", str(data), "--protocol", "by-reference", *common, *off],
            essential=run_files,
        ),
        mirrored(base, [*small, "--set", "recipe.epochs=8"], trained),
        submission(base),
        boards(base),
        boards_anew(base),
        verifying(base, [*small, *longer, *off]),
        demonstration(base),
        ensembling(base),
        Scenario("as started by a person", [*small, *longer, *off], essential=trained, start=fresh),
    ]


def mirrored(base: Path, words: list[str], essential: list[str]) -> Scenario:
    """Training with its mirror in MLflow's database, whose tables are made once: that takes longer than the training."""

    def prepare(folder: Path) -> None:
        template = base / "mlflow.db"
        if not template.is_file():
            child = forked(["run", "psnr", *words[2:4], "--limit", "3", "--runs", "template", "--quiet"], base)
            if child.wait(300) != 0:
                raise RuntimeError(child.output.read_text(encoding="utf-8"))
            shutil.copyfile(base / "template" / "mlflow.db", template)
        (folder / "runs").mkdir()
        shutil.copyfile(template, folder / "runs" / "mlflow.db")

    def check(folder: Path) -> list[str]:
        """One finished MLflow run of this record with its figures, and none that pretends to run."""
        (path,) = folder.rglob("record.json")
        record = json.loads(path.read_text(encoding="utf-8"))
        keyed = "select run_uuid from tags where key = 'harness.key' and value = ?"
        asked = f"select run_uuid, status from runs where run_uuid in ({keyed})"
        with contextlib.closing(sqlite3.connect(folder / "runs" / "mlflow.db")) as database:
            mine = database.execute(asked, [record["key"]]).fetchall()
            others = database.execute("select count(*) from runs where status = 'RUNNING'").fetchone()[0]
            reported = database.execute(
                "select value from latest_metrics where run_uuid = ? and key = 'test.srcc'", [mine[0][0]] if mine else [""]
            ).fetchall()
            epochs = database.execute(
                "select count(*), count(distinct step) from metrics where run_uuid = ? and key = 'epoch.loss'",
                [mine[0][0]] if mine else [""],
            ).fetchone()
        problems = [] if [status for _, status in mine] == ["FINISHED"] else [f"MLflow: {mine}"]
        problems += [f"MLflow: {others} runs still RUNNING"] if others else []
        problems += [] if reported == [(record["metrics"]["test"]["srcc"],)] else [f"MLflow: test.srcc {reported}"]
        wanted = record["training"]["epochs"]
        return problems + ([] if epochs == (wanted, wanted) else [f"MLflow: {epochs} losses of {wanted} epochs"])

    return Scenario("MLflow logging", words, prepare, essential, check)


def submission(base: Path) -> Scenario:
    """Writing a zip from a finished run, of which the zip is a pure function; scoring is disturbed elsewhere."""
    from challenge import write_tree

    tree = base / "challenge"
    words = ["submit", "psnr", "--challenge", "ntire2022-fr", "--root", str(tree), "--description", "x"]
    words += ["--runs", "runs", "--quiet", "--mlflow-uri", "off", "--out"]

    def prepare(folder: Path) -> None:
        if not (base / "submitted").is_dir():
            write_tree(tree)
            (base / "submitted").mkdir()
            child = forked([*words, "first.zip"], base / "submitted")
            if child.wait(300) != 0:
                raise RuntimeError(child.output.read_text(encoding="utf-8"))
            shutil.rmtree(base / "submitted" / "runs" / "submissions")
        shutil.copytree(base / "submitted" / "runs", folder / "runs")

    return Scenario(
        "submission writing", [*words, "hand in.zip"], prepare, ["hand in.zip", "runs/submissions/*", "runs/*/psnr/*/scores.csv"]
    )


def boards(base: Path) -> Scenario:
    import record_factory

    folders = [record_factory.make(base / "records", f"model-{n:03d}", noise=0.2 + n / 40)[0] for n in range(60)]
    words = ["leaderboard", "add", "--boards", "boards", *map(str, folders)]
    return Scenario(
        "leaderboard writing", words, essential=["boards/*.md", "boards/*.csv", "boards/index.html", "boards/records/*"]
    )


def boards_anew(base: Path) -> Scenario:
    """Tables made again from their records, which stay as they are."""
    import record_factory

    def prepare(folder: Path) -> None:
        if not (base / "kept").is_dir():
            made = [record_factory.make(base / "again", f"model-{n:03d}", noise=0.2 + n / 40)[0] for n in range(60)]
            (base / "kept").mkdir()
            child = forked(["leaderboard", "add", "--boards", "boards", *map(str, made)], base / "kept")
            if child.wait(300) != 0:
                raise RuntimeError(child.output.read_text(encoding="utf-8"))
        shutil.copytree(base / "kept" / "boards", folder / "boards")

    essential = ["boards/*.md", "boards/*.csv", "boards/index.html", "boards/records/*"]
    return Scenario("leaderboard written again", ["leaderboard", "write", "--boards", "boards"], prepare, essential)


def verifying(base: Path, words: list[str]) -> Scenario:
    """A trained record's work done again, in a folder that goes with it: the record and its scores stay as they are."""

    def prepare(folder: Path) -> None:
        if not (base / "recorded").is_dir():
            (base / "recorded").mkdir()
            child = forked(words, base / "recorded")
            if child.wait(300) != 0:
                raise RuntimeError(child.output.read_text(encoding="utf-8"))
        (found,) = base.glob("recorded/runs/table/small/*")
        shutil.copytree(found, folder / "record")

    line = ["verify", "record", "--root", words[3].rpartition("/")[0], "--cards", words[words.index("--cards") + 1], "--quiet"]
    return Scenario("verifying a record", line, prepare, ["record/*"])


def demonstration(base: Path) -> Scenario:
    """The first run on the demonstration, which makes its images; two references and six kinds of distortion of it."""
    words = ["run", "psnr", "--dataset", "little-demo", "--root", "made", "--cards", str(little_demo(base / "demo cards"))]
    essential = [
        "made/*/distorted/*.bmp",
        "made/*/references/*.bmp",
        "made/*/manifest.json",
        "runs/little-demo/psnr/*/scores.csv",
    ]
    return Scenario(
        "making the demonstration's images", [*words, "--runs", "runs", "--mlflow-uri", "off", "--quiet"], essential=essential
    )


def ensembling(base: Path) -> Scenario:
    """A search over two score files, in Ray: real processes, because Ray starts more of them."""
    from small import write_scores

    source = write_scores(base / "ensemble")
    words = ["ensemble", str(source / "quick.csv"), str(source / "slow.csv"), "--lower-is-better", "slow"]
    words += ["--dataset", str(source / "people.csv"), "--protocol", "parts", "--trials", "500"]
    words += ["--out", "card.toml", "--runs", "runs", "--mlflow-uri", "off", "--quiet"]
    return Scenario("ensembling", words, essential=["card.toml"], start=fresh, patience=90.0)


@dataclass
class Tally:
    """What the trials of one scenario met."""

    signals: Counter[str] = field(default_factory=Counter)
    chains: int = 0
    too_late: int = 0
    """Signals that found the command finished: drawn again, and no trials."""
    losses: list[str] = field(default_factory=list)


def soak(scenario: Scenario, trials: int, base: Path, draw: random.Random, times: int = 2) -> tuple[Undisturbed, Tally]:
    """`trials` signals to a scenario's command, spread over its whole time."""
    whole = undisturbed(scenario, base, times)
    tally = Tally()
    moments = spread(draw, trials)
    number = 0
    while moments:
        folder = base / f"chain-{number}"
        number += 1
        folder.mkdir(parents=True)
        scenario.prepare(folder)
        for _ in range(min(draw.randint(1, CHAIN), len(moments))):
            moment = moments.pop()
            wanted = SIGNALS[sum(tally.signals.values()) % len(SIGNALS)]
            said = disturbed(scenario, folder, whole.seconds * moment, wanted)
            if said is None:
                tally.too_late += 1
                moments.insert(0, draw.random() * 0.9)
                break
            tally.signals[wanted.name] += 1
            tally.losses += [f"{scenario.name}, chain {number}, {wanted.name} at {moment:.2f}: {problem}" for problem in said]
        tally.losses += [f"{scenario.name}, chain {number}: {problem}" for problem in finished(scenario, folder, whole)]
        tally.chains += 1
        shutil.rmtree(folder)
        if tally.losses:
            print("\n".join(tally.losses[-3:]), file=sys.stderr)
    return whole, tally


def disturbed(scenario: Scenario, folder: Path, seconds: float, wanted: signal.Signals) -> list[str] | None:
    """Start the command, send it a signal after `seconds`, and look at what is left; None when it had ended before."""
    child = scenario.start(scenario.words, folder)
    child.wait(seconds)
    if child.poll() is not None:
        return None
    child.send(wanted)
    status = child.wait()
    problems = []
    if status is None:
        problems.append("did not stop")
        child.send(signal.SIGKILL)
        child.wait()
    elif status not in (0, 129, 130, 143, -wanted):
        problems.append(f"ended with status {status}: {_last(child)}")
    if left := child.relatives(scenario.patience):
        problems.append(f"{len(left)} processes compute on")
    return problems + damage(folder)


def finished(scenario: Scenario, folder: Path, whole: Undisturbed) -> list[str]:
    """Run the command to its end and compare what it left with the undisturbed run's."""
    child = scenario.start(scenario.words, folder)
    status = child.wait(10 * max(60.0, whole.seconds))
    if status is None:
        child.send(signal.SIGKILL)
        child.wait()
    if status != 0:
        return [f"the rerun {'hangs' if status is None else f'ends with status {status}'}: {_last(child)}"]
    said = child.output.read_text(encoding="utf-8")
    # The file holds what the killed ones said, too.
    shown = said.find("Traceback")
    problems = (
        [f"a traceback was shown: {said[max(0, shown - 300) : shown + 1500]}"] if shown >= 0 and scenario.start is forked else []
    )
    problems += [f"left over: {path.relative_to(folder)}" for path in folder.rglob("*.tmp")]
    problems += damage(folder) + scenario.check(folder)
    return problems + differences(whole.results, results(folder), whole.volatile)


def _last(child: Child) -> str:
    return child.output.read_text(encoding="utf-8", errors="replace")[-600:]


def progress_kills(base: Path, count: int, draw: random.Random) -> tuple[Undisturbed, Tally]:
    """`count` SIGKILLs to new interpreters, each after the run has come a further part of its way through training and test.

    Where the run stands is read from its own files: lines of log.jsonl, then lines of scores.csv.
    """
    from small import write_network, write_table

    data, cards = write_table(base / "data"), write_network(base / "cards")
    words = ["run", "small", "--dataset", str(data), "--protocol", "parts", "--cards", str(cards), "--runs", "runs"]
    words += ["--mlflow-uri", "off", "--quiet", "--set", "recipe.epochs=40", "--batch", "1"]
    essential = [f"runs/table/small/*/{name}" for name in ("scores.csv", "pictures.csv", "weights.safetensors", "log.jsonl")]
    scenario = Scenario("ten SIGKILLs over train and test", words, essential=essential, start=fresh)
    whole = undisturbed(scenario, base)
    goals = sorted(round(moment * (40 + 18)) for moment in spread(draw, count))
    folder, tally = base / "killed", Tally()
    folder.mkdir()
    for goal in goals:
        child = fresh(words, folder)
        while child.poll() is None and _progress(folder) < goal:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.02)
        if child.poll() is not None:
            tally.too_late += 1
            continue
        child.send(signal.SIGKILL)
        child.wait()
        tally.signals["SIGKILL"] += 1
        tally.losses += [f"kill at {goal} of 58: {problem}" for problem in damage(folder)]
    tally.losses += finished(scenario, folder, whole)
    tally.chains = 1
    return whole, tally


def _progress(folder: Path) -> int:
    lines = 0
    for name in ("log.jsonl", "scores.csv"):
        for path in folder.glob(f"runs/*/*/*/{name}"):
            with contextlib.suppress(OSError):
                lines += max(0, path.read_bytes().count(b"\n") - (name == "scores.csv"))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200, help="signals in all")
    parser.add_argument("--only", action="append", help="a scenario's name; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="shorter commands, their essential files compared alone")
    asked = parser.parse_args()
    warm()
    rows, losses = [], []
    with scratch("harness-kills-") as base:
        chosen = [s for s in scenarios(base, 5 if asked.quick else 25) if not asked.only or s.name in asked.only]
        # New interpreters cost seconds each: fewer of them.
        shares = [0.2 if s.start is fresh else 1.0 for s in chosen]
        for scenario, share in zip(chosen, shares, strict=True):
            count = max(1, round(asked.trials * share / sum(shares)))
            begun = time.monotonic()
            whole, tally = soak(
                scenario, count, base / scenario.name, random.Random(f"{asked.seed}|{scenario.name}"), 2 - asked.quick
            )
            losses += tally.losses
            reported = ", ".join(f"{n} {name}" for name, n in sorted(tally.signals.items()))
            rows.append(
                [scenario.name, f"{whole.seconds:.1f} s", sum(tally.signals.values()), reported, tally.chains, len(tally.losses)]
            )
            print(f"{scenario.name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        if not asked.only:
            whole, tally = progress_kills(base / "progress", min(10, max(1, asked.trials // 20)), random.Random(asked.seed))
            losses += tally.losses
            count = sum(tally.signals.values())
            rows.append(
                [
                    "spread over train and test by progress",
                    f"{whole.seconds:.1f} s",
                    count,
                    f"{count} SIGKILL",
                    1,
                    len(tally.losses),
                ]
            )
    print(table(rows, ["command", "undisturbed", "signals", "which", "reruns compared", "losses"]))
    print(f"\n{sum(int(row[2]) for row in rows)} signals, {len(losses)} losses")
    print("\n".join(losses), file=sys.stderr)
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
