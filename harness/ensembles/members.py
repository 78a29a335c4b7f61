"""The members' scores of an ensemble: from finished runs, from new runs where there are none, and from score files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from harness import datasets
from harness.cards.overrides import apply_set
from harness.cards.program import program_table
from harness.datasets import Dataset, splits
from harness.datasets.completeness import missing
from harness.datasets.overlap import independent_rows
from harness.datasets.table import has_images
from harness.engine import request_of_record
from harness.engine.request import Plan, Request, make_plan
from harness.engine.request_of_record import Repeated
from harness.engine.run import Outcome, execute
from harness.files.atomic import sha256_file, sha256_json
from harness.files.score_table import read_scores
from harness.imaging.crops import check
from harness.models import find_model
from harness.models.ensemble import FILE, SCORES
from harness.results.record import Record, RepeatsRecord, read_record
from harness.results.run_folder import safe_name
from harness.results.run_scores import ScoreFile
from harness.runtime.errors import UsageError, listed
from harness.runtime.text import command
from harness.statistics.correlations import Floats

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__package__)

WEIGHTS = "weights.safetensors"


class WeightFile(NamedTuple):
    """A file that fills a member: which part of it, its facts as a card's `[[weights]]` entry has them, and where it is."""

    part: str
    facts: Mapping[str, Any]
    path: Path | None
    """None: from its entry's own sources."""


@dataclass(frozen=True)
class Source:
    """One member under one cropping."""

    member: int
    name: str
    """The member's name, with its cropping where that differs from its card's: `ahiq-tiny (five)`."""
    scores: Mapping[str, float]
    """Higher-is-better scores of the fitting dataset."""
    higher_is_better: bool
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The model's fields in the ensemble's card: class, version, identical, model, protocol, requires, extra, record."""
    files: tuple[WeightFile, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    """The member's resolved card; empty for a file of scores."""
    trained_on: tuple[str, ...] = ()
    again: Request | None = None
    """The request with which the same model scores another dataset."""
    file: Path | None = None
    """The file of a member that exists only as scores."""


@dataclass(frozen=True)
class Images:
    """Labelled images of one dataset and part, and every source's scores of them."""

    dataset: str
    part: str
    names: list[str]
    labels: Floats
    """Higher is better."""
    references: list[str]
    scores: Floats
    """(sources, n), higher is better."""
    note: str = ""


@dataclass(frozen=True)
class Gathered:
    """All data of an ensemble. Everything is fitted to `fitting` only; `tests` are for reporting."""

    sources: list[Source]
    fitting: Images
    tests: list[Images]
    protocol: str
    split: str
    whole: bool
    """Whether the protocol has no validation part, so that the fitting images are the whole dataset."""
    notes: tuple[str, ...] = ()
    """The incomplete datasets, and what they lack."""

    @property
    def member_of(self) -> list[int]:
        """The member of each source."""
        return [source.member for source in self.sources]


def gather(
    words: Sequence[str], wanted: Request, *, test_on: Sequence[str] = (), crops: Sequence[str] = (), lower: Sequence[str] = ()
) -> Gathered:
    """The scores of members `words` on `wanted.dataset` and on the datasets of `test_on`.

    `wanted` has the options for running models (its model is set here). `crops`: further croppings for models with crops.
    `lower`: names of score files that are lower-is-better. All requests are checked before the first work begins.
    """
    words = list(dict.fromkeys(words))
    if not words:
        raise UsageError("an ensemble needs members: models' names, runs' folders, or CSV files of name,score")
    data = datasets.load_dataset(wanted.dataset, wanted.root, cards=wanted.cards)
    name, protocol = data.protocol(wanted.protocol)
    wanted = replace(wanted, protocol=name, repeat=0)
    notes = []
    if protocol.repeats > 1:
        notes.append(
            f"{data.name}: fitted on the validation part and tested on the test part of the first of {protocol.repeats} splits "
            f"of {name}: an ensemble is one set of weights, and the other splits test images that it was fitted on"
        )
        _log.info(notes[0])
    parts = splits.split(data.table, protocol, seed=wanted.seed)
    whole = not (parts == "validation").any()
    others = [datasets.load_dataset(other, cards=wanted.cards) for other in test_on]
    sources = _Members(data, parts, wanted, crops, lower).all(words)
    fitted = "test" if whole else "validation"
    fitting = _images(data, data.table[parts == fitted], "fitting" if whole else "validation", sources)
    tests = [] if whole else [_images(data, data.table[parts == "test"], "test", sources)]
    seen = parts.where(parts != "test", "train") if whole else parts
    tests += [_elsewhere(data, seen, other, sources, wanted) for other in others]
    for one, under in [(data, name), *((other, other.protocol()[0]) for other in others)]:
        if what := missing(one.card, one.table, under):
            notes.append(f"{one.name}: incomplete: {what}")
    tests, split = [tested for tested in tests if tested.names], splits.split_hash(data.table, parts)
    return Gathered(sources, fitting, tests, name, split, whole, tuple(notes))


