"""The handler of the package's log messages: to the screen, or from a worker process to the process that started it.

Every package logs to the logger of its name (`harness.engine`, ...): INFO for what a user should know, WARNING for what may be
wrong. As a library the harness sets no handler and no level.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOGGER = "harness"


@contextmanager
def handled(show: Callable[[int, str], None]) -> Iterator[None]:
    """Inside the block, log messages of the package (INFO and above) go to `show` and nowhere else.

    Args:
        show: Takes the level (`logging.INFO`, ...) and the text of a message.
    """
    logger = logging.getLogger(LOGGER)
    level, propagate, handlers = logger.level, logger.propagate, logger.handlers[:]
    handle(show)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate, logger.handlers[:] = propagate, handlers


def handle(show: Callable[[int, str], None]) -> None:
    """As `handled`, for the rest of a process, such as a worker's."""
    logger = logging.getLogger(LOGGER)
    logger.handlers[:] = [_Shown(show)]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def set_level(*, quiet: bool) -> None:
    """Show warnings only, where `quiet`."""
    logging.getLogger(LOGGER).setLevel(logging.WARNING if quiet else logging.INFO)


class _Shown(logging.Handler):
    def __init__(self, show: Callable[[int, str], None]) -> None:
        super().__init__()
        self.show = show

    def emit(self, record: logging.LogRecord) -> None:
        self.show(record.levelno, record.getMessage())
