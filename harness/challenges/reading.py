"""A submission's files, whoever reads them: every defect at once, the scores, the readme's values.

`harness submission check` and a challenge's scoring program on its server both run this file, so that both say the same; it
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
    """What a submission's files say."""

    scores: Mapping[str, float]
    """What could be read, by image."""
    line_of: Mapping[str, int]
    findings: tuple[Finding, ...]
    fixed: Mapping[str, bytes]
    """The files with everything mechanical fixed."""
    costs: Mapping[str, float]
    """Runtime and operations, as far as the readme tells them."""


def wanted_files(card: ChallengeCard) -> dict[str, int]:
    """The files of a submission and the most bytes that each can have."""
    images = max(phase.images for phase in card.phases.values())
    sizes = {card.lines.file: max(1 << 20, images * _BYTES_AN_IMAGE)}
    return {**sizes, card.readme_file: _README_LIMIT} if card.readme else sizes


def read_content(card: ChallengeCard, files: Mapping[str, bytes], names: Names) -> Content:
    """What `files` say about the images `names`; files that the card does not ask for are not looked at."""
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
        # The ranking's limits that a submission is above.
        for limit in card.ranking.limits:
            value = costs.get(limit.figure)
            if value is not None and value > limit.most:
                text = f"{limit.figure} is {value:g} {UNITS[limit.figure]}, the challenge allows {limit.most:g}"
                fix = "a submission above the limit is not ranked"
                found.append(Finding("error", "over-limit", card.readme_file, text, fix))
    return Content(scores, line_of, tuple(found), fixed, costs)


def _values(reading: score_lines.Reading, card: ChallengeCard) -> list[Finding]:
    """What the scores themselves show: all equal, or some equal."""
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
    text = f"{len(tied):,} of {len(scores):,} images share their score with another; each tie costs rank correlation"
    numbers = sorted(reading.line_of[name] for name in tied)
    # A few images that agree to the last digit are chance; more were made equal.
    severity: Severity = "warning" if len(tied) > _CHANCE_TIES * len(scores) else "information"
    fix = "were the scores rounded or clipped?"
    return [Finding(severity, "ties", where, text, fix, numbers[0], False, len(tied), tuple(numbers[:20]))]
