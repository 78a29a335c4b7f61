"""`harness submit` and `harness submission`: making, checking and scoring submissions to challenges."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated

import click

from harness.cli import completion
from harness.cli import options as o
from harness.cli.options import Argument, Option, echo, options, request_of
from harness.runtime.errors import UsageError

_log = logging.getLogger(__package__)

Challenge = Annotated[str | None, Option(help="The submission's challenge; default: found from its names.", **o.CHALLENGE)]
Phase = Annotated[str | None, Option(help="The submission's phase; default: found from its names.", **o.PHASE)]
Strict = Annotated[bool, Option(help="Exit with status 1 for warnings too.")]
_CHALLENGE = "Make a submission to this challenge (harness list challenges)."
_PHASE = "Score the images of this phase; default: the card's."
_DESCRIPTION = "Describe the method in one line; default: the card's title and first sentence."
_LIMIT = "Rehearse with at most N images: the zip is marked, and check reports it as incomplete."
_AGAINST = "Audit for leaks against the model's own scores: a run, a model's name or a file of name,score."
_FIX = "Write a zip with all mechanical defects fixed, and check that one."
_LABELS = "Score against these labels: name,score, or a folder of such files."
_INPUT = "Work like a server's scoring program: DIR/ref has the labels, DIR/res the submitted files."


@dataclass(frozen=True)
class SubmitOptions(o.Work):
    """Options of `harness submit`."""

    model: Annotated[str, Argument(metavar="MODEL|RUN", shell_complete=completion.cards("models"))]
    challenge: Annotated[str, Option(required=True, help=_CHALLENGE, **o.CHALLENGE)]
    phase: Annotated[str | None, Option(help=_PHASE, **o.PHASE)]
    root: o.Root
    out: Annotated[str, Option(required=True, metavar="FILE.zip", help="Write the submission to this file.")]
    description: Annotated[str | None, Option(metavar="TEXT", help=_DESCRIPTION)]
    factsheet: Annotated[str | None, Option(metavar="FILE.md", help="Write the fact sheet for the organisers too.")]
    team: Annotated[str | None, Option(metavar="NAME", help="Name the team in the fact sheet.")]
    weights: o.Weights
    settings: o.Settings
    force: Annotated[bool, Option(help="Score finished images again.")]
    rehash: o.Rehash
    limit: Annotated[int | None, Option(type=click.IntRange(1), metavar="N", help=_LIMIT)]
    strict: Strict


@dataclass(frozen=True)
class CheckOptions(o.CardsOutput):
    """Options of `harness submission check`."""

    file: Annotated[str, Argument(metavar="FILE.zip")]
    challenge: Challenge
    phase: Phase
    root: o.Root
    against: Annotated[str | None, Option(metavar="RUN", help=_AGAINST)]
    fixed: Annotated[str | None, Option("--fix", metavar="OUT.zip", help=_FIX)]
    strict: Strict
    runs: o.Runs


@dataclass(frozen=True)
class ScoreOptions:
    """Options of `harness submission score`."""

    file: Annotated[str | None, Argument(metavar="[FILE.zip]")]
    labels: Annotated[str | None, Option(metavar="FILE", help=_LABELS)]
    source: Annotated[str | None, Option("--input", metavar="DIR", help=_INPUT)]
    target: Annotated[str | None, Option("--output", metavar="DIR", help="With --input: write scores.txt to this folder.")]
    challenge: Challenge
    phase: Phase
    name: Annotated[str | None, Option(metavar="NAME", help="Name on the leaderboard for a zip that was made elsewhere.")]
    root: o.Root
    runs: o.Runs
    cards: o.Cards
    as_json: o.Json


@click.command()
@options(SubmitOptions)
def submit(chosen: SubmitOptions) -> None:
    """Score a challenge's images with a model, or the model of a finished run, and write the zip to submit."""
    from harness.challenges.submit import submit as make

    request = request_of(chosen, model="", dataset="")
    made = make(chosen.model, chosen.challenge, chosen.phase, chosen.out, request, description=chosen.description)
    if chosen.factsheet:
        from harness.challenges import factsheet as sheet

        sheet.write(chosen.factsheet, made, team=chosen.team, cards=chosen.cards)
        _log.info(f"fact sheet written to {chosen.factsheet}")
    echo(o.json_text(made.json()) if chosen.as_json else str(made))
    if chosen.strict and made.warnings:
        raise SystemExit(1)


@click.group("submission")
def submission_() -> None:
    """Check, fix and score submissions to challenges, also those made elsewhere."""


@submission_.command("check")
@options(CheckOptions)
def submission_check(chosen: CheckOptions) -> None:
    """List all defects of a submission, with lines and fixes. Exit status 1 for a defective one."""
    from harness.challenges.submission_check import check, fix

    how = {"root": chosen.root, "against": chosen.against}
    report = check(chosen.file, challenge=chosen.challenge, phase=chosen.phase, cards=chosen.cards, runs=chosen.runs, **how)
    if chosen.fixed:
        if not chosen.as_json:
            echo(str(report))
        report = fix(report, chosen.fixed, cards=chosen.cards, runs=chosen.runs, **how)
    echo(o.json_text(report.json()) if chosen.as_json else str(report))
    if not report.ok or (chosen.strict and report.warned):
        raise SystemExit(1)


@submission_.command("score")
@options(ScoreOptions)
def submission_score(chosen: ScoreOptions) -> None:
    """Compute the challenge's own score of a submission, from your own labels; also as an organiser's server calls it."""
    from harness.challenges import standings
    from harness.challenges.score import score, score_folder

    file, labels, source, target = chosen.file, chosen.labels, chosen.source, chosen.target
    if bool(file) == bool(source) or bool(file) != bool(labels) or bool(source) != bool(target):
        raise UsageError("give FILE.zip with --labels FILE, or --input DIR with --output DIR")
    kind = {"challenge": chosen.challenge, "phase": chosen.phase}
    if source and target:
        scored = score_folder(source, target, cards=chosen.cards, **kind)
    else:
        assert file is not None
        assert labels is not None
        scored = score(file, labels, root=chosen.root, cards=chosen.cards, **kind)
        standings.remember(chosen.runs, standings.scored_entry(scored, chosen.name))
    echo(o.json_text(scored.json()) if chosen.as_json else str(scored))
