"""Which processes work for a run: written down in its folder, so that what a kill left behind is found and ended."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files.atomic import write_json

if TYPE_CHECKING:
    import psutil

FILE = "processes.json"
_SAME_START = 1.0
"""Seconds by which the system's two answers about when a process started may differ."""
_GRACE = 3.0


def record(folder: Path, place: str | None = None) -> None:
    """Write down this process's descendants as they are now, each with its time of starting.

    `place`: a folder of their own that goes with them.
    """
    import psutil

    rows = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            rows.append({"pid": process.pid, "started": process.create_time(), "name": process.name()})
    write_json(folder / FILE, {"host": socket.gethostname(), "boot": psutil.boot_time(), "place": place, "processes": rows})


def forget(folder: Path) -> None:
    """Nothing of ours works for the run any more."""
    (folder / FILE).unlink(missing_ok=True)


def end_leftovers(folder: Path, say: Callable[[str], None]) -> None:
    """End what an earlier process of this run left working, and name it; call with the folder locked."""
    path = folder / FILE
    if not path.is_file():
        return
    import psutil

    document: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("host") == socket.gethostname() and abs(document.get("boot", 0) - psutil.boot_time()) < 60:
        left = [process for row in document["processes"] if (process := _still(row)) is not None]
        if left:
            names = ", ".join(f"{process.name()} ({process.pid})" for process in left)
            say(f"{folder}: ending what an earlier run of this left behind: {names}")
            end(left)
        if document.get("place"):
            shutil.rmtree(document["place"], ignore_errors=True)
    forget(folder)


def _still(row: dict[str, Any]) -> psutil.Process | None:
    """The process that was written down, unless it ended; a number that the system gave to another process is not it."""
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(row["pid"])
        if abs(process.create_time() - row["started"]) < _SAME_START and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


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
