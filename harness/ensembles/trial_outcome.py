"""Types of `harness tune`: the task of a trial training, its outcome, and failures that stop all trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.engine.request import Plan, Request, make_plan
from harness.ensembles.objective import Objective

if TYPE_CHECKING:
    from harness.datasets import Dataset


@dataclass(frozen=True)
class Trial:
    """One trial: its settings, its epochs, and its validation figure."""

    settings: Mapping[str, Any]
    epochs: int
    figure: float | None
    stopped: bool
    folder: str
    problem: str = ""
    """Why it failed; empty if it did not."""


@dataclass(frozen=True)
class Task:
    """The input of every trial except its settings."""

    request: Request
    """The request of one training in one process."""
    objective: Objective
    epochs: int
    here: str
    """The folder to which relative paths refer."""
    threads: int


@dataclass(frozen=True)
class Failure:
    """A failure that all trials would have."""

    text: str
    usage: bool
    """Whether the request cannot be served, so that the command's exit status is 2."""


def planned(request: Request, settings: Mapping[str, Any], data: Dataset | None = None) -> Plan:
    """The plan of the request under a trial's settings."""
    return make_plan(replace(request, settings={**request.settings, **settings}), data)
