"""An external program as a model: a card's `[program]` names a command that reads two image files and prints a score.

The program is started without a shell, by its absolute path, in a temporary folder that holds only the two images. Only a card
can name the program; settings and records cannot.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from harness.cards import program as cards
from harness.files.atomic import sha256_json
from harness.files.hash_index import hash_file
from harness.models.base import Model, check_pair
from harness.runtime.errors import RunError, UsageError
from harness.runtime.text import one_line

if TYPE_CHECKING:
    import torch

    from harness.cards.schema import ModelCard
    from harness.imaging.decode import Pixels

_LONGEST = 8 << 20
"""Bytes of output after which a program is killed."""
_VERSION_SECONDS = 30.0
_NOT_STARTED = (126, 127)
"""Exit statuses by which shells and loaders report that a program could not be started."""
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""Environment variables that a program gets: the paths of its libraries and helpers."""


class Encoded(NamedTuple):
    """An image as an input file of the program."""

    shape: tuple[int, ...]
    file: bytes


class Program(Model):
    """A metric that is an external program. It gets 8-bit images; tensors are rounded to 8 bits."""

    version = 1

    def __init__(self, program: cards.Program, name: str, higher_is_better: bool, path: str) -> None:
        self.program, self.name, self.higher_is_better = program, name, higher_is_better
        self.minimum_size = program.minimum_size
        self.executable = find_program(program, name, path)
        self.details = {k: v for k, v in program_identity(program, name, path).items() if k in ("version", "sha256", "input")}
        self._slots = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // program.threads))
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    @classmethod
    def from_card(cls, card: ModelCard) -> Program:
        """Built from a card. Raises UsageError where the program is not found."""
        if card.program is None:
            raise UsageError(f"{card.path}: class = {card.class_!r} needs a table [program]")
        return cls(card.program, card.name, card.higher_is_better, card.path)

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        """The program's scores (N,) of two float32 RGB batches (N, 3, H, W) in [0, 1], rounded to 8 bits. Raises RunError."""
        import torch

        check_pair(reference, distorted, minimum_size=self.minimum_size)
        first, second = ((x.detach() * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy() for x in (reference, distorted))
        scores = [self.score_uint8(r, d) for r, d in zip(first, second, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=distorted.device)

    def score_uint8(self, reference: Pixels, distorted: Pixels) -> float:
        """The program's score of one pair of (H, W, 3) uint8 images. Raises RunError, with the program's last lines."""
        return self.score_embedded_uint8(self.embed_uint8(reference), distorted)

    def embed_uint8(self, reference: Pixels) -> Encoded:
        """The reference's file."""
        return Encoded(reference.shape, self._encode(reference))

    def score_embedded_uint8(self, reference: Encoded, distorted: Pixels) -> float:
        """`score_uint8` with the reference's file made already."""
        import numpy as np

        from harness.models.planes import check_pair_uint8

        check_pair_uint8(np.empty(reference.shape, np.uint8), distorted, self.minimum_size)
        with self._slots, tempfile.TemporaryDirectory(prefix="harness-program-", ignore_cleanup_errors=True) as scratch:
            first, second = (f"{which}.{self.program.input}" for which in ("reference", "distorted"))
            Path(scratch, first).write_bytes(reference.file)
            Path(scratch, second).write_bytes(self._encode(distorted))
            words = list(self.program.command[1:])
            for name, place in (("reference", first), ("distorted", second), ("output", "output")):
                words = [word.replace(f"{{{name}}}", place) for word in words]
            with self._lock:
                if self._ended:
                    raise RunError(f"{self.name}: not started, because the work was ended")
                process = _start(self.executable, words, scratch, self.program.threads, self.name)
                self._running.add(process)
            try:
                done = _finish(process, self.program.timeout, self.name)
            finally:
                with self._lock:
                    self._running.discard(process)
            if done.status:
                raise RunError(f"{self.name} ended with {_status(done.status)}{done.last_lines()}")
            return self._read(done, Path(scratch, "output"))

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """A round of scoring: if it ends early, programs that still run in other threads are killed."""
        self._ended = False
        try:
            yield
        except BaseException:
            with self._lock:
                self._ended = True
                for process in self._running:
                    _kill(process)
            raise

    def _encode(self, pixels: Pixels) -> bytes:
        from harness.imaging import encode

        if self.program.input == "y4m":
            form = cast(Any, (self.program.matrix, self.program.range, self.program.subsampling))
            return encode.y4m(pixels, *form)
        return encode.png(pixels) if self.program.input == "png" else encode.ppm(pixels)

    def _read(self, done: Finished, output: Path) -> float:
        rule = self.program.score
        if rule.from_ == "output":
            if output.is_symlink() or not output.is_file() or output.stat().st_size > _LONGEST:
                raise RunError(f"{self.name} wrote no usable file {{output}}{done.last_lines()}")
            text = output.read_text("utf-8", errors="replace")
        else:
            text = (done.stdout if rule.from_ == "stdout" else done.stderr).decode("utf-8", errors="replace")
        try:
            return number_in(text, rule)
        except ValueError as error:
            where = {"stdout": "on standard output", "stderr": "on standard error", "output": "in its file {output}"}[rule.from_]
            raise RunError(f"{self.name}: no score {where}: {error}{done.last_lines()}") from None


def number_in(text: str, rule: cards.ProgramScore) -> float:
    """The number that `rule` finds in a program's output. Raises ValueError with the reason where there is none."""
    if not text.strip():
        raise ValueError("it is empty")
    if rule.regex:
        found = [match[1] for match in re.finditer(rule.regex, text) if match[1] is not None]
        if not found:
            raise ValueError(f"nothing matches {rule.regex!r}")
        return _number(found[-1])
    if rule.line:
        lines = [line for line in text.splitlines() if line.strip()]
        place = rule.line - 1 if rule.line > 0 else rule.line
        if not -len(lines) <= place < len(lines):
            raise ValueError(f"it has {len(lines)} lines, not a line {rule.line}")
        return _number(lines[place])
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    for key in rule.json.split("."):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"its JSON has no {rule.json}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{rule.json} is not a number in its JSON")
    return _number(str(value))


def _number(text: str) -> float:
    try:
        value = float(text.strip())
    except ValueError:
        raise ValueError(f"{one_line(text.strip())[:80]!r} is not a number") from None
    if math.isnan(value):
        raise ValueError("it is NaN")
    return value


def find_program(program: cards.Program, name: str, card_path: str) -> Path:
    """The absolute path of the program. PATH is searched without its relative entries, so never the current folder.

    Raises UsageError for a program that is absent or cannot be started.
    """
    word = program.command[0]
    how = f" ({program.install})" if program.install else ""
    if word.startswith(cards.BESIDE):
        places = [Path(card_path).absolute().parent / word.removeprefix(cards.BESIDE)]
        where = f"which is not a program next to {card_path}"
    elif os.path.dirname(word):
        places, where = [Path(word)], "which is not a program on this machine"
    else:
        folders = [Path(entry) for entry in os.environ.get("PATH", os.defpath).split(os.pathsep)]
        names = [word, f"{word}.exe"] if sys.platform == "win32" else [word]
        places, where = [folder / file for folder in folders for file in names], "which is not on PATH"
    found = next((path for path in places if path.is_absolute() and path.is_file() and os.access(path, os.X_OK)), None)
    if found is None:
        raise UsageError(f"{name} needs the program {word}, {where}{how}")
    if found.suffix.lower() in (".bat", ".cmd"):
        raise UsageError(f"{name}: {found.name} is a batch file, which only a shell can run")
    return found


class ProgramIdentity(TypedDict):
    """Everything that determines a program's scores."""

    command: list[str]
    version: str
    sha256: str
    input: dict[str, str]
    score: object


def program_identity(program: cards.Program, name: str, card_path: str) -> ProgramIdentity:
    """The identity of a program: its command, version and file, its input format, and how the score is read.

    Not part of it: the program's folder, timeout and threads. Raises UsageError where it is absent or has no version.
    """
    path = find_program(program, name, card_path)
    facts = path.stat()
    table = cards.program_table(program)
    form = {key: str(table[key]) for key in ("matrix", "range", "subsampling") if key in table}
    return {
        "command": [Path(program.command[0]).name, *program.command[1:]],
        "version": _version(path, program.version[1:], name, (facts.st_mtime_ns, facts.st_size, facts.st_ino)),
        "sha256": hash_file(path),
        "input": {"kind": program.input, **form},
        "score": table["score"],
    }


@functools.cache
def _version(path: Path, words: tuple[str, ...], name: str, _state: tuple[int, ...]) -> str:
    """The program's version, from standard output or error; for a long text its first line and a hash."""
    with tempfile.TemporaryDirectory(prefix="harness-program-", ignore_cleanup_errors=True) as scratch:
        try:
            done = _finish(_start(path, words, scratch, 1, name), _VERSION_SECONDS, name)
        except RunError as error:
            raise UsageError(f"{name}: its version cannot be read: {error}") from None
    # A usage text contains the program's path, which is not part of its identity.
    text = (done.stdout + done.stderr).decode("utf-8", errors="replace").replace(str(path), path.name).strip()
    # A program without a version prints its usage, mostly with a status that is not 0.
    if not text or done.status < 0 or done.status in _NOT_STARTED:
        raise UsageError(f"{name}: its version command ended with {_status(done.status)}{done.last_lines()}")
    first = one_line(text.splitlines()[0])[:200]
    return first if first == text else f"{first} (sha256 of the text: {sha256_json(text)})"


@dataclass(frozen=True)
class Finished:
    """A program that has ended."""

    status: int
    stdout: bytes
    stderr: bytes

    def last_lines(self) -> str:
        """`; its last lines: ...` for a message; of standard error, else of standard output."""
        for stream in (self.stderr, self.stdout):
            lines = [one_line(line).strip() for line in stream[-4096:].decode("utf-8", errors="replace").splitlines()]
            if kept := [line for line in lines if line][-3:]:
                return f"; its last lines: {' | '.join(line[:200] for line in kept)}"
        return "; it printed nothing"


def _status(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"


def _start(executable: Path, words: Sequence[str], folder: str, threads: int, name: str) -> subprocess.Popen[bytes]:
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
    entries = environment.get("PATH", os.defpath).split(os.pathsep)
    environment |= {
        "PATH": os.pathsep.join(entry for entry in entries if os.path.isabs(entry)),
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": str(threads),
        **dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP"), folder),
    }
    try:
        return subprocess.Popen(
            [str(executable), *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise RunError(f"{name}: {executable.name} cannot be started: {error.strerror or error}") from None


def _finish(process: subprocess.Popen[bytes], timeout: float, name: str) -> Finished:
    """Wait for a program and everything that it prints. Raises RunError at the timeout or for too much output."""

    def collect(pipe: IO[bytes] | None, stream: bytearray) -> None:
        assert pipe is not None
        with pipe:
            while chunk := os.read(pipe.fileno(), 1 << 16):
                stream += chunk
                if len(stream) > _LONGEST:
                    _kill(process)
                    return

    deadline = time.monotonic() + timeout
    streams = [bytearray(), bytearray()]
    pipes = zip((process.stdout, process.stderr), streams, strict=True)
    readers = [threading.Thread(target=collect, args=pair, daemon=True) for pair in pipes]
    for reader in readers:
        reader.start()
    try:
        for reader in readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        late = any(reader.is_alive() for reader in readers)
        if not late:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        late = process.poll() is None or late
    finally:
        _kill(process)
        process.wait()
        for reader in readers:
            # A process that it started in another session may keep the pipe open.
            reader.join(1.0)
    done = Finished(process.returncode, bytes(streams[0]), bytes(streams[1]))
    if any(len(stream) > _LONGEST for stream in streams):
        raise RunError(f"{name} printed more than {_LONGEST >> 20} MiB and was killed{done.last_lines()}")
    if late:
        raise RunError(f"{name} had not ended after {timeout:g} s and was killed{done.last_lines()}")
    return done


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and its child processes; nothing if it has ended."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
