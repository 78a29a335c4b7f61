"""`harness verify`: repeats a record's work and compares; `measure_again`: recomputes a record's figures."""

from __future__ import annotations

import datetime
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness import models
from harness.datasets.table import has_images
from harness.engine import devices
from harness.engine.content import hashed_images, pictures_by_reference, training_images
from harness.engine.measure import measure
from harness.engine.repeats import repeats_figures
from harness.engine.request import SCORED_PARTS, Plan, Request, make_plan
from harness.engine.request_of_record import Repeated, request_of
from harness.engine.run import execute, figures, workers_of
from harness.engine.scorer import pairs_of
from harness.engine.scoring import conditions_of, scorer_of
from harness.files.atomic import sha256_file, sha256_json, write_json
from harness.models.capabilities import move
from harness.models.kernels import choice
from harness.models.weights import ResolvedWeights
from harness.results import conditions
from harness.results.conditions import libraries
from harness.results.key import key_of
from harness.results.record import Figures, Record, RepeatsRecord, read_record, with_figures
from harness.results.run_scores import Scored, ScoreFile
from harness.runtime.errors import HarnessError, RunError, UsageError, listed

_log = logging.getLogger(__package__)

WEIGHTS = "weights.safetensors"
TOLERANCE = 1e-5
"""Largest difference of a network's score on another device, thread count, batch or library version."""
NOT_TRAINED = "its trained weights are missing, and it was not trained again: the scores themselves are not checked"
_SAME = 1e-9


@dataclass(frozen=True)
class Finding:
    """A difference: its kind, and a description."""

    what: str
    text: str


@dataclass(frozen=True)
class VerificationResult:
    """The outcome: no findings means that the record repeats."""

    folder: Path
    """The run's."""
    checked: int
    """Images that were scored again."""
    findings: tuple[Finding, ...]
    """The differences."""
    remarks: tuple[str, ...]
    """Limits of the check: other conditions, missing trained weights."""

    @property
    def ok(self) -> bool:
        """Whether the record repeats."""
        return not self.findings

    def json(self) -> dict[str, object]:
        """Plain values."""
        findings, remarks = [asdict(finding) for finding in self.findings], list(self.remarks)
        return {"run": str(self.folder), "ok": self.ok, "checked": self.checked, "findings": findings, "remarks": remarks}


def verify(
    folder: str | Path,
    *,
    root: str | None = None,
    cards: Sequence[str] = (),
    sample: int | None = None,
    train: bool = True,
    device: str | None = None,
    offline: bool = False,
    workers: int = 0,
    ray: str | None = None,
    again: Repeated | None = None,
) -> VerificationResult:
    """Repeat a record's work and compare, bit for bit under the same conditions, within TOLERANCE under others.

    A trained record whose folder keeps its weights is scored with them; otherwise it is trained again. A record does not choose
    code or files: cards are the built-in ones and `cards`, files are those of `again`. For repeated splits, every run
    behind the record is verified (`harness.engine.verify_repeats`).

    Args:
        folder: the run's, with its record.json.
        root: the folder of the dataset's files.
        cards: folders of the caller's own cards.
        sample: score only about so many images again (whole chunks, spread over the table); None: all.
        train: train again where the weights are missing; with False, everything except the scores is checked then.
        device: `cpu`, `cuda`, ...; default: a GPU if there is one.
        offline: do not use the network.
        workers: 2 or more: number of local processes that share the work.
        ray: the address of a Ray cluster for the work.
        again: files, and settings that name files, which the record may not choose (`harness.engine.request_of_record`).

    Returns:
        `ok`, the findings (what differs, and how), remarks, and how many images were scored again.

    Raises:
        UsageError: there is no record, or it names code or files that it may not choose.
        RunError: the work itself failed.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is None:
        raise UsageError(f"{folder}: no record.json in it")
    if record.request.get("object"):
        text = "the model was a Python object: it cannot be loaded from its record, so nothing can be scored again"
        return VerificationResult(folder, 0, (Finding("model", text),), ())
    with tempfile.TemporaryDirectory(prefix="harness-verify-") as scratch:

        def asked() -> Request:
            return Request(
                **request_of(folder, record, cards, again), root=root, cards=tuple(cards), device=device, offline=offline,
                workers=workers, ray=ray, runs=scratch, mlflow_uri="off", rehash=True,
            )  # fmt: skip

        def verify_run(run_folder: Path) -> VerificationResult:
            return verify(
                run_folder, root=root, cards=cards, sample=sample, train=train, device=device, offline=offline, workers=workers,
                ray=ray, again=again,
            )  # fmt: skip

        if isinstance(record, RepeatsRecord):
            from harness.engine.verify_repeats import verify_repeats

            return verify_repeats(folder, record, asked, sample, train=train, verify_run=verify_run)
        request, findings = asked(), own_contradictions(folder, record)
        try:
            plan = make_plan(request)
        except HarnessError as error:
            return VerificationResult(folder, 0, (*findings, Finding("request", f"it cannot be repeated: {error}")), ())
        findings += identity_differences(record, plan, folder)
        if findings:
            return VerificationResult(folder, 0, tuple(findings), ())
        with choice.using(record.conditions.get("kernels")):
            return _again(folder, record, plan, sample, train=train)


def identity_differences(record: Record, plan: Plan, folder: Path | None = None) -> list[Finding]:
    """What has changed since the record was made: card, labels, split, weights, code, and, with the run's `folder`, images,
    which are named as far as the record has their hashes. For repeated splits, `plan` is the first split's."""
    before, now = dict(record.first_identity), plan.facts
    if folder is None:
        before["images"] = now["images"]
    found = list(_leaf_differences(before, json.loads(json.dumps(now))))
    if folder is None or before["images"] == now["images"]:
        return found
    named = []
    if known := record.hashes.training_pictures_by_reference:
        changed = [reference for reference, digest in training_images(plan).items() if digest != known.get(reference)]
        if changed:
            named.append(Finding("pictures", f"training images of {len(changed)} references have changed: {listed(changed)}"))
    named += _picture_findings(folder, record, plan, hashed_images(plan, *SCORED_PARTS)) if plan.content else []
    images = named or [finding for finding in found if finding.what == "pictures"]
    return [finding for finding in found if finding.what != "pictures"] + images


