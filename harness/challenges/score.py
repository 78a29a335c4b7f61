"""The challenge's own scoring as a local program: from a submission and labels to the main score.

Also as a server calls it: `input/ref` holds the labels, `input/res` the unpacked submission, `output/scores.txt` is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.cards.challenge import ChallengeCard
from harness.challenges.check import Report, candidates, check, inspect, wanted_files
from harness.challenges.image_names import parts_of
from harness.files.atomic import sha256_file, write_text
from harness.files.leftovers import without_leftovers
from harness.results.tables import number, with_interval
from harness.runtime.errors import RunError, UsageError, listed
from harness.runtime.findings import errors
from harness.statistics.correlations import ClusteredPairs, Floats, numbered, pearson, spearman
from harness.statistics.curve_fitting import fit_curve
from harness.statistics.intervals import Interval, fisher_interval

_LABEL_FILES = (".txt", ".csv", ".tsv", ".xlsx")
_LARGEST_FOLDER = 10_000


@dataclass(frozen=True)
class Figures:
    """The challenge's score of some images. What is not defined is None, and `note` says why."""

    n: int
    main: float | None
    plcc: float | None
    srcc: float | None
    ci: Mapping[str, Interval | None]
    """Intervals of main, plcc, srcc by delete-one-reference jackknife, 95 %; empty where references are not known."""
    note: str = ""

    def json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ci = {name: None if ends is None else list(ends) for name, ends in self.ci.items()}
        return {"n": self.n, "main": self.main, "plcc": self.plcc, "srcc": self.srcc, "ci": ci, "note": self.note}


@dataclass(frozen=True)
class Scored:
    """A submission's score, whole and by class of distortion."""

    report: Report
    labels: str
    labels_sha256: str
    whole: Figures
    classes: Mapping[str, Figures]

    def json(self) -> dict[str, Any]:
        """One object of `harness submission score --json`."""
        card = self.report.card
        return {
            "file": self.report.file,
            "sha256": self.report.sha256,
            "challenge": card.name,
            "phase": self.report.phase,
            "labels": self.labels,
            "labels_sha256": self.labels_sha256,
            **self.whole.json(),
            "classes": {kind: figures.json() for kind, figures in self.classes.items()},
        }

    def __str__(self) -> str:
        card, whole = self.report.card, self.whole
        plcc = {"raw": "raw", "poly3": "after a third-order polynomial"}.get(card.scoring.plcc, f"after a {card.scoring.plcc}")
        lines = [f"{self.report.file}: {card.name}, phase {self.report.phase}, n = {whole.n:,}"]
        for name, key in (("main score", "main"), ("SRCC", "srcc"), (f"PLCC ({plcc})", "plcc")):
            value = getattr(whole, key)
            lines.append(f"{name:12} {with_interval(value, whole.ci.get(key)) or 'not defined'}")
        for kind, figures in self.classes.items() if len(self.classes) > 1 else ():
            shown = f"main {number(figures.main)}, SRCC {number(figures.srcc)}, PLCC {number(figures.plcc)}, n = {figures.n:,}"
            lines.append(f"class {kind:6} {shown}" if figures.main is not None else f"class {kind:6} {figures.note}")
        if whole.note:
            lines.append(whole.note)
        if card.inferred:
            lines.append("inferred: " + "; ".join(card.inferred))
        return "\n".join(lines)


def score(
    path: str | Path,
    labels: str | Path,
    *,
    challenge: str | None = None,
    phase: str | None = None,
    root: str | None = None,
    cards: Sequence[str] = (),
) -> Scored:
    """The challenge's score of the zip at `path` with the labels in a file (or a folder of files) of name,score.

    Raises UsageError for what cannot be read, RunError naming every defect of a submission that a server would not take.
    """
    report = check(path, challenge=challenge, phase=phase, root=root, cards=cards)
    return _scored(report, Path(labels))


def score_folder(
    source: str | Path, target: str | Path, *, challenge: str | None = None, phase: str | None = None, cards: Sequence[str] = ()
) -> Scored:
    """Score `source`/res with the labels in `source`/ref and write `target`/scores.txt, as a server's scoring program does.

    Other files beside the submission's (servers put some there) are left alone.
    """
    source, target = Path(source), Path(target)
    absent = [str(place) for place in (source / "ref", source / "res") if not place.is_dir()]
    if absent:
        raise UsageError(f"{source}: expected the folders ref (labels) and res (the unpacked submission); no {listed(absent)}")
    known = candidates(challenge, phase, cards)
    files = {}
    for card in known:
        for name, limit in wanted_files(card).items():
            if (path := source / "res" / name).is_file():
                files[name] = _bounded(path, limit)
    report = inspect(files, [], known, phase, str(source / "res"))
    absent = [name for name in wanted_files(report.card) if name not in files]
    if absent:
        both = listed(list(wanted_files(report.card)))
        raise RunError(f"{source / 'res'}: no {listed(absent)} there: the zip has to hold {both} at its root")
    scored = _scored(report, source / "ref")
    write_text(target / "scores.txt", scores_text(scored))
    return scored


