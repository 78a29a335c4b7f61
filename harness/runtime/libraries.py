"""Environment variables and logger levels of other libraries: set inside a block, restored after it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block and remove them after it; variables that the user set are kept."""
    added = [name for name in settings if name not in os.environ]
    os.environ.update({name: settings[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def loggers_at(level: int, names: Iterable[str]) -> Iterator[None]:
    """Show nothing below `level` from these loggers inside the block; their levels are restored after it."""
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in before:
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for name, old in before.items():
            logging.getLogger(name).setLevel(old)
