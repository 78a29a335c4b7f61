"""`harness tune`: searches training settings of a model by trial trainings, and writes the best as a card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import click

from harness.cli import options as o
from harness.cli.options import Option, echo, options, request_of

_DATASET = "Train, validate and test on the parts of this dataset."
_TRIALS = {"default": 8, "show_default": True, "type": click.IntRange(1), "help": "Train with N settings."}
_OBJECTIVE = {"default": "main", "show_default": True, "type": click.Choice(["main", "srcc", "plcc"])}
_WORKERS = "Train N in parallel; 0: one, with --ray one for each device. Only one at a time is reproducible."


@dataclass(frozen=True)
class TuneOptions(o.Work):
    """Options of `harness tune`."""

    model: o.Model
    dataset: Annotated[str, Option(required=True, help=_DATASET, **o.DATASET)]
    root: o.Root
    protocol: o.Protocol
    trials: Annotated[int, Option(metavar="N", **_TRIALS)]
    objective: Annotated[
        Literal["main", "srcc", "plcc"], Option(help="Maximize this figure of the validation part.", **_OBJECTIVE)
    ]
    init: Annotated[str | None, Option(metavar="FILE", help="Start every training from these weights.")]
    settings: o.Settings
    workers: Annotated[int, Option("--workers", default=0, type=click.IntRange(0), metavar="N", help=_WORKERS)]
    out: Annotated[str, Option(required=True, metavar="CARD.toml", help="Write the card with the best settings to this file.")]


@click.command()
@options(TuneOptions)
def tune(chosen: TuneOptions) -> None:
    """Train MODEL with different values of its card's tunable settings, and write the best as a card.

    Optuna proposes settings, ASHA stops trainings with low validation scores early; the first one has the card's own settings.
    """
    from harness.ensembles.tune import tune as search

    tuned = search(chosen.model, request_of(chosen), chosen.out, trials=chosen.trials, objective=chosen.objective)
    echo(o.json_text(tuned.json()) if chosen.as_json else str(tuned))
