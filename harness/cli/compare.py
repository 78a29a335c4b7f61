"""`harness compare` and `harness agreement`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from harness.cli.options import echo, options, parse_words
from harness.runtime.errors import UsageError


@click.command("agreement")
@click.argument("scores")
@click.argument("labels")
@click.option("--lower-is-better", "lower", multiple=True, type=click.Choice(["scores", "labels"]), help="Turn round.")
@click.option("--fit", default="logistic4", type=click.Choice(["logistic4", "logistic5", "poly3"]), show_default=True)
@click.option("--inner", is_flag=True, help="Use the names that both files have, and drop the others.")
@options("json", "debug")
def agreement_(scores: str, labels: str, lower: Sequence[str], fit: Any, inner: bool, as_json: bool) -> None:
    """Agreement of a file of scores with a file of labels (columns name,score; labels may have reference_id)."""
    from harness.engine.compare import agreement_of_files
    from harness.results import tables

    figures = agreement_of_files(scores, labels, lower=set(lower), fit=fit, inner=inner)
    echo(json.dumps(figures.json(), indent=2) if as_json else tables.agreement_text(figures))


@click.command()
@click.argument("a")
@click.argument("b", required=False)
@click.option(
    "--by", metavar="COLUMN", help="A is a table of `harness score --out`: compare this column's values, such as codec."
)
@click.option("--metrics", metavar="A,B", help="With --by: columns of scores; default: those that are called as a model is.")
@click.option("--dataset", metavar="NAME|TABLE.csv", help="Whose images and labels; default: those of A's run.")
@click.option("--protocol", metavar="NAME", help="For models' names: the protocol of their runs; default: the dataset's.")
@click.option("--labels", metavar="FILE.csv", help="Labels (name,score,reference_id) instead of a dataset's.")
@click.option("--lower-is-better", "lower", multiple=True, metavar="a|b|labels", help="Of score files; with --by: a metric.")
@click.option("--inner", is_flag=True, help="Use the images that both have.")
@click.option(
    "--difference",
    "differences",
    multiple=True,
    type=float,
    metavar="D",
    help="Say how many references would show a true D in SRCC.",
)
@options("root", "cards", "runs", "seed", "quiet", "json", "debug")
def compare(
    a: str,
    b: str | None,
    by: str | None,
    metrics: str | None,
    dataset: str | None,
    protocol: str | None,
    labels: str | None,
    lower: Sequence[str],
    inner: bool,
    differences: Sequence[float],
    root: str | None,
    cards: Sequence[str],
    runs: str,
    seed: int,
    as_json: bool,
) -> None:
    """Is A better than B? Two models, runs or score files, paired by reference; with --by the codecs of one table of scores."""
    if by is not None:
        from harness.cli.codecs import compare_by

        if b is not None or dataset or labels or protocol:
            raise UsageError("--by compares the rows of one table: no B, --dataset, --protocol or --labels beside it")
        compare_by(a, by, {"metrics": parse_words(metrics), "lower": lower, "cards": cards, "inner": inner}, as_json)
        return
    unknown = [word for word in lower if word not in ("a", "b", "labels")]
    if b is None or metrics or unknown:
        raise UsageError(
            "give A and B, or a table with --by COLUMN"
            if b is None
            else "--metrics belongs to --by"
            if metrics
            else f"--lower-is-better {unknown[0]}: one of a, b, labels"
        )
    from harness.engine import compare as contrast

    found = contrast.compare_members(
        a,
        b,
        dataset=dataset,
        protocol=protocol,
        root=root,
        labels=labels,
        lower=lower,
        inner=inner,
        differences=differences or contrast.PLANNED,
        cards=cards,
        runs=runs,
        seed=seed,
    )
    echo(json.dumps(contrast.as_json(found), indent=2) if as_json else contrast.text(found))
