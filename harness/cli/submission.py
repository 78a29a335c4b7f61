"""`harness submit` and `harness submission`: zips for challenges."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import click

from harness.cli.options import echo, options, parse_settings
from harness.runtime.errors import UsageError

_log = logging.getLogger(__package__)


@click.command()
@click.argument("model", metavar="MODEL|RUN")
@click.option("--challenge", required=True, metavar="NAME", help="Which challenge (harness list challenges).")
@click.option("--phase", metavar="NAME", help="Which set of images; default: the card's.")
@options("root")
@click.option("--out", required=True, metavar="FILE.zip", help="The submission.")
@click.option("--description", metavar="TEXT", help="One line about the method; default: the card's title and first sentence.")
@click.option("--factsheet", metavar="FILE.md", help="Also write the fact sheet for the organisers.")
@click.option("--team", metavar="NAME", help="For the fact sheet.")
@options("weights", "set")
@click.option("--force", is_flag=True, help="Score again what is scored.")
@options("rehash")
@click.option("--strict", is_flag=True, help="Exit status 1 for warnings.")
@options("runs", "cards", "device", "seed", "offline", "workers", "ray", "batch", "mlflow", "quiet", "json", "debug")
def submit(
    model: str,
    challenge: str,
    phase: str | None,
    root: str | None,
    out: str,
    description: str | None,
    factsheet: str | None,
    team: str | None,
    weights: str | None,
    settings: Sequence[str],
    force: bool,
    rehash: bool,
    strict: bool,
    runs: str,
    cards: Sequence[str],
    device: str | None,
    seed: int,
    offline: bool,
    workers: int,
    ray: str | None,
    batch: int,
    mlflow_uri: str | None,
    as_json: bool,
) -> None:
    """Score a challenge's images with a model, or the model of a finished run, and write the zip to hand in."""
    from harness.challenges.submit import submit as make
    from harness.engine.request import Request

    wish = Request(
        "", "", root=root, weights=weights, settings=parse_settings(settings), force=force, rehash=rehash,
        runs=runs, cards=tuple(cards),
        device=device, seed=seed, offline=offline, workers=workers, ray=ray, batch=batch, mlflow_uri=mlflow_uri,
    )  # fmt: skip
    made = make(model, challenge, phase, out, wish, description=description)
    if factsheet:
        from harness.challenges import factsheet as sheet

        sheet.write(factsheet, made, team=team, cards=cards)
        _log.info(f"fact sheet written to {factsheet}")
    echo(json.dumps(made.json(), indent=2, ensure_ascii=False) if as_json else str(made))
    if strict and made.warnings:
        raise SystemExit(1)


@click.group("submission")
def submission_() -> None:
    """Submissions to challenges, also made elsewhere: checked, mended, scored."""


@submission_.command("check")
@click.argument("file", metavar="FILE.zip")
@click.option("--challenge", metavar="NAME", help="Which challenge; default: told by the names.")
@click.option("--phase", metavar="NAME", help="Which phase; default: told by the names.")
@options("root")
@click.option("--against", metavar="RUN", help="The model's own scores (a run, a model's name or name,score): audit for leaks.")
@click.option("--fix", "fixed", metavar="OUT.zip", help="Write a zip with everything mechanical mended, and check that instead.")
@click.option("--strict", is_flag=True, help="Exit status 1 for warnings.")
@options("runs", "cards", "quiet", "json", "debug")
def submission_check(
    file: str,
    challenge: str | None,
    phase: str | None,
    root: str | None,
    against: str | None,
    fixed: str | None,
    strict: bool,
    runs: str,
    cards: Sequence[str],
    as_json: bool,
) -> None:
    """Everything that is wrong with a submission, with lines and how to mend them. Exit status 1 for a defective one."""
    from harness.challenges.check import check, fix

    report = check(file, challenge=challenge, phase=phase, root=root, against=against, cards=cards, runs=runs)
    if fixed:
        if not as_json:
            echo(str(report))
        report = fix(report, fixed, root=root, against=against, cards=cards, runs=runs)
    echo(json.dumps(report.json(), indent=2, ensure_ascii=False) if as_json else str(report))
    if not report.ok or (strict and report.warned):
        raise SystemExit(1)


@submission_.command("score")
@click.argument("file", metavar="[FILE.zip]", required=False)
@click.option("--labels", metavar="FILE", help="People's scores: name,score, or a folder of such files.")
@click.option(
    "--input", "source", metavar="DIR", help="Instead, as a server calls it: DIR/ref has the labels, DIR/res the files."
)
@click.option("--output", "target", metavar="DIR", help="With --input: scores.txt is written there.")
@click.option("--challenge", metavar="NAME", help="Which challenge; default: told by the names.")
@click.option("--phase", metavar="NAME", help="Which phase; default: told by the names.")
@click.option("--name", metavar="NAME", help="What the leaderboard is to call a zip made elsewhere.")
@options("root", "runs", "cards", "json", "debug")
def submission_score(
    file: str | None,
    labels: str | None,
    source: str | None,
    target: str | None,
    challenge: str | None,
    phase: str | None,
    name: str | None,
    root: str | None,
    runs: str,
    cards: Sequence[str],
    as_json: bool,
) -> None:
    """The challenge's own score of a submission, from labels of your own; also as an organiser's server calls it."""
    from harness.challenges import standings
    from harness.challenges.score import score, score_folder

    if bool(file) == bool(source) or bool(file) != bool(labels) or bool(source) != bool(target):
        raise UsageError("give FILE.zip with --labels FILE, or --input DIR with --output DIR")
    if source and target:
        scored = score_folder(source, target, challenge=challenge, phase=phase, cards=cards)
    else:
        assert file is not None
        assert labels is not None
        scored = score(file, labels, challenge=challenge, phase=phase, root=root, cards=cards)
        standings.remember(runs, standings.scored_entry(scored, name))
    echo(json.dumps(scored.json(), indent=2, ensure_ascii=False) if as_json else str(scored))
