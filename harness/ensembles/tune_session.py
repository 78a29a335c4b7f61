"""Ray Tune inside a session of the harness: without its own talk and signal handlers, and with the caller's environment."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_ENVIRONMENT = {
    # Ctrl-C is the harness's: Tune would go on for the rest of its trials' steps.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Its loggers bring TensorBoard in, which takes longer than the search.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Tune's settings inside, the caller's environment afterwards; what the user set holds."""
    added = [name for name in _ENVIRONMENT if name not in os.environ]
    os.environ.update({name: _ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """No talk of Tune's next to the harness's own."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def meanwhile(work: Callable[[], T]) -> Callable[[], T]:
    """Begin `work` in a thread of its own; the returned function waits for its result, or raises what it raised.

    The thread does not keep the process alive: who is stopped does not wait for it.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result
