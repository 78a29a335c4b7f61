"""`harness submission check`: all defects of a submission at once, and a copy with the mechanical ones fixed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.cards.challenge import ChallengeCard
from harness.cards.loading import find_challenge, load_cards
from harness.challenges import image_names, submission_zip
from harness.challenges.leak_audit import Audit, audit, explained_by_type
from harness.challenges.reading import read_content, wanted_files
from harness.challenges.text import decoded
from harness.files.atomic import atomic, sha256_file
from harness.models import find_model
from harness.runtime.errors import UsageError, listed, near
from harness.runtime.findings import Finding, errors, warnings

_log = logging.getLogger(__package__)


@dataclass(frozen=True)
class Report:
    """The findings about a submission."""

    file: str
    card: ChallengeCard
    phase: str | None
    """None where neither the names nor the caller determine it."""
    findings: tuple[Finding, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    """What could be read, by image."""
    line_of: Mapping[str, int] = field(default_factory=dict)
    sha256: str = ""
    size: int = 0
    fixed: Mapping[str, bytes] = field(default_factory=dict)
    """The files with everything mechanical fixed."""
    audit: Audit | None = None

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings do not count."""
        return not errors(self.findings)

    @property
    def warned(self) -> bool:
        """Whether there are warnings."""
        return bool(warnings(self.findings))

    def json(self) -> dict[str, object]:
        """One object of `harness submission check --json`."""
        return {
            "file": self.file,
            "challenge": self.card.name,
            "phase": self.phase,
            "ok": self.ok,
            "images": len(self.scores),
            "size": self.size,
            "sha256": self.sha256,
            "findings": [finding.json() for finding in self.findings],
            "leak": self.audit.json() if self.audit else None,
        }

    def __str__(self) -> str:
        counts = [(len(errors(self.findings)), "error"), (len(warnings(self.findings)), "warning")]
        count = ", ".join(f"{n} {word}" + ("" if n == 1 else "s") for n, word in counts)
        outcome = "ready to be submitted" if self.ok else "not ready to be submitted"
        about = f"{self.card.name}, phase {self.phase or 'unknown'}, {len(self.scores):,} images"
        tail = [str(self.audit)] if self.audit else []
        found = sorted(self.findings, key=lambda f: ("error", "warning", "information").index(f.severity))
        return "\n".join([*(f.text() for f in found), *tail, f"{self.file}: {outcome} ({about}; {count})"])


def check(
    path: str | Path,
    *,
    challenge: str | None = None,
    phase: str | None = None,
    root: str | None = None,
    against: str | None = None,
    cards: Sequence[str] = (),
    runs: str = "runs",
) -> Report:
    """All defects of the zip at `path`, and warnings.

    `challenge`, `phase`: by default those that match the zip's names. `root`: the images' folder, for names that no card lists
    and for a comparison with PSNR. `against`: a run (or score file) with the model's own scores of the same images, for the leak
    audit. Raises UsageError for a zip, a folder or a run that cannot be read.
    """
    # Challenges with the same file names are tried together, the most common file names first.
    groups: dict[tuple[str, ...], list[ChallengeCard]] = {}
    for card in candidates(challenge, phase, cards):
        groups.setdefault(tuple(wanted_files(card)), []).append(card)
    tried = []
    for names, alike in sorted(groups.items(), key=lambda group: len(group[1]), reverse=True):
        files, found = submission_zip.read(path, {name: max(wanted_files(card)[name] for card in alike) for name in names})
        tried.append(inspect(files, found, alike, phase, str(path), lambda card, p: _folder_names(card, p, root, cards)))

    def distance(report: Report) -> tuple[bool, bool, int]:
        # A challenge with fewer files is not preferred for that.
        defects = sum(finding.kind != "no-file" for finding in errors(report.findings))
        return report.phase is None or not report.scores, not report.fixed, defects

    # The challenge whose image names the zip holds, else whose files, else the one with the fewest defects.
    report = min(tried, key=distance)
    data = Path(path)
    report = replace(report, sha256=sha256_file(data), size=data.stat().st_size)
    if against is not None:
        report = _compared(report, against, runs)
    elif root is not None and report.scores and report.phase is not None:
        report = _with_inversion(report, _psnr(report, root, cards), "psnr")
    share = explained_by_type(report.card, report.scores) if against is None and report.ok else None
    if share is None:
        return report
    # Without a record: the share of the variance that the type id explains, which alone proves nothing.
    text = (
        f"the type id explains {share:.0%} of the scores' variance within references. Real quality depends on the type too, so "
        "this alone proves nothing; --against RUN audits it with the model's own scores"
    )
    return replace(report, findings=(*report.findings, Finding("information", "types", report.card.lines.file, text)))


