"""`harness report`: the path of a run's page, and the page in a browser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from record_factory import make, table_of, typed

from harness.results import report

pytestmark = pytest.mark.slow


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    place, record = make(tmp_path / "runs", "net")
    table = table_of(3, tmp_path)
    report.write(
        place, typed(record), report.frame(table, table[["name"]].assign(score=[1.0 * i for i in range(len(table))], part="test"))
    )
    return place


def _report(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", "report", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_path_of_the_report_is_printed(run_folder: Path, tmp_path: Path):
    done = _report(run_folder.relative_to(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{run_folder.relative_to(tmp_path)}/report.html\n"


@pytest.mark.slow
def test_open_shows_the_page_in_the_browser(run_folder: Path, tmp_path: Path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/shown\n')
    browser.chmod(0o755)
    done = _report(run_folder, "--open", cwd=tmp_path, BROWSER=f"{browser} %s")
    assert done.returncode == 0
    assert (tmp_path / "shown").read_text() == f"{(run_folder / 'report.html').as_uri()}\n"


@pytest.mark.slow
def test_open_without_a_browser_says_so(run_folder: Path, tmp_path: Path):
    done = _report(run_folder, "--open", cwd=tmp_path, BROWSER="/no/such/browser %s", PATH="/nowhere", DISPLAY="")
    assert done.returncode == 1
    assert "no web browser was found" in done.stderr
    assert str(run_folder / "report.html") in done.stderr


@pytest.mark.slow
def test_what_is_no_run_or_has_no_report_is_refused(run_folder: Path, tmp_path: Path):
    (run_folder / "report.html").unlink()
    for folder, problem in ((run_folder, "no report.html in it"), (tmp_path, "not the folder of a finished run")):
        done = _report(folder, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"harness: {folder}: {problem}")
        assert done.stderr.count("\n") == 1
