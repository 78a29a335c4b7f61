"""The processor's name and instruction sets, as the operating system reports them."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path


def processor() -> str:
    """The processor's name."""
    return _cpuinfo("model name") or platform.processor() or "unknown"


def processor_flags() -> list[str]:
    """The instruction sets that the processor reports, sorted; empty where the system does not report them."""
    return sorted((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _cpuinfo(key: str) -> str:
    """The first value of a key in Linux's list of processors."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.partition(":")[0].strip() == key:
                return line.partition(":")[2].strip()
    return ""
