"""Shared by all tests: no hub, no telemetry, and a folder of outside data that may be absent."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest

# Nothing is timed here: the machine may be busy with other work.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell that starts the tests in the background makes them, and every process that they start, deaf to Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Which files a user has named before is kept here, not in the home of whoever runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="harness-tests-state-")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_SHARED = Path(os.environ.get("HARNESS_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real pairs, labels and golden scores kept beside the checkout; tests that need them skip without."""
    if not (_SHARED / "data").is_dir():
        pytest.skip(f"{_SHARED} is not on this machine (real pictures and golden scores)")
    return _SHARED
