"""Soak test of failing disks and permissions: a clear error, earlier files intact, and a rerun that finishes.

    python tools/soak/faults.py [--trials 100] [--only NAME]...

Full disks are small tmpfs mounts, and read-only folders are file systems mounted so; both need root on Linux. Without it the
same happens through a limit on the size of files (RLIMIT_FSIZE) and mode bits.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from worlds import Child, Scenario, damage, differences, forked, fresh, little_demo, results, scratch, table, undisturbed, warm


def mounted(folder: Path, kilobytes: int) -> bool:
    """Mount a tmpfs of that size at `folder`; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    return subprocess.run(words, capture_output=True).returncode == 0


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """`folder` as a disk of its own of that size, while inside; yields whether it is one."""
    there = mounted(folder, kilobytes)
    try:
        yield there
    finally:
        if there:
            subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def said(child: Child, status: int | None, *wanted: str) -> list[str]:
    """What is wrong with how a command ended: it should end with status 1 or 2 and say why in one message."""
    text = child.output.read_text(encoding="utf-8")
    problems = [] if status in (1, 2) else [f"status {status}: {text[-400:]}"]
    problems += ["a traceback was shown"] if "Traceback" in text else []
    problems += [f"called a defect: {text[-400:]}"] if "this is a bug" in text else []
    return problems + ([] if any(word in text for word in wanted) else [f"does not say {' or '.join(wanted)}: {text[-400:]}"])


def no_space(scenario: Scenario, base: Path, draw: random.Random, need: int) -> list[str]:
    """The disk that the runs lie on is full at some moment; with space again the same command finishes."""
    whole = undisturbed_once(scenario, base)
    folder = base / f"full-{draw.random()}"
    folder.mkdir()
    runs = folder / "runs"
    kilobytes = draw.randint(4, max(8, int(need * 0.95)))
    with small_disk(runs, kilobytes) as real:
        child = forked(scenario.words, folder) if real else limited(scenario, folder, kilobytes << 10)
        status = child.wait(600)
        problems = said(child, status, "no space left", "File too large")
        problems += damage(folder)
        if real:
            kept = base / f"kept-{draw.random()}"
            shutil.copytree(runs, kept)
    if real:
        shutil.rmtree(runs)
        shutil.move(kept, runs)
    return problems + again(scenario, folder, whole)


def limited(scenario: Scenario, folder: Path, most: int) -> Child:
    """The command with no file allowed beyond `most` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(most, 20 << 10), before[1]))
    try:
        return forked(scenario.words, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


_WHOLE: dict[str, object] = {}


def undisturbed_once(scenario: Scenario, base: Path):
    if scenario.name not in _WHOLE:
        _WHOLE[scenario.name] = undisturbed(scenario, base / f"undisturbed {scenario.name}")
    return _WHOLE[scenario.name]


def again(scenario: Scenario, folder: Path, whole) -> list[str]:
    """The same command, now undisturbed, against the undisturbed run."""
    (folder / "output.txt").unlink(missing_ok=True)
    child = forked(scenario.words, folder)
    status = child.wait(600)
    if status != 0:
        return [f"the rerun ends with status {status}: {child.output.read_text(encoding='utf-8')[-400:]}"]
    left = [f"left over: {path.name}" for path in folder.rglob("*.tmp")]
    return left + damage(folder) + differences(whole.results, results(folder), whole.volatile)


def read_only(scenario: Scenario, base: Path, draw: random.Random) -> list[str]:
    """A finished run in a folder that then becomes read-only: another run says so, and the first stays as it was."""
    whole = undisturbed_once(scenario, base)
    folder = base / f"read-only-{draw.random()}"
    folder.mkdir()
    runs = folder / "runs"
    with small_disk(runs, 64 << 10) as real:
        problems = [] if forked(scenario.words, folder).wait(600) == 0 else ["the first run failed"]
        if not real and (sys.platform == "win32" or os.geteuid() == 0):
            return ["root without mounts: cannot be tried here"]
        close = ["mount", "-o", "remount,ro", str(runs)] if real else ["chmod", "-R", "a-w", str(runs)]
        subprocess.run(close, check=True, capture_output=True)
        (folder / "output.txt").unlink()
        child = forked([*scenario.words, "--seed", "1"], folder)
        problems += said(child, child.wait(600), "read-only", "no permission")
        (folder / "output.txt").unlink()
        found = forked(scenario.words, folder)
        problems += (
            [] if found.wait(600) == 0 else [f"a finished run is not found: {found.output.read_text(encoding='utf-8')[-300:]}"]
        )
        problems += differences(whole.results, results(folder), whole.volatile)
        if not real:
            subprocess.run(["chmod", "-R", "u+w", str(runs)], check=True)
    return problems


def vanishing(scenario: Scenario, base: Path, draw: random.Random) -> list[str]:
    """The run's folder is removed at a random moment."""
    whole = undisturbed_once(scenario, base)
    folder = base / f"gone-{draw.random()}"
    folder.mkdir()
    while True:
        child = forked(scenario.words, folder)
        child.wait(whole.seconds * draw.random())
        while child.poll() is None and not list(folder.glob("runs/*/*/*/state.json")):
            time.sleep(0.005)
        if child.poll() is None:
            break
        shutil.rmtree(folder / "runs")  # it had finished: there is nothing to take away from under it
    with contextlib.suppress(OSError):
        shutil.rmtree(folder / "runs")
    status = child.wait(600)
    # Removed after its last look, a run may still end well, its files being written by then.
    problems = [] if status == 0 else said(child, status, "gone", "cannot be written", "no such", "No such file")
    # What a finished run no longer needs may be gone for good.
    return problems + [problem for problem in again(scenario, folder, whole) if not problem.endswith("state.json: missing")]


