"""Settings and fixtures for all tests: no hub, no telemetry, and a folder of shared data that may be absent."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tls_server import Server

# Nothing is timed here: the machine may be busy with other work.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell that starts the tests in the background makes them, and every process that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# And nohup makes them ignore a closed terminal.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The faster ways of computing, untimed; tests/models/test_kernel_choice.py has the trials.
os.environ.setdefault("HARNESS_KERNELS", "fast")
# Which files a user has named before is kept here, not in the home of whoever runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="harness-tests-state-")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_SHARED = Path(os.environ.get("HARNESS_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real pairs, labels and golden scores kept next to the checkout; tests that need them skip without."""
    if not (_SHARED / "data").is_dir():
        pytest.skip(f"{_SHARED} is not on this machine (real images and golden scores)")
    return _SHARED


@pytest.fixture(scope="module")
def web_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over TLS that stands for every host of the cards (tests/support/tls_server.py)."""
    from tls_server import serving

    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def web(web_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server with no files and no plays, where this process's downloads go; tries follow one another at once."""
    from harness.files import download

    for name, value in web_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    web_server.files, web_server.asked = {}, []
    web_server.plays.clear()
    web_server.usual.clear()
    return web_server


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the harness logs in a test, from INFO on, line by line."""
    from harness.runtime import logs

    lines: list[str] = []
    with logs.handled(lambda level, text: lines.append(text)):
        yield lines


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a command prints, ended with a status, called in the folder `tmp_path`."""
    from harness.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))

    def call(*words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(words)
        captured = capsys.readouterr()
        assert int(ended.value.code or 0) == status, captured.err
        assert "defect" not in captured.err
        return captured.out if status == 0 else captured.out + captured.err

    return call
