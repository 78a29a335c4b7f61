"""Testing a competition's scoring program: run from the finished zip in the server's folder layout, isolated from the harness.

The program's process has only numpy, scipy and the standard library: no harness, no other package, no network. It scores the
sample submission, which must give the scores of `harness submission score`, and ten defective ones, which must give a
readable error and no score.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.cards.challenge import ChallengeCard
from harness.challenges import codabench
from harness.challenges.figures import Truth, server_scores
from harness.challenges.labels import read_truth
from harness.challenges.reading import wanted_files
from harness.challenges.score import score
from harness.challenges.scoring_program import DETAILS, SCORES
from harness.runtime.errors import RunError, UsageError, listed

_log = logging.getLogger(__name__)

_SECONDS = 600
_CLOSE = 1e-12
"""Tolerance for other versions of numpy, which sum in another order."""
_RUN = """
import runpy, socket, sys
def refused(*_, **__):
    raise OSError("the scoring program may not use the network")
socket.socket = socket.create_connection = socket.getaddrinfo = refused
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_LIBRARIES = ("numpy", "numpy.libs", "scipy", "scipy.libs")

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Trial:
    """The results of one interpreter on one phase."""

    phase: str
    python: str
    """Versions of Python, numpy and scipy."""
    scores: Mapping[str, float]
    difference: float
    """The largest difference of the sample's scores from `harness submission score`."""
    refused: int
    """Defective submissions that got an error and no score."""

    def json(self) -> dict[str, object]:
        """Plain values for JSON."""
        about = {"phase": self.phase, "python": self.python, "scores": dict(self.scores), "difference": self.difference}
        return {**about, "defective_refused": self.refused}

    def __str__(self) -> str:
        same = "to the last digit" if self.difference == 0 else f"to {self.difference:.1e}"
        return (
            f"phase {self.phase}, {self.python}: the sample's scores are those of harness submission score {same}; "
            f"{self.refused} defective submissions were refused"
        )


def rehearse(
    card: ChallengeCard, packed: Path, labels: Path, phases: Sequence[str], python: str | None, cards: Sequence[str]
) -> list[Trial]:
    """Run the program of the competition in the zip `packed` on every phase; raises RunError where a test fails.

    With this interpreter, and with `python` or one of the version in the card's image, if it has numpy and scipy.
    """
    _require_syntax(card, packed)
    other = shutil.which(python) if python else _of_image(card)
    if python and other is None:
        raise UsageError(f"--python {python}: no such program")
    # An absolute path, because the program runs in other folders.
    other = os.path.abspath(other) if python and other else other
    truth, _ = read_truth(labels)
    trials = []
    for phase in phases:
        with _unpacked(packed, phase) as app:
            # The scores of the sample by `harness submission score`.
            sample = app.parent / codabench.sample_file(phase)
            sample.write_bytes(_members(packed.read_bytes())[sample.name])
            whole = score(sample, labels, challenge=card.path or card.name, phase=phase, cards=cards).whole
            expected = server_scores(card, whole)
            for interpreter in [None, *([other] if other else [])]:
                _log.info(
                    f"phase {phase}: testing the scoring program in the server's folders, with {interpreter or 'this Python'}"
                )
                trials.append(_trial(card, app, phase, truth, expected, interpreter))
    return trials


def _trial(
    card: ChallengeCard, app: Path, phase: str, truth: Truth, expected: Mapping[str, float | None], interpreter: str | None
) -> Trial:
    version = _version(interpreter)
    if version is None:
        raise RunError(f"{interpreter}: not a Python with numpy and scipy")
    done = _run(app, interpreter)
    what = f"{card.name}, phase {phase}, {version}"
    if done.returncode or not (app / "output" / SCORES).is_file():
        raise RunError(f"{what}: the scoring program gave the sample submission no score:\n{done.stderr.strip()[-2000:]}")
    scores = json.loads((app / "output" / SCORES).read_text(encoding="utf-8"))
    board = {str(column["key"]) for column in codabench.columns(card) if "computation" not in column}
    if set(scores) != board:
        raise RunError(f"{what}: {SCORES} has the keys {listed(sorted(scores))}, the leaderboard {listed(sorted(board))}")
    gaps = [abs(scores[key] - (value if value is not None else float("nan"))) for key, value in expected.items()]
    difference = max(gaps)
    close = 0.0 if interpreter is None else _CLOSE * max(1.0, *(abs(v) for v in scores.values()))
    if not difference <= close:
        raise RunError(f"{what}: the sample's scores are {scores}, harness submission score says {dict(expected)}")
    _refuse_leak(app, truth, what, done)
    spoilt = defects(card)
    for name, change in spoilt.items():
        done = _run(app, interpreter, change)
        if not done.returncode or (app / "output" / SCORES).exists():
            raise RunError(f"{what}: a defective submission ({name}) got a score")
        if "Traceback" in done.stderr or not done.stderr.strip() or not (app / "output" / DETAILS).is_file():
            raise RunError(f"{what}: a defective submission ({name}) got no readable error:\n{done.stderr.strip()[-2000:]}")
        _refuse_leak(app, truth, f"{what}, {name}", done)
    return Trial(phase, version, scores, difference, len(spoilt))


