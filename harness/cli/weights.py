"""`harness weights`: get and check files of weights."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Annotated

import click

from harness.cli import completion
from harness.cli import options as o
from harness.cli.options import Option, echo, options

_log = logging.getLogger(__package__)


@dataclass(frozen=True)
class GetOptions:
    """What `harness weights get` takes."""

    name: o.Model
    use: Annotated[
        str | None,
        Option(
            metavar="WORD",
            shell_complete=completion.words("released"),
            help="Get the weights of this word too, such as released.",
        ),
    ]
    cards: o.Cards
    offline: o.Offline
    quiet: o.Quiet


@dataclass(frozen=True)
class CheckOptions:
    """What `harness weights check` takes."""

    name: o.Model
    cards: o.Cards
    as_json: o.Json


@click.group("weights")
def weights_() -> None:
    """Get files of weights ahead of time, and say where they are."""


@weights_.command("get")
@options(GetOptions)
def weights_get(chosen: GetOptions) -> None:
    """Get the weights that `run` needs for model NAME; with --use WORD also those that `--weights WORD` tests."""
    from harness.models import find_model, weights
    from harness.runtime.progress import downloads

    with downloads() as step:
        paths = weights.get(find_model(chosen.name, chosen.cards), chosen.use, step, offline=chosen.offline)
    for path in paths:
        echo(str(path))
    if not paths:
        wanted = f" for {chosen.use}" if chosen.use else ""
        _log.info(f"{chosen.name} needs no weights{wanted}; `harness weights check {chosen.name}` lists what it may use")


@weights_.command("check")
@options(CheckOptions)
def weights_check(chosen: CheckOptions) -> None:
    """Say where the weights of model NAME are, and whether they are the right ones."""
    from harness.cli import listing

    rows = listing.weights_listing(chosen.name, chosen.cards)
    echo(json.dumps(rows, indent=2) if chosen.as_json else listing.weights_text(rows))
    if any(row["stops"] for row in rows):
        raise SystemExit(1)
