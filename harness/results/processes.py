"""The list of a run's worker processes, in its folder, so that processes left after a kill can be ended.

A run's folder may come from another user, so the list is not trusted: a process is ended only if it is this user's and has the
recorded start time and command line, and a folder is deleted only if it is this user's, is in the system's folder for temporary
files and holds the recorded mark.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files.atomic import write_json, write_text
from harness.files.names import read_own
from harness.runtime.errors import HarnessError

if TYPE_CHECKING:
    import psutil

_log = logging.getLogger(__package__)

FILE = "processes.json"
MARK = ".harness"
"""A file in the processes' temporary folder, with the token that is in their list, too."""
_TOKEN = uuid.uuid4().hex
_SAME_START = 1.0
"""Tolerance in seconds of a process's start time."""
_GRACE = 3.0
_LARGEST = 1 << 20


def record(folder: Path, place: str | None = None) -> None:
    """Write the list of this process's present descendants, each with its start time and command line.

    `place`: their temporary folder; it is marked.
    """
    import psutil

    rows = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            started, command = process.create_time(), _command(process)
            rows.append({"pid": process.pid, "started": started, "name": process.name(), "command": command})
    if place is not None and os.path.isdir(place):
        write_text(Path(place) / MARK, _TOKEN)
    here = {"host": socket.gethostname(), "boot": psutil.boot_time()}
    write_json(folder / FILE, {**here, "token": _TOKEN, "place": place, "processes": rows})


def forget(folder: Path) -> None:
    """Remove the list, when no process works for the run any more."""
    with contextlib.suppress(OSError):  # a folder of that name is not ours
        (folder / FILE).unlink(missing_ok=True)


def end_leftovers(folder: Path) -> None:
    """End processes left by an earlier process of this run, and log them; call with the folder locked.

    For a damaged list, or another user's, a warning is logged.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        return
    import psutil

    try:
        if hasattr(os, "getuid") and path.lstat().st_uid != os.getuid():
            raise ValueError("another user's")
        document = json.loads(read_own(path, _LARGEST))
        if not isinstance(document, dict) or not isinstance(document.get("processes"), list):
            raise ValueError("it holds no list of processes")
        if document["host"] == socket.gethostname() and abs(document["boot"] - psutil.boot_time()) < 60:
            left = [process for row in document["processes"] if (process := _still(row)) is not None]
            if left:
                names = ", ".join(f"{process.name()} ({process.pid})" for process in left)
                _log.info(f"{folder}: ending processes left by an earlier run: {names}")
                end(left)
            if document.get("place") and (problem := _foreign(str(document["place"]), document.get("token"))):
                _log.warning(f"{path}: {document['place']} is not deleted: {problem}")
            elif document.get("place"):
                shutil.rmtree(document["place"], ignore_errors=True)
    except (HarnessError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        why = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        _log.warning(f"{path}: not a usable list of processes ({why}); no process was ended")
    forget(folder)


def _foreign(place: str, token: Any) -> str:
    """Why a folder in a list must not be deleted; empty where it may be, or is absent."""
    if "\0" in place or not os.path.isabs(place):
        return "not the path of a folder"
    if not os.path.lexists(place):
        return ""
    real = os.path.realpath(place)
    temporary = {os.path.realpath(f) for f in (tempfile.gettempdir(), "/tmp") if os.path.isdir(f)}
    inside = any(Path(real).parent.is_relative_to(folder) for folder in temporary)
    if os.path.islink(place) or not os.path.isdir(real) or not inside:
        return "not a folder among the temporary files"
    mark = Path(place) / MARK
    try:
        found = read_own(mark, _LARGEST).decode("ascii", "replace")
    except HarnessError:
        return "without the harness's mark"
    owners = {os.stat(path).st_uid for path in (place, mark)}
    own = not hasattr(os, "getuid") or owners == {os.getuid()}
    return "" if own and isinstance(token, str) and len(token) == len(_TOKEN) and found == token else "not the mark of this list"


def _still(row: Mapping[str, Any]) -> psutil.Process | None:
    """The listed process, unless it has ended; its number may belong to another process now."""
    import psutil

    if not isinstance(row["pid"], int) or row["pid"] <= 1:
        raise ValueError(f"{row['pid']} is not the number of a process")
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(row["pid"])
        me = psutil.Process()
        if process.pid in {me.pid, *(parent.pid for parent in me.parents())}:
            return None
        same = abs(process.create_time() - row["started"]) < _SAME_START and _command(process) == row["command"]
        own = not hasattr(os, "getuid") or process.uids().real == os.getuid()
        if same and own and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _command(process: psutil.Process) -> str:
    """The command line; Ray's workers change theirs with their task, so it is replaced by one name for all."""
    text = " ".join(process.cmdline())
    return "ray worker" if text.startswith("ray::") or "default_worker.py" in text else text


def end(processes: Sequence[psutil.Process]) -> None:
    """End processes: terminate, then kill after some seconds; processes that have ended already are skipped."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=_GRACE)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=_GRACE)
