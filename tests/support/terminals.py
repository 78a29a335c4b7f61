"""Running commands on a simulated terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(
    *words: str, columns: int = 80, cwd: Path | None = None, environment: Mapping[str, str] = {}, program: tuple[str, ...] = ()
) -> tuple[int, str]:
    """The exit status of `harness WORDS` on a pseudo-terminal, and all that it wrote there, escapes included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [*(program or (sys.executable, "-m", "harness")), *words]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=kept | {"TERM": "xterm"} | dict(environment)
    ) as process:
        os.close(theirs)
        reported = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # Linux says so where the other side is closed
                part = b""
            if not part:
                break
            reported += part
        os.close(ours)
    return process.wait(), reported.decode().replace("\r\n", "\n")