def inspect(
    files: Mapping[str, bytes],
    found: Sequence[Finding],
    known: Sequence[ChallengeCard],
    phase: str | None,
    what: str,
    folder: Callable[[ChallengeCard, str], Sequence[str] | None] = lambda card, phase: None,
) -> Report:
    """The report on a submission's files; `found` are the findings from reading them.

    `folder` gives the names in a phase's folder, if there is one: used for phases whose names no card lists.
    """
    all_found = list(found)
    asked = {card.lines.file for card in known}.intersection(files)
    lines = [line for name in asked for line in decoded(files[name], name)[0] if line.strip()]
    guess = image_names.inferred(_tokens(lines), known, (len(lines), len(lines) - 1))
    card = guess[0] if guess else known[-1]
    if phase is not None and guess is not None and guess[1] != phase and card.phases[guess[1]].lists_names:
        text = f"these are images of phase {guess[1]}, not of {phase}"
        advice = f"score the images of {phase}, or --phase {guess[1]}"
        all_found.append(Finding("error", "phase", card.lines.file, text, advice, 1))
    chosen = phase or (guess[1] if guess else None)
    if card.lines.file in files and chosen is None:
        text = "the phase is unknown: fewer than half of the names belong to any phase"
        advice = "is this the right file? (--phase names the phase)"
        all_found.append(Finding("error", "phase", card.lines.file, text, advice, 1))
        names = image_names.Names(card, card.default_phase, None)
    else:
        place = chosen or card.default_phase
        unknown = card.lines.file in files and not card.phases[place].lists_names
        names = image_names.names_of(card, place, folder(card, place) if unknown else None)
    content = read_content(card, files, names)
    found_all = (*all_found, *content.findings)
    return Report(what, card, chosen, found_all, content.scores, content.line_of, fixed=content.fixed)


def fix(
    report: Report,
    out: str | Path,
    *,
    root: str | None = None,
    against: str | None = None,
    cards: Sequence[str] = (),
    runs: str = "runs",
) -> Report:
    """Write a zip with all mechanical defects fixed to `out`, and check it, as `check` does.

    Raises UsageError where no required file could be read.
    """
    if not report.fixed:
        raise UsageError(f"{report.file}: it has no file that can be fixed; {out} was not written")
    wanted = [name for name in (report.card.lines.file, report.card.readme_file) if name in report.fixed]
    with atomic(out) as stream:
        stream.write(submission_zip.zipped({name: report.fixed[name] for name in wanted}))
    card = report.card.path or report.card.name
    return check(out, challenge=card, phase=report.phase, root=root, against=against, cards=cards, runs=runs)


def candidates(challenge: str | None, phase: str | None, cards: Sequence[str]) -> list[ChallengeCard]:
    """The challenges that a submission may belong to; raises UsageError where none has such a phase."""
    if challenge is not None:
        card = find_challenge(challenge, cards)
        image_names.phase_named(card, phase)
        return [card]
    found = [card for card in load_cards("challenges", cards).values() if isinstance(card, ChallengeCard)]
    fit = [card for card in found if phase in (None, *card.phases)]
    if not fit:
        phases = sorted({p for card in found for p in card.phases})
        raise UsageError(f"no challenge has a phase {phase!r}{near(phase or '', phases)} (known: {listed(phases)})")
    return fit


