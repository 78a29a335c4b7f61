"""`harness run`: train, test, measure and record models on a dataset or a suite."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import click

from harness.cli import options as o
from harness.cli.options import Option, echo, options
from harness.runtime.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from harness.engine.run import Outcome

_log = logging.getLogger(__package__)

_SUITE = "Run on all datasets of a suite; --root is then the folder of their folders."
_SPLITS = "Make only the first N of the protocol's repeated splits; the record is then partial and not ranked."


@dataclass(frozen=True)
class RunOptions(o.TableOutput):
    """Options of `harness run`."""

    models: o.Models
    scores: Annotated[
        str | None, Option(metavar="FILE.csv", help="Use these scores (name,score) instead of a model; needs --name.")
    ]
    name: Annotated[str | None, Option(metavar="NAME", help="Name the model of --scores.")]
    lower_is_better: Annotated[bool, Option(help="Lower values in the file of --scores are better.")]
    inner: Annotated[bool, Option(help="Use the names that --scores and the dataset both have.")]
    dataset: o.Dataset
    suite: Annotated[str | None, Option(help=_SUITE, **o.SUITE)]
    root: o.Root
    protocol: o.Protocol
    splits: Annotated[int | None, Option(type=click.IntRange(1), metavar="N", help=_SPLITS)]
    test_on: Annotated[tuple[str, ...], Option(help="Test on these further datasets too, on all of their images.", **o.DATASETS)]
    keep_shared: Annotated[bool, Option(help="Test also on references whose content is in the training data.")]
    weights: o.Weights
    init: Annotated[str | None, Option(metavar="FILE", help="Start training from these weights.")]
    settings: o.Settings
    force: Annotated[bool, Option(help="Compute finished runs again.")]
    rehash: o.Rehash
    seeds: Annotated[str | None, Option(metavar="0,1,...", help="Run every one of these seeds; show their mean and spread.")]
    runs: o.Runs
    cards: o.Cards
    device: o.Device
    seed: o.Seed
    offline: o.Offline
    limit: o.Limit
    workers: o.Workers
    ray: o.Ray
    batch: o.Batch
    mlflow_uri: o.Mlflow


@click.command()
@options(RunOptions)
def run(chosen: RunOptions) -> None:
    """Train (where a model has a recipe), test, measure and record MODELS on a dataset, or on all datasets of a suite."""
    from harness.engine.run_all import of_seeds, run_all
    from harness.results import tables
    from harness.results.published import compare_published, published_table
    from harness.results.report import PAGE

    if bool(chosen.models) == bool(chosen.scores) or bool(chosen.scores) != bool(chosen.name):
        raise UsageError("give MODELS, or --scores FILE.csv with --name NAME")
    if bool(chosen.dataset) == bool(chosen.suite):
        raise UsageError("give --dataset NAME (`harness list datasets`) or --suite NAME (`harness list suites`)")
    if chosen.suite and chosen.test_on:
        raise UsageError("--suite runs its own datasets: leave out --test-on")

    names = dict.fromkeys([chosen.name] if chosen.name else chosen.models)
    requests = [o.request_of(chosen, model=model, dataset=chosen.dataset or "") for model in names]
    if chosen.seeds is not None:
        words = [word.strip() for word in chosen.seeds.split(",")]
        if chosen.seed or not all(word.isdecimal() for word in words):
            raise UsageError(f"--seeds {chosen.seeds}: expected whole numbers with commas, such as 0,1,2, and no --seed")
        requests = [one for request in requests for one in of_seeds(request, [int(word) for word in words])]
    outcomes: Sequence[Outcome]
    faults: Sequence[HarnessError]
    if chosen.suite:
        from harness.datasets.suites import load_suite
        from harness.engine.suite import run_suite

        suite = load_suite(chosen.suite, cards=chosen.cards, protocol=chosen.protocol, root=chosen.root)
        done = run_suite(suite, requests)
        outcomes, faults = done.outcomes, done.faults
    else:
        outcomes, faults = run_all(requests, chosen.test_on, keep_shared=chosen.keep_shared)
    compared = [compare_published(outcome.record) for outcome in outcomes]
    results = [
        {**tables.result(outcome.folder, outcome.record), "published": [one.facts() for one in found]}
        for outcome, found in zip(outcomes, compared, strict=True)
    ]
    if chosen.as_json:
        echo(o.json_text(results))
    elif results:
        width = o.table_width(chosen.wide)
        echo(tables.run_table(results, width))
        if chosen.suite:
            from harness.leaderboard.matrix import build_matrix
            from harness.leaderboard.matrix_text import terminal

            wanted = [(entry.name, entry.protocol) for entry in suite.datasets]
            ran = [(one.folder, one.record) for one in outcomes]
            echo(f"\n{terminal(build_matrix(suite.card.name, suite.card.title, wanted, ran), width=width)}")
        if published := published_table((one for found in compared for one in found), width):
            echo(f"\n{published}")
        for outcome in outcomes:
            _log.info(f"{outcome.record.model}: {'found' if outcome.found else 'recorded in'} {outcome.folder}")
            if (outcome.folder / PAGE).is_file():
                _log.info(f"{outcome.record.model}: report {outcome.folder / PAGE}")
    if faults:
        raise faults[0] if len(faults) == 1 else HarnessError("\n".join(map(str, faults)))