class _Members:
    """Reads the scores of members on one dataset."""

    def __init__(self, data: Dataset, parts: pd.Series, wanted: Request, crops: Sequence[str], lower: Sequence[str]) -> None:
        self.data, self.wanted, self.crops, self.lower = data, wanted, list(crops), set(lower)
        self.split = splits.split_hash(data.table, parts)

    def all(self, words: Sequence[str]) -> list[Source]:
        problems: list[str] = []
        planned: list[tuple[str, Plan | Outcome | Path]] = []
        for word in words:
            try:
                planned.append((word, self._planned(word)))
            except UsageError as error:
                problems.append(str(error))
        files = {word for word, plan in planned if isinstance(plan, Path)}
        unknown = sorted(self.lower - files - {Path(word).stem for word in files})
        problems += [f"--lower-is-better {listed(unknown)}: no such file of scores among the members"] if unknown else []
        # One member may be named twice, such as a model and its own run's folder.
        first: dict[Path, str] = {}
        for word, plan in planned:
            place = (plan if isinstance(plan, Path) else plan.folder).resolve()
            if place in first:
                problems.append(f"members given twice: {first[place]} and {word} are the same")
            first.setdefault(place, word)
        cards = [t.card if isinstance(t, Plan) else t.record.cards.model for _, t in planned if not isinstance(t, Path)]
        if planned and all(card.protocol.crops == "whole" for card in cards):
            lines = [f"--crops {','.join(self.crops)}: no member uses crops: {listed([word for word, _ in planned])}"]
            problems += lines if self.crops else []
        elif planned:
            for name in self.crops:
                try:
                    check(name)
                except UsageError as error:
                    problems.append(f"--crops {name}: {error}")
        if problems:
            raise UsageError("\n".join(problems))
        names: list[str] = []
        sources: list[Source] = []
        for member, (word, plan) in enumerate(planned):
            found = self._of_file(member, word, plan) if isinstance(plan, Path) else self._of_model(member, plan)
            base, count = found[0].name, names.count(found[0].name)
            names.append(base)
            # Two seeds of one model are two members.
            sources += [replace(s, name=s.name.replace(base, f"{base}-{count + 1}", 1)) if count else s for s in found]
        return sources

    def _planned(self, word: str) -> Plan | Outcome | Path:
        path = Path(word)
        if datasets.is_table(word):
            return path
        if not (path / "record.json").is_file():
            return make_plan(replace(self.wanted, model=word), self.data)
        record = read_record(path)
        assert record is not None
        if isinstance(record, RepeatsRecord):
            # The run of the first split has the scores needed here.
            if record.dataset == self.data.name and record.training and record.seed != self.wanted.seed:
                raise UsageError(f"{path}: its splits are those of seed {record.seed}: --seed {record.seed}")
            repeats, run = record, path.parent / record.repeats[0].run
            record = read_record(run)
            if record is None:
                made = command(repeats.command)
                raise UsageError(f"{path}: the run of its first split is not next to it ({run}); make it again: {made}")
            path = run
        if scores := request_of_record.checked(word, record).get("scores"):
            raise UsageError(f"{word}: its scores came from a file; name that file ({scores})")
        same = record.dataset == self.data.name
        if same and record.hashes.split == self.split and not record.partial:
            return Outcome(path, record, found=True)
        if same and record.training:
            raise UsageError(
                f"{word}: it was trained on another split of {self.data.name} ({record.protocol}), so fitting and "
                f"test images may be in its training data; use its own split (--protocol {record.protocol})"
            )
        return make_plan(_again(Outcome(path, record, found=True), self.wanted), self.data)

    def _of_file(self, member: int, word: str, path: Path) -> list[Source]:
        frame = read_scores(path)
        sign = -1.0 if {word, path.stem} & self.lower else 1.0
        scores = {n: sign * float(s) for n, s in zip(frame["name"], frame["score"], strict=True)}
        entry = {"file": f"{safe_name(path.stem)}.csv", "sha256": sha256_file(path)}
        return [Source(member, path.stem, scores, sign > 0, {}, (WeightFile(SCORES, entry, path),), file=path)]

    def _of_model(self, member: int, plan: Plan | Outcome) -> list[Source]:
        first = self._done(plan)
        own = first.record.cards.model.protocol.crops
        sources = [_source(member, first.record.model, first, self.wanted)]
        if own == "whole":
            if self.crops:
                _log.info(f"{first.record.model}: uses whole images, so other croppings are not tried")
            return sources
        again = _again(first, self.wanted)
        for other in (crops for crops in self.crops if crops != own):
            cropped = replace(again, settings={**again.settings, "protocol.crops": other})
            outcome = self._done(make_plan(cropped, self.data))
            sources.append(_source(member, f"{first.record.model} ({other})", outcome, self.wanted))
        return sources

    def _done(self, plan: Plan | Outcome) -> Outcome:
        if isinstance(plan, Outcome):
            return plan
        if read_record(plan.folder) is None:
            _log.info(f"{plan.card.name}: no finished run on {self.data.name} under {plan.protocol}; running it first")
        return execute(plan)


