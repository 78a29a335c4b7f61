"""Runs on disk: where a record lies, what its key hashes, and how work that was cut off goes on.

`runs/<dataset>/<model>/<key>/` holds record.json (written last: it being there means the run is finished),
scores.csv, pictures.csv, checkpoints, log.jsonl and plots. The key hashes what determines the result and nothing
else; the conditions (machine, device, versions, threads, batch) under which bits repeat are kept beside it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import platform
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import processes, shapes
from harness.cards.schema import ModelCard
from harness.files.atomic import append_lines, sha256_json, sync, write_json, write_text, writing
from harness.runtime.errors import BadRequest, Fault, listed
from harness.scoring import Scored

FORMAT = 1
# Cut off between two removals, a folder must not look finished without its scores, nor resumable without its state's files.
_FIRST_REMOVED = {"record.json": 0, "state.json": 1}
_PROSE = (
    "title",
    "description",
    "paper",
    "code",
    "licence",
    "extra_data",
    "trained_on",
    "trained_split",
    "tunable",
    "requires",
    "extra",
    "published",
    "path",
    "weights",
)
LIBRARIES = ("numpy", "pandas", "scipy", "pillow", "opencv-python-headless", "torch", "torchvision", "timm", "safetensors")


def identity(
    card: ModelCard,
    *,
    version: int,
    weights: Mapping[str, str],
    trained: bool,
    table: str,
    split: str,
    protocol: str,
    seed: int,
    limit: int | None = None,
    source: str = "",
) -> dict[str, Any]:
    """What determines a result. `weights`: sha256 by part; `table`, `split`: hashes; `source`: the key of the run that
    trained the weights, where they are not a file yet."""
    facts = {k: v for k, v in asdict(card).items() if k not in _PROSE}
    if not trained:
        facts.pop("recipe")
    facts["model"] = {k: v for k, v in facts["model"].items() if k != "backbone" or v in ("", "random")}
    # A setting younger than the keys there are: where it is off, they stay what they were.
    facts["protocol"] = {k: v for k, v in facts["protocol"].items() if k != "mirrored" or v}
    return {
        "card": facts,
        "version": version,
        "weights": dict(sorted(weights.items())),
        "table": table,
        "split": split,
        "protocol": protocol,
        "seed": seed,
        "limit": limit,
        "source": source,
    }


def key_of(facts: Mapping[str, Any]) -> str:
    """The run's key: 16 hexadecimal digits over its identity."""
    return sha256_json(facts)[:16]


def folder_of(runs: str | Path, dataset: str, model: str, key: str) -> Path:
    """`runs/<dataset>/<model>/<key>`, names made safe for any file system."""
    return Path(runs) / safe_name(dataset) / safe_name(model) / key


def safe_name(name: str) -> str:
    """`name` as a file or folder name that any file system takes."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", name).strip(". ") or "unnamed"


def libraries() -> dict[str, str]:
    """Installed versions of what can move a score, without importing any of it."""
    found = {"harness": "iqa-harness", **{name: name for name in LIBRARIES}}
    versions = {}
    for name, package in found.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(package)
    return versions


def conditions(device: str, threads: int, batch: int) -> dict[str, Any]:
    """Under which conditions bits repeat."""
    return {
        "machine": f"{platform.system()} {platform.machine()} {processor()}",
        "python": platform.python_version(),
        "device": device,
        "threads": threads,
        "batch": batch,
        "libraries": libraries(),
    }


def processor() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def read_record(folder: Path) -> dict[str, Any] | None:
    """The folder's finished record, or None. Raises BadRequest for one that another version wrote or that is damaged."""
    path = folder / "record.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_float=_finite, parse_constant=_finite)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadRequest(f"{path}: not a readable record ({error}); move it away, or repeat with --force") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else None
        raise BadRequest(
            f"{path}: written by another version of the harness (format {found}, this one reads {FORMAT}); "
            "choose another --runs, or repeat with --force"
        )
    if not shapes.fits(record):
        wrong = listed(list(shapes.problems(record)), 5)
        raise BadRequest(f"{path}: a damaged record ({wrong}); move it away, or repeat with --force")
    return record


def finished(folder: Path) -> dict[str, Any] | None:
    """The folder's record, unless it or the scores behind it are not there. Raises BadRequest as `read_record` does."""
    record = read_record(folder)
    return record if record is not None and all((folder / name).is_file() for name in ("scores.csv", "pictures.csv")) else None


