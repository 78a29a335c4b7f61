"""Lock files: one process at a time holds one, and the system releases it when that process ends."""

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
    """Hold the lock file at `path` inside the block; yields False where another process has it and `wait` is off.

    The file is created if needed; a link is not followed. Windows has no lock that ends with its process: there nothing is
    locked. Raises OSError.
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
    """Hold the lock file at `path` inside the block, on every system; its folder is created. Raises Unwritable.

    Args:
        path: The lock file.
        message: Logged when another process holds the lock, before this one waits.
        patience: Seconds to wait before the message.
        removed: Remove the file afterwards.
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
        if (
            removed and os.name == "posix"
        ):  # Windows removes it itself; a process that waits for a removed file notices (filelock 3.24)
            with contextlib.suppress(OSError):
                os.unlink(lock.lock_file)
        lock.release()
