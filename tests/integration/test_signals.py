"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP) end the work at any point, and its finally blocks run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EACH = pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
PRELUDE = """
import os, signal, sys, time
from harness.cli import main as cli

def stop():
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.01)

def work(*_, **__):
    try:
        BODY
    finally:
        print("put away")

cli.cli.main = work
cli.main(["list"])
"""


def ended(body: str, number: int) -> tuple[int, str, str]:
    """Status, output and errors of a command whose work is `body`, in a process of its own."""
    source = PRELUDE.replace("BODY", body.replace("\n", "\n        "))
    done = subprocess.run([sys.executable, "-c", source, str(int(number))], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


STOPPED = "harness: stopped; the same command continues from here\n"


@EACH
def test_a_stop_ends_the_command_with_its_status_and_one_line(number: int, status: int):
    assert ended("stop()", number) == (status, "put away\n", STOPPED)


@EACH
def test_a_stop_that_comes_inside_a_destructor_is_not_lost(number: int, status: int):
    body = "class Late:\n    def __del__(self): stop()\nlate = Late()\ndel late\ntime.sleep(30)"
    assert ended(body, number) == (status, "put away\n", STOPPED)


@EACH
def test_a_stop_that_a_library_turns_into_an_error_of_its_own_is_still_a_stop(number: int, status: int):
    body = "try: stop()\nexcept BaseException as error: raise RuntimeError('cannot import this') from error"
    assert ended(body, number) == (status, "put away\n", STOPPED)


def test_a_closed_terminal_is_passed_over_under_nohup():
    body = "stop()\nprint('worked on')"
    source = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + PRELUDE.replace(
        "BODY", body.replace("\n", "\n        ")
    )
    words = [sys.executable, "-c", source, str(int(signal.SIGHUP))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "worked on\nput away\n", "")


def test_another_exception_in_a_destructor_is_printed_as_python_prints_it():
    body = "class Bad:\n    def __del__(self): 1 / 0\nbad = Bad()\ndel bad"
    status, _, errors = ended(body, signal.SIGTERM)
    assert status == 0
    assert "Exception ignored" in errors
    assert "ZeroDivisionError" in errors


@pytest.mark.skipif(sys.platform != "linux", reason="a library's own handler, as C sets it")
def test_a_stop_takes_effect_while_a_library_installs_a_handler_of_its_own():
    """A stop takes effect while a library that connects installs its own handler."""
    source = """
import ctypes, os, signal, time
from concurrent.futures import ThreadPoolExecutor
from harness.runtime import signals
from harness.engine.distributed import session

def connect():
    ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(0))  # 0: the default, which ends the process
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    print("connected")

with signals.handled(), ThreadPoolExecutor(1) as other:
    session._wait_for_connection(other.submit(connect))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, "connected\n", "")


def test_rays_folder_is_noted_before_it_starts_and_forgotten_if_it_does_not(tmp_path: Path):
    """Where Ray keeps its files is written down before it starts and forgotten when it does not."""
    source = """
import json, sys
from pathlib import Path
from harness.engine.distributed import session

def start(ray, place):
    kept = json.loads(Path(sys.argv[1], "processes.json").read_text(encoding="utf-8"))
    print(json.dumps([kept["place"] == place, Path(place).is_dir()]))
    raise session.RunError("not today")

session._start = start
try:
    with session.session(folder=Path(sys.argv[1])):
        pass
except session.RunError as error:
    print(json.dumps(str(error)))
"""
    done = subprocess.run([sys.executable, "-c", source, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[True, True], "not today"], done.stderr
    assert list(tmp_path.iterdir()) == []
