"""Helpers of the soak tests: small datasets, processes that can be killed, and checks of the files that they left."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests" / "support"), str(HERE)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# One thread: equal conditions for every trial, and a process that may be forked.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_VOLATILE = {"created", "seconds", "pairs_per_second", "runtime_per_image", "run_id", "pairs_seconds"}
PATIENCE = 60.0
"""Seconds after which a process that should have ended counts as hanging."""


class Child:
    """A process of ours in a session of its own, with its output in a file."""

    def __init__(self, pid: int, output: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self.pid, self.output, self._process = pid, output, process
        self.status: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.status is None:
            if self._process is not None:
                self.status = self._process.poll()
            else:
                found, status = os.waitpid(self.pid, os.WNOHANG)
                self.status = os.waitstatus_to_exitcode(status) if found else None
        return self.status

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """The exit status, or None when it has not ended within `seconds`."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        return self.status

    def send(self, number: signal.Signals) -> None:
        """A signal as it comes: Ctrl-C to everything in the session, the others to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number) if number == signal.SIGINT else os.kill(self.pid, number)

    def relatives(self, seconds: float = 10.0) -> list[int]:
        """Processes of its session that are still there after `seconds`."""
        end = time.monotonic() + seconds
        while left := _session(self.pid):
            if time.monotonic() > end:
                return left
            time.sleep(0.05)
        return []


def _session(number: int) -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == number and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def warm() -> None:
    """Import what the commands import, so that a forked process starts in milliseconds. Nothing is computed here."""
    import matplotlib as mpl

    mpl.use("agg")
    import torch

    import harness.cli.main
    import harness.engine.run
    import harness.engine.run_all
    import harness.engine.trainer  # noqa: F401

    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # brings torch._dynamo in, the longest of all imports


def forked(words: Sequence[str], folder: Path, inside: Callable[[], None] = lambda: None) -> Child:
    """`harness WORDS` in a fork of this warmed process, its current folder being `folder`; `inside` is called there first."""
    output = folder / "output.txt"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)  # whichever is first: a signal must find the group
        return Child(pid, output)
    status = 70
    try:
        with contextlib.suppress(PermissionError):
            os.setsid()
        for number, action in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
            (signal.SIGHUP, signal.SIG_DFL),
        ):
            signal.signal(number, action)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", line_buffering=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", line_buffering=True)
        os.chdir(folder)
        inside()
        from harness.cli.main import main

        main(list(words))
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def fresh(words: Sequence[str], folder: Path) -> Child:
    """`harness WORDS` as a person starts it: a new interpreter."""
    with open(folder / "output.txt", "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *words],
            cwd=folder, stdout=output, stderr=output, start_new_session=True, env=environment(),
        )  # fmt: skip
    return Child(process.pid, folder / "output.txt", process)


def environment() -> dict[str, str]:
    """This process's environment, with the checkout (where there is one) on the path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")])}


Start = Callable[[Sequence[str], Path], Child]


@dataclass(frozen=True)
class Scenario:
    """A command whose work can be cut off, in a folder that `prepare` makes ready."""

    name: str
    words: Sequence[str]
    prepare: Callable[[Path], None] = lambda folder: None
    essential: Sequence[str] = ()
    """Wildcards of what must be there in the end, bit for bit that of an undisturbed run."""
    check: Callable[[Path], list[str]] = lambda folder: []
    start: Start = forked
    patience: float = 10.0
    """Seconds that processes of its session may take to notice that it is gone."""


def damage(folder: Path) -> list[str]:
    """Files below `folder` that are neither absent, nor whole, nor fit to go on from; and locks that block.

    `tune` holds Ray Tune's own notes, which are never read again and removed by the next start.
    """
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".tmp") and "tune" not in p.parts):
        try:
            _look(path)
        except Exception as error:
            found.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    return found


