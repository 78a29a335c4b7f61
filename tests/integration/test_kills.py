"""A share of the soak in `tools/soak/kills.py`, in a separate process, because it forks, which is unsafe after torch was used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[2] / "tools" / "soak" / "kills.py"


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags") or sys.platform == "darwin", reason="needs fork and /proc")
def test_killed_commands_end_after_a_rerun_with_the_bits_of_an_undisturbed_run():
    words = [
        sys.executable,
        str(SOAK),
        "--quick",
        "--trials",
        "4",
        "--only",
        "training and testing",
        "--only",
        "leaderboard writing",
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\n4 signals, 0 losses\n", done.stdout)
