"""The ways in which a run's products are computed: part of its conditions, and kept when it is taken up again."""

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
"""What `harness.results.conditions.conditions` gives."""


def kernels_of(model: Any, device: str, threads: int) -> dict[str, str]:
    """By which way each product of a model, or of its members, is computed on a CPU; empty where there is nothing to choose."""
    if model is None or not device.startswith("cpu"):
        return {}
    own = model.model if isinstance(model, LoadedModel) else model
    return choice.chosen([own, *(m.model for m in capabilities(own).members if m.model is not None)], threads)


@contextmanager
def as_begun(folder: Path, conditions: Callable[[], Conditions]) -> Iterator[Conditions]:
    """The conditions of a run, whose ways of computing hold inside.

    Where the run in `folder` was begun under conditions that are the same but for these ways, its own hold: what goes on must
    end with the bits of an undisturbed run, whatever trials say by now.
    """
    before = begun_under(folder)
    if before is not None:
        with choice.using(before.get("kernels")):
            if json.loads(json.dumps(conditions())) == before:
                yield before
                return
    now = conditions()
    with choice.using(now.get("kernels", choice.imposed())):
        yield now