def two_at_once(scenario: Scenario, base: Path, draw: random.Random) -> list[str]:
    """Two processes start the same run; one works, and the other waits for it or, when it is killed, takes over."""
    whole = undisturbed_once(scenario, base)
    folder = base / f"two-{draw.random()}"
    folder.mkdir()
    first = forked(scenario.words, folder)
    first.wait(whole.seconds * draw.random() * 0.7)
    (folder / "second").mkdir()
    words = [str(folder / "runs") if word == "runs" else word for word in scenario.words if word != "--quiet"]
    second = forked(words, folder / "second")
    second.wait(whole.seconds * draw.random())
    killed = first.poll() is None and draw.random() < 0.5
    if killed:
        first.send(signal.SIGKILL)
    problems = [] if first.wait(600) == (-signal.SIGKILL if killed else 0) else [f"the first ended with {first.status}"]
    problems += [] if second.wait(600) == 0 else [f"the second: {second.output.read_text(encoding='utf-8')[-400:]}"]
    text = second.output.read_text(encoding="utf-8")
    waited, took = "works on this run; waiting for it" in text, "recorded in" in text
    problems += [f"it waited and did not say for whom: {text[-300:]}"] if waited and f"process {first.pid} on" not in text else []
    problems += ["both did the work"] if took and not killed and first.status == 0 and not waited and "found" in text else []
    shutil.rmtree(folder / "second")
    return problems + differences(whole.results, results(folder), whole.volatile) + damage(folder)


def stopped_and_continued(scenario: Scenario, base: Path, draw: random.Random) -> list[str]:
    """SIGSTOP and, after a while, SIGCONT, three times at random moments: as a laptop that sleeps, or Ctrl-Z and fg."""
    whole = undisturbed_once(scenario, base)
    folder = base / f"stopped-{draw.random()}"
    folder.mkdir()
    child = forked(scenario.words, folder)
    for _ in range(3):
        child.wait(whole.seconds * draw.random() * 0.3)
        if child.poll() is None:
            child.send(signal.SIGSTOP)
            time.sleep(draw.random())
            child.send(signal.SIGCONT)
    status = child.wait(600)
    problems = [] if status == 0 else [f"status {status}: {child.output.read_text(encoding='utf-8')[-400:]}"]
    return problems + damage(folder) + differences(whole.results, results(folder), whole.volatile)