def _leaf_differences(before: Any, now: Any, path: str = "") -> Iterator[Finding]:
    """The differences between a record's identity and the present one, value by value."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            yield from _leaf_differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        what, text = path.split(".")[0], f"{path} was {before!r}, is {now!r}"
        if what == "table":
            yield Finding("labels", "names, pairing or labels of the dataset's table have changed")
        elif what == "images":
            yield Finding("pictures", "the content of its images has changed")
        else:
            yield Finding(what, "the protocol gives a different split" if what == "split" else text)


def own_contradictions(folder: Path, record: Record) -> list[Finding]:
    """Contradictions within a record's folder: key, scores, trained weights."""
    findings = []
    if key_of(record.identity) != record.key:
        findings.append(Finding("record", f"its key is {record.key}, its identity gives {key_of(record.identity)}"))
    rows = ScoreFile(folder).read()
    if sha256_json([[n, repr(s), p] for n, s, p in rows]) != record.hashes.scores:
        findings.append(Finding("scores", "scores.csv has changed since it was measured"))
    weights = folder / WEIGHTS
    if record.training and weights.is_file() and sha256_file(weights) != record.hashes.trained_weights:
        findings.append(Finding("weights", f"{weights} is not the file that training wrote"))
    return findings


def _again(folder: Path, record: Record, plan: Plan, sample: int | None, *, train: bool) -> VerificationResult:
    scores = {n: s for n, s, _ in ScoreFile(folder).read()}
    measured = _measured(record, plan, scores)
    if plan.request.scores or not has_images(plan.data.table):
        # An ensemble of score files is computed again; scores of a single file cannot be.
        names = [] if plan.request.scores else list(scores)
        fresh = models.build(plan.card, plan.found, plan.request.seed).of_names(names) if names else []
        changed = [name for name, now in zip(names, fresh, strict=True) if now != scores[name]]
        text = f"{len(changed)} of {len(scores)} scores do not repeat: {listed(changed, 5)}"
        return VerificationResult(folder, len(scores), (*measured, *([Finding("scores", text)] if changed else [])), ())
    remarks: list[str] = []
    kept = folder / WEIGHTS
    if not record.training or kept.is_file():
        results, remarks = scored_again(record, plan, kept, sample)
        fresh = {r.name: r.score for r in results}
        images = [(r.name, r.distorted, r.reference) for r in results]
        findings = score_findings(scores, fresh, exact=not remarks)
    elif train:
        _log.info(f"the record keeps no weights: training it again (it took {record.training.seconds or 0:.0f} s)")
        again = execute(plan)
        fresh = {n: s for n, s, _ in ScoreFile(again.folder).read()}
        images = ScoreFile(again.folder).picture_hashes()
        findings, remarks = trained_findings(record, again.record, scores, fresh)
    else:
        fresh, findings = {}, []
        images = hashed_images(plan, *SCORED_PARTS)
        remarks = [NOT_TRAINED]
    findings = _picture_findings(folder, record, plan, images) + findings + measured
    return VerificationResult(folder, len(fresh), tuple(findings), tuple(remarks))


