"""fp32 matrix products by oneDNN instead of MKL, where that is faster and no less exact.

torch uses oneDNN for fp32 products only on CPUs with AVX-512 and when bf16 arithmetic is allowed for them. Without a matrix
unit (AMX) oneDNN does not use bf16 and is exact, on AMD's CPUs about twice as fast as MKL; with AMX it uses it. So bf16 is
allowed only where trial products show that accuracy is kept and that it is faster (`choice`).
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from harness.models.kernels import choice
from harness.models.kernels.choice import accurate

NAME = "onednn"
"""The name of the setting in the file of choices."""
_lock = threading.Lock()
_users = 0
_before = "none"


@contextlib.contextmanager
def by_onednn(device: torch.device) -> Iterator[None]:
    """Allow oneDNN for fp32 products on the CPU inside the block; the setting is restored after it."""
    global _users, _before
    if device.type != "cpu" or way_of() == choice.PLAIN:
        yield
        return
    with _lock:
        if _users == 0:
            _before = _permission("bf16")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _permission(_before)


def way_of() -> str:
    """`plain`, or `onednn`: oneDNN is allowed."""
    way = choice.way_of(NAME, _ways)
    return way if way == choice.PLAIN or worthwhile() else choice.PLAIN


def _ways() -> dict[str, Callable[[], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, 768, generator=generator) for rows in (785, 768))

    def product(permission: str) -> Tensor:
        before = _permission(permission)
        try:
            return x @ weight.T
        finally:
            _permission(before)

    permissions = {choice.PLAIN: "none", "onednn": "bf16"} if worthwhile() else {choice.PLAIN: "none"}
    return {way: functools.partial(product, permission) for way, permission in permissions.items()}


@functools.cache
def worthwhile() -> bool:
    """Whether the setting changes the speed on this CPU and not the accuracy."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 512, generator=generator)
    truth = a.double() @ b.double().T
    try:
        with _lock:
            before = _permission("bf16")
            try:
                product = a @ b.T
            finally:
                _permission(before)
    except (AttributeError, RuntimeError):
        return False
    return accurate(product, truth)


def _permission(value: str) -> str:
    """Set the precision allowed for fp32 products on the CPU ("none": the default), and return the earlier setting."""
    onednn: Any = torch.backends.mkldnn
    before: str = onednn.matmul.fp32_precision
    onednn.matmul.fp32_precision = value
    return before