def clock_set_back(scenario: Scenario, base: Path, draw: random.Random) -> list[str]:
    """The clock goes back by a day while the command works, is killed, and goes back by another day before the same command."""
    whole = undisturbed_once(scenario, base)
    folder = base / f"clock-{draw.random()}"
    folder.mkdir()
    child = forked(scenario.words, folder, lambda: earlier(0.0, draw.random() * whole.seconds))
    child.wait(whole.seconds * (0.3 + draw.random()))
    if child.poll() is None:
        child.send(signal.SIGKILL)
        child.wait()
    elif child.status != 0:
        return [f"status {child.status}: {child.output.read_text(encoding='utf-8')[-400:]}"]
    (folder / "output.txt").unlink(missing_ok=True)
    child = forked(scenario.words, folder, lambda: earlier(86400.0, draw.random() * whole.seconds))
    status = child.wait(600)
    problems = [] if status == 0 else [f"status {status}: {child.output.read_text(encoding='utf-8')[-400:]}"]
    problems += [f"left over: {path.name}" for path in folder.rglob("*.tmp")]
    return problems + damage(folder) + differences(whole.results, results(folder), whole.volatile)


def earlier(at_once: float, after: float) -> None:
    """In a fork: `time.time` is `at_once` seconds behind, and after `after` seconds a day more."""
    true, begun = time.time, time.monotonic()
    time.time = lambda: true() - at_once - (86400.0 if time.monotonic() - begun > after else 0.0)


def one_demonstration_cache(cards: Path, base: Path, draw: random.Random) -> list[str]:
    """Two first runs make the demonstration's images in one folder, half of the time one of them is killed; then a third."""
    words = [
        "--dataset",
        "little-demo",
        "--root",
        "made",
        "--cards",
        str(cards),
        "--runs",
        "runs",
        "--mlflow-uri",
        "off",
        "--quiet",
    ]
    scenario = Scenario("one cache", ["run", "psnr", *words], essential=["made/*/distorted/*.bmp"])
    whole = undisturbed_once(scenario, base)
    folder = base / f"cache-{draw.random()}"
    folder.mkdir()
    first, second = forked(scenario.words, folder), forked(["run", "ssim", *words], folder)
    killed = draw.random() < 0.5
    if killed:
        first.wait(whole.seconds * draw.random())
        first.send(signal.SIGKILL)
    problems = [] if first.wait(600) in (0, -signal.SIGKILL) else [f"the first: {first.status}"]
    problems += [] if second.wait(600) == 0 else [f"the second: {second.output.read_text(encoding='utf-8')[-400:]}"]
    problems += [] if forked(scenario.words, folder).wait(600) == 0 else ["the third failed"]
    left = [f"left over: {path.name}" for path in folder.rglob("*.tmp")]
    shutil.rmtree(folder / "runs" / "little-demo" / "ssim")
    return problems + left + damage(folder) + differences(whole.results, results(folder), whole.volatile)


def read_only_home(scenario: Scenario, base: Path, draw: random.Random) -> list[str]:
    """No folder of the user's can be written (home, cache, configuration); a new interpreter."""
    whole = undisturbed_once(scenario, base)
    folder = base / f"home-{draw.random()}"
    home = folder / "home"
    folder.mkdir()
    with small_disk(home, 64) as real:
        close = ["mount", "-o", "remount,ro", str(home)] if real else ["chmod", "a-w", str(home)]
        subprocess.run(close, check=True, capture_output=True)
        kept = {
            name: os.environ.pop(name)
            for name in list(os.environ)
            if name.startswith("XDG_") or name in ("HOME", "HARNESS_CACHE")
        }
        os.environ["HOME"] = str(home)
        try:
            child = fresh(scenario.words, folder)
            status = child.wait(600)
        finally:
            del os.environ["HOME"]
            os.environ.update(kept)
    text = child.output.read_text(encoding="utf-8")
    problems = [] if status == 0 and "Traceback" not in text else [f"status {status}: {text[-400:]}"]
    shutil.rmtree(home)
    return problems + damage(folder) + differences(whole.results, results(folder), whole.volatile)


