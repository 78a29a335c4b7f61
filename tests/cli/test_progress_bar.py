"""The progress bar on a terminal: shown during work, removed after it, absent without a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from terminals import ESCAPES, in_terminal

pytestmark = pytest.mark.slow

WORK = """
import logging, time
from harness.runtime.progress import progress

logging.getLogger("harness").setLevel({level})
with progress("counting sheep", 5, done=1, unit="sheep") as step:
    for count in range(2, 6):
        step(count, f"sheep {{count}}")
        time.sleep(0.12)
print("the end")
"""


def _worked(level: str = "logging.INFO", **environment: str) -> str:
    status, shown = in_terminal(environment=environment, program=(sys.executable, "-c", WORK.format(level=level)))
    assert status == 0, shown
    return shown


def test_the_bar_counts_and_is_gone_at_the_end():
    shown = _worked()
    assert "counting sheep" in shown
    assert "2/5" in shown
    assert "sheep 3" in shown
    assert "\x1b[2K" in shown, "the bar's line is erased"
    assert ESCAPES.sub("", shown).rstrip("\n").split("\n")[-1].strip() == "the end"
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor is hidden and shown again"


def test_the_bar_has_colours_unless_the_user_wants_none():
    assert "\x1b[38;" in _worked() or "\x1b[35m" in _worked() or "\x1b[36m" in _worked()
    plain = _worked(NO_COLOR="1")
    assert "5/5" in plain
    assert not any(f"\x1b[{code}" in plain for code in ("31", "32", "33", "34", "35", "36", "38;"))


def test_no_bar_where_only_warnings_are_wanted():
    assert _worked("logging.WARNING") == "the end\n"


def test_a_log_gets_lines_and_no_bar():
    code = WORK.format(level="logging.INFO")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "the end\n"
    assert "\x1b" not in done.stderr


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of twelve pairs of small images."""
    folder = tmp_path_factory.mktemp("pairs")
    draw = np.random.default_rng(0)
    for number in range(13):
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    rows = [f"0.png,{number}.png" for number in range(1, 13)]
    (folder / "pairs.csv").write_text("\n".join(["reference,distorted", *rows]) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("quiet", [False, True])
def test_scoring_shows_a_bar_on_a_terminal_but_not_with_quiet(table: Path, quiet: bool):
    words = ("score", "psnr", "--pairs", "pairs.csv", "--out", f"scores-{quiet}.csv", *(("--quiet",) if quiet else ()))
    status, shown = in_terminal(*words, cwd=table)
    assert status == 0, shown
    assert ("/12" in shown) is not quiet
    assert ("12 scores written" in shown) is not quiet
    assert len((table / f"scores-{quiet}.csv").read_text().splitlines()) == 13
