"""`harness challenge`: the organiser's half: a card, a competition's bundle, a board of submissions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import click

from harness.cli import options as o
from harness.cli.options import Argument, Option, echo, options

_LABELS = "Take labels from here: a file of name,score (also std, raters, reference), or a folder of such files."
_START = "Start the first phase on this date, UTC, where the card has no dates; default: today."
_PYTHON = "Run the scoring program with this interpreter too; default: one of the image's version, if there is one."


@dataclass(frozen=True)
class BundleOptions:
    """What `harness challenge bundle` takes."""

    card: Annotated[str, Argument(metavar="CARD")]
    labels: Annotated[str, Option(required=True, metavar="FILE", help=_LABELS)]
    out: Annotated[str, Option(required=True, metavar="DIR", help="Write the competition to this folder.")]
    start: Annotated[str | None, Option(metavar="DATE", help=_START)]
    python: Annotated[str | None, Option(metavar="FILE", help=_PYTHON)]
    cards: o.Cards
    quiet: o.Quiet
    as_json: o.Json


@click.group("challenge")
def challenge_() -> None:
    """Organise a challenge: its card, its competition on Codabench, its board."""


@challenge_.command("bundle")
@options(BundleOptions)
def challenge_bundle(chosen: BundleOptions) -> None:
    """Make a Codabench competition from a challenge's card and labels, and run its scoring program as the server would."""
    from harness.challenges.bundle import bundle

    made = bundle(chosen.card, chosen.labels, chosen.out, start=chosen.start, python=chosen.python, cards=chosen.cards)
    echo(json.dumps(made.json(), indent=2, ensure_ascii=False) if chosen.as_json else str(made))