def another_file_system(scenario: Scenario, base: Path, draw: random.Random) -> list[str]:
    """The runs folder is a disk of its own, and is reached over a link; killed once."""
    whole = undisturbed_once(scenario, base)
    folder = base / f"elsewhere-{draw.random()}"
    folder.mkdir()
    with small_disk(folder / "disk", 64 << 10):
        (folder / "disk" / "runs").mkdir()
        (folder / "runs").symlink_to("disk/runs")
        child = forked(scenario.words, folder)
        child.wait(whole.seconds * draw.random())
        child.send(signal.SIGKILL)
        child.wait()
        status = forked(scenario.words, folder).wait(600)
        (folder / "runs").unlink()
        shutil.copytree(folder / "disk" / "runs", folder / "runs")
    shutil.rmtree(folder / "disk")
    problems = [] if status == 0 else [f"status {status}: {(folder / 'output.txt').read_text(encoding='utf-8')[-400:]}"]
    return problems + damage(folder) + differences(whole.results, results(folder), whole.volatile)


def few_descriptors(scenario: Scenario, base: Path, draw: random.Random) -> list[str]:
    """A process that may open few files: it works, or says so in one line, and the same command then finishes."""
    whole = undisturbed_once(scenario, base)
    folder = base / f"few-{draw.random()}"
    folder.mkdir()
    most = draw.randint(5, 24)
    child = forked(scenario.words, folder, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)))
    status = child.wait(600)
    problems = [] if status == 0 else said(child, status, "oo many open files")
    return [f"{most} files: {problem}" for problem in problems + damage(folder)] + again(scenario, folder, whole)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100, help="of all faults together")
    parser.add_argument("--only", action="append", help="a fault's name; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warm()
    from small import write_network, write_table

    with scratch("harness-faults-") as base:
        data, cards, demo = write_table(base / "data"), write_network(base / "cards"), little_demo(base / "demo cards")
        words = [
            "run",
            "small",
            "--dataset",
            str(data),
            "--protocol",
            "parts",
            "--cards",
            str(cards),
            "--runs",
            "runs",
            "--quiet",
        ]
        scenario = Scenario(
            "training and testing",
            [*words, "--mlflow-uri", "off", "--set", "recipe.epochs=12"],
            essential=[f"runs/table/small/*/{name}" for name in ("scores.csv", "weights.safetensors", "log.jsonl")],
        )
        whole = undisturbed_once(scenario, base)
        need = sum(len(v) if isinstance(v, bytes) else len(str(v)) for v in whole.results.values()) >> 10  # type: ignore[attr-defined]
        faults = {
            "no space left": lambda draw: no_space(scenario, base, draw, need),
            "a read-only folder": lambda draw: read_only(scenario, base, draw),
            "the run's folder vanishes": lambda draw: vanishing(scenario, base, draw),
            "two processes on one run, half of the holders killed": lambda draw: two_at_once(scenario, base, draw),
            "SIGSTOP and SIGCONT": lambda draw: stopped_and_continued(scenario, base, draw),
            "a clock set back, and a kill": lambda draw: clock_set_back(scenario, base, draw),
            "two runs over one demonstration's cache": lambda draw: one_demonstration_cache(demo, base, draw),
            "a home that cannot be written": lambda draw: read_only_home(scenario, base, draw),
            "runs on another file system, over a link, and a kill": lambda draw: another_file_system(scenario, base, draw),
            "few file descriptors": lambda draw: few_descriptors(scenario, base, draw),
        }
        if asked.only:
            faults = {name: fault for name, fault in faults.items() if name in asked.only}
        rows, losses = [], []
        for name, fault in faults.items():
            count = max(1, asked.trials // len(faults))
            found = []
            for trial in range(count):
                found += [f"{name}, trial {trial}: {p}" for p in fault(random.Random(f"{asked.seed}|{name}|{trial}"))]
            print("\n".join([f"{name}: done", *found]), file=sys.stderr, flush=True)
            rows.append([name, count, len(found)])
            losses += found
    print(table(rows, ["fault", "trials", "losses"]))
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
