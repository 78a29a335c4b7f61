"""A challenge's scoring program as a server runs it: `score.py INPUT OUTPUT`.

INPUT/ref has the labels, INPUT/res the unpacked submission. OUTPUT/scores.json is written only for a submission without
defects; OUTPUT/detailed_results.html lists the defects for the entrant. Neither it nor the printed text holds a label or a
score. This file is copied unchanged to the program's folder, with the modules that it imports: it needs numpy and scipy only,
and runs on Python 3.7 too (`harness.runtime.python37`). Submissions are untrusted: no link is followed, no file is read beyond
its largest allowed size, nothing is executed.
"""

from __future__ import annotations

import csv
import html
import json
import os
import stat
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from harness.cards.challenge import ChallengeCard, Limit, Lines, Phase, Ranking, ReadmeField, Scoring, Term
from harness.challenges.figures import Truth, figures, references_of, server_scores
from harness.challenges.image_names import names_of
from harness.challenges.reading import read_content, wanted_files
from harness.runtime.findings import Finding, errors
from harness.runtime.text import visible

CARD = "challenge.json"
PHASE = "phase.json"
LABELS = "labels.csv"
SCORES = "scores.json"
DETAILS = "detailed_results.html"
_MOST_SHOWN = 20
_MOST_ENTRIES = 1000


def main(arguments: Sequence[str]) -> int:
    """Score one submission; the exit status: 0, or 1 for a defective one."""
    source, target = Path(arguments[0]), Path(arguments[1])
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(errors="backslashreplace")
    try:
        card = read_card(Path(__file__).resolve().parents[2] / CARD)
        phase, truth = read_reference(source / "ref")
        found, scores = judged(card, phase, truth, source / "res")
    except Exception as error:
        # The error's text may quote labels: the entrant gets only the place of the error.
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name} line {last.lineno}"
        text = f"the scoring program failed ({type(error).__name__} in {where}); the submission is not the cause"
        found, scores = [Finding("error", "program", "scoring program", text, "tell the organisers")], None
    (target / DETAILS).write_text(page(found), encoding="utf-8")
    for finding in found:
        print(visible(finding.text()).replace(" (--fix does it)", ""), file=sys.stderr)
    if scores is None:
        print("This submission has defects and gets no score.", file=sys.stderr)
        return 1
    (target / SCORES).write_text(json.dumps(scores), encoding="utf-8")
    print("scored; see the leaderboard")
    return 0


def read_card(path: Path) -> ChallengeCard:
    """The challenge's card, from the file that `card_json` wrote."""
    table = json.loads(path.read_text(encoding="utf-8"))
    ranking = table["ranking"]
    table["phases"] = {name: Phase(**{**phase, "names": tuple(phase["names"])}) for name, phase in table["phases"].items()}
    table["lines"] = Lines(**table["lines"])
    table["readme"] = tuple(ReadmeField(**line) for line in table["readme"])
    table["scoring"] = Scoring(tuple(Term(**term) for term in table["scoring"]["terms"]), table["scoring"]["main_key"])
    table["ranking"] = Ranking(**{**ranking, "limits": tuple(Limit(**limit) for limit in ranking["limits"])})
    return ChallengeCard(**table)


def read_reference(folder: Path) -> tuple[str, Truth]:
    """The phase and its labels, from the files that `reference_files` of `harness.challenges.bundle` wrote."""
    phase = json.loads((folder / PHASE).read_text(encoding="utf-8"))["phase"]
    scores: dict[str, float] = {}
    others: dict[str, dict[str, float]] = {"std": {}, "raters": {}}
    references: dict[str, str] = {}
    for row in _rows(folder / LABELS):
        scores[row["name"]] = float(row["score"])
        for key, values in others.items():
            if row[key]:
                values[row["name"]] = float(row[key])
        if row["reference"]:
            references[row["name"]] = row["reference"]
    pairs = {}
    for path in sorted(folder.glob("pairs-*.csv")):
        name = path.name[len("pairs-") : -len(".csv")]
        pairs[name] = [(row["first"], row["second"], float(row["share"])) for row in _rows(path)]
    return phase, Truth(scores, others["std"], others["raters"], references, pairs)


