"""Ray Tune inside a session of the harness: without its own talk and signal handlers, and with the caller's environment."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager

from harness.runtime import libraries

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