def _refuse_leak(app: Path, truth: Truth, what: str, done: subprocess.CompletedProcess[str]) -> None:
    shown = {DETAILS: (app / "output" / DETAILS).read_bytes(), "output": (done.stdout + done.stderr).encode()}
    leaking = [name for name, data in shown.items() if holds_labels(name, data, truth)]
    if leaking:
        raise RunError(f"{what}: {listed(leaking)} holds labels")


def holds_labels(name: str, data: bytes, truth: Truth) -> bool:
    """Whether a line of a file, or of a file of any depth of a zip, holds an image's name and its label."""
    if name.endswith(".zip"):
        return any(holds_labels(inner, content, truth) for inner, content in _members(data).items())
    for line in data.decode("utf-8", "replace").splitlines():
        words = set(re.split(r"[\s,;<>|\"']+", line))
        for word in words & truth.scores.keys():
            label = truth.scores[word]
            # A small whole number may be a line number and not a label.
            if {repr(label), str(label)} & words and not (label.is_integer() and abs(label) < 1000):
                return True
    return False


def defects(card: ChallengeCard) -> dict[str, Change]:
    """Ten ways to make the unpacked sample submission in a folder defective."""
    file, limit = card.lines.file, max(wanted_files(card).values())

    def edited(change: Callable[[list[str]], list[str]]) -> Change:
        def edit(folder: Path) -> None:
            path = folder / file
            path.write_text("".join(change(path.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")

        return edit

    def valued(line: str, value: str) -> str:
        return f"{line.rpartition(card.lines.separator)[0]}{card.lines.separator}{value}\n"

    def moved(folder: Path) -> None:
        (folder / "submission").mkdir()
        for path in [entry for entry in folder.iterdir() if entry.is_file()]:
            path.rename(folder / "submission" / path.name)

    def linked(folder: Path) -> None:
        (folder / file).unlink()
        try:
            (folder / file).symlink_to(Path("..") / "ref" / "labels.csv")
        except OSError:  # a system where links need a privilege
            (folder / file).mkdir()

    first = 1 if card.lines.header else 0
    digits = f"{1:.{card.lines.decimals}f}"
    return {
        "no file of scores": lambda folder: (folder / file).unlink(),
        "files in a folder": moved,
        "a line is missing": edited(lambda lines: lines[:-1]),
        "an image twice with two scores": edited(lambda lines: [*lines, valued(lines[-1], digits)]),
        "an unknown image": edited(lambda lines: [*lines[:-1], f"zz-not-there{card.lines.separator}{digits}\n"]),
        "a score that is NaN": edited(lambda lines: [*lines[:-1], valued(lines[-1], "nan")]),
        "all scores equal": edited(lambda lines: [*lines[:first], *(valued(line, digits) for line in lines[first:])]),
        "written in UTF-16": lambda folder: (folder / file).write_bytes((folder / file).read_bytes().decode().encode("utf-16")),
        "far too large": lambda folder: (folder / file).write_bytes(b"\n" * (limit + 1)),
        "a link to the labels": linked,
    }


@contextmanager
def _unpacked(packed: Path, phase: str) -> Iterator[Path]:
    """The server's folders for one phase, from the competition's zip: app/program, app/input/ref, app/input/res, app/output."""
    with tempfile.TemporaryDirectory(prefix="harness-server-") as place:
        app = Path(place) / "app"
        members = _members(packed.read_bytes())
        zips = {"program": codabench.PROGRAM, "sample": codabench.sample_file(phase)}
        zips["input/ref"] = codabench.reference_file(phase)
        for folder, name in zips.items():
            for inner, data in _members(members[name]).items():
                path = app / folder / inner
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        yield app


def _members(data: bytes) -> dict[str, bytes]:
    """The files of a zip that the harness has made."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def _run(app: Path, interpreter: str | None, change: Change | None = None) -> subprocess.CompletedProcess[str]:
    """One run of the program on the sample, made defective by `change`; the folders are made again."""
    for folder in ("input/res", "output"):
        shutil.rmtree(app / folder, ignore_errors=True)
    shutil.copytree(app / "sample", app / "input" / "res")
    (app / "output").mkdir()
    # A file that the server itself writes there.
    (app / "input" / "res" / "metadata").write_text("exitCode: 0\n", encoding="utf-8")
    if change is not None:
        change(app / "input" / "res")
    words = codabench.COMMAND.replace("/app", str(app)).split(" ")[1:]
    quiet = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}
    # The instruction set of OpenBLAS and numpy decides the last digit, which is compared with ours.
    same = ("OPENBLAS_", "NPY_")
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "SYSTEMROOT", "TEMP", "TMPDIR") or k.startswith(same)}
    command = [interpreter, "-s", "-c", _RUN, *words] if interpreter else [sys.executable, "-s", "-S", "-c", _RUN, *words]
    libraries = {} if interpreter else {"PYTHONPATH": _libraries(app.parent)}
    try:
        return subprocess.run(
            command, cwd=app / "program", env={**keep, **quiet, **libraries}, capture_output=True, encoding="utf-8",
            errors="replace", timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RunError(f"the scoring program took more than the server's {_SECONDS} seconds") from None


def _libraries(place: Path) -> str:
    """A folder with links to numpy and scipy only; where they do not work as links, their own folder."""
    import numpy

    installed = Path(numpy.__file__).parents[1]
    folder = place / "libraries"
    if not folder.is_dir():
        folder.mkdir()
        try:
            for name in _LIBRARIES:
                if (installed / name).exists():
                    (folder / name).symlink_to(installed / name)
            # Their shared libraries may be searched relative to the link.
            probe = [sys.executable, "-s", "-S", "-c", "import numpy, scipy.special"]
            subprocess.run(probe, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            for link in folder.iterdir():
                link.unlink()
    return str(folder if (folder / "numpy").exists() else installed)


def _version(interpreter: str | None) -> str | None:
    """The versions of an interpreter, numpy and scipy; None where one of them is absent."""
    if interpreter is None:
        import numpy
        import scipy

        return f"Python {sys.version.split()[0]} with numpy {numpy.__version__} and scipy {scipy.__version__}"
    code = (
        "import sys, numpy, scipy; "
        "print('Python', sys.version.split()[0], 'with numpy', numpy.__version__, 'and scipy', scipy.__version__)"
    )
    try:
        done = subprocess.run([interpreter, "-s", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def image_version(card: ChallengeCard) -> tuple[int, int] | None:
    """The Python version of the card's image, from its tag: `codalab/codalab-legacy:py37`, `python:3.12-slim`."""
    match = re.search(r":(?:py|python)?(\d)\.?(\d+)", card.docker_image)
    return (int(match[1]), int(match[2])) if match else None


def _of_image(card: ChallengeCard) -> str | None:
    """An interpreter of the version in the card's image, if one with numpy and scipy is installed."""
    version = image_version(card)
    if version is None or version == sys.version_info[:2]:
        return None
    name = f"python{version[0]}.{version[1]}"
    found = shutil.which(name)
    if found and _version(found):
        return found
    _log.info(
        f"{card.docker_image}: no {name} with numpy and scipy here, so only the syntax was checked; --python FILE names one"
    )
    return None


def _require_syntax(card: ChallengeCard, packed: Path) -> None:
    """Raise RunError where the program is not in the syntax of the image's Python."""
    version = image_version(card)
    if version is None or version >= sys.version_info[:2]:
        return
    if version < (3, 7):
        raise RunError(f"{card.docker_image}: the scoring program needs Python 3.7")
    for name, data in _members(_members(packed.read_bytes())[codabench.PROGRAM]).items():
        if name.endswith(".py"):
            try:
                ast.parse(data, name, feature_version=version)
            except SyntaxError as error:
                raise RunError(f"{name}: not in the syntax of Python {version[0]}.{version[1]}: {error}") from None
