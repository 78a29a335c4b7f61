"""`harness submit`: a submission zip from a model or a finished run, read back and checked."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from harness.cards.challenge import ChallengeCard
from harness.cards.loading import cards_option, find_challenge
from harness.cards.overrides import apply_set
from harness.cards.schema import ModelCard
from harness.challenges import image_names, readme, score_lines, standings, submission_zip
from harness.challenges.submission_check import check, inspect
from harness.challenges.text import ascii_line
from harness.engine import request_of_record
from harness.engine.request import Request, make_plan
from harness.engine.request_of_record import Repeated
from harness.engine.run import Outcome, run
from harness.engine.verify import identity_differences
from harness.files.atomic import atomic, sha256_file
from harness.models import find_model
from harness.results.record import Record, RepeatsRecord, read_record
from harness.results.run_folder import folder_of
from harness.results.run_scores import ScoreFile
from harness.runtime.errors import RunError, UsageError, listed
from harness.runtime.findings import Finding, errors, warnings
from harness.runtime.text import command

_log = logging.getLogger(__package__)

_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Submission:
    """A zip that was written, read back and passed the check."""

    file: Path
    card: ChallengeCard
    phase: str
    folder: Path
    """The run with its scores."""
    record: Record
    images: int
    size: int
    sha256: str
    warnings: tuple[Finding, ...]
    rehearsal: bool = False
    """Only some images were scored (`--limit`); the zip is marked, and a check reports it as incomplete."""

    def json(self) -> dict[str, object]:
        """One object of `harness submit --json`."""
        return {
            "file": str(self.file),
            "challenge": self.card.name,
            "phase": self.phase,
            "model": self.record.model,
            "run": str(self.folder),
            "key": self.record.key,
            "images": self.images,
            "size": self.size,
            "sha256": self.sha256,
            "runtime_per_image": self.record.runtime_per_image,
            "rehearsal": self.rehearsal,
            "warnings": [finding.json() for finding in self.warnings],
        }

    def __str__(self) -> str:
        about = f"{self.card.name}, phase {self.phase}, {self.record.model}, {self.images:,} images"
        next_step = f"next: {self.card.next_step}" if self.card.next_step else ""
        if self.rehearsal:
            images = self.card.phases[self.phase].images
            next_step = f"a rehearsal: {self.images:,} of {images:,} images, not to be submitted; next: without --limit"
        summary = f"{self.file}: {about}, read back and checked\n{self.size:,} bytes, sha256 {self.sha256}"
        inferred = f"inferred, without a source: {'; '.join(self.card.inferred)}" if self.card.inferred else ""
        return "\n".join(filter(None, [*(warning.text() for warning in self.warnings), summary, inferred, next_step]))


def submit(
    word: str,
    challenge: str,
    phase: str | None,
    out: str | Path,
    wanted: Request,
    *,
    description: str | None = None,
) -> Submission:
    """Score every image of a challenge's phase with the model, or the model of the run, that `word` names; write the zip `out`.

    `wanted` has the settings (root, weights, seed, device, runs and others); its model, dataset and protocol are set here. The
    zip is a pure function of the record and the challenge's card (and the description, where one is given). With a limit it is a
    rehearsal: marked, and incomplete. Raises UsageError for a wrong request, RunError where the scores make no valid
    submission; then nothing is written.
    """
    from harness.results.mlflow_mirror import Tracker

    card = find_challenge(challenge, wanted.cards)
    phase = image_names.phase_named(card, phase)
    outcome = _record(word, card, phase, wanted)
    record, rehearsal, scores = outcome.record, outcome.record.partial, _scores(outcome.folder, outcome.record)
    mark = f"rehearsal, {len(scores):,} of {card.phases[phase].images:,} images" if rehearsal else ""
    files = contents(card, outcome.folder, record, description, mark)
    report = inspect(files, [], [card], phase, str(out), lambda card, phase: list(scores))
    if defects := [d for d in errors(report.findings) if not (rehearsal and d.kind in ("missing", "count"))]:
        head = f"{outcome.folder}: its scores make no valid submission; {out} was not written"
        raise RunError("\n".join([head, *(defect.text() for defect in defects)]))
    data = submission_zip.zipped(files, mark)
    with atomic(out) as stream:
        stream.write(data)
    digest = sha256_file(out)
    back = check(out, challenge=card.path, phase=phase, cards=wanted.cards)
    if digest != hashlib.sha256(data).hexdigest() or back.scores.keys() != report.scores.keys():
        raise RunError(f"{out}: the file read back differs from the file written; is the disk damaged?")
    # Changes between the model's scores and the zip.
    power = score_lines.scale_of(list(scores.values()), card.lines.decimals)
    if not record.higher_is_better:
        _log.info("scores were multiplied by -1: the model's are lower-is-better")
    if power:
        _log.info(f"scores were multiplied by 1e{power}, to stay different at {card.lines.decimals} decimals")
    if description is not None and ascii_line(description) != description:
        _log.info(f"the description was written in ASCII on one line: {ascii_line(description)}")
    if record.random_weights:
        _log.warning("parts of this model keep random weights")
    found = tuple(warnings(report.findings))
    count = len(report.scores)
    made = Submission(Path(out), card, phase, outcome.folder, record, count, len(data), digest, found, rehearsal)
    standings.remember(wanted.runs, standings.entry_of(made))
    with Tracker(wanted.mlflow_uri, wanted.runs, made.folder) as tracker:
        tags = {f"submission.{card.name}.{phase}": made.sha256}
        tracker.attach(f"{record.model} on {record.dataset}", record.dataset, [made.file], tags)
    return made


def contents(
    card: ChallengeCard, folder: Path, record: Record, description: str | None = None, mark: str = ""
) -> dict[str, bytes]:
    """The submission's files, from a finished run and nothing else. Raises UsageError where the record lacks a fact.

    `mark` is put before the description of a rehearsal.
    """
    files = {card.lines.file: score_lines.written(_scores(folder, record), card.lines).encode("ascii", "backslashreplace")}
    if card.readme:
        known = facts(card, folder, record, description)
        marked = replace(known, description=f"{mark}: {known.description}") if mark else known
        files[card.readme_file] = readme.written(marked, card.readme).encode("ascii")
    return files


def _scores(folder: Path, record: Record) -> dict[str, float]:
    """The tested images' scores by name, higher is better."""
    sign = 1.0 if record.higher_is_better else -1.0
    return {name: sign * score for name, score, part in ScoreFile(folder).read() if part == "test"}


