"""`harness verify` of a record of repeated splits: the runs behind it, its rows, and its medians.

A run whose folder lies next to the record's is verified as any run. One that is not there (a committed record keeps none) is done
again: a model that is not trained is scored, a trained one is trained on that split.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from harness.engine import verify as single
from harness.engine.asked_again import Repeated, request_of
from harness.engine.repeats import Split, repeats_figures, split_of
from harness.engine.request import Plan, Request, make_plan
from harness.engine.run import execute
from harness.engine.verify import Finding, VerificationResult
from harness.files.atomic import write_json
from harness.results import conditions
from harness.results.conditions import libraries
from harness.results.record import Figures, Record, RepeatFigures, RepeatsRecord, read_record, with_figures
from harness.results.run_scores import ALL, ScoreFile, split_part
from harness.runtime.errors import HarnessError, RunError, listed

_COMPARED = ("n", "srcc", "plcc", "krcc")


def verify_repeats(
    folder: Path,
    record: RepeatsRecord,
    options: dict[str, Any],
    again: Repeated | None,
    sample: int | None,
    *,
    train: bool,
    verify_run: Callable[[Path], VerificationResult],
) -> VerificationResult:
    """Verify a record of repeats.

    Args:
        folder: the record's.
        record: what it holds.
        options: of the requests that do the work again: root, cards, device, offline, workers, ray.
        again: what the caller names again.
        sample: score only about so many images of a run again.
        train: whether a run whose weights are gone is trained again.
        verify_run: verifies the run in a folder.
    """
    findings = single.own_contradictions(folder, record)
    rows = ScoreFile(folder).read()
    with tempfile.TemporaryDirectory(prefix="harness-verify-") as scratch:
        try:
            asked = _asked(folder, record, options, again, scratch)
            plans = _plans(asked, record)
        except HarnessError as error:
            return VerificationResult(folder, 0, (*findings, Finding("request", f"it cannot be asked again: {error}")), ())
        findings += single.identity_differences(_as_first(record), plans[0])
        findings += _split_findings(record, plans)
        if findings:
            return VerificationResult(folder, 0, tuple(findings), ())
        checked, remarks = 0, dict[str, None]()
        for key in dict.fromkeys(repeat.run for repeat in record.repeats):
            mine = [repeat for repeat in record.repeats if repeat.run == key]
            about = f"split {mine[0].repeat}: " if len(record.repeats) > 1 and len(mine) == 1 else ""
            beside = folder.parent / key
            if read_record(beside) is not None:
                found = verify_run(beside)
                kept = ScoreFile(beside).read()
                findings += [Finding(f.what, about + f.text) for f in found.findings] + _row_findings(mine, rows, kept, about)
                checked, notes = checked + found.checked, list(found.remarks)
            else:
                count, new, notes = _done_again(record, mine, rows, asked, sample, train=train)
                findings += [Finding(f.what, about + f.text) for f in new]
                checked += count
            remarks |= dict.fromkeys(about + note for note in notes)
        splits = [split_of(one, r) for r, one in enumerate(plans)]
        findings += _figure_findings(record, repeats_figures(plans[0].card, plans[0].data, splits, rows, _runs(record)))
    return VerificationResult(folder, checked, tuple(findings), tuple(remarks))


def _asked(folder: Path, record: RepeatsRecord, options: dict[str, Any], again: Repeated | None, scratch: str) -> Request:
    """The record's request, of its first split. Older records say the request of the run that scored all images."""
    fields = request_of(folder, record, tuple(options["cards"]), again) | {"protocol": record.protocol, "repeat": 0}
    return Request(**fields, **options, runs=scratch, mlflow_uri="off", rehash=True)


def _plans(asked: Request, record: RepeatsRecord) -> list[Plan]:
    """A plan for each split; only the first one looks at the images."""
    first = make_plan(asked)
    others = range(1, len(record.repeats))
    return [first, *(make_plan(replace(asked, repeat=r, rehash=False), first.data, look=False) for r in others)]


def _as_first(record: RepeatsRecord) -> Record:
    """The record with the identity of its first split, which is all that it keeps of one."""
    return msgspec.structs.replace(record, identity=record.first_identity)


def _runs(record: RepeatsRecord) -> list[str]:
    return list(dict.fromkeys(repeat.run for repeat in record.repeats))


def _split_findings(record: RepeatsRecord, plans: Sequence[Plan]) -> list[Finding]:
    other = [str(r.repeat) for r, one in zip(record.repeats, plans, strict=True) if r.split != one.identity.split]
    return [Finding("split", f"the protocol gives other parts for split {listed(other)}")] if other else []


