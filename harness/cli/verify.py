"""`harness verify`: a run's work done again."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from harness.cli.options import echo, options, parse_settings


@click.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Score only about N images again.")
@click.option("--no-training", is_flag=True, help="Of a trained record without its weights, check all but the scores.")
@click.option("--dataset", metavar="FILE", help="The table that the run used, where its record names one.")
@click.option("--weights", metavar="FILE", help="The weights that were tested, where the record names a file.")
@click.option("--init", metavar="FILE", help="The weights that were trained on from.")
@click.option("--scores", metavar="FILE", help="The file of scores that was recorded.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the record that names a file.")
@options("root", "cards", "device", "offline", "workers", "ray", "quiet", "json", "debug")
def verify(
    run_folder: str,
    sample: int | None,
    no_training: bool,
    dataset: str | None,
    weights: str | None,
    init: str | None,
    scores: str | None,
    settings: Sequence[str],
    root: str | None,
    cards: Sequence[str],
    device: str | None,
    offline: bool,
    workers: int,
    ray: str | None,
    as_json: bool,
) -> None:
    """Do a finished run's work again, and compare it with its record.

    A record may come from others, so it chooses no code and no file: its cards are looked for among the built-in ones and
    yours (--cards), and files that you have not named on this machine before are named again.
    """
    from harness.engine import verify as verification
    from harness.engine.asked_again import Repeated

    verdict = verification.verify(
        run_folder,
        root=root,
        cards=cards,
        sample=sample,
        train=not no_training,
        device=device,
        offline=offline,
        workers=workers,
        ray=ray,
        again=Repeated(dataset, weights, init, scores, parse_settings(settings)),
    )
    echo(json.dumps(verdict.json(), indent=2) if as_json else verification.text(verdict))
    if not verdict.ok:
        raise SystemExit(1)
