"""`harness challenge`: for organisers: a new card, a competition's bundle, a board of submissions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import click

from harness.cli import completion
from harness.cli import options as o
from harness.cli.options import Argument, Option, echo, options

_DATASET = "Take the tested images of this dataset, and their labels."
_DRAWS = "Draw this many sets of references to estimate how stable the ranks are."
_LABELS = "Take labels from here: a file of name,score (also std, raters, reference), or a folder of such files."
_START = "Start the first phase on this date, UTC, where the card has no dates; default: today."
_PYTHON = "Test the scoring program with this interpreter too; default: one of the image's version, if installed."
_PHASES = {**o.PHASE, "shell_complete": completion.keys_of("challenges", "phases", "card")}


@dataclass(frozen=True)
class BundleOptions(o.CardsOutput):
    """Options of `harness challenge bundle`."""

    card: Annotated[str, Argument(metavar="CARD", shell_complete=completion.cards("challenges"))]
    labels: Annotated[str, Option(required=True, metavar="FILE", help=_LABELS)]
    out: Annotated[str, Option(required=True, metavar="DIR", help="Write the competition to this folder.")]
    phases: Annotated[tuple[str, ...], Option("--phase", help="Include this phase; repeatable; default: all.", **_PHASES)]
    start: Annotated[str | None, Option(metavar="DATE", help=_START)]
    python: Annotated[str | None, Option(metavar="FILE", help=_PYTHON)]


@dataclass(frozen=True)
class NewOptions(o.CardsOutput):
    """Options of `harness challenge new`."""

    name: Annotated[str, Argument(metavar="NAME")]
    out: Annotated[str, Option(default=".", show_default=True, metavar="DIR", help="Write the card to this folder.")]
    dataset: Annotated[str | None, Option(help=_DATASET, **o.DATASET)]
    protocol: Annotated[str | None, Option(help="Take the images that this protocol tests; default: the card's.", **o.PROTOCOL)]
    root: o.Root


@dataclass(frozen=True)
class BoardOptions(o.CardsOutput):
    """Options of `harness challenge board`."""

    folder: Annotated[str, Argument(metavar="DIR")]
    labels: Annotated[str, Option(required=True, metavar="FILE", help=_LABELS)]
    challenge: Annotated[str | None, Option(help="The submissions' challenge; default: found from their names.", **o.CHALLENGE)]
    phase: Annotated[str | None, Option(help="The submissions' phase; default: found from their names.", **o.PHASE)]
    draws: Annotated[int, Option(default=1000, show_default=True, type=click.IntRange(1, 100_000), metavar="N", help=_DRAWS)]
    seed: o.Seed


@click.group("challenge")
def challenge_() -> None:
    """Organise a challenge: its card, its competition on Codabench, its board."""


@challenge_.command("new")
@options(NewOptions)
def challenge_new(chosen: NewOptions) -> None:
    """Write a commented card of a new challenge, with a dataset also its names and labels."""
    from harness.challenges.template import new

    where = {"dataset": chosen.dataset, "protocol": chosen.protocol, "root": chosen.root}
    written = [str(path) for path in new(chosen.name, chosen.out, cards=chosen.cards, **where)]
    echo(o.json_text({"written": written}) if chosen.as_json else "\n".join(written))


@challenge_.command("bundle")
@options(BundleOptions)
def challenge_bundle(chosen: BundleOptions) -> None:
    """Make a Codabench competition from a challenge's card and labels, and test its scoring program as the server runs it."""
    from harness.challenges.bundle import bundle

    made = bundle(
        chosen.card, chosen.labels, chosen.out, phases=chosen.phases, start=chosen.start, python=chosen.python, cards=chosen.cards
    )  # fmt: skip
    echo(o.json_text(made.json()) if chosen.as_json else str(made))


@challenge_.command("board")
@options(BoardOptions)
def challenge_board(chosen: BoardOptions) -> None:
    """Score every zip of a folder: ranks, intervals, the group of the best, and how stable each rank is."""
    from harness.challenges.contest import board

    kind = {"challenge": chosen.challenge, "phase": chosen.phase}
    made = board(chosen.folder, chosen.labels, draws=chosen.draws, seed=chosen.seed, cards=chosen.cards, **kind)
    echo(o.json_text(made.json()) if chosen.as_json else str(made))
