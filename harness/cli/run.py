"""`harness run`: train, test, measure and record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from harness.cli.options import echo, notifier, options, parse_seeds, parse_settings, parse_words
from harness.runtime.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from harness.datasets.suites import Suite
    from harness.engine.run import Outcome


@click.command()
@click.argument("models", nargs=-1)
@click.option("--scores", metavar="FILE.csv", help="Scores (name,score) instead of a model; needs --name.")
@click.option("--name", metavar="NAME", help="What to call the model behind --scores.")
@click.option("--lower-is-better", is_flag=True, help="Of --scores.")
@click.option("--inner", is_flag=True, help="Use the names that --scores and the dataset both have.")
@click.option("--dataset", metavar="NAME|TABLE.csv", help="A dataset, or a table of pairs.")
@click.option(
    "--suite", metavar="NAME|CARD.toml", help="All datasets of a suite instead of one; --root then holds their folders."
)
@options("root")
@click.option("--protocol", metavar="NAME", help="Which images train, validate and test.")
@click.option("--splits", type=click.IntRange(1), metavar="N", help="Only the protocol's first N repeated splits; not ranked.")
@click.option("--test-on", metavar="A,B,...", help="Further datasets to test on, whole.")
@click.option("--keep-shared", is_flag=True, help="Test also on references whose content was trained on.")
@options("weights")
@click.option("--init", metavar="FILE", help="Weights to train on from.")
@options("set")
@click.option("--force", is_flag=True, help="Compute again what is finished.")
@options("rehash")
@click.option("--seeds", metavar="0,1,...", help="Several seeds: a run for each, and their mean and spread.")
@options("runs", "cards", "device", "seed", "offline", "limit", "workers", "ray", "batch", "mlflow", "quiet", "json", "debug")
def run(
    models: Sequence[str],
    scores: str | None,
    name: str | None,
    lower_is_better: bool,
    inner: bool,
    dataset: str | None,
    suite: str | None,
    root: str | None,
    protocol: str | None,
    splits: int | None,
    test_on: str | None,
    keep_shared: bool,
    weights: str | None,
    init: str | None,
    settings: Sequence[str],
    force: bool,
    rehash: bool,
    seeds: str | None,
    runs: str,
    cards: Sequence[str],
    device: str | None,
    seed: int,
    offline: bool,
    limit: int | None,
    workers: int,
    ray: str | None,
    batch: int,
    mlflow_uri: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train (where a model has a recipe), test, measure and record MODELS on a dataset, or on all datasets of a suite."""
    from harness.engine.batch import of_seeds, run_all
    from harness.engine.request import Request
    from harness.results import tables
    from harness.results.published import compare_published, published_table

    if bool(models) == bool(scores) or bool(scores) != bool(name):
        raise UsageError("give MODELS, or --scores FILE.csv with --name NAME")
    if bool(dataset) == bool(suite):
        raise UsageError("give --dataset NAME (`harness list datasets`) or --suite NAME (`harness list suites`)")
    if suite and test_on:
        raise UsageError("--suite runs its own datasets: leave out --test-on")

    requests = [
        Request(
            model,
            dataset or "",
            root=root,
            protocol=protocol,
            splits=splits,
            weights=weights,
            init=init,
            settings=parse_settings(settings),
            seed=seed,
            limit=limit,
            force=force,
            rehash=rehash,
            device=device,
            workers=workers,
            ray=ray,
            batch=batch,
            offline=offline,
            cards=tuple(cards),
            runs=runs,
            mlflow_uri=mlflow_uri,
            quiet=quiet,
            scores=scores,
            lower_is_better=lower_is_better,
            inner=inner,
        )
        for model in dict.fromkeys([name] if name else models)
    ]
    if seeds is not None:
        requests = [one for request in requests for one in of_seeds(request, parse_seeds(seeds, seed))]
    say = notifier(quiet)
    outcomes: Sequence[Outcome]
    faults: Sequence[HarnessError]
    if suite:
        from harness.datasets.suites import load_suite
        from harness.engine.suite import run_suite

        chosen = load_suite(suite, cards=cards, protocol=protocol, root=root)
        done = run_suite(chosen, requests, say)
        outcomes, faults = done.outcomes, done.faults
    else:
        outcomes, faults = run_all(requests, parse_words(test_on), say, keep_shared=keep_shared)
    compared = [compare_published(outcome.record) for outcome in outcomes]
    results = [
        {**tables.result(outcome.folder, outcome.record), "published": [one.facts() for one in found]}
        for outcome, found in zip(outcomes, compared, strict=True)
    ]
    if as_json:
        echo(json.dumps(results, indent=2, ensure_ascii=False))
    elif results:
        echo(tables.run_table(results))
        if suite:
            echo(f"\n{_matrix(chosen, outcomes)}")
        if published := published_table(one for found in compared for one in found):
            echo(f"\n{published}")
        for outcome in outcomes if not quiet else ():
            echo(f"{outcome.record.model}: {'found' if outcome.found else 'recorded in'} {outcome.folder}", err=True)
    if faults:
        raise faults[0] if len(faults) == 1 else HarnessError("\n".join(map(str, faults)))


def _matrix(suite: Suite, outcomes: Sequence[Outcome]) -> str:
    """What this command ran, as one table of models by datasets."""
    from harness.leaderboard.matrix import build_matrix
    from harness.leaderboard.matrix_text import terminal

    wanted = [(entry.name, entry.protocol) for entry in suite.datasets]
    return terminal(build_matrix(suite.card.name, suite.card.title, wanted, [(o.folder, o.record) for o in outcomes]))
