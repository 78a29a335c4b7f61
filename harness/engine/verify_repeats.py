"""`harness verify` of a record of repeated splits: its runs, its rows, and its medians.

A run whose folder is next to the record's is verified like any run. An absent one (a committed record keeps none) is repeated:
a model without training is scored, another is trained on that split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from harness.engine import verify as single
from harness.engine.repeats import repeats_figures
from harness.engine.request import Plan, Request, make_plan
from harness.engine.run import execute
from harness.engine.verify import Finding, VerificationResult
from harness.results.record import Figures, RepeatFigures, RepeatsRecord, read_record
from harness.results.run_scores import ALL, ScoreFile, split_part
from harness.runtime.errors import HarnessError, listed

Rows = Sequence[tuple[str, float, str]]
"""(name, score, part), the rows of scores.csv."""


def verify_repeats(
    folder: Path,
    record: RepeatsRecord,
    asked: Callable[[], Request],
    sample: int | None,
    *,
    train: bool,
    verify_run: Callable[[Path], VerificationResult],
) -> VerificationResult:
    """Verify a record of repeats.

    Args:
        folder: the record's folder.
        record: the record.
        asked: returns the record's request, or raises UsageError.
        sample: score only about this many images of a run again.
        train: whether a run with missing weights is trained again.
        verify_run: a function that verifies the run in a folder.
    """
    findings = single.own_contradictions(folder, record)
    rows = ScoreFile(folder).read()
    try:
        plans = plans_of(asked(), record)
    except HarnessError as error:
        return VerificationResult(folder, 0, (*findings, Finding("request", f"it cannot be asked again: {error}")), ())
    findings += single.identity_differences(record, plans[0]) + split_findings(record, plans)
    if findings:
        return VerificationResult(folder, 0, tuple(findings), ())
    checked, remarks = 0, dict[str, None]()
    for key in dict.fromkeys(repeat.run for repeat in record.repeats):
        mine = [repeat for repeat in record.repeats if repeat.run == key]
        about = f"split {mine[0].repeat}: " if len(record.repeats) > 1 and len(mine) == 1 else ""
        run_folder = folder.parent / key
        if read_record(run_folder) is not None:
            found = verify_run(run_folder)
            # The record's rows must be those of the run next to it.
            parts = {split_part(repeat.repeat) for repeat in mine} | {ALL}
            scores = {name: score for name, score, part in ScoreFile(run_folder).read() if part == "test"}
            wrong = sorted({name for name, score, part in rows if part in parts and scores.get(name) != score})
            text = f"{len(wrong)} scores are not those of its run: {listed(wrong, 5)}"
            others = [Finding("scores", text)] if wrong else []
        else:
            found, others = _done_again(folder, record, mine, rows, plans[0].request, sample, train=train), []
        findings += [Finding(f.what, about + f.text) for f in (*found.findings, *others)]
        checked += found.checked
        remarks |= dict.fromkeys(about + remark for remark in found.remarks)
    # The record's figures must be those of its scores and the dataset's labels.
    computed = repeats_figures(
        plans, pd.DataFrame(rows, columns=list(ScoreFile.HEADER)), [repeat.run for repeat in record.repeats]
    )
    places: list[tuple[str, Figures, Mapping[str, Any]]] = [
        ("medians", record.test or Figures(n=None), computed["metrics"]["test"] or {}),
        *((f"split {r.repeat}", r, now) for r, now in zip(record.repeats, computed["repeats"], strict=True)),
    ]
    if record.all_images and computed.get("all_images"):
        places.append(("all images", record.all_images, computed["all_images"]))
    for place, before, now in places:
        findings += single.figure_findings(f"{place}: ", before, now)
    return VerificationResult(folder, checked, tuple(findings), tuple(remarks))


def plans_of(asked: Request, record: RepeatsRecord, *, look: bool = True) -> list[Plan]:
    """A plan for each split of a record whose request is `asked`; only the first one hashes the images, if `look`.

    Older records hold the request of the run that scored all images.
    """
    asked = replace(asked, protocol=record.protocol, repeat=0)
    first = make_plan(asked, look=look)
    others = range(1, len(record.repeats))
    return [first, *(make_plan(replace(asked, repeat=r, rehash=False), first.data, look=False) for r in others)]


def split_findings(record: RepeatsRecord, plans: Sequence[Plan]) -> list[Finding]:
    """A finding for splits that have changed."""
    other = [str(r.repeat) for r, one in zip(record.repeats, plans, strict=True) if r.split != one.identity.split]
    return [Finding("split", f"the protocol gives a different split {listed(other)}")] if other else []


def _done_again(
    folder: Path,
    record: RepeatsRecord,
    mine: Sequence[RepeatFigures],
    rows: Rows,
    asked: Request,
    sample: int | None,
    *,
    train: bool,
) -> VerificationResult:
    """The outcome for a run whose folder is absent."""
    parts = {split_part(repeat.repeat) for repeat in mine} | ({ALL} if not record.training else set())
    before = {name: score for name, score, part in rows if part in parts}
    whole = not record.training and len(mine) == len(record.repeats) and len(mine) > 1
    plan = make_plan(replace(asked, protocol="full", repeat=0) if whole else replace(asked, repeat=mine[0].repeat))
    if plan.key != mine[0].run:
        text = f"its run was {mine[0].run}, the same request now gives {plan.key}: changed images, or another request"
        return VerificationResult(folder, 0, (Finding("record", text),), ())
    if record.training and not train:
        return VerificationResult(folder, 0, (), (single.NOT_TRAINED,))
    remarks: list[str] = []
    if record.training or plan.request.scores or not plan.content:
        fresh = execute(plan)
        now = {name: score for name, score, part in ScoreFile(fresh.folder).read() if part == "test"}
        checked = len(now)
        if record.training:
            as_single = msgspec.structs.replace(record, metrics={"test": mine[0]})
            findings, remarks = single.trained_findings(as_single, fresh.record, before, now)
        else:
            findings = single.score_findings(before, {n: s for n, s in now.items() if n in before}, exact=True)
    else:
        results, remarks = single.scored_again(record, plan, Path(), sample)
        now = {result.name: result.score for result in results if result.name in before}
        checked, findings = len(now), single.score_findings(before, now, exact=not remarks)
    return VerificationResult(folder, checked, tuple(findings), tuple(remarks))
