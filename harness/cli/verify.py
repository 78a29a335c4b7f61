"""`harness verify`: a run's work done again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import click

from harness.cli import completion
from harness.cli import options as o
from harness.cli.options import Argument, Option, echo, options


@dataclass(frozen=True)
class VerifyOptions(o.Output):
    """What `harness verify` takes."""

    run_folder: Annotated[str, Argument(metavar="RUN", shell_complete=completion.paths("dir"))]
    sample: Annotated[int | None, Option(type=click.IntRange(1), metavar="N", help="Score only about N images again.")]
    no_training: Annotated[bool, Option(help="Where trained weights are gone, check all but the scores instead of training.")]
    dataset: Annotated[str | None, Option(metavar="FILE", help="Name the table that the run used, where it used one.")]
    weights: Annotated[str | None, Option(metavar="FILE", help="Name the weights that were tested, where it was a file.")]
    init: Annotated[str | None, Option(metavar="FILE", help="Name the weights that training began from.")]
    scores: Annotated[str | None, Option(metavar="FILE", help="Name the file of scores that was recorded.")]
    settings: Annotated[o.Settings, Option("--set", help="Name the file of a setting of the record again.", **o.SETTINGS)]
    root: o.Root
    cards: o.Cards
    device: o.Device
    offline: o.Offline
    workers: o.Workers
    ray: o.Ray


@click.command()
@options(VerifyOptions)
def verify(chosen: VerifyOptions) -> None:
    """Do a finished run's work again, and compare it with its record.

    A record may come from others, so it chooses no code and no file: its cards are looked for among the built-in ones and
    yours (--cards), and files that you have not named on this machine before are named again.
    """
    from harness.engine import verify as verification
    from harness.engine.request_of_record import Repeated

    found = verification.verify(
        chosen.run_folder,
        root=chosen.root,
        cards=chosen.cards,
        sample=chosen.sample,
        train=not chosen.no_training,
        device=chosen.device,
        offline=chosen.offline,
        workers=chosen.workers,
        ray=chosen.ray,
        again=Repeated(chosen.dataset, chosen.weights, chosen.init, chosen.scores, chosen.settings),
    )
    echo(o.json_text(found.json()) if chosen.as_json else verification.text(found))
    if not found.ok:
        raise SystemExit(1)