def scores_text(scored: Scored) -> str:
    """What a server reads: `key: value` lines."""
    keys, whole = scored.report.card.scoring, scored.whole
    pairs = ((keys.main_key, whole.main), (keys.srcc_key, whole.srcc), (keys.plcc_key, whole.plcc))
    return "".join(f"{key}: {value!r}\n" for key, value in pairs)


def read_labels(place: Path, images: Collection[str] = ()) -> tuple[dict[str, float], str]:
    """Labels by name from a file, or from every label file in a folder, and the sha256 of the file (of several: of their hashes).

    With or without a header (name,score); `images` are names that decide where commas could mean two things. Raises
    UsageError listing all unreadable lines and names labelled twice.
    """
    from harness.datasets import label_files
    from harness.files.atomic import sha256_json

    files = [place]
    if place.is_dir():
        files = [path for path in without_leftovers(sorted(place.iterdir())) if path.suffix.lower() in _LABEL_FILES]
        if not files or len(files) > _LARGEST_FOLDER:
            raise UsageError(f"{place}: {len(files):,} label files (looked for {', '.join(_LABEL_FILES)})")
    found: dict[str, float] = {}
    problems = []
    for file in files:
        read = label_files.read_labels(file, ("name", "score"), known=images.__contains__ if images else None)
        problems += [f"{file}: {read.problem}"] if read.bad else []
        twice = [row.name for row in read.rows if row.name in found]
        problems += [f"{file}: names labelled twice: {listed(twice)}"] if twice else []
        found |= {row.name: row.score for row in read.rows}
    if problems:
        raise UsageError("\n".join(problems))
    hashes = [sha256_file(file) for file in files]
    return found, hashes[0] if len(hashes) == 1 else sha256_json(hashes)


def figures(card: ChallengeCard, scores: Floats, labels: Floats, references: Sequence[str]) -> Figures:
    """The challenge's score of `scores` (n,) with `labels` (n,), both higher is better; `references` (n,) name the groups."""
    n = len(scores)
    if n < 2 or scores.min() == scores.max() or labels.min() == labels.max():
        note = "needs two images" if n < 2 else "scores or labels are constant: correlations are not defined"
        return Figures(n, None, None, None, {}, note)
    fitted = scores
    if card.scoring.plcc != "raw":
        curve = fit_curve(scores, labels, card.scoring.plcc)
        if isinstance(curve, str):
            return Figures(n, None, None, spearman(scores, labels), {}, curve)
        fitted = curve.values
    srcc, plcc = spearman(scores, labels), pearson(fitted, labels)
    turned = [-1.0 if card.scoring.absolute and value < 0 else 1.0 for value in (srcc, plcc)]
    ci: dict[str, Interval | None] = {}
    unit, units = numbered(references)
    if all(references) and len(units) >= 2:
        srcc_without = turned[0] * ClusteredPairs(scores, labels, unit, len(units)).srcc_without_each()
        plcc_without = turned[1] * ClusteredPairs(fitted, labels, unit, len(units)).plcc_without_each()
        ci["srcc"] = fisher_interval(turned[0] * srcc, srcc_without, 0.95)
        ci["plcc"] = fisher_interval(turned[1] * plcc, plcc_without, 0.95)
        ci["main"] = fisher_interval(turned[0] * srcc + turned[1] * plcc, plcc_without + srcc_without, 0.95, reach=2.0)
    note = ""
    if srcc < 0:
        note = "SRCC is negative: higher seems to be worse in this submission"
        note += "; the challenge takes absolute values" if card.scoring.absolute else ""
    srcc, plcc = turned[0] * srcc, turned[1] * plcc
    return Figures(n, plcc + srcc, plcc, srcc, ci, note)


def _scored(report: Report, place: Path) -> Scored:
    if defects := errors(report.findings):
        lines = [f"{report.file}: a server would not take it, so it has no score:", *(defect.text() for defect in defects)]
        raise RunError("\n".join([*lines, "(harness submission check --fix OUT.zip mends some of it)"]))
    labels, digest = read_labels(place, report.scores)
    absent = sorted(set(report.scores) - set(labels))
    if absent:
        raise UsageError(f"{place}: no labels for {len(absent):,} of {len(report.scores):,} images: {listed(absent)}")
    names = sorted(report.scores)
    scores = np.array([report.scores[name] for name in names], dtype=np.float64)
    people = np.array([labels[name] for name in names], dtype=np.float64)
    parts = [parts_of(report.card, name) for name in names]
    classes = {}
    for kind in sorted({p.kind for p in parts if p.kind}):
        rows = np.array([p.kind == kind for p in parts])
        ids = [p.reference for p in parts if p.kind == kind]
        classes[kind] = figures(report.card, scores[rows], people[rows], ids)
    whole = figures(report.card, scores, people, [p.reference for p in parts])
    return Scored(report, str(place), digest, whole, classes)


def _bounded(path: Path, limit: int) -> bytes:
    with open(path, "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise RunError(f"{path}: larger than the {limit:,} bytes that a submission's file can have")
    return data
