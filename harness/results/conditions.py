"""The conditions under which a result repeats bit for bit: machine, libraries, device, threads, batch."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from harness.runtime.machine import processor

LIBRARIES = ("numpy", "pandas", "scipy", "pillow", "opencv-python-headless", "torch", "torchvision", "timm", "safetensors")


def libraries() -> dict[str, str]:
    """Installed versions of libraries that can change a score, without importing them."""
    found = {"harness": "iqa-harness", **{name: name for name in LIBRARIES}}
    versions = {}
    for name, package in found.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(package)
    return versions


def conditions(device: str, threads: int, batch: int, kernels: Mapping[str, str] | None = None) -> dict[str, object]:
    """The conditions under which results repeat bit for bit.

    For a GPU also its name, the number of GPUs, and the versions of CUDA and cuDNN. `kernels`: the kernel of each product of the
    network (`harness.models.kernels.choice`), left out where there is no choice. Older records lack it: they were computed with
    every faster kernel.
    """
    found: dict[str, object] = {
        "machine": f"{platform.system()} {platform.machine()} {processor()}",
        "python": platform.python_version(),
        "device": device,
        "threads": threads,
        "batch": batch,
        "libraries": libraries(),
    }
    if device.startswith("cuda"):
        import torch

        gpu = {"name": torch.cuda.get_device_name(device), "count": torch.cuda.device_count(), "cuda": torch.version.cuda}
        found["gpu"] = {**gpu, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
    return {**found, "kernels": dict(kernels)} if kernels else found


def difference(before: Any, wanted: Any, path: str = "") -> str:
    """`a.b was 1, is 2, ...` for every leaf that differs between two documents."""
    if isinstance(before, dict) and isinstance(wanted, dict):
        changed = [k for k in {**before, **wanted} if before.get(k) != wanted.get(k)]
        return ", ".join(difference(before.get(k), wanted.get(k), f"{path}{k}.") for k in changed)
    return f"{path.rstrip('.')} was {before}, is {wanted}"
