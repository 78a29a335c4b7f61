"""One training of `harness tune`: what it is told, and what became of it."""

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
    """One setting's training: how far it went, and how it stood on the validation part there."""

    settings: Mapping[str, Any]
    epochs: int
    figure: float | None
    stopped: bool
    folder: str
    problem: str = ""
    """Why it failed; empty where it did not."""


@dataclass(frozen=True)
class Task:
    """What every trial is told besides its settings."""

    request: Request
    """Of one training in one process."""
    objective: Objective
    epochs: int
    here: str
    """The folder that relative paths start from."""
    threads: int


@dataclass(frozen=True)
class Failure:
    """What all trials will meet."""

    text: str
    usage: bool
    """Whether the request cannot be served, so that the command's exit status is 2."""


def planned(request: Request, settings: Mapping[str, Any], data: Dataset | None = None) -> Plan:
    """The plan of the request under a trial's settings."""
    return make_plan(replace(request, settings={**request.settings, **settings}), data)