def _again(outcome: Outcome, wanted: Request) -> Request:
    """The model of a finished run, with the weights that it was tested with, on the request's dataset."""
    # A trained model's weights are in the run's folder: the initial weights of its training are not needed.
    asked = {**request_of_record.checked(outcome.folder, outcome.record), "init": None}
    record = msgspec.structs.replace(outcome.record, request=asked)
    fields = request_of_record.request_of(outcome.folder, record, wanted.cards, Repeated(dataset=wanted.dataset))
    weights = str(outcome.folder / WEIGHTS) if outcome.record.training else fields["weights"]
    return replace(wanted, model=fields["model"], weights=weights, settings=dict(fields["settings"]))


def _source(member: int, name: str, outcome: Outcome, wanted: Request) -> Source:
    record, again = outcome.record, _again(outcome, wanted)
    own = apply_set(find_model(again.model, again.cards), again.settings)
    # The member's present card, not the record's copy (which is untrusted): a card names code and files.
    card, there = json.loads(json.dumps(asdict(own))), json.loads(json.dumps(asdict(record.cards.model)))
    same = ("class_", "higher_is_better", "identical", "model", "protocol", "program")
    if differ := [key for key in same if card[key] != there[key]]:
        raise UsageError(f"{outcome.folder}: its card differs from the card {own.name} here in {listed(differ)}; run it again")
    card["path"] = ""
    sign = 1.0 if card["higher_is_better"] else -1.0
    scores = {n: sign * score for n, score, _ in ScoreFile(outcome.folder).read()}
    if record.random_weights and not record.training:
        raise UsageError(
            f"{outcome.folder}: parts of {name} keep random weights: an ensemble of it could not be rebuilt from files"
        )
    facts = {
        "class": card["class_"],
        "version": record.first_identity.get("code", {}).get("version", 1),
        **{key: card[key] for key in ("identical", "requires", "extra")},
        "record": record.key,
        **{key: card[key] for key in ("model", "protocol")},
        "program": program_table(own.program) if own.program is not None else None,
    }
    files = tuple(_weight_files(name, outcome.folder, record, card, again))
    trained_on = tuple(dict.fromkeys([*record.trained_on, *([record.dataset] if record.training else [])]))
    return Source(member, name, scores, card["higher_is_better"], facts, files, card, trained_on, again)


