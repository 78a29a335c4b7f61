"""`harness weights`: get and check files of weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import click

from harness.cli.options import echo, options

_log = logging.getLogger(__package__)


@click.group("weights")
def weights_() -> None:
    """Files of weights: fetch them ahead of time, or say where they are."""


@weights_.command("get")
@click.argument("name")
@click.option("--use", metavar="WORD", help="Also the weights of this word, such as released.")
@options("cards", "offline", "quiet", "debug")
def weights_get(name: str, use: str | None, cards: Sequence[str], offline: bool) -> None:
    """Fetch the weights that `run` needs for model NAME; with --use WORD also those that `--weights WORD` tests."""
    from harness.models import find_model, weights
    from harness.runtime.progress import downloads

    with downloads() as step:
        paths = weights.get(find_model(name, cards), use, step, offline=offline)
    for path in paths:
        echo(str(path))
    if not paths:
        _log.info(f"{name} needs no weights{f' for {use}' if use else ''}; `harness weights check {name}` lists what it may use")


@weights_.command("check")
@click.argument("name")
@options("cards", "json", "debug")
def weights_check(name: str, cards: Sequence[str], as_json: bool) -> None:
    """Where the weights of model NAME are, and whether they are the right ones."""
    from harness.cli import listing

    rows = listing.weights_listing(name, cards)
    echo(json.dumps(rows, indent=2) if as_json else listing.weights_text(rows))
    if any(row["stops"] for row in rows):
        raise SystemExit(1)