def _rows(path: Path) -> list[dict[str, str]]:
    with open(str(path), newline="", encoding="utf-8") as stream:
        return [dict(row) for row in csv.DictReader(stream)]


def judged(card: ChallengeCard, phase: str, truth: Truth, folder: Path) -> tuple[list[Finding], dict[str, float | None] | None]:
    """Findings about the submission in `folder`, and its scores by the server's keys; None for a defective one."""
    wanted = wanted_files(card)
    files: dict[str, bytes] = {}
    found: list[Finding] = []
    for name, limit in wanted.items():
        data = _bounded(folder, name, limit, list(wanted), found)
        files.update({} if data is None else {name: data})
    content = read_content(card, files, names_of(card, phase))
    found += content.findings
    if errors(found):
        return found, None
    names = sorted(content.scores)
    scores = np.array([content.scores[name] for name in names], dtype=np.float64)
    result = figures(card.scoring, scores, truth, names, references_of(card, truth, names), intervals=False)
    if result.main is None:
        return [*found, Finding("error", "no-score", card.lines.file, f"the score is not defined: {result.note}")], None
    return found, server_scores(card, result)


def _bounded(folder: Path, name: str, limit: int, wanted: Sequence[str], found: list[Finding]) -> bytes | None:
    """The content of one of the submission's files, or None and a finding that says why."""
    path, both = str(folder / name), " and ".join(wanted)
    try:
        kind = os.lstat(path).st_mode
    except OSError:
        there = sorted(entry for entry in os.listdir(str(folder)) if entry != "metadata")[:_MOST_SHOWN]
        text = "not at the zip's root; the zip holds: {}".format(", ".join(there) or "nothing")
        # A folder that has it: few are searched, and no link is followed.
        for count, (place, folders, files) in enumerate(os.walk(str(folder))):
            folders.sort()
            if name in files:
                text = f"in the folder {os.path.relpath(place, str(folder))}; it must be at the zip's root"
            if name in files or count > _MOST_ENTRIES:
                break
        found.append(Finding("error", "no-file", name, text, f"zip {both} themselves, not their folder"))
        return None
    if not stat.S_ISREG(kind):
        found.append(Finding("error", "link", name, "a link or a folder instead of a file", "zip the file itself"))
        return None
    with open(path, "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        text = f"larger than {limit:,} bytes, the limit for this file"
        found.append(Finding("error", "too-large", name, text, "is this the right file?"))
        return None
    return data


def page(found: Sequence[Finding]) -> str:
    """The page for the entrant: every finding with its lines and how to fix it, without any label or score."""
    defects = len(errors(found))
    outcome = "This submission was scored." if not defects else "This submission has defects and gets no score."
    rows = []
    for finding in found:
        lines = ", ".join(map(str, finding.lines[:_MOST_SHOWN] or ([finding.line] if finding.line else [])))
        more = f" ({finding.count:,} in all)" if finding.count > len(finding.lines[:_MOST_SHOWN]) > 0 else ""
        cells = (finding.severity, finding.where, lines + more, finding.what, finding.fix)
        rows.append("<tr>{}</tr>".format("".join(f"<td>{html.escape(visible(str(cell)))}</td>" for cell in cells)))
    head = "<tr><th></th><th>file</th><th>lines</th><th>what</th><th>how to fix it</th></tr>"
    table = "<table>{}{}</table>".format(head, "".join(rows)) if rows else "<p>No defects were found.</p>"
    style = "body{font-family:sans-serif}td,th{text-align:left;vertical-align:top;padding:.2em .6em;border-bottom:1px solid #ccc}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Submission</title><style>{style}</style></head>'
        f"<body><h1>{outcome}</h1>{table}</body></html>\n"
    )


def card_json(card: ChallengeCard, names: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """A card for `read_card`: the phases in `names` with all their images' names, without the board and descriptions."""
    table = asdict(card)
    prose = ("description", "paper", "home", "next_step", "note", "conditions", "contact")
    for key in (*prose, "board", "inferred", "path", "training"):
        del table[key]
    table["phases"] = {name: {"images": len(listed), "names": list(listed)} for name, listed in names.items()}
    if table["default_phase"] not in names:
        table["default_phase"] = next(iter(names))
    return table
