"""Several requests as one command: models, further test sets, and a protocol's seeded repeats."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness import datasets
from harness.cluster.session import kept
from harness.datasets.overlap import independent_rows
from harness.files.atomic import sha256_json, write_json, write_text
from harness.measurement import measured
from harness.results.key import key_of
from harness.results.record import read_record
from harness.results.run_folder import folder_of, locked
from harness.results.run_scores import ScoreFile, csv_text
from harness.run import Outcome, Plan, Request, command, execute, plan
from harness.runtime.errors import BadRequest, HarnessError

WEIGHTS = "weights.safetensors"
FIGURES = ("n", "references", "srcc", "plcc", "plcc_fitted", "krcc", "rmse", "main", "srcc_within", "score_2afc")


def run_all(
    requests: Sequence[Request], test_on: Sequence[str] = (), say: Callable[[str], None] = print, *, keep_shared: bool = False
) -> tuple[list[Outcome], list[HarnessError]]:
    """Every request in turn, each also on the datasets of `test_on`, there without the references whose content it was
    trained on (unless `keep_shared`).

    All requests are checked before the first begins; afterwards a fault of one does not stop the others: faults are
    returned beside the outcomes.
    """
    plans: list[Plan] = []
    problems: list[str] = []
    for request in requests:
        try:
            plans.append(plan(request))
        except BadRequest as error:
            problems.append(str(error))
    if problems:
        raise BadRequest("\n".join(dict.fromkeys(problems)))
    plans = _without_idle_seeds(plans, say)
    outcomes: list[Outcome] = []
    faults: list[HarnessError] = []
    with kept():
        for todo in plans:
            try:
                first = _one(todo, say, first_split_only=bool(test_on))
                outcomes.append(first)
                for name in test_on:
                    outcomes.append(_one(_further(todo, first, name, say, keep_shared=keep_shared), say))  # noqa: PERF401 -- a fault must not lose those before
            except HarnessError as error:
                faults.append(type(error)(f"{todo.card.name}: {error}"))
    return outcomes, faults


def of_seeds(request: Request, seeds: Sequence[int]) -> list[Request]:
    """The request once for each seed."""
    return [replace(request, seed=seed) for seed in dict.fromkeys(seeds)]


def _without_idle_seeds(plans: Sequence[Plan], say: Callable[[str], None]) -> list[Plan]:
    """The plans without those that another seed has made already: where nothing is trained, cropped or split by chance."""
    kept: dict[str, Plan] = {}
    for todo in plans:
        chance = todo.trained or todo.card.protocol.crops.startswith("random") or todo.found.random
        same = sha256_json({k: v for k, v in todo.facts.items() if k != "seed" or chance})
        if same in kept:
            say(f"{todo.card.name}: seed {todo.request.seed} would give what seed {kept[same].request.seed} gives; left out")
        else:
            kept[same] = todo
    return list(kept.values())


def _one(todo: Plan, say: Callable[[str], None], *, first_split_only: bool = False) -> Outcome:
    repeats = todo.data.card.protocols[todo.protocol].repeats
    if repeats > 1 and first_split_only and todo.trained:
        say(f"{todo.card.name}: trained on the first of the {repeats} splits of {todo.protocol}, for the further test sets")
        return execute(todo, say)
    return execute(todo, say) if repeats == 1 else _repeated(todo, repeats, say)


def _further(todo: Plan, first: Outcome, name: str, say: Callable[[str], None], *, keep_shared: bool) -> Plan:
    """The same model, with the weights that the first dataset gave it, on the whole of another dataset."""
    weights = str(first.folder / WEIGHTS) if todo.trained else todo.request.weights
    request = replace(todo.request, dataset=name, root=None, protocol=None, weights=weights, init=None)
    data = datasets.load_dataset(name, cards=request.cards, quiet=request.quiet)
    request = replace(request, protocol="full" if "full" in data.card.protocols else None)
    if todo.trained:
        independent = independent_rows(todo.data, todo.parts, data)
        if independent.shared and not keep_shared:
            request = replace(request, exclude=tuple(sorted(independent.shared)), remark=independent.note)
        elif independent.shared:
            request = replace(request, remark="not " + independent.note)
        if independent.shared:
            say(f"{name}: {request.remark}")
    return plan(request, data)


def _repeated(todo: Plan, repeats: int, say: Callable[[str], None]) -> Outcome:
    """A protocol's seeded repeats as one record: medians, ranges, and every repeat's own figures."""
    request = todo.request
    if todo.trained:
        children = [execute(plan(replace(request, repeat=r), todo.data), say) for r in range(repeats)]
    else:
        # A model that is not trained gives an image one score whatever the split: all are scored once, by `full`.
        children = [execute(plan(replace(request, protocol="full"), todo.data), say)]
    identity = {"repeats": [child.folder.name for child in children], "first": dict(todo.facts)}
    key = key_of(identity)
    folder = folder_of(request.runs, todo.data.name, todo.card.name, key)
    if not request.force and (record := read_record(folder)) is not None:
        return Outcome(folder, record, found=True)
    each, rows = [], []
    for repeat in range(repeats):
        child = children[repeat if todo.trained else 0]
        now = plan(replace(request, repeat=repeat), todo.data)
        tested = set(now.rows("test")["name"])
        scores = [(n, s) for n, s, part in ScoreFile(child.folder).read() if part == "test" and n in tested]
        rows += [[n, repr(s), f"test@{repeat}"] for n, s in scores]
        found = measured(todo.card, todo.data, scores)
        each.append({"repeat": repeat, "run": child.folder.name, "split": now.facts["split"], **(found.figures if found else {})})
    with locked(folder, say):
        write_text(folder / "scores.csv", csv_text([ScoreFile.HEADER, *rows]))
        record = {
            **children[0].record,
            "key": key,
            "protocol": todo.protocol,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command(request),
            "metrics": {"validation": None, "test": _medians(each)},
            "without_each_reference": None,
            "repeats": each,
            "controls": {},
            "history": None,
            "seconds": sum(child.record["seconds"] for child in children),
            "identity": identity,
            "hashes": {
                **children[0].record["hashes"],
                "scores": sha256_json(rows),
                "split": sha256_json([e["split"] for e in each]),
            },
        }
        write_json(folder / "record.json", record)
    return Outcome(folder, record, found=False)


def _medians(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and range over repeats; no intervals, because repeats share their images and are not independent."""
    known = {f: [e[f] for e in each if e.get(f) is not None] for f in FIGURES}
    medians: dict[str, Any] = {f: statistics.median(v) if len(v) == len(each) else None for f, v in known.items()}
    return {**medians, "ci": {}, "range": {f: [min(v), max(v)] for f, v in known.items() if v}, "few_references": False}
