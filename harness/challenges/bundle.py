"""`harness challenge bundle`: a Codabench competition as a zip; its scoring program is tested as the server runs it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cards.challenge import ChallengeCard
from harness.cards.loading import find_challenge
from harness.cards.schema import InvalidCard
from harness.challenges import codabench, image_names, readme, score_lines, scoring_program, server_run, submission_zip
from harness.challenges.figures import Truth, unmet
from harness.challenges.labels import read_truth
from harness.files.atomic import sha256_file
from harness.results.run_scores import csv_text
from harness.runtime.errors import RunError, UsageError, listed

_log = logging.getLogger(__name__)

MODULES = (
    "cards/challenge",
    "challenges/figures",
    "challenges/image_names",
    "challenges/readme",
    "challenges/reading",
    "challenges/score_lines",
    "challenges/scoring_program",
    "challenges/text",
    "runtime/errors",
    "runtime/findings",
    "runtime/python37",
    "runtime/text",
    "statistics/ranks_by_reference",
    "statistics/reference_resampling",
    "statistics/correlations",
    "statistics/curve_fitting",
    "statistics/intervals",
    "statistics/pair_accuracy",
)
"""Modules that are copied into the scoring program unchanged. They import each other, the standard library, numpy, scipy."""
_START = '''"""The scoring program's entry; harness/challenges/scoring_program.py says what it does."""

import sys

from harness.challenges.scoring_program import main

