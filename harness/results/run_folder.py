"""Runs on disk: where a record lies, what its key hashes, and how work that was cut off goes on.

`runs/<dataset>/<model>/<key>/` holds record.json (written last: it being there means the run is finished),
scores.csv, pictures.csv, checkpoints, log.jsonl and plots. The key hashes what determines the result and nothing
else; the conditions (machine, device, versions, threads, batch) under which bits repeat are kept next to it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.files.atomic import write_json, writing
from harness.files.documents import noted
from harness.results import processes
from harness.results.conditions import difference
from harness.results.key import FORMAT
from harness.results.record import Record, read_record
from harness.runtime.errors import RunError, UsageError

_log = logging.getLogger(__package__)

MLFLOW_FILES = "mlartifacts"
"""The folder of a runs folder where MLflow keeps its copies of runs' files."""
# Cut off between two removals, a folder must not look finished without its scores, nor resumable without its state's files.
_STATE = "state.json"
_FIRST_REMOVED = {"record.json": 0, _STATE: 1}


def folder_of(runs: str | Path, dataset: str, model: str, key: str) -> Path:
    """`runs/<dataset>/<model>/<key>`, names made safe for any file system."""
    return Path(runs) / safe_name(dataset) / safe_name(model) / key


def safe_name(name: str) -> str:
    """`name` as a file or folder name that any file system takes."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", name).strip(". ") or "unnamed"


def finished(folder: Path) -> Record | None:
    """The folder's record, unless it or the scores behind it are not there. Raises UsageError as `read_record` does."""
    record = read_record(folder)
    return record if record is not None and all((folder / name).is_file() for name in ("scores.csv", "pictures.csv")) else None


def withdraw(folder: Path) -> None:
    """Remove a record whose scores are gone, so that the run counts as cut off; call with the folder locked."""
    path = folder / "record.json"
    if path.is_file():
        _log.info(f"{folder}: its record is there and its scores are not; doing what is missing")
        with writing(path):
            path.unlink()


def all_records(runs: str | Path) -> Iterator[tuple[Path, Record]]:
    """Finished records under a folder `<dataset>/<model>/<key>`, in the order of their paths."""
    for path in sorted(Path(runs).glob("*/*/*/record.json")):
        record = read_record(path.parent)
        if record is not None:
            yield path.parent, record


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time works in `folder`; others wait and say for whom. A dead holder's lock is free."""
    if folder.is_symlink():
        raise UsageError(
            f"{folder}: a link, not a run's folder; what it leads to is left alone: remove it, or choose another --runs"
        )
    path = folder / "lock"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # The lock is written to, so that it must not be another file under this name: a link is replaced.
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if not (stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)):
                _log.warning(f"{path}: not a file of this folder's own (a link or a pipe); made again")
                path.unlink()
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags, 0o666)
    try:
        # On Windows there is no advisory lock that dies with its holder; two processes are the user's care.
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
                _log.info(f"{folder}: {holder} works on this run; waiting for it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0) if hasattr(os, "pwrite") else None
        yield
    finally:
        os.close(descriptor)


def prepare(folder: Path, facts: Mapping[str, Any], now: Mapping[str, Any], *, force: bool) -> None:
    """Make `folder` ready to work in: keep what an interrupted run left if it can go on to the same bits, else start again."""
    before = noted(folder / _STATE)
    wanted = json.loads(json.dumps({"format": FORMAT, "identity": dict(facts), "conditions": dict(now)}))
    if force or before != wanted:
        if before is not None and not force:
            _log.info(f"{folder}: begun under other conditions ({difference(before, wanted)}); starting it again")
        with writing(folder):
            for entry in sorted(folder.iterdir(), key=lambda entry: _FIRST_REMOVED.get(entry.name, len(_FIRST_REMOVED))):
                if entry.name in ("lock", processes.FILE):
                    continue
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        write_json(folder / _STATE, wanted)


def begun_under(folder: Path) -> dict[str, Any] | None:
    """The conditions under which a run's folder was begun; None where there is nothing to go on from."""
    found = (noted(folder / _STATE) or {}).get("conditions")
    return found if isinstance(found, dict) else None


def require_there(folder: Path) -> None:
    """Refuse to go on where a run's folder was removed or moved under it; raises RunError."""
    if not folder.is_dir():
        raise RunError(
            f"{folder}: the folder is gone (removed or moved while this run worked in it?); the same command begins it again"
        )
