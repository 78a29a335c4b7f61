"""`harness tune`: settings of a model that is trained here, searched by real trainings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from harness.cli.options import echo, notifier, options, parse_settings


@click.command()
@click.argument("model")
@click.option("--dataset", required=True, metavar="NAME|TABLE.csv", help="Trained, judged (validation) and tested on its parts.")
@options("root")
@click.option("--protocol", metavar="NAME", help="Which images train, validate and test.")
@click.option("--trials", default=8, show_default=True, type=click.IntRange(1), metavar="N", help="Trainings.")
@click.option("--objective", default="main", show_default=True, type=click.Choice(["main", "srcc", "plcc"]))
@click.option("--init", metavar="FILE", help="Weights that every training begins from.")
@options("set")
@click.option(
    "--workers", "--concurrency", default=0, type=click.IntRange(0), metavar="N",
    help="Trainings side by side; 0: one, with --ray one per device. Only one at a time repeats.",
)  # fmt: skip
@click.option("--out", required=True, metavar="CARD.toml", help="The card with the best settings.")
@options("runs", "cards", "device", "seed", "offline", "ray", "batch", "mlflow", "quiet", "json", "debug")
def tune(
    model: str,
    dataset: str,
    root: str | None,
    protocol: str | None,
    trials: int,
    objective: Any,
    init: str | None,
    settings: Sequence[str],
    workers: int,
    out: str,
    runs: str,
    cards: Sequence[str],
    device: str | None,
    seed: int,
    offline: bool,
    ray: str | None,
    batch: int,
    mlflow_uri: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train MODEL under settings that its card has tunable, and write the best as a card.

    Optuna proposes settings, ASHA stops trainings that fall behind; the first has the card's own settings.
    """
    from harness.engine.request import Request
    from harness.ensembles.tune import tune as search

    request = Request(
        model, dataset, root=root, protocol=protocol, init=init, settings=parse_settings(settings), seed=seed, device=device,
        workers=workers, ray=ray, batch=batch, offline=offline, cards=tuple(cards), runs=runs, mlflow_uri=mlflow_uri, quiet=quiet,
    )  # fmt: skip
    tuned = search(model, request, out, trials=trials, aim=objective, say=notifier(quiet))
    echo(json.dumps(tuned.json(), indent=2, ensure_ascii=False) if as_json else str(tuned))
