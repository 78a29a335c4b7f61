"""The command line that repeats a run, derived from the request in its record."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

BATCH = 8
"""Default batch size."""


def command_of(request: Mapping[str, Any]) -> str:
    """The command of a record's request, quoted for a shell; for a model that is a Python object, the Python call."""
    model, dataset = str(request.get("model", "")), str(request.get("dataset", ""))
    if request.get("object"):
        return f"harness.evaluate({model}(...), {dataset!r})"
    words = ["harness", "run", *(["--name"] if request.get("scores") else []), model, "--dataset", dataset]
    words += [flag for flag, on in (("--lower-is-better", "lower_is_better"), ("--inner", "inner")) if request.get(on) is True]
    for option, value in (
        ("--protocol", request.get("protocol")),
        ("--scores", request.get("scores")),
        ("--weights", request.get("weights")),
        ("--init", request.get("init")),
        ("--limit", request.get("limit")),
        ("--splits", request.get("splits")),
        ("--seed", request.get("seed") or None),
        ("--batch", request.get("batch") if request.get("batch", BATCH) != BATCH else None),
        ("--root", request.get("root")),
        ("--runs", request.get("runs")),
    ):
        words += [option, str(value)] if value is not None else []
    settings = request.get("settings")
    for key, value in settings.items() if isinstance(settings, Mapping) else ():
        words += ["--set", f"{key}={value}"]
    for folder in request.get("cards") or ():
        words += ["--cards", str(folder)]
    return shlex.join(words)
