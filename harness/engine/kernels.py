"""The kernels (ways of computing products) of a run: part of its conditions, and kept when the run is resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.models.capabilities import LoadedModel, capabilities
from harness.models.kernels import choice
from harness.results.run_folder import begun_under

Conditions = Mapping[str, object]
"""The result of `harness.results.conditions.conditions`."""


def kernels_of(model: Any, device: str, threads: int) -> dict[str, str]:
    """The kernel of each product of a model, or of its members, on a CPU; empty where there is no choice."""
    if model is None or not device.startswith("cpu"):
        return {}
    own = model.model if isinstance(model, LoadedModel) else model
    return choice.chosen([own, *(m.model for m in capabilities(own).members if m.model is not None)], threads)


@contextmanager
def as_begun(folder: Path, conditions: Callable[[], Conditions]) -> Iterator[Conditions]:
    """The conditions of a run; its kernels are used inside the block.

    Where the run in `folder` was begun under conditions that differ only in the kernels, its own kernels are used: a resumed run
    must end with the bits of an uninterrupted one, also if new trials would choose other kernels.
    """
    before = begun_under(folder)
    if before is not None:
        with choice.using(before.get("kernels")):
            if json.loads(json.dumps(conditions())) == before:
                yield before
                return
    present = conditions()
    with choice.using(present.get("kernels", choice.imposed())):
        yield present
