"""Reading a submission's files: all defects, the scores, and the readme's values.

`harness submission check` and a challenge's scoring program on its server both run this file, so that they agree; it
runs on Python 3.7 too (`harness.runtime.python37`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from harness.cards.challenge import ChallengeCard
from harness.challenges import readme, score_lines
from harness.challenges.image_names import Names
from harness.challenges.text import decoded
from harness.runtime.findings import Finding, Severity

_README_LIMIT = 1 << 16
_BYTES_AN_IMAGE = 512
_CHANCE_TIES = 0.01
UNITS = {"runtime": "s per image", "operations": "GFLOP per image"}


@dataclass(frozen=True)
class Content:
    """The content of a submission's files."""

    scores: Mapping[str, float]
    """The readable scores, by image."""
    line_of: Mapping[str, int]
    findings: tuple[Finding, ...]
    fixed: Mapping[str, bytes]
    """The files with all mechanical defects fixed."""
    costs: Mapping[str, float]
    """Runtime and operations, where the readme gives them."""


def wanted_files(card: ChallengeCard) -> dict[str, int]:
    """The files of a submission and the largest size of each in bytes."""
    images = max(phase.images for phase in card.phases.values())
    sizes = {card.lines.file: max(1 << 20, images * _BYTES_AN_IMAGE)}
    return {**sizes, card.readme_file: _README_LIMIT} if card.readme else sizes


def read_content(card: ChallengeCard, files: Mapping[str, bytes], names: Names) -> Content:
    """The content of `files` for the images `names`; files that the card does not ask for are ignored."""
    found: list[Finding] = []
    fixed: dict[str, bytes] = {}
    scores: Mapping[str, float] = {}
    line_of: Mapping[str, int] = {}
    costs: dict[str, float] = {}
    if card.lines.file in files:
        lines, text_found = decoded(files[card.lines.file], card.lines.file)
        reading = score_lines.read(lines, card.lines, names)
        found += [*text_found, *reading.findings, *_values(reading, card)]
        scores, line_of = reading.scores, reading.line_of
        fixed[card.lines.file] = reading.fixed(card.lines).encode("utf-8")
    if card.readme_file in files and card.readme:
        lines, text_found = decoded(files[card.readme_file], card.readme_file)
        about = readme.read(lines, card.readme, card.readme_file)
        found += [*text_found, *about.findings]
        fixed[card.readme_file] = about.fixed.encode("utf-8")
        costs = readme.costs(about.values, card.readme)
        # The ranking's limits that the submission exceeds.
        for limit in card.ranking.limits:
            value = costs.get(limit.figure)
            if value is not None and value > limit.most:
                text = f"{limit.figure} is {value:g} {UNITS[limit.figure]}, the challenge allows {limit.most:g}"
                fix = "a submission above the limit is not ranked"
                found.append(Finding("error", "over-limit", card.readme_file, text, fix))
    return Content(scores, line_of, tuple(found), fixed, costs)


def _values(reading: score_lines.Reading, card: ChallengeCard) -> list[Finding]:
    """Findings about the scores: all equal, or some equal."""
    scores = reading.scores
    if len(scores) < 2:
        return []
    counts = Counter(scores.values())
    where = card.lines.file
    if len(counts) == 1:
        text = f"all {len(scores):,} scores are {next(iter(counts)):g}; correlations with a constant are not defined"
        return [Finding("error", "constant", where, text, "did the model see the images?", 1)]
    tied = [name for name, score in scores.items() if counts[score] > 1]
    if not tied:
        return []
    text = f"{len(tied):,} of {len(scores):,} images share their score with another; ties lower the rank correlation"
    numbers = sorted(reading.line_of[name] for name in tied)
    # A few exactly equal scores are chance; more suggest rounding or clipping.
    severity: Severity = "warning" if len(tied) > _CHANCE_TIES * len(scores) else "information"
    fix = "were the scores rounded or clipped?"
    return [Finding(severity, "ties", where, text, fix, numbers[0], False, len(tied), tuple(numbers[:20]))]