def _weight_files(name: str, folder: Path, record: Record, card: Mapping[str, Any], again: Request) -> list[WeightFile]:
    if record.training:
        path = folder / WEIGHTS
        if not path.is_file():
            raise UsageError(f"{path}: missing, so the trained model is lost; train it again: {command(record.command)}")
        digest = str(record.hashes.trained_weights)
        facts = {"file": f"{safe_name(record.model)}-{digest[:8]}.safetensors", "sha256": digest}
        return [WeightFile(FILE, facts, path)]
    entries = {entry["name"]: entry for entry in card["weights"]}
    files = []
    for part, digest in record.hashes.weights.items():
        if part == "file":
            path = Path(str(again.weights))
            facts = {"file": f"{safe_name(record.model)}-{digest[:8]}{path.suffix}", "sha256": digest}
            files.append(WeightFile(FILE, facts, path))
        elif card["model"].get("backbone"):
            raise UsageError(
                f"{folder}: {name} read its {part} from --set model.backbone=FILE, which a card cannot contain; "
                "give one file with the complete model: --weights FILE"
            )
        else:
            entry = {k: v for k, v in entries[part].items() if k not in ("name", "use", "note") and v not in ("", [], 0)}
            files.append(WeightFile(part, {**entry, "sha256": digest}, None))
    return files


def _images(
    data: Dataset,
    rows: pd.DataFrame,
    part: str,
    sources: Sequence[Source],
    scores: Sequence[Mapping[str, float]] | None = None,
    note: str = "",
) -> Images:
    """The labelled ones of these rows, with `scores` by source; None: the sources' own."""
    rows = rows[rows["score"].notna()]
    scores = scores or [source.scores for source in sources]
    names = list(rows["name"])
    lines = []
    for source, given in zip(sources, scores, strict=True):
        absent = [name for name in names if name not in given]
        if absent:
            lines.append(
                f"{source.name}: no score for {len(absent)} of {len(names)} images of {data.name} ({part}): {listed(absent, 5)}"
            )
    if lines:
        raise UsageError("\n".join([*lines, "names are joined exactly; every member needs a score of every labelled image"]))
    if names and not (rows["reference_id"] != "").all():
        raise UsageError(
            f"{data.name}: ensembles need the reference of every image (reference_id), because they are assessed by reference"
        )
    labels = rows["score"].to_numpy(dtype=float)
    values = np.array([[given[name] for name in names] for given in scores], dtype=np.float64)
    return Images(data.name, part, names, labels if data.higher_is_better else -labels, list(rows["reference_id"]), values, note)


def _elsewhere(data: Dataset, seen: pd.Series, other: Dataset, sources: Sequence[Source], wanted: Request) -> Images:
    """Another dataset, without references whose content is in the fitting or training data."""
    independent = independent_rows(data, seen, other)
    if independent.note:
        _log.info(f"{other.name}: {independent.note}")
    rows = other.table[independent.keep & other.table["score"].notna()]
    if rows.empty:
        raise UsageError(f"{other.name}: no labelled image to test on")
    scores: list[Mapping[str, float]] = []
    for source in sources:
        if source.again is None:
            scores.append(source.scores)
            continue
        if not has_images(other.table):
            raise UsageError(f"{source.name} is a model, but {other.name} is a table without images: members must be score files")
        request = replace(
            source.again,
            dataset=other.card.path if datasets.is_table(other.card.path) else other.name,
            root=None,
            protocol="full" if "full" in other.card.protocols else None,
            exclude=tuple(sorted(independent.shared)),
            remark=independent.note,
        )
        outcome = execute(make_plan(request, other))
        sign = 1.0 if source.higher_is_better else -1.0
        scores.append({n: sign * score for n, score, _ in ScoreFile(outcome.folder).read()})
    return _images(other, rows, "test", sources, scores, independent.note)


def fitting_hash(gathered: Gathered) -> str:
    """sha256 of all fitting data: names, references, labels and every source's scores."""
    images = gathered.fitting
    rows = sorted(zip(images.names, images.references, images.labels.tolist(), images.scores.T.tolist(), strict=True))
    return sha256_json([list(row) for row in rows])
