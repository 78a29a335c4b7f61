"""Ray Tune inside a session of the harness: without its own talk and signal handlers, and with the caller's environment."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TypeVar

from harness.runtime import libraries

T = TypeVar("T")

_ENVIRONMENT = {
    # Ctrl-C is the harness's: Tune would go on for the rest of its trials' steps.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Its loggers bring TensorBoard in, which takes longer than the search.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def environment() -> AbstractContextManager[None]:
    """Tune's settings inside, the caller's environment afterwards; what the user set holds."""
    return libraries.environment(_ENVIRONMENT)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """No talk of Tune's next to the harness's own."""
    with libraries.loggers_at(logging.CRITICAL, ("ray.tune", "ray.train", "ray.air")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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
