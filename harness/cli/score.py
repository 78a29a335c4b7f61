"""`harness score`: images that have no labels."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from harness.cli.options import echo, notifier, options, parse_settings
from harness.runtime.errors import UsageError


@click.command()
@click.argument("model")
@click.argument("pictures", nargs=-1, metavar="[REFERENCE DISTORTED]")
@click.option("--pairs", metavar="FILE.csv", help="A table with columns reference, distorted and optionally name.")
@click.option("--out", metavar="FILE.csv", help="Write name,score there.")
@options("root", "weights", "set", "cards", "device", "seed", "offline", "workers", "ray", "batch", "quiet", "json", "debug")
def score(
    model: str,
    pictures: Sequence[str],
    pairs: str | None,
    out: str | None,
    root: str | None,
    weights: str | None,
    settings: Sequence[str],
    cards: Sequence[str],
    device: str | None,
    seed: int,
    offline: bool,
    workers: int,
    ray: str | None,
    batch: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Score pictures that need no labels: one pair, or a table of pairs."""
    from harness.engine import unlabelled
    from harness.imaging import remarks
    from harness.results.run_scores import csv_text

    if (len(pictures) != 2) == (pairs is None):
        raise UsageError("give either REFERENCE DISTORTED or --pairs FILE.csv")
    table = unlabelled.read_pairs(pairs, root) if pairs else unlabelled.one_pair(*pictures)
    making = unlabelled.scorer(
        model, table, weights=weights, settings=parse_settings(settings), cards=cards, device=device, seed=seed, offline=offline,
        workers=workers, ray=ray, batch=batch, say=notifier(quiet),
    )  # fmt: skip
    with making as scorer:
        results = unlabelled.score(scorer, table, quiet=quiet)
    for line in remarks.lines(remark for _, scored in results for remark in scored.remarks):
        notifier(quiet)(line)
    if out:
        unlabelled.write_scores(out, results)
        notifier(quiet)(f"{len(results)} scores written to {out}")
    if as_json:
        echo(json.dumps([unlabelled.as_json(pair, scored) for pair, scored in results], indent=2, ensure_ascii=False))
    elif not out:
        rows = [[pair.name, repr(scored.score)] if pairs else [repr(scored.score)] for pair, scored in results]
        echo(csv_text(rows).removesuffix("\n"))
