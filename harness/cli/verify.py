"""`harness verify`: repeats a run's work and compares it with its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import click

from harness.cli import completion
from harness.cli import options as o
from harness.cli.options import Argument, Option, echo, options


@dataclass(frozen=True)
class VerifyOptions(o.Output):
    """Options of `harness verify`."""

    run_folder: Annotated[str, Argument(metavar="RUN", shell_complete=completion.paths("dir"))]
    sample: Annotated[int | None, Option(type=click.IntRange(1), metavar="N", help="Score only about N images again.")]
    no_training: Annotated[bool, Option(help="Where trained weights are missing, check all but the scores instead of training.")]
    dataset: Annotated[str | None, Option(metavar="FILE", help="Give the table that the run used, if it used one.")]
    weights: Annotated[str | None, Option(metavar="FILE", help="Give the weights that were tested, if it was a file.")]
    init: Annotated[str | None, Option(metavar="FILE", help="Give the weights from which training started.")]
    scores: Annotated[str | None, Option(metavar="FILE", help="Give the file of scores that was recorded.")]
    settings: Annotated[o.Settings, Option("--set", help="Give a setting of the record that names a file again.", **o.SETTINGS)]
    root: o.Root
    cards: o.Cards
    device: o.Device
    offline: o.Offline
    workers: o.Workers
    ray: o.Ray


@click.command()
@options(VerifyOptions)
def verify(chosen: VerifyOptions) -> None:
    """Repeat a finished run's work, and compare it with its record.

    A record may come from others, so it does not choose code or files: its cards are looked up among the built-in ones and
    yours (--cards), and files that you have not named on this machine before must be given again.
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
