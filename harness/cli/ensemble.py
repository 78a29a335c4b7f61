"""`harness ensemble`: a blend of models, and its card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from harness.cli.options import echo, notifier, options, parse_words


@click.command()
@click.argument("members", nargs=-1, required=True, metavar="MEMBER...")
@click.option("--dataset", required=True, metavar="NAME|TABLE.csv", help="Fitted on its validation part, else on all of it.")
@options("root")
@click.option("--protocol", metavar="NAME", help="Which images train, validate and test.")
@click.option("--test-on", metavar="A,B,...", help="Further datasets to report on, whole.")
@click.option("--trials", default=1000, show_default=True, type=click.IntRange(1), metavar="N", help="Weightings to try.")
@click.option("--objective", default="main", show_default=True, type=click.Choice(["main", "srcc", "plcc"]))
@click.option(
    "--method", default="searched", show_default=True, type=click.Choice(["mean", "greedy", "least-squares", "searched"]),
    help="Which blend becomes the card.",
)  # fmt: skip
@click.option("--scalings", default="raw,z,ecdf,logistic", show_default=True, metavar="A,B,...", help="Scalings to try.")
@click.option("--one-scaling", is_flag=True, help="One scaling per member in least squares and what starts from it.")
@click.option("--crops", metavar="A,B,...", help="Croppings to try too, for members that take crops: five, nine, grid, ...")
@click.option("--lower-is-better", "lower", multiple=True, metavar="MEMBER", help="A score file's polarity; repeatable.")
@click.option(
    "--concurrency", type=click.IntRange(1), metavar="N", help="Chains side by side; default: --workers, or one per core."
)
@click.option("--out", required=True, metavar="CARD.toml", help="The ensemble's card.")
@options("runs", "cards", "device", "seed", "offline", "workers", "ray", "batch", "mlflow", "quiet", "json", "debug")
def ensemble(
    members: Sequence[str],
    dataset: str,
    root: str | None,
    protocol: str | None,
    test_on: str | None,
    trials: int,
    objective: Any,
    method: str,
    scalings: str,
    one_scaling: bool,
    crops: str | None,
    lower: Sequence[str],
    concurrency: int | None,
    out: str,
    runs: str,
    cards: Sequence[str],
    device: str | None,
    seed: int,
    offline: bool,
    workers: int,
    ray: str | None,
    batch: int,
    mlflow_uri: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Find a blend of MEMBERs (models, runs' folders, files of name,score), and write it as a model's card."""
    from harness.engine.request import Request
    from harness.ensembles.build import EnsembleRequest
    from harness.ensembles.build import ensemble as make

    request = Request(
        "", dataset, root=root, protocol=protocol, seed=seed, device=device, workers=workers, ray=ray, batch=batch,
        offline=offline, cards=tuple(cards), runs=runs, mlflow_uri=mlflow_uri, quiet=quiet,
    )  # fmt: skip
    wish = EnsembleRequest(
        out, test_on=parse_words(test_on), trials=trials, aim=objective, method=method, scalings=parse_words(scalings),
        crops=parse_words(crops), lower=tuple(lower), concurrency=concurrency,
        one_scaling=one_scaling,
    )  # fmt: skip
    made = make(members, request, wish, notifier(quiet))
    echo(json.dumps(made.json(), indent=2, ensure_ascii=False) if as_json else str(made))
