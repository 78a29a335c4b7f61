"""`harness ensemble`: finds a weighted blend of models, and writes it as a card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import click

from harness.cli import completion
from harness.cli import options as o
from harness.cli.options import WORDS, Argument, Option, echo, filled, options, request_of

_DATASET = "Fit on the validation part of this dataset, else on all of it."
_TRIALS = {"default": 1000, "show_default": True, "type": click.IntRange(1), "help": "Try N weightings."}
_OBJECTIVE = {"default": "main", "show_default": True, "type": click.Choice(["main", "srcc", "plcc"])}
_METHOD = {"default": "searched", "show_default": True, "type": click.Choice(["mean", "greedy", "least-squares", "searched"])}
_SCALINGS = {"default": "raw,z,ecdf,logistic", "show_default": True, "help": "Try these scalings."}
_ONE = "Use one scaling for each member in least squares and in the search that starts from it."
_CROPS = "Try these croppings too, for members that use crops: five, nine, grid, ..."
_LOWER = "Lower values of this file of scores are better; repeatable."
_CONCURRENCY = "Search N chains in parallel; default: --workers, or one for each core."


@dataclass(frozen=True)
class EnsembleOptions(o.Work):
    """Options of `harness ensemble`."""

    members: Annotated[tuple[str, ...], Argument(required=True, metavar="MEMBER...", shell_complete=completion.cards("models"))]
    dataset: Annotated[str, Option(required=True, help=_DATASET, **o.DATASET)]
    root: o.Root
    protocol: o.Protocol
    test_on: Annotated[
        tuple[str, ...], Option(help="Report on these further datasets too, on all of their images.", **o.DATASETS)
    ]
    trials: Annotated[int, Option(metavar="N", **_TRIALS)]
    objective: Annotated[Literal["main", "srcc", "plcc"], Option(help="Maximize this figure.", **_OBJECTIVE)]
    method: Annotated[str, Option(help="Write the blend of this method as the card.", **_METHOD)]
    scalings: Annotated[tuple[str, ...], Option(**_SCALINGS, **WORDS)]
    one_scaling: Annotated[bool, Option(help=_ONE)]
    crops: Annotated[tuple[str, ...], Option(help=_CROPS, **WORDS)]
    lower: Annotated[tuple[str, ...], Option("--lower-is-better", metavar="MEMBER", help=_LOWER)]
    concurrency: Annotated[int | None, Option(type=click.IntRange(1), metavar="N", help=_CONCURRENCY)]
    out: Annotated[str, Option(required=True, metavar="CARD.toml", help="Write the ensemble's card to this file.")]


@click.command()
@options(EnsembleOptions)
def ensemble(chosen: EnsembleOptions) -> None:
    """Find a blend of MEMBERs (models, runs' folders, files of name,score), and write it as a model's card."""
    from harness.ensembles.build import EnsembleRequest
    from harness.ensembles.build import ensemble as make

    made = make(chosen.members, request_of(chosen, model=""), filled(EnsembleRequest, chosen))
    echo(o.json_text(made.json()) if chosen.as_json else str(made))
