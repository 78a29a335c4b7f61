"""`harness verify`: a run's work done again."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from harness.cli.options import notifier, options


@click.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Score only about N images again.")
@click.option("--no-training", is_flag=True, help="Of a trained record without its weights, check all but the scores.")
@options("root", "cards", "device", "offline", "workers", "ray", "quiet", "json", "debug")
def verify(
    run_folder: str,
    sample: int | None,
    no_training: bool,
    root: str | None,
    cards: Sequence[str],
    device: str | None,
    offline: bool,
    workers: int,
    ray: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Do a finished run's work again, and compare it with its record."""
    from harness.engine import verify as verification

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
        quiet=quiet,
        say=notifier(quiet),
    )
    click.echo(json.dumps(verdict.json(), indent=2) if as_json else verification.text(verdict))
    if not verdict.ok:
        raise SystemExit(1)
