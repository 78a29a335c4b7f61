"""The folder of a run: its path, its lock, and what is kept of an interrupted run.

`runs/<dataset>/<model>/<key>/` holds record.json (written last: it being there means the run is finished),
scores.csv, pictures.csv, checkpoints, log.jsonl and plots. The key is a hash of everything that determines the result and of
nothing else; the conditions (machine, device, versions, threads, batch) under which bits repeat are in state.json.
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
"""The folder below the runs folder for MLflow's copies of runs' files."""
# In this order: interrupted in between, a folder must not look finished without its scores, nor resumable without its files.
_STATE = "state.json"
_FIRST_REMOVED = {"record.json": 0, _STATE: 1}


def folder_of(runs: str | Path, dataset: str, model: str, key: str) -> Path:
    """`runs/<dataset>/<model>/<key>`, names made safe for any file system."""
    return Path(runs) / safe_name(dataset) / safe_name(model) / key


def safe_name(name: str) -> str:
    """`name` as a file or folder name for any file system."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", name).strip(". ") or "unnamed"


def finished(folder: Path) -> Record | None:
    """The folder's record; None without it or without its scores. Raises UsageError as `read_record` does."""
    record = read_record(folder)
    return record if record is not None and all((folder / name).is_file() for name in ("scores.csv", "pictures.csv")) else None


def withdraw(folder: Path) -> None:
    """Remove a record whose scores are missing, so that the run counts as interrupted; call with the folder locked."""
    path = folder / "record.json"
    if path.is_file():
        _log.info(f"{folder}: it has a record but no scores; computing them again")
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
    """Lock `folder` for one process; others wait and log the holder. The lock of a process that has died is free."""
    if folder.is_symlink():
        raise UsageError(
            f"{folder}: a link, not a run's folder; its target is not used: remove the link, or choose another --runs"
        )
    path = folder / "lock"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # The lock file is written to, so it must not be a link to another file: a link is replaced.
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if not (stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)):
                _log.warning(f"{path}: a link or a pipe, not a regular file; replaced")
                path.unlink()
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags, 0o666)
    try:
        # Windows has no advisory lock that ends with its process: there the user must avoid two processes.
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


def prepare(folder: Path, facts: Mapping[str, Any], conditions: Mapping[str, Any], *, force: bool) -> None:
    """Prepare `folder` for a run: keep an interrupted run's files if it can continue to the same bits, else remove them."""
    before = noted(folder / _STATE)
    wanted = json.loads(json.dumps({"format": FORMAT, "identity": dict(facts), "conditions": dict(conditions)}))
    if force or before != wanted:
        if before is not None and not force:
            _log.info(f"{folder}: begun under other conditions ({difference(before, wanted)}); starting again")
        with writing(folder):
            for entry in sorted(folder.iterdir(), key=lambda entry: _FIRST_REMOVED.get(entry.name, len(_FIRST_REMOVED))):
                if entry.name in ("lock", processes.FILE):
                    continue
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        write_json(folder / _STATE, wanted)


def begun_under(folder: Path) -> dict[str, Any] | None:
    """The conditions under which a run's folder was begun; None where there is nothing to continue."""
    found = (noted(folder / _STATE) or {}).get("conditions")
    return found if isinstance(found, dict) else None


def require_there(folder: Path) -> None:
    """Raise RunError where a run's folder was removed or moved during the run."""
    if not folder.is_dir():
        raise RunError(f"{folder}: the folder is gone (removed or moved during the run?); the same command starts it again")
