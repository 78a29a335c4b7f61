"""Other libraries' settings in the environment and levels of their loggers, as they were before afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Put `settings` into the environment inside, and take them out afterwards; what the user set holds."""
    added = [name for name in settings if name not in os.environ]
    os.environ.update({name: settings[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def loggers_at(level: int, names: Iterable[str]) -> Iterator[None]:
    """Show nothing below `level` of these loggers inside; their levels are as they were afterwards."""
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in before:
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for name, old in before.items():
            logging.getLogger(name).setLevel(old)
