"""`harness compare` (which of two models is better) and `harness agreement` (a file of scores with a file of labels)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import click

from harness.cli import completion
from harness.cli import options as o
from harness.cli.options import Argument, Option, echo, options
from harness.runtime.errors import UsageError
from harness.runtime.libraries import environment

_FITS = {"type": click.Choice(["logistic4", "logistic5", "poly3"]), "default": "logistic4", "show_default": True}
_LOWER_FILE = {"type": click.Choice(["scores", "labels"]), "help": "Lower values of this file are better; repeatable."}
_BY = "Compare the values of this column, such as codec; A is a table of `harness score --out`."
_METRICS = "With --by, compare by these columns of scores; default: those with a model's name."
_LOWER = "Lower values of this file are better; with --by, of this metric; repeatable."
_DATASET = "Take images and labels of this dataset; default: those of A's run."
_PROTOCOL = "For names of models, use their runs under this protocol; default: the dataset's."
_DIFFERENCE = "Print how many references are needed to detect a true difference of D in SRCC; repeatable."


@dataclass(frozen=True)
class AgreementOptions:
    """Options of `harness agreement`."""

    scores: Annotated[str, Argument(shell_complete=completion.paths("file"))]
    labels: Annotated[str, Argument(shell_complete=completion.paths("file"))]
    lower: Annotated[tuple[str, ...], Option("--lower-is-better", **_LOWER_FILE)]
    fit: Annotated[Literal["logistic4", "logistic5", "poly3"], Option(help="Fit this curve before PLCC and RMSE.", **_FITS)]
    inner: Annotated[bool, Option(help="Use the names that both files have, and drop the others.")]
    as_json: o.Json


@dataclass(frozen=True)
class CompareOptions(o.TableOutput):
    """Options of `harness compare`."""

    a: Annotated[str, Argument(shell_complete=completion.cards("models"))]
    b: Annotated[str | None, Argument(shell_complete=completion.cards("models"))]
    by: Annotated[str | None, Option(metavar="COLUMN", help=_BY)]
    metrics: Annotated[tuple[str, ...], Option(help=_METRICS, **o.METRICS)]
    dataset: Annotated[str | None, Option(help=_DATASET, **o.DATASET)]
    protocol: Annotated[str | None, Option(help=_PROTOCOL, **o.PROTOCOL)]
    labels: Annotated[str | None, Option(metavar="FILE.csv", help="Take labels (name,score,reference_id) from a file instead.")]
    lower: Annotated[tuple[str, ...], Option("--lower-is-better", metavar="a|b|labels", help=_LOWER)]
    inner: Annotated[bool, Option(help="Use the images that both have.")]
    differences: Annotated[tuple[float, ...], Option("--difference", type=float, metavar="D", help=_DIFFERENCE)]
    root: o.Root
    cards: o.Cards
    runs: o.Runs
    seed: o.Seed


@click.command("agreement")
@options(AgreementOptions)
def agreement_(chosen: AgreementOptions) -> None:
    """Measure how well a file of scores agrees with a file of labels (columns name,score; labels may have reference_id)."""
    from harness.engine.compare import agreement_of_files
    from harness.results import tables

    figures = agreement_of_files(chosen.scores, chosen.labels, lower=set(chosen.lower), fit=chosen.fit, inner=chosen.inner)
    echo(o.json_text(figures.json()) if chosen.as_json else tables.agreement_text(figures))


@click.command()
@options(CompareOptions)
def compare(chosen: CompareOptions) -> None:
    """Is A better than B? Two models, runs or score files, paired by reference; with --by the codecs of one table of scores."""
    if chosen.by is not None:
        from harness.cli.codecs import compare_by

        if chosen.b is not None or chosen.dataset or chosen.labels or chosen.protocol:
            raise UsageError("--by compares the rows of one table: leave out B, --dataset, --protocol and --labels")
        how = {"metrics": chosen.metrics, "lower": chosen.lower, "cards": chosen.cards, "inner": chosen.inner}
        compare_by(chosen.a, chosen.by, how, chosen.as_json, o.table_width(chosen.wide))
        return
    if chosen.b is None:
        raise UsageError("give A and B, or a table with --by COLUMN")
    if chosen.metrics:
        raise UsageError("--metrics belongs to --by")
    if unknown := [word for word in chosen.lower if word not in ("a", "b", "labels")]:
        raise UsageError(f"--lower-is-better {unknown[0]}: one of a, b, labels")
    # Read when numpy is first imported. The models are compared in threads of their own; those of BLAS would only wait for
    # one another where other programs work, and the last bits of the figures would depend on their number.
    with environment({"OPENBLAS_NUM_THREADS": "1"}):
        from harness.engine import compare as comparing

    found = comparing.compare_members(
        chosen.a,
        chosen.b,
        dataset=chosen.dataset,
        protocol=chosen.protocol,
        root=chosen.root,
        labels=chosen.labels,
        lower=chosen.lower,
        inner=chosen.inner,
        differences=chosen.differences or comparing.PLANNED,
        cards=chosen.cards,
        runs=chosen.runs,
        seed=chosen.seed,
    )
    echo(o.json_text(comparing.as_json(found)) if chosen.as_json else comparing.text(found, o.table_width(chosen.wide)))
