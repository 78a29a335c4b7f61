"""Settings for Ray Tune inside the harness: no output, no signal handlers, and the caller's environment restored."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager

from harness.runtime import libraries

_ENVIRONMENT = {
    # The harness handles Ctrl-C: Tune would finish the current steps of its trials first.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Its loggers import TensorBoard, which takes longer than the search.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def environment() -> AbstractContextManager[None]:
    """Set Tune's environment variables inside the block and restore them after it; variables that the user set are kept."""
    return libraries.environment(_ENVIRONMENT)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Silence Tune's output inside the block."""
    with libraries.loggers_at(logging.CRITICAL, ("ray.tune", "ray.train", "ray.air")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
