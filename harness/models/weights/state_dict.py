"""Loading a state dict into a network: all names and shapes are checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.runtime.errors import UsageError, listed


def fill(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str, ignored: tuple[str, ...], hint: str = "") -> None:
    """Copy `state` into the tensors of `own`, by name.

    Entries that `own` lacks are ignored where they begin with one of `ignored`. Raises UsageError that names every
    missing, unknown and wrongly shaped entry of `what`, and begins with `hint`; `own` is then unchanged.
    """
    missing = [key for key in own if key not in state]
    foreign = [key for key in state if key not in own and not key.startswith(ignored)]
    wrong = [
        f"{key} is {_shape(state[key])}, should be {_shape(tensor)}"
        for key, tensor in own.items()
        if key in state and (state[key].shape != tensor.shape or not state[key].is_floating_point())
    ]
    problems = [hint] if hint else []
    if wrong:
        problems.append(f"wrong shapes: {listed(wrong)}")
    if missing:
        problems.append(f"missing: {listed(missing)}")
    if foreign:
        problems.append(f"not of this network: {listed(foreign)}")
    if problems:
        raise UsageError(f"{what} do not fit: {'; '.join(problems)}")
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(state[key])


def _shape(tensor: Tensor) -> str:
    size = "x".join(map(str, tensor.shape)) or "a single number"
    return size if tensor.is_floating_point() else f"{size} of {str(tensor.dtype).removeprefix('torch.')}"