def scored_again(record: Record, plan: Plan, kept: Path, sample: int | None) -> tuple[list[Scored], list[str]]:
    """The results of scoring with the kept weights, and a remark where the conditions differ."""
    found = ResolvedWeights({}, kept, {}, (), False) if record.training else plan.found
    model = models.build(plan.card, found, plan.request.seed)
    with ExitStack() as stack:
        workers = stack.enter_context(workers_of(plan, model))
        device = devices.choose("cpu" if workers else plan.request.device, model)
        # Where the weights came from does not change the scores.
        each = (record.conditions, conditions_of(plan, model, device, workers))
        before, now = ({k: v for k, v in one.items() if k != "training"} for one in each)
        move(model, device)
        scorer = stack.enter_context(scorer_of(plan, model, device, workers, found))
        chunks = scorer.chunks(pairs_of(plan.rows(*SCORED_PARTS)))
        if sample is not None:
            images = sum(map(len, chunks))
            chunks = chunks[:: max(1, images // sample)]
        results = [r for _, results in scorer.each(dict(enumerate(chunks))) for r in results]
        return results, [f"other conditions: {conditions.difference(before, now)}"] if now != before else []


def trained_findings(
    record: Record, again: Record, before: Mapping[str, float], now: Mapping[str, float]
) -> tuple[list[Finding], list[str]]:
    """Training repeats bit for bit under the same conditions. Under others, rounding differences grow from step to step, so only
    figures are compared: they count as repeated within the record's intervals."""
    if again.conditions == record.conditions:
        return score_findings(before, now, exact=True), []
    figures, fresh = record.test or Figures(n=None), again.test or Figures(n=None)
    outside = []
    for name in ("srcc", "plcc"):
        value, interval = getattr(fresh, name), figures.ci.get(name)
        if value is not None and interval is not None and not interval[0] <= value <= interval[1]:
            outside.append(
                f"{name} {getattr(figures, name):.4f} became {value:.4f}, outside [{interval[0]:.4f}, {interval[1]:.4f}]"
            )
    worst = max(abs(score - before[name]) for name, score in now.items())
    shown = ", ".join(f"{name} {getattr(figures, name)} and {getattr(fresh, name)}" for name in ("srcc", "plcc"))
    remark = (
        f"trained again under other conditions ({conditions.difference(record.conditions, again.conditions)}), where bits "
        f"are not expected to repeat: scores differ by up to {worst:.3g}; {shown}"
    )
    return [Finding("scores", f"a new training does not give the figures: {text}") for text in outside], [remark]


def _picture_findings(folder: Path, record: Record, plan: Plan, images: Sequence[tuple[str, str, str]]) -> list[Finding]:
    before = {row[0]: row for row in ScoreFile(folder).picture_hashes()}
    if before:
        changed = [row[0] for row in images if row != before.get(row[0])]
        return [Finding("pictures", f"images of {len(changed)} pairs have changed: {listed(changed)}")] if changed else []
    complete = set(plan.rows(*SCORED_PARTS)["name"]) == {row[0] for row in images}
    known = record.hashes.pictures_by_reference
    now = pictures_by_reference(plan.data.table, pd.DataFrame(images, columns=list(ScoreFile.PICTURES))) if complete else {}
    changed = [reference for reference, digest in now.items() if digest != known.get(reference)]
    return [Finding("pictures", f"images of {len(changed)} references have changed: {listed(changed)}")] if changed else []


def score_findings(before: Mapping[str, float], now: Mapping[str, float], *, exact: bool) -> list[Finding]:
    """A finding for scores that differ: in any bit where `exact`, else by more than TOLERANCE."""
    allowed = 0.0 if exact else TOLERANCE
    gaps = {name: abs(score - before[name]) if name in before else float("inf") for name, score in now.items()}
    changed = [name for name, gap in gaps.items() if gap > allowed]
    if not changed:
        return []
    worst = max(gaps.values())
    limit = "bit for bit" if exact else f"within {allowed:g}"
    text = f"{len(changed)} of {len(now)} scores do not repeat {limit}; by up to {worst:.3g}: {listed(changed, 5)}"
    return [Finding("scores", text)]


def _measured(record: Record, plan: Plan, scores: Mapping[str, float]) -> list[Finding]:
    """Whether the record's figures are those of its scores and the dataset's labels."""
    tested = [(name, scores[name]) for name in plan.rows("test")["name"] if name in scores]
    found = measure(plan.card, plan.data, pd.DataFrame(tested, columns=["name", "score"]))
    return figure_findings("", record.test or Figures(n=None), found.json() if found else {})


def figure_findings(place: str, before: Figures, now: Mapping[str, Any]) -> list[Finding]:
    """A finding where a record's figures, of `place`, differ from the computed ones by more than rounding."""
    wrong = []
    for name in ("n", "srcc", "plcc", "krcc"):
        a, b = getattr(before, name), now.get(name)
        if a != b and (a is None or b is None or abs(a - b) > _SAME):
            wrong.append(name)
    return [Finding("metrics", f"{place}the record's {listed(wrong)} are not those of its scores and labels")] if wrong else []


def text(result: VerificationResult) -> str:
    """The result as text."""
    lines = [f"{f.what}: {f.text}" for f in result.findings]
    state = "repeats" if result.ok else "does not repeat"
    return "\n".join([*lines, *result.remarks, f"{result.folder} {state} ({result.checked} images scored again)"])


def measure_again(folder: str | Path, *, root: str | None = None, cards: Sequence[str] = ()) -> list[str]:
    """Recompute the figures in a record; returns a line for each number that has changed.

    Raises RunError, and changes nothing, when the scores, the labels, the split, the card or the weights have changed since;
    UsageError where the dataset is absent, and for code or files that the record may not choose
    (`harness.engine.request_of_record`).
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is None:
        raise RunError(f"{folder}: no record.json in it")
    fields = request_of(folder, record, cards)
    asked = Request(**fields, root=root, cards=tuple(cards), mlflow_uri="off", offline=True)
    if isinstance(record, RepeatsRecord):
        from harness.engine.verify_repeats import plans_of, split_findings

        plans = plans_of(asked, record, look=False)
        others = split_findings(record, plans)
    else:
        plans, others = [make_plan(asked, look=False)], []
    problems = [*own_contradictions(folder, record), *identity_differences(record, plans[0]), *others]
    if problems:
        raise RunError("\n".join(f"{folder}: {problem.what}: {problem.text}" for problem in problems))
    scores = ScoreFile(folder).table()
    if isinstance(record, RepeatsRecord):
        again = with_figures(record, repeats_figures(plans, scores, [repeat.run for repeat in record.repeats]))
    else:
        again = with_figures(record, figures(plans[0], scores))
    before, now = ({"repeats": d.get("repeats"), **d["metrics"]} for d in (record.to_json(), again.to_json()))
    changed = list(changes(before, now))
    again.measured_again = {"at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "libraries": libraries()}
    write_json(folder / "record.json", again.to_json())
    return changed


def measure_all_again(
    folders: Sequence[Path], *, root: str | None = None, cards: Sequence[str] = ()
) -> Iterator[tuple[Path, list[str]]]:
    """`measure_again` for each folder in turn; all errors are raised together at the end."""
    problems = []
    for folder in folders:
        try:
            yield folder, measure_again(folder, root=root, cards=cards)
        except HarnessError as error:
            problems.append(str(error))
    if problems:
        raise RunError("\n".join(problems))


def changes(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """`test.srcc was 0.5, is 0.6` for values of both documents (null counts as absent) that differ by more than rounding."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in before:
            if key in now:
                yield from changes(before[key], now[key], f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from changes(old, new, f"{path}[{i}]")
    elif isinstance(before, float) and isinstance(now, float):
        if abs(before - now) > _SAME * max(1.0, abs(before)):
            yield f"{path} was {before!r}, is {now!r}"
    elif before is not None and before != now:
        yield f"{path} was {before!r}, is {now!r}"