def _row_findings(
    mine: Sequence[RepeatFigures], rows: Sequence[tuple[str, float, str]], kept: Sequence[tuple[str, float, str]], about: str
) -> list[Finding]:
    """Whether the record's rows are those of the run next to it."""
    parts = {split_part(repeat.repeat) for repeat in mine} | {ALL}
    scores = {name: score for name, score, part in kept if part == "test"}
    wrong = sorted({name for name, score, part in rows if part in parts and scores.get(name) != score})
    return [Finding("scores", f"{about}{len(wrong)} scores are not those of its run: {listed(wrong, 5)}")] if wrong else []


def _done_again(
    record: RepeatsRecord,
    mine: Sequence[RepeatFigures],
    rows: Sequence[tuple[str, float, str]],
    asked: Request,
    sample: int | None,
    *,
    train: bool,
) -> tuple[int, list[Finding], list[str]]:
    """Images that were scored again, findings and remarks, of a run whose folder is not here."""
    parts = {split_part(repeat.repeat) for repeat in mine} | ({ALL} if not record.training else set())
    before = {name: score for name, score, part in rows if part in parts}
    whole = not record.training and len(mine) == len(record.repeats) and len(mine) > 1
    plan = make_plan(replace(asked, protocol="full", repeat=0) if whole else replace(asked, repeat=mine[0].repeat))
    if plan.key != mine[0].run:
        text = f"its run was {mine[0].run}, asked again it is {plan.key}: images of other content, or another request"
        return 0, [Finding("record", text)], []
    if record.training and not train:
        return 0, [], ["its trained weights are not here, and it was not trained again: the scores themselves are not checked"]
    if record.training:
        fresh = execute(plan)
        now = {name: score for name, score, part in ScoreFile(fresh.folder).read() if part == "test"}
        as_single = msgspec.structs.replace(record, metrics={"test": mine[0]})
        return len(now), *single.trained_findings(as_single, fresh.record, before, now)
    if plan.request.scores or not plan.content:
        fresh = execute(plan)
        now = {name: score for name, score, part in ScoreFile(fresh.folder).read() if part == "test"}
        return len(now), single.score_findings(before, {n: s for n, s in now.items() if n in before}, exact=True), []
    results, found = single.scored_again(record, plan, Path(), sample)
    now = {result.name: result.score for result in results if result.name in before}
    known, found = ({k: v for k, v in c.items() if k != "training"} for c in (record.conditions, found))
    exact = known == found
    remarks = [] if exact else [f"other conditions: {conditions.difference(known, found)}"]
    return len(now), single.score_findings(before, now, exact=exact), remarks


def _figure_findings(record: RepeatsRecord, computed: dict[str, Any]) -> list[Finding]:
    """Whether the record's figures are those of its scores and the dataset's labels."""
    places: list[tuple[str, Figures, dict[str, Any]]] = [
        ("medians", record.test or Figures(n=None), computed["metrics"]["test"] or {}),
        *((f"split {r.repeat}", r, now) for r, now in zip(record.repeats, computed["repeats"], strict=True)),
    ]
    if record.all_images and computed.get("all_images"):
        places.append(("all images", record.all_images, computed["all_images"]))
    findings = []
    for place, before, now in places:
        wrong = [k for k in _COMPARED if not single.close(getattr(before, k), now.get(k))]
        if wrong:
            findings.append(Finding("metrics", f"{place}: the record's {listed(wrong)} are not those of its scores and labels"))
    return findings


def measure_repeats_again(folder: Path, record: RepeatsRecord, root: str | None, cards: Sequence[str]) -> list[str]:
    """`harness.engine.verify.measure_again` of a record of repeats."""
    fields = request_of(folder, record, cards) | {"protocol": record.protocol, "repeat": 0}
    asked = Request(**fields, root=root, cards=tuple(cards), mlflow_uri="off", offline=True)
    first = make_plan(asked, look=False)
    plans = [first, *(make_plan(replace(asked, repeat=r), first.data, look=False) for r in range(1, len(record.repeats)))]
    problems = [*single.own_contradictions(folder, record), *single.identity_differences(_as_first(record), first)]
    problems += _split_findings(record, plans)
    if problems:
        raise RunError("\n".join(f"{folder}: {problem.what}: {problem.text}" for problem in problems))
    splits: list[Split] = [split_of(one, r) for r, one in enumerate(plans)]
    computed = repeats_figures(first.card, first.data, splits, ScoreFile(folder).read(), _runs(record))
    again = with_figures(record, computed)
    before, now = ({"repeats": d["repeats"], **d["metrics"]} for d in (record.to_json(), again.to_json()))
    changed = list(single.changes(before, now))
    again.measured_again = {"at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "libraries": libraries()}
    write_json(folder / "record.json", again.to_json())
    return changed
