"""`harness tune`: settings of a model that is trained here, searched by real trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import click

from harness.cli import options as o
from harness.cli.options import Option, echo, options, request_of

_DATASET = "Train, judge (validation) and test on the parts of this dataset."
_TRIALS = {"default": 8, "show_default": True, "type": click.IntRange(1), "help": "Train under N settings."}
_OBJECTIVE = {"default": "main", "show_default": True, "type": click.Choice(["main", "srcc", "plcc"])}
_WORKERS = "Train N side by side; 0: one, with --ray one for each device. Only one at a time repeats."


@dataclass(frozen=True)
class TuneOptions(o.Work):
    """What `harness tune` takes."""

    model: o.Model
    dataset: Annotated[str, Option(required=True, help=_DATASET, **o.DATASET)]
    root: o.Root
    protocol: o.Protocol
    trials: Annotated[int, Option(metavar="N", **_TRIALS)]
    objective: Annotated[
        Literal["main", "srcc", "plcc"], Option(help="Maximize this figure of the validation part.", **_OBJECTIVE)
    ]
    init: Annotated[str | None, Option(metavar="FILE", help="Begin every training from these weights.")]
    settings: o.Settings
    workers: Annotated[int, Option("--workers", default=0, type=click.IntRange(0), metavar="N", help=_WORKERS)]
    out: Annotated[str, Option(required=True, metavar="CARD.toml", help="Write the card with the best settings there.")]


@click.command()
@options(TuneOptions)
def tune(chosen: TuneOptions) -> None:
    """Train MODEL under settings that its card has tunable, and write the best as a card.

    Optuna proposes settings, ASHA stops trainings that fall behind; the first has the card's own settings.
    """
    from harness.ensembles.tune_settings import tune as search

    tuned = search(chosen.model, request_of(chosen), chosen.out, trials=chosen.trials, objective=chosen.objective)
    echo(o.json_text(tuned.json()) if chosen.as_json else str(tuned))
