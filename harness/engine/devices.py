"""Choosing the device and the number of threads, and a GPU's floating-point settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.models.capabilities import capabilities
from harness.runtime.errors import UsageError


def choose(asked: str | None, model: Any) -> str:
    """The requested device, else a GPU if there is one and the model uses torch; raises UsageError for an absent device."""
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
    """Torch's number of threads; 1 for metrics on uint8, whose results do not depend on it."""
    torch = sys.modules.get("torch")
    return 1 if torch is None or on_uint8(model) else int(torch.get_num_threads())


def on_uint8(model: Any) -> bool:
    """Whether the model works on decoded images, on the CPU, without torch."""
    return model is not None and capabilities(model).score_uint8


@contextmanager
def numerics(device: str, precision: str = "fp32", *, training: bool = False) -> Iterator[None]:
    """Set a GPU's rounding inside the block and restore it after it; a CPU's is not changed.

    By default torch lets convolutions round their inputs to TF32 (10 bits) on Ampere and newer, which changes AHIQ's scores by
    up to 4e-4. Here products and convolutions are float32 unless `precision` is tf32 or bf16. `training`: cuDNN uses its
    deterministic algorithms; other kernels (atomic additions of scattered gradients) may still differ from run to run.
    """
    if not device.startswith("cuda"):
        yield
        return
    import torch

    backends = torch.backends
    rounding = "ieee" if precision == "fp32" else "tf32"
    places: list[tuple[Any, str, Any]] = [
        (backends.cuda.matmul, "fp32_precision", rounding),
        (backends.cudnn.conv, "fp32_precision", rounding),  # type: ignore[attr-defined]
        (backends.cudnn.rnn, "fp32_precision", rounding),
    ]
    if training:
        places += [(backends.cudnn, "deterministic", True), (backends.cudnn, "benchmark", False)]
    before = [getattr(place, name) for place, name, _ in places]
    for place, name, value in places:
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name, _), value in zip(places, before, strict=True):
            setattr(place, name, value)