def facts(card: ChallengeCard, folder: Path, record: Record, description: str | None = None) -> readme.Facts:
    """The readme's facts, from the record; operations (GFLOP per image) are counted.

    Raises UsageError for facts that the record lacks, and operations that cannot be counted.
    """
    runtime = record.runtime_per_image
    if runtime is None:
        why = "its scores came from a file" if record.request.get("scores") else "an older version made it"
        raise UsageError(
            f"{folder}: no runtime per image was measured ({why}); let the harness score the images (harness run --force)"
        )
    operations = 0.0
    if any(line.fact == "operations" for line in card.readme):
        from harness.challenges.factsheet import cost_of

        cost = cost_of(record)
        if cost.flop_per_crop is None or cost.crops is None:
            raise UsageError(f"{record.model}: the readme asks for operations, and they cannot be counted: {cost.note}")
        operations = cost.flop_per_crop * cost.crops / 1e9
    model = record.cards.model
    return readme.Facts(
        runtime=runtime,
        cpu=str(record.conditions.get("device")).startswith("cpu"),
        extra_data=bool(model.extra_data or used_data(card, record)),
        description=description if description is not None else described(model),
        operations=operations,
    )


def used_data(card: ChallengeCard, record: Record) -> list[str]:
    """Datasets that the model was trained on and that are not the challenge's own."""
    return [name for name in record.trained_on if name and name not in card.training]


def described(model: ModelCard) -> str:
    """A model card's title and first sentence, and an ensemble's members."""
    first = " ".join(model.description.split()).partition(". ")[0].rstrip(".")
    text = f"{model.title}: {first}" if first else str(model.title)
    members = member_names(model)
    return f"{text}; an ensemble of {len(members)}: {', '.join(members)}" if members else text


def member_names(model: ModelCard) -> list[str]:
    """An ensemble's members; empty for a single model."""
    members = model.model.get("members") or ()
    names = members if isinstance(members, list | tuple) else [members]
    return [str(member.get("name", member)) if isinstance(member, Mapping) else str(member) for member in names]