def withdraw(folder: Path, say: Callable[[str], None]) -> None:
    """Remove a record whose scores are gone, so that the run counts as cut off; call with the folder locked."""
    path = folder / "record.json"
    if path.is_file():
        say(f"{folder}: its record is there and its scores are not; doing what is missing")
        with writing(path):
            path.unlink()


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def all_records(runs: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Finished records under a folder `<dataset>/<model>/<key>`, in the order of their paths."""
    for path in sorted(Path(runs).glob("*/*/*/record.json")):
        record = read_record(path.parent)
        if record is not None:
            yield path.parent, record


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One process at a time works in `folder`; others wait and say for whom. A dead holder's lock is free."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor, folder, say)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0) if hasattr(os, "pwrite") else None
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, say: Callable[[str], None]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: no advisory lock that dies with its holder; two processes are the user's care
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
        say(f"{folder}: {holder} works on this run; waiting for it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def prepare(folder: Path, facts: Mapping[str, Any], now: Mapping[str, Any], *, force: bool, say: Callable[[str], None]) -> None:
    """Make `folder` ready to work in: keep what an interrupted run left if it can go on to the same bits, else start anew."""
    state = folder / "state.json"
    before: dict[str, Any] | None = None
    with contextlib.suppress(OSError, ValueError):  # absent or cut short: nothing to go on from
        before = json.loads(state.read_text(encoding="utf-8"))
    wanted = {"format": FORMAT, "identity": dict(facts), "conditions": dict(now)}
    wanted = json.loads(json.dumps(wanted))
    if force or before != wanted:
        if before is not None and not force:
            say(f"{folder}: begun under other conditions ({difference(before, wanted)}); starting it anew")
        with writing(folder):
            for entry in sorted(folder.iterdir(), key=lambda entry: _FIRST_REMOVED.get(entry.name, len(_FIRST_REMOVED))):
                if entry.name in ("lock", processes.FILE):
                    continue
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        write_json(state, wanted)


def require_there(folder: Path) -> None:
    """Refuse to go on where a run's folder was removed or moved under it; raises Fault."""
    if not folder.is_dir():
        raise Fault(
            f"{folder}: the folder is gone (removed or moved while this run worked in it?); the same command begins it anew"
        )


def difference(before: Any, wanted: Any, path: str = "") -> str:
    """`a.b was 1, is 2, ...` for every leaf that differs between two documents."""
    if isinstance(before, dict) and isinstance(wanted, dict):
        parts = [
            difference(before.get(k), wanted.get(k), f"{path}{k}.")
            for k in {**before, **wanted}
            if before.get(k) != wanted.get(k)
        ]
        return ", ".join(parts)
    return f"{path.rstrip('.')} was {before}, is {wanted}"


class ScoreFile:
    """scores.csv (name,score,part) and pictures.csv (name and the sha256 of both files), grown by whole chunks."""

    HEADER = ("name", "score", "part")
    PICTURES = ("name", "distorted_sha256", "reference_sha256")

    def __init__(self, folder: Path) -> None:
        self.path = folder / "scores.csv"
        self.pictures = folder / "pictures.csv"

    def resume(self, chunks: Sequence[Sequence[str]]) -> set[int]:
        """Which chunks (of names) are already there whole; anything else in the files is dropped.

        Workers finish chunks in any order, so what a kill left need not be the first ones.
        """
        rows, pictures = _whole_rows(self.path), _whole_rows(self.pictures)
        places = [{row[0]: at for at, row in enumerate(found)} for found in (rows, pictures)]

        def whole(chunk: Sequence[str]) -> bool:
            starts = [at.get(chunk[0], -1) for at in places]
            ends = zip((rows, pictures), starts, strict=True)
            return all(s >= 0 and [r[0] for r in found[s : s + len(chunk)]] == list(chunk) for found, s in ends)

        done = {number for number, chunk in enumerate(chunks) if whole(chunk)}
        self._write(rows, pictures, [name for number in sorted(done) for name in chunks[number]])
        return done

    def finish(self, chunks: Sequence[Sequence[str]]) -> None:
        """Put the rows into the chunks' order, and everything on disk: the same bytes whoever finished first."""
        rows, pictures = _whole_rows(self.path), _whole_rows(self.pictures)
        order = [name for chunk in chunks for name in chunk]
        if any(sorted(r[0] for r in found) != sorted(order) for found in (rows, pictures)):
            raise Fault(f"{self.path}: changed by something else while this run wrote to it; the same command puts it right")
        if [r[0] for r in rows] != order or [r[0] for r in pictures] != order:
            self._write(rows, pictures, order)
        sync(self.path)

    def _write(self, rows: list[list[str]], pictures: list[list[str]], order: Sequence[str]) -> None:
        for path, header, found in ((self.path, self.HEADER, rows), (self.pictures, self.PICTURES, pictures)):
            by_name = {row[0]: row for row in found}
            write_text(path, csv_text([header, *(by_name[name] for name in order)]))

    def append(self, results: Sequence[Scored], parts: Sequence[str]) -> None:
        """One chunk's rows, in one write each; floats with all their digits."""
        append_lines(self.pictures, csv_text([(r.name, r.distorted, r.reference) for r in results]))
        append_lines(self.path, csv_text([(r.name, repr(r.score), part) for r, part in zip(results, parts, strict=True)]))

    def read(self) -> list[tuple[str, float, str]]:
        """All rows: name, score, part. Raises Fault for a damaged file."""
        try:
            return [(name, float(score), part) for name, score, part in _whole_rows(self.path)]
        except ValueError as error:
            raise Fault(f"{self.path}: a damaged score file: {error}") from None

    def picture_hashes(self) -> list[tuple[str, str, str]]:
        """All rows of pictures.csv: name, sha256 of the distorted image, sha256 of the reference."""
        return [(name, distorted, reference) for name, distorted, reference in _whole_rows(self.pictures)]


def _whole_rows(path: Path) -> list[list[str]]:
    """The rows below the header, without a last line that a kill cut short."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return []
    except OSError as error:
        raise BadRequest(f"{path}: cannot be read: {error.strerror}") from None
    # Not splitlines(): names may hold the other characters that it breaks lines at.
    try:
        rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
    except csv.Error:  # damaged: nothing in it can be trusted
        return []
    return [row for row in rows[1:] if len(row) == 3]


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as CSV lines ending in a newline."""
    out = io.StringIO()
    plain, quoted = (csv.writer(out, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        # Unquoted, a name's carriage return (which the module leaves bare before Python 3.13) would end the line.
        (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
    return out.getvalue()
