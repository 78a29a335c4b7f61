"""`harness run --suite`: models on all datasets of a suite; absent datasets are named, the others run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import datasets
from harness.datasets import Dataset, is_table
from harness.datasets.download import place_of, steps
from harness.datasets.suites import Suite, SuiteDataset
from harness.engine.request import Request
from harness.engine.run import Outcome
from harness.engine.run_all import run_all
from harness.runtime.errors import HarnessError, RunError, UsageError, listed

_log = logging.getLogger(__package__)


@dataclass(frozen=True)
class SuiteOutcome:
    """The results of running a suite."""

    outcomes: tuple[Outcome, ...]
    faults: tuple[HarnessError, ...]
    """Errors of runs, and of present datasets that cannot be read."""
    absent: tuple[str, ...]
    """Names of the absent datasets."""


def run_suite(suite: Suite, requests: Sequence[Request]) -> SuiteOutcome:
    """Every request on every present dataset of the suite.

    Args:
        suite: the suite with its datasets.
        requests: a request for each model (and seed); dataset, protocol and root are the suite's. `{dataset}` in a request's
            scores stands for the dataset's name.

    Returns:
        The outcomes, dataset by dataset, and what did not run.

    Raises:
        UsageError: no dataset is present, or a request cannot be served.
    """
    here: dict[str, Dataset] = {}
    present: list[SuiteDataset] = []
    absent: dict[str, str] = {}
    broken: list[HarnessError] = []
    cards = requests[0].cards if requests else ()
    for entry in suite.datasets:
        if (reason := _absent(entry)) is not None:
            absent[entry.name] = reason
            continue
        try:
            here[entry.word] = datasets.load_dataset(entry.word, entry.root, cards=cards)
            present.append(entry)
        except HarnessError as error:
            kind = UsageError if isinstance(error, UsageError) else RunError
            text = str(error)
            broken.append(kind(text if text.startswith(entry.name) else f"{entry.name}: {text}"))
    if not present:
        reasons = [*absent.values(), *map(str, broken)]
        raise UsageError("\n".join([f"{suite.card.name}: none of its datasets can be used here", *reasons]))
    if absent:
        _log.info(f"{suite.card.name}: absent: {listed(list(absent))}; the others run: {listed([e.name for e in present])}")
        for reason in absent.values():
            _log.info(reason)
    for fault in broken:
        _log.info(f"left out: {fault}")
    wanted = []
    for entry in present:
        for request in requests:
            scores = request.scores and request.scores.replace("{dataset}", entry.name)
            wanted.append(replace(request, dataset=entry.word, root=entry.root, protocol=entry.protocol, scores=scores))
    outcomes, faults = run_all(wanted, loaded=here)
    return SuiteOutcome(tuple(outcomes), (*broken, *faults), tuple(absent))


def _absent(entry: SuiteDataset) -> str | None:
    """How to get an absent dataset; None for one that is present, or that needs no folder."""
    if is_table(entry.word):
        return None if Path(entry.word).exists() else f"{entry.name}: no such table: {entry.word}"
    if not (entry.card.get or entry.card.downloads):
        return None
    place = place_of(entry.card, entry.root)
    return None if place.exists() else steps(entry.card, place)