def _look(path: Path) -> None:
    from harness.files.atomic import sha256_json
    from harness.results.run_scores import ScoreFile

    if path.name in ("lock", ".lock"):
        import fcntl

        with open(path, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif path.name == "record.json":
        record = json.loads(path.read_text(encoding="utf-8"))
        rows = ScoreFile(path.parent).read()
        if record["hashes"]["scores"] != sha256_json([[n, repr(s), p] for n, s, p in rows]):
            raise ValueError("a record whose scores.csv is another")
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").splitlines():
            json.loads(line)
    elif path.suffix == ".safetensors":
        from harness.models.weights.checkpoint import read_state

        read_state(path)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            if (bad := archive.testzip()) is not None:
                raise ValueError(f"{bad} is damaged")
    elif path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".html" and not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("cut short")
    elif path.suffix == ".toml":
        import tomllib

        tomllib.loads(path.read_text(encoding="utf-8"))
    elif path.suffix in (".csv", ".md") and not path.read_text(encoding="utf-8").endswith("\n"):
        raise ValueError("its last line is cut short")
    elif path.name == "mlflow.db":
        with contextlib.closing(sqlite3.connect(path)) as database:
            (answer,) = database.execute("pragma integrity_check").fetchone()
        if answer != "ok":
            raise ValueError(answer)


def results(folder: Path) -> dict[str, Any]:
    """What a finished command left, by relative path: bytes, or documents without what differs from run to run by nature."""
    kept: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if (
            path.name in ("lock", ".lock", "output.txt")
            or "tune" in path.parts
            or "mlartifacts" in name
            or path.name.startswith("mlflow.db")
        ):
            continue
        if path.suffix == ".json":
            kept[name] = _still(json.loads(path.read_text(encoding="utf-8")))
        else:
            kept[name] = path.read_bytes()
    return kept


def _still(document: Any) -> Any:
    if isinstance(document, Mapping):
        return {k: _still(v) for k, v in document.items() if k not in _VOLATILE}
    return [_still(v) for v in document] if isinstance(document, list) else document


def differences(before: Mapping[str, Any], after: Mapping[str, Any], volatile: set[str]) -> list[str]:
    """Files that one of two finished commands left and the other left otherwise."""
    names = {*before, *after}
    return [
        f"{name}: {'missing' if name not in after else 'left over' if name not in before else _how(before[name], after[name])}"
        for name in sorted(names)
        if name not in before or name not in after or (name not in volatile and before[name] != after[name])
    ]


def _how(before: Any, after: Any) -> str:
    texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else json.dumps(t, indent=1) for t in (before, after)]
    lines = list(difflib.unified_diff(*(t.splitlines() for t in texts), lineterm="", n=0))
    return "differs: " + " | ".join(line[:200] for line in lines[2:10])


@dataclass
class Undisturbed:
    """A scenario's own results: what every trial is compared with."""

    seconds: float
    results: dict[str, Any]
    volatile: set[str] = field(default_factory=set)
    """Files that differ between two undisturbed runs, such as a page that shows its time."""


def undisturbed(scenario: Scenario, base: Path, times: int = 2) -> Undisturbed:
    """Run a scenario without disturbing it; raises RuntimeError when it fails, or what is essential does not repeat.

    Run once, only what is essential is compared later. The folders lie next to those of the trials: relative paths are alike.
    """
    both = []
    for number in range(times):
        folder = base / f"undisturbed-{number}"
        folder.mkdir(parents=True)
        scenario.prepare(folder)
        begun = time.monotonic()
        child = scenario.start(scenario.words, folder)
        status = child.wait(10 * PATIENCE)
        seconds = time.monotonic() - begun
        problems = [*damage(folder), *scenario.check(folder)]
        if status != 0 or problems:
            raise RuntimeError(f"{scenario.name}: status {status}, {problems}\n{child.output.read_text(encoding='utf-8')}")
        both.append((seconds, results(folder)))
    (_, first), (seconds, second) = both[0], both[-1]
    volatile = {name for name in first if first[name] != second.get(name)}
    if times == 1:
        volatile = {name for name in first if not any(fnmatch(name, pattern) for pattern in scenario.essential)}
    for pattern in scenario.essential:
        hits = [name for name in first if fnmatch(name, pattern)]
        if not hits or volatile.intersection(hits):
            raise RuntimeError(f"{scenario.name}: {pattern} is {'not deterministic' if hits else 'missing'}")
    return Undisturbed(seconds, second, volatile)


def little_demo(folder: Path) -> Path:
    """A folder of cards with `little-demo`: the demonstration's reader over two references and six kinds of distortion."""
    from harness.datasets import demo

    folder.mkdir(parents=True, exist_ok=True)
    references, kinds = list(demo.reference_ids()[:2]), list(demo.distortions.KINDS[:6])
    card = f"""name = "little-demo"
title = "A part of the demonstration"
reader = "harness.datasets.demo:read"
description = "For soaks."
higher_is_better = true
references = 2
pairs = 60
licence = "as the demonstration's"
default_protocol = "full"
[layout]
references = {json.dumps(references)}
kinds = {json.dumps(kinds)}
[protocols.full]
split = "full"
description = "everything is tested"
"""
    (folder / "little-demo.toml").write_text(card, encoding="utf-8")
    return folder


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A folder with a space and letters beyond ASCII in its name, removed at the end."""
    import tempfile

    base = Path(tempfile.mkdtemp(prefix=prefix)) / "tëst földer"
    base.mkdir()
    try:
        yield base
    finally:
        shutil.rmtree(base.parent, ignore_errors=True)


def spread(draw: random.Random, count: int) -> list[float]:
    """`count` moments in 0..1, one at random in each of `count` equal pieces, shuffled: over the whole, not its beginning."""
    moments = [(i + draw.random()) / count for i in range(count)]
    draw.shuffle(moments)
    return moments


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