def _record(word: str, card: ChallengeCard, phase: str, wanted: Request) -> Outcome:
    """The finished record of this phase by the model or run `word`; it is made if there is none."""
    about = card.phases[phase]
    if not about.dataset or not about.protocol:
        raise UsageError(f"{card.name}, phase {phase}: its card names no dataset and protocol, so no model can score its images")
    folder = Path(word)
    wanted = replace(wanted, dataset=about.dataset, protocol=about.protocol)
    if not (folder / "record.json").is_file():
        request = _with_training(replace(wanted, model=word))
        return _checked(run(request), card, phase, wanted)
    record = read_record(folder)
    assert record is not None
    if isinstance(record, RepeatsRecord):
        raise UsageError(f"{folder}: a record of repeats; name one of its runs: {listed([r.run for r in record.repeats])}")
    own = {"--weights": wanted.weights, "--set": wanted.settings, "--seed": wanted.seed}
    passed = [option for option, value in own.items() if value]
    passed += ["--limit"] if wanted.limit is not None and not record.partial else []
    found = (record.dataset, record.protocol) == (about.dataset, about.protocol)
    if passed and (found or wanted.seed):
        raise UsageError(f"{folder} is a finished run with its own settings: {listed(passed)} is only for a model's name")
    if found:
        _refuse_stale(folder, record, wanted)
        return _checked(Outcome(folder, record, found=True), card, phase, wanted)
    if request_of_record.checked(folder, record).get("scores"):
        where = f"of other images than {card.name}'s {phase}"
        raise UsageError(f"{folder}: its scores came from a file, {where}; there is no model to run")
    # A trained model's weights are in the run's folder: the initial weights of its training are not needed.
    known = msgspec.structs.replace(record, request={**record.request, "init": None})
    again = Repeated(dataset=about.dataset, weights=wanted.weights, settings=wanted.settings)
    fields = request_of_record.request_of(folder, known, wanted.cards, again)
    weights = fields["weights"]
    if record.training:
        weights = str(folder / _WEIGHTS)
        if not Path(weights).is_file():
            raise UsageError(f"{weights}: missing, so the trained model is lost; train it again: {command(record.command)}")
    _log.info(f"{folder}: the model of this run scores {about.dataset} ({about.protocol})")
    settings, seed = fields["settings"], fields.get("seed", 0)
    request = replace(wanted, model=fields["model"], weights=weights, settings=settings, seed=seed)
    return _checked(run(request), card, phase, wanted)


def _refuse_stale(folder: Path, record: Record, wanted: Request) -> None:
    """Refuse a finished run whose images, labels, weights or code have changed since."""
    try:
        fields = request_of_record.request_of(folder, record, wanted.cards)
        present = make_plan(replace(wanted, **fields, mlflow_uri="off"))
    except UsageError as error:
        _log.info(f"{folder}: not checked whether its images have changed since: {error}".splitlines()[0])
        return
    differences = identity_differences(record, present, folder)
    if differences:
        lines = [f"{folder} has changed inputs: {finding.what}: {finding.text}" for finding in differences]
        raise UsageError("\n".join([*lines, "name the model instead of its run to score the present images"]))


def _checked(outcome: Outcome, card: ChallengeCard, phase: str, wanted: Request) -> Outcome:
    if outcome.record.partial and wanted.limit is None:
        needs = f"{card.name}, phase {phase}, needs all of them"
        raise UsageError(f"{outcome.folder}: only some images were scored (--limit); {needs}")
    return outcome


def _with_training(request: Request) -> Request:
    """The request with the weights of the newest run that trained this model, where it needs training and none were given."""
    model = apply_set(find_model(request.model, request.cards), request.settings)
    if model.recipe is None or request.weights is not None:
        return request
    wanted = {k: v for k, v in model.model.items() if k != "backbone"}
    trained = []
    for place in sorted(Path(request.runs).glob("*")):
        for folder in sorted(folder_of(request.runs, place.name, model.name, "x").parent.glob("*")):
            record = read_record(folder) if (folder / _WEIGHTS).is_file() else None
            if record is None or not record.training:
                continue
            shape = record.first_identity["card"].get("model", {})
            if {k: v for k, v in shape.items() if k != "backbone"} == json.loads(json.dumps(wanted)):
                trained.append((record.created, folder, record))
    if not trained:
        run = shlex.join(["harness", "run", model.name, *cards_option(model.path), "--dataset", "pipal"])
        raise UsageError(
            f"{model.name} has to be trained first ({run}, or --dataset demo for a trial): "
            "submit that run's folder, or the model's name with --weights FILE|released"
        )
    _, folder, record = max(trained, key=lambda entry: entry[:2])
    newest = f" (the newest of {len(trained)} such runs; name a run's folder to choose another)" if len(trained) > 1 else ""
    _log.info(f"{model.name}: with the weights that {folder} trained on {record.dataset}{newest}")
    return replace(request, weights=str(folder / _WEIGHTS))
