"""`harness weights`: get and check files of weights."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from harness.cli.options import echo, options


@click.group("weights")
def weights_() -> None:
    """Files of weights: fetch them ahead of time, or say where they are."""


@weights_.command("get")
@click.argument("name")
@click.option("--use", metavar="WORD", help="Also the weights of this word, such as released.")
@options("cards", "quiet", "debug")
def weights_get(name: str, use: str | None, cards: Sequence[str], quiet: bool) -> None:
    """Fetch the weights of model NAME."""
    from harness.models import find_model, weights
    from harness.runtime.progress import counted

    with counted(f"weights of {name}", unit="bytes", quiet=quiet) as step:
        for path in weights.get(find_model(name, cards), use, progress=lambda file, done, total: step(done, total)):
            echo(str(path))


@weights_.command("check")
@click.argument("name")
@options("cards", "json", "debug")
def weights_check(name: str, cards: Sequence[str], as_json: bool) -> None:
    """Where the weights of model NAME are, and whether they are the right ones."""
    from harness.cli import listing

    rows = listing.weights_listing(name, cards)
    echo(json.dumps(rows, indent=2) if as_json else listing.weights_text(rows))
    if any(not row["ok"] for row in rows):
        raise SystemExit(1)