sys.exit(main(sys.argv[1:] or ["/app/input", "/app/output"]))
'''


@dataclass(frozen=True)
class Bundle:
    """A written competition, and the results of its test runs."""

    file: Path
    card: ChallengeCard
    images: Mapping[str, int]
    """Images of each phase."""
    sha256: str
    size: int
    trials: Sequence[server_run.Trial]
    left_out: tuple[str, ...] = ()
    """Phases without labels."""

    def json(self) -> dict[str, object]:
        """One object of `harness challenge bundle --json`."""
        return {
            "file": str(self.file),
            "challenge": self.card.name,
            "phases": dict(self.images),
            "left_out": list(self.left_out),
            "docker_image": self.card.docker_image,
            "sha256": self.sha256,
            "size": self.size,
            "trials": [trial.json() for trial in self.trials],
        }

    def __str__(self) -> str:
        lines = [f"{self.file}: {self.card.name}, {self.size:,} bytes, sha256 {self.sha256}"]
        lines += [f"phase {name}: {count:,} images" for name, count in self.images.items()]
        lines += [str(trial) for trial in self.trials]
        why = "is left out: the card does not list its images, and no label matches them"
        lines += [f"phase {name} {why}" for name in self.left_out]
        return "\n".join([*lines, f"next: upload {self.file.name} to Codabench (Benchmarks, Management, Upload)"])


def bundle(
    name: str,
    labels: str | Path,
    out: str | Path,
    *,
    phases: Sequence[str] = (),
    start: str | None = None,
    python: str | None = None,
    cards: Sequence[str] = (),
) -> Bundle:
    """Write a challenge's Codabench competition to the folder `out`: `competition.zip` to upload, `competition/` to read.

    Args:
        name: the challenge's name, or its card.
        labels: a file or a folder (`harness.challenges.labels`).
        out: a folder that does not exist, or is empty.
        phases: the phases to include; default: all.
        start: when the first phase starts, where the card has no dates.
        python: a further interpreter with numpy and scipy to test the program with; default: that of the card's image, if it
            is found.
        cards: folders of the caller's own cards.

    Raises:
        UsageError: listing every problem of the card and the labels.
        RunError: the finished program fails its tests; nothing is written then.
    """
    # Problems of the card are reported together with those of the labels.
    problems: list[str] = []
    try:
        card = find_challenge(name, cards)
    except InvalidCard as error:
        if not isinstance(error.card, ChallengeCard) or not image_names.usable(error.card):
            raise
        card, problems = error.card, str(error).splitlines()
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists already; name a new or an empty folder")
    truth, _ = read_truth(Path(labels))
    for phase in phases:
        image_names.phase_named(card, phase)
    try:
        names, left_out = images_of(card, truth, str(labels), phases or list(card.phases))
    except UsageError as error:
        raise UsageError("\n".join([*problems, str(error)])) from None
    if problems:
        raise UsageError("\n".join(problems))
    dates = codabench.schedule(card, list(names), start)
    files = contents(card, truth, names, dates)
    public = [name for name in files if not name.startswith("reference_data_")]
    if leaking := [name for name in public if server_run.holds_labels(name, files[name], truth)]:
        raise RunError(f"public files would hold labels: {listed(leaking)}; this is a bug of the harness")
    packed = submission_zip.zipped(files)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=out.parent) as place:
        trial = Path(place) / "competition.zip"
        trial.write_bytes(packed)
        trials = server_run.rehearse(card, trial, Path(labels), list(names), python, cards)
        made = Path(place) / "made"
        for file, data in files.items():
            path = made / "competition" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        trial.rename(made / trial.name)
        if out.exists():
            out.rmdir()
        shutil.move(made, out)
    done = out / "competition.zip"
    return Bundle(done, card, {n: len(i) for n, i in names.items()}, sha256_file(done), len(packed), trials, tuple(left_out))


def images_of(
    card: ChallengeCard, truth: Truth, labels: str, wanted: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Each wanted phase's images, all of them labelled, and the phases left out; raises UsageError naming all problems.

    A phase whose names the card does not list gets the labels that match its pattern and belong to no other phase. Without any
    it is left out, if another phase has labels.
    """
    problems = []
    names: dict[str, tuple[str, ...]] = {}
    for phase in card.phases:
        try:
            names[phase] = image_names.all_names(card, phase) or ()
        except UsageError as error:
            problems.append(str(error))
    claimed = {name for listed_names in names.values() for name in listed_names}
    rest = sorted(set(truth.scores) - claimed)
    fitting = [name for name in rest if image_names.fits(card, name)]
    unlisted = [phase for phase in names if not card.phases[phase].lists_names and card.phases[phase].images > 0]
    sizes = [phase for phase in unlisted if card.phases[phase].images == len(fitting)]
    taker = sizes[0] if len(sizes) == 1 else unlisted[0] if len(unlisted) == 1 else None
    if taker is not None:
        names[taker] = tuple(fitting)
        rest = [name for name in rest if name not in set(fitting)]
    elif fitting and unlisted:
        problems.append(
            f"{labels}: {len(fitting):,} labels match the phases {listed(unlisted)}, whose images the card does not list; "
            "add names_file to each"
        )
        rest = [name for name in rest if name not in set(fitting)]
    if rest:
        problems.append(f"{labels}: {len(rest):,} labels belong to images of no phase: {listed(rest)}")
    names = {phase: images for phase, images in names.items() if phase in wanted}
    left_out = [phase for phase in unlisted if phase in wanted and not names[phase]]
    if len(left_out) == len(wanted):
        problems.append(f"{labels}: no label belongs to an image of {card.name}")
    for phase, images in names.items():
        if phase in left_out or card.phases[phase].images < 1:
            continue
        absent = [name for name in images if name not in truth.scores]
        if absent:
            problems.append(f"{labels}: phase {phase}: no labels for {len(absent):,} of {len(images):,} images: {listed(absent)}")
        elif len(images) != card.phases[phase].images:
            problems.append(f"{labels}: phase {phase}: labels for {len(images):,} of {card.phases[phase].images:,} images")
        elif len({truth.scores[name] for name in images}) < 2:
            problems.append(f"{labels}: phase {phase}: all labels are equal, or there is one image; correlations are not defined")
        problems += [f"{labels}: phase {phase}: {problem}" for problem in unmet(card.scoring, truth, images)]
    if problems:
        raise UsageError("\n".join(problems))
    return {phase: images for phase, images in names.items() if phase not in left_out}, left_out


def contents(
    card: ChallengeCard, truth: Truth, names: Mapping[str, tuple[str, ...]], dates: Mapping[str, tuple[str, str]]
) -> dict[str, bytes]:
    """The files of the competition, by their paths in the zip."""
    above = 10.0 ** math.ceil(math.log10(1 + 2 * max(map(abs, truth.scores.values()))))
    samples = {phase: sample(card, images, above) for phase, images in names.items()}
    first = next(iter(samples.values()))
    example = {name: "\n".join(data.decode("ascii").splitlines()[:5]) for name, data in first.items()}
    written = codabench.pages(card, list(names), example)
    shown = {file: title for file, (title, _) in written.items() if file != "pages/terms.md"}
    kit = {"README.md": written["pages/submission.md"][1].encode()}
    kit |= {codabench.sample_file(phase): submission_zip.zipped(files) for phase, files in samples.items()}
    return {
        "competition.yaml": codabench.competition(card, list(names), dates, shown).encode(),
        "logo.png": codabench.logo(),
        **{file: text.encode() for file, (_, text) in written.items()},
        codabench.KIT: submission_zip.zipped(kit),
        **{codabench.sample_file(phase): submission_zip.zipped(files) for phase, files in samples.items()},
        codabench.PROGRAM: submission_zip.zipped(program_files(card, names)),
        **{codabench.reference_file(p): submission_zip.zipped(reference_files(card, p, truth, i)) for p, i in names.items()},
    }


def program_files(card: ChallengeCard, names: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """The scoring program: its start script, the card, and unchanged copies of the modules."""
    root = Path(__file__).resolve().parents[1]
    packages = dict.fromkeys(["", *(f"{Path(module).parent}/" for module in MODULES)])
    table = scoring_program.card_json(card, names)
    return {
        "metadata.yaml": f"command: {codabench.COMMAND}\n".encode(),
        "score.py": _START.encode(),
        scoring_program.CARD: (json.dumps(table, indent=1) + "\n").encode(),
        **{f"harness/{package}__init__.py": b"" for package in packages},
        **{f"harness/{module}.py": (root / f"{module}.py").read_bytes() for module in MODULES},
    }


def reference_files(card: ChallengeCard, phase: str, truth: Truth, images: Sequence[str]) -> dict[str, bytes]:
    """A phase's labels for the scoring program; the only files of a bundle that hold labels."""
    rows = []
    for n in images:
        known = [repr(values[n]) if n in values else "" for values in (truth.deviations, truth.raters)]
        rows.append((n, repr(truth.scores[n]), *known, truth.references.get(n, "")))
    files = {
        scoring_program.PHASE: (json.dumps({"phase": phase}) + "\n").encode(),
        scoring_program.LABELS: csv_text([("name", "score", "std", "raters", "reference"), *rows]).encode(),
    }
    for key in dict.fromkeys(term.pair_list for term in card.scoring.terms if term.pair_list):
        there = set(images)
        pairs = [(a, b, repr(share)) for a, b, share in truth.pairs[key] if a in there and b in there]
        files[f"pairs-{key}.csv"] = csv_text([("first", "second", "share"), *pairs]).encode()
    return files


def sample(card: ChallengeCard, images: Sequence[str], above: float) -> dict[str, bytes]:
    """A sample submission without defects; its scores are hashes of the names and so independent of the labels.

    They are larger than `above`, the largest label, so that none equals a label by chance.
    """
    scores = {name: above + int(hashlib.sha256(name.encode()).hexdigest()[:6], 16) / (1 << 18) for name in images}
    files = {card.lines.file: score_lines.written(scores, card.lines).encode("ascii", "backslashreplace")}
    if card.readme:
        within = {limit.figure: limit.most / 2 for limit in card.ranking.limits}
        runtime, operations = within.get("runtime", 0.1), within.get("operations", 1.0)
        facts = readme.Facts(runtime, False, False, "a sample: scores by chance", operations)
        files[card.readme_file] = readme.written(facts, card.readme).encode("ascii")
    return files
