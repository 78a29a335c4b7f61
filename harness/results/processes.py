"""Which processes work for a run: written down in its folder, so that what a kill left behind is found and ended.

A run's folder may be a stranger's. So what it says is believed only as far as the same user made it: a process is ended when it
is this user's and has the time of starting and the command line that were written down, and a folder is deleted when it is this
user's, lies in the system's folder for temporary files and holds the mark that was written down.
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
"""In a folder that goes with the processes: the token that their list has, too."""
_TOKEN = uuid.uuid4().hex
_SAME_START = 1.0
"""Seconds by which the system's two answers about when a process started may differ."""
_GRACE = 3.0
_LARGEST = 1 << 20


def record(folder: Path, place: str | None = None) -> None:
    """Write down this process's descendants as they are now, each with its time of starting and its command line.

    `place`: a folder of their own that goes with them; it is marked.
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
    """Nothing of ours works for the run any more."""
    with contextlib.suppress(OSError):  # a folder of that name is nothing that was written here
        (folder / FILE).unlink(missing_ok=True)


def end_leftovers(folder: Path) -> None:
    """End what an earlier process of this run left working, and name it; call with the folder locked.

    A damaged list, or one that is not this user's, costs a warning.
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
            raise ValueError("no list of processes in it")
        if document["host"] == socket.gethostname() and abs(document["boot"] - psutil.boot_time()) < 60:
            left = [process for row in document["processes"] if (process := _still(row)) is not None]
            if left:
                names = ", ".join(f"{process.name()} ({process.pid})" for process in left)
                _log.info(f"{folder}: ending what an earlier run of this left behind: {names}")
                end(left)
            if document.get("place") and (problem := _foreign(str(document["place"]), document.get("token"))):
                _log.warning(f"{path}: {document['place']} is left where it is: {problem}")
            elif document.get("place"):
                shutil.rmtree(document["place"], ignore_errors=True)
    except (HarnessError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        why = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        _log.warning(f"{path}: not a usable list of processes ({why}); nothing was ended for it")
    forget(folder)


def _foreign(place: str, token: Any) -> str:
    """Why a folder that a list names is not the harness's own to delete; empty where it is, or is gone."""
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
    """The process that was written down, unless it ended; a number that the system gave to another process is not it."""
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
    """The command line. Ray's workers rename themselves to what they do at the moment: they are all one."""
    text = " ".join(process.cmdline())
    return "ray worker" if text.startswith("ray::") or "default_worker.py" in text else text


def end(processes: Sequence[psutil.Process]) -> None:
    """End processes: asked first, forced after some seconds; those that are gone already are no trouble."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=_GRACE)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=_GRACE)
