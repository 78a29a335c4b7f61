"""A file that one process at a time holds; whoever dies lets go of it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from harness.files.atomic import writing

_log = logging.getLogger(__package__)


@contextlib.contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file at `path` inside, made where it is not there; yields False where another has it and `wait` is off.

    A link is not followed. On Windows there is no lock that dies with its holder: nothing is held there. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    ours = True
    try:
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                ours = False
        yield ours
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(path: Path, message: str, *, patience: float = 0.0, removed: bool = False) -> Iterator[None]:
    """Hold the lock file at `path` inside, on every system; its folder is made. Raises Unwritable.

    Args:
        path: The lock file.
        message: Logged where another process has it, before this one waits.
        patience: Seconds to wait before that.
        removed: Take the file away afterwards.
    """
    import filelock

    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=patience)
        except filelock.Timeout:
            _log.info(message)
            lock.acquire()
    try:
        yield
    finally:
        if removed and os.name == "posix":  # elsewhere it goes by itself; who waits for a removed one notices (filelock 3.24)
            with contextlib.suppress(OSError):
                os.unlink(lock.lock_file)
        lock.release()
