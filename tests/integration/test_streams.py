"""Standard streams that are closed, full or without a reader: one message if it can be written, and the right status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import write_table

FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
BUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"])


def shell(line: str, folder: Path, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """A shell's line in `folder`, where $H is the command."""
    environment = {**os.environ, "H": f"{sys.executable} -m harness", "PYTHONUNBUFFERED": unbuffered}
    words = ["bash", "-c", line]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@FULL
@BUFFERED
@pytest.mark.parametrize("command", ["list", "--help", "show psnr"])
def test_a_full_standard_output_is_one_line_and_status_1(tmp_path: Path, command: str, unbuffered: str):
    done = shell(f"$H {command} > /dev/full", tmp_path, unbuffered)
    assert done.returncode == 1
    assert done.stderr == "harness: standard output cannot be written: No space left on device\n"


@FULL
def test_a_bad_request_keeps_its_status_whatever_the_streams_are(tmp_path: Path):
    for streams in ("2> /dev/full", "2>&-", "> /dev/full 2> /dev/full", ">&- 2>&-", "<&- >&- 2>&-"):
        assert shell(f"$H show nosuchmodel {streams}", tmp_path).returncode == 2, streams


@BUFFERED
def test_a_reader_that_has_seen_enough_gets_no_message(tmp_path: Path, unbuffered: str):
    done = shell("$H list --json | head -c 1; exit ${PIPESTATUS[0]}", tmp_path, unbuffered)
    assert done.returncode in (0, 1)
    assert done.stderr == ""


@FULL
@pytest.mark.parametrize("streams", ["2> /dev/full", "2>&-", "<&- 2>&-"])
def test_a_run_with_closed_streams_is_made_all_the_same(tmp_path: Path, streams: str):
    """A run that cannot say anything is made all the same and no file takes the streams' place."""
    table = write_table(tmp_path / "data")
    done = shell(f"$H run psnr --dataset {table} --runs runs --mlflow-uri off --json {streams}", tmp_path)
    assert done.returncode == 0
    (result,) = json.loads(done.stdout)
    (record,) = tmp_path.glob("runs/table/psnr/*/record.json")
    assert json.loads(record.read_text(encoding="utf-8"))["metrics"]["test"]["srcc"] == result["srcc"]
    assert all(b"harness" not in path.read_bytes()[:20] for path in record.parent.glob("*.csv"))
