"""`harness submission score`: a challenge's own scoring of a submission, run locally with labels.

Also with a server's folders: `input/ref` holds the labels, `input/res` the unpacked submission, `output/scores.txt` is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.cards.challenge import Scoring, Term
from harness.challenges.figures import FIT_WORDS, Figures, Truth, figures, references_of, server_scores, term_names, unmet
from harness.challenges.image_names import parts_of
from harness.challenges.labels import read_truth
from harness.challenges.reading import wanted_files
from harness.challenges.submission_check import Report, candidates, check, inspect
from harness.files.atomic import write_text
from harness.results.tables import number, with_interval
from harness.runtime.errors import RunError, UsageError, listed
from harness.runtime.findings import errors


@dataclass(frozen=True)
class Scored:
    """A submission's score, over all images and by class of distortion."""

    report: Report
    labels: str
    labels_sha256: str
    whole: Figures
    classes: Mapping[str, Figures]

    def json(self) -> dict[str, object]:
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
        lines = [f"{self.report.file}: {card.name}, phase {self.report.phase}, n = {whole.n:,}"]
        called = dict(zip(term_names(card.scoring), map(described, card.scoring.terms), strict=True))
        width = max(map(len, ("main score", *called.values())))
        for key, name in {"main": "main score", **called}.items():
            value = whole.main if key == "main" else whole.terms.get(key)
            lines.append(f"{name:{width}} {with_interval(value, whole.ci.get(key)) or 'not defined'}")
        for kind, own in self.classes.items() if len(self.classes) > 1 else ():
            each = (f"{term.name} {number(own.terms.get(key))}" for key, term in zip(called, card.scoring.terms, strict=True))
            shown = f"main {number(own.main)}, {', '.join(each)}, n = {own.n:,}"
            lines.append(f"class {kind:6} {shown}" if own.main is not None else f"class {kind:6} {own.note}")
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

    Raises UsageError for what cannot be read, RunError naming every defect of a submission that a server would refuse.
    """
    report = check(path, challenge=challenge, phase=phase, root=root, cards=cards)
    return _scored(report, Path(labels))


def score_folder(
    source: str | Path, target: str | Path, *, challenge: str | None = None, phase: str | None = None, cards: Sequence[str] = ()
) -> Scored:
    """Score `source`/res with the labels in `source`/ref and write `target`/scores.txt, as a server's scoring program does.

    Other files next to the submission's (servers put some there) are ignored.
    """
    source, target = Path(source), Path(target)
    absent = [str(place) for place in (source / "ref", source / "res") if not place.is_dir()]
    if absent:
        raise UsageError(f"{source}: expected the folders ref (labels) and res (the unpacked submission); no {listed(absent)}")
    known = candidates(challenge, phase, cards)
    files = {}
    for card in known:
        for name, limit in wanted_files(card).items():
            path = source / "res" / name
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as stream:
                    files[name] = stream.read(limit + 1)
                if len(files[name]) > limit:
                    raise RunError(f"{path}: larger than the {limit:,} bytes that a submission's file can have")
    report = inspect(files, [], known, phase, str(source / "res"))
    absent = [name for name in wanted_files(report.card) if name not in files]
    if absent:
        both = listed(list(wanted_files(report.card)))
        raise RunError(f"{source / 'res'}: no {listed(absent)}: the zip must hold {both} at its root")
    scored = _scored(report, source / "ref")
    # Servers read `key: value` lines.
    shown = server_scores(scored.report.card, scored.whole)
    write_text(target / "scores.txt", "".join(f"{key}: {value!r}\n" for key, value in shown.items()))
    return scored


def described(term: Term) -> str:
    """A term as text: `PLCC (raw)`, `0.45 SRCC`."""
    about = f" ({FIT_WORDS[term.fit]})" if term.figure in ("plcc", "rmse") else ""
    return ("" if term.weight == 1 else f"{term.weight:g} ") + term.name + about


def _scored(report: Report, place: Path) -> Scored:
    if defects := errors(report.findings):
        lines = [f"{report.file}: a server would refuse it, so it has no score:", *(defect.text() for defect in defects)]
        raise RunError("\n".join([*lines, "(harness submission check --fix OUT.zip fixes some of it)"]))
    truth, digest = read_truth(place, report.scores)
    names = sorted(report.scores)
    require_labels(report.card.scoring, truth, names, str(place))
    scores = np.array([report.scores[name] for name in names], dtype=np.float64)
    references = references_of(report.card, truth, names)
    kinds = [parts_of(report.card, name).kind for name in names]
    scoring, classes = report.card.scoring, {}
    for kind in sorted({kind for kind in kinds if kind}):
        rows = [i for i, other in enumerate(kinds) if other == kind]
        own = [names[i] for i in rows]
        classes[kind] = figures(scoring, scores[rows], truth, own, [references[i] for i in rows])
    return Scored(report, str(place), digest, figures(scoring, scores, truth, names, references), classes)


def require_labels(scoring: Scoring, truth: Truth, names: Sequence[str], place: str) -> None:
    """Raise UsageError naming all missing labels of the images `names`."""
    problems = []
    if absent := sorted(set(names) - set(truth.scores)):
        problems.append(f"{place}: no labels for {len(absent):,} of {len(names):,} images: {listed(absent)}")
    problems += [f"{place}: {problem}" for problem in unmet(scoring, truth, names)]
    if problems:
        raise UsageError("\n".join(problems))
