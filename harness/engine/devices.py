"""Which device to work on, and on how many threads."""

from __future__ import annotations

import sys
from typing import Any

from harness.models.capabilities import capabilities
from harness.runtime.errors import UsageError


def choose(asked: str | None, model: Any) -> str:
    """What was asked, else a GPU if there is one and the model uses torch; raises UsageError for one that is not there."""
    torch = sys.modules.get("torch")
    if torch is None or on_uint8(model):
        return "cpu"
    device = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: {str(error).splitlines()[0]}") from None
    return device


def threads(model: Any) -> int:
    """Torch's threads; 1 for metrics on uint8, whose bits do not depend on how many work side by side."""
    torch = sys.modules.get("torch")
    return 1 if torch is None or on_uint8(model) else int(torch.get_num_threads())


def on_uint8(model: Any) -> bool:
    """Whether the model works on decoded pictures, on the CPU, without torch."""
    return model is not None and capabilities(model).score_uint8