def _tokens(text_lines: Sequence[str]) -> set[str]:
    """Words in the lines that may be names: with a letter and a digit, and not a number. Some hundred lines are enough."""
    found: set[str] = set()
    for line in text_lines[:: max(1, len(text_lines) // 500)]:
        for word in re.split(r"[\s,;\"']+", line, maxsplit=3)[:3]:
            try:
                float(word)
            except ValueError:
                found |= {word} if re.search(r"[A-Za-z]", word) and re.search(r"\d", word) else set()
    return found


def _folder_names(card: ChallengeCard, phase: str, root: str | None, cards: Sequence[str]) -> list[str] | None:
    if root is None:
        return None
    from harness import datasets
    from harness.datasets import splits

    about = card.phases[phase]
    data = datasets.load_dataset(about.dataset, root, cards=cards)
    parts = splits.split(data.table, data.protocol(about.protocol)[1])
    return list(data.table["name"][parts == "test"])


def _compared(report: Report, against: str, runs: str) -> Report:
    """Compare with the model's own scores: is the submission inverted, and does it leak type ids?"""
    from harness.engine.score_source import member

    about = report.card.phases[report.phase or report.card.default_phase]
    own = member(against, dataset=about.dataset, protocol=about.protocol, runs_folder=runs)
    both = sorted(set(report.scores) & set(own.scores))
    if len(both) < 3:
        raise UsageError(f"--against {against}: it has {len(both)} of the {len(report.scores):,} images of {report.file}")
    if len(both) < len(report.scores):
        _log.info(f"--against {against}: compared on the {len(both):,} of {len(report.scores):,} images that both have")
    report = _with_inversion(report, {name: own.scores[name] for name in both}, own.name)
    result = audit(report.card, [report.scores[n] for n in both], [own.scores[n] for n in both], both)
    found = []
    for shift in result.flagged:
        text = (
            f"type id {shift.type}: shifted by {shift.mean:+.6g} against the model's own scores, equally in "
            f"{shift.references} references (spread {shift.spread:.2g}, p = {shift.p_value:.2g})"
        )
        advice = "a score must not depend on the file's name: remove the shift"
        where = sorted(report.line_of[name] for name in both if image_names.parts_of(report.card, name).type == shift.type)
        lines_of = tuple(where[:20])
        found.append(Finding("warning", "leak", report.card.lines.file, text, advice, where[0], False, len(where), lines_of))
    return replace(report, findings=(*report.findings, *found), audit=result)


def _with_inversion(report: Report, own: Mapping[str, float], called: str) -> Report:
    """Add a warning where the submission agrees significantly with the inverse of `own` (higher is better)."""
    from harness.statistics.agreement import agreement

    both = sorted(set(report.scores) & set(own))
    if len(both) < 3:
        return report
    ids = [image_names.parts_of(report.card, name).reference for name in both]
    figures = agreement([report.scores[n] for n in both], [own[n] for n in both], ids if all(ids) else None)
    interval = figures.ci.get("srcc")
    if figures.srcc is None or (interval[1] if interval else figures.srcc) >= 0:
        return report
    text = f"higher seems to be worse: SRCC with {called} is {figures.srcc:.3f}"
    advice = "write higher-is-better scores: multiply by -1"
    return replace(report, findings=(*report.findings, Finding("warning", "inverted", report.card.lines.file, text, advice)))


def _psnr(report: Report, root: str, cards: Sequence[str]) -> dict[str, float]:
    """PSNR of the phase's images, computed from the images in `root`."""
    from harness import datasets, models
    from harness.datasets.table import has_images, require_files
    from harness.engine.scorer import Scorer, pairs_of

    assert report.phase is not None
    about = report.card.phases[report.phase]
    data = datasets.load_dataset(about.dataset, root, cards=cards)
    if not has_images(data.table):
        raise UsageError(f"--root {root}: it has {data.name}'s names but no images, so there is no comparison with PSNR")
    rows = data.table[data.table["name"].isin(set(report.scores))]
    require_files(rows, data.name)
    pairs = pairs_of(rows)
    card = find_model("psnr")
    scorer = Scorer(models.build(card, None), card.protocol, card.identical)
    return {r.name: r.score for results in scorer.score(scorer.chunks(pairs)) for r in results}
