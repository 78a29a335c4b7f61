"""`Record`: the typed content of a run's record.json: request, conditions, hashes and figures; reading and checking it.

A record may come from anyone: reading checks every field's type, and the error for a damaged one names the file and the field.
A record of repeated splits has the type `RepeatsRecord`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from harness.cards.schema import DatasetCard, ModelCard
from harness.files.documents import strict_json
from harness.files.names import key_problem, name_problem
from harness.files.regular import reading
from harness.results.command import command_of
from harness.results.key import FORMAT, key_of
from harness.runtime.errors import UsageError, listed
from harness.runtime.text import command as shown_command

if TYPE_CHECKING:
    import pandas as pd

Number = int | float
Interval = tuple[float, float] | None
Plain = str | int | float | None


class Discrimination(Struct, kw_only=True):
    """Figures that need more than mean labels (deviations, levels); None where the dataset lacks the data."""

    pair_analysis: dict[str, Plain] | None = None
    """Krasula's pair analysis: two AUCs (different against similar, better against worse), share of correctly ordered pairs."""
    outlier_ratio: float | None = None
    """Share of images whose fitted score is outside the interval of their label."""
    monotonicity: dict[str, Plain | dict[str, float | None]] | None = None
    """Whether scores fall with the level of distortion: steps, series, by kind."""
    not_defined: list[str] = field(default_factory=list)
    """Why some of these are None."""


class Figures(Struct, kw_only=True):
    """Agreement of a part's scores with its labels; both as higher-is-better."""

    n: Number | None
    """Number of images; a median over splits may be between two counts."""
    references: Number | None = None
    """Number of references of the images; None where they are not known."""
    srcc: float | None = None
    """Spearman's rank correlation."""
    plcc: float | None = None
    """Pearson's correlation without a fit."""
    plcc_fitted: float | None = None
    """Pearson's correlation after the fit."""
    krcc: float | None = None
    """Kendall's tau-b."""
    rmse: float | None = None
    """Root mean squared error after the fit, in the labels' unit."""
    main: float | None = None
    """PLCC + SRCC."""
    srcc_within: float | None = None
    """Mean over references of the SRCC among a reference's own images."""
    score_2afc: float | None = None
    """2AFC score: the mean share of raters whose choice agrees with the scores, for datasets of compared pairs."""
    ci: dict[str, Interval] = field(default_factory=dict)
    """Interval by figure, from leaving out each reference."""
    range: dict[str, Interval] | UnsetType = UNSET
    """Of repeated splits: the smallest and largest value by figure."""
    confidence: float | None = None
    """The intervals' level."""
    few_references: bool = False
    """Fewer than ten references: intervals are wide and rough."""
    fit: str | None = None
    """The fit's name: logistic4, logistic5, poly3."""
    fit_parameters: list[float] | None = None
    """The fit's parameters."""
    fit_problem: str | None = None
    """Why there is no fit."""
    notes: list[str] = field(default_factory=list)
    """Remarks on these figures."""
    discrimination: Discrimination | None = None
    """Figures beyond correlations."""


class RepeatFigures(Figures, kw_only=True):
    """One repeat's figures."""

    repeat: int
    """The repeat's number, from 0."""
    run: str
    """The key of the run whose scores these are."""
    split: str = ""
    """The hash of the repeat's split."""
    training_references: int | UnsetType = UNSET
    """References of the split's training part."""


class Hashes(Struct, kw_only=True):
    """sha256 of the run's inputs and outputs."""

    scores: str
    """Of the rows of scores.csv."""
    table: str | None = None
    """Of the dataset's rows in use: names, pairing, labels."""
    split: str | None = None
    """Of which image was in which part."""
    images: str | None = None
    """Of the content of the scored images; for generated images, of how they are generated. None for scores from a file."""
    pictures: str | None = None
    """Of the rows of pictures.csv."""
    weights: dict[str, str] = field(default_factory=dict)
    """Of every weight file, by the part that it fills."""
    pictures_by_reference: dict[str, str] = field(default_factory=dict)
    """Of the scored images of each reference."""
    training_pictures_by_reference: dict[str, str] | None = None
    """Of the training images of each reference."""
    manifest: str | None = None
    """Of the manifest of a full check."""
    trained_weights: str | None = None
    """Of weights.safetensors, where the run trained."""


class Cards(Struct, kw_only=True):
    """The resolved cards of the run."""

    model: ModelCard
    """The model's card with its settings."""
    dataset: DatasetCard
    """The dataset's card."""


class Training(Struct, kw_only=True):
    """Steps, epochs and time of the training."""

    steps: int = 0
    """Optimizer updates."""
    epochs: int = 0
    """Passes."""
    best_epoch: int | None = None
    """The epoch whose weights were tested; None: the last."""
    seconds: float | None = None
    """Wall time."""


class Record(Struct, kw_only=True, dict=True):
    """A finished run."""

    format: int
    """The record's format, and its identity's."""
    key: str
    """16 hexadecimal digits over the identity; the folder's name."""
    model: str
    """The model's name."""
    dataset: str
    """The dataset's name."""
    protocol: str
    """The protocol's name."""
    split: str = "test"
    """The part of the main figures."""
    seed: int
    """The run's seed."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """What the user asked for; enough to repeat the run."""
    created: str = ""
    """When the run finished, UTC."""
    partial: bool = False
    """Whether only some pairs were scored (`--limit`)."""
    incomplete: bool = False
    """Whether the dataset lacked pairs or references."""
    seen: bool = False
    """Whether the weights were trained on this dataset."""
    contaminated_by: list[str] = field(default_factory=list)
    """Datasets that the model was trained on and that share images or labels with this one."""
    random_weights: bool = False
    """Whether some parts keep random weights."""
    rebuildable: bool = True
    """Whether the model has an identity, so that its run can be reused; False for some Python objects."""
    trained_on: list[str] = field(default_factory=list)
    """Datasets that the model was trained on."""
    metrics: dict[str, Figures | None]
    """Figures by part; None where labels are withheld."""
    without_each_reference: dict[str, list[str | float]] | None = None
    """The test part's figures with each reference left out (`LeaveOneOut.json`)."""
    controls: dict[str, Figures] | None = None
    """Figures of the baselines computed from the table alone, by control."""
    figures: dict[str, str | int] = field(default_factory=dict)
    """The version of the figures' code, and a hash of the columns in use."""
    remarks: list[str] = field(default_factory=list)
    """Remarks of the dataset's reader."""
    identical_pairs: int = 0
    """Number of pairs of identical images, which got the card's score for them."""
    training: Training | None = None
    """Steps, epochs and time of the training; None without training."""
    history: list[dict[str, Plain]] | None = None
    """One entry an epoch."""
    seconds: float | None = None
    """Seconds of scoring all pairs."""
    pairs_per_second: float | None = None
    """Speed of scoring."""
    runtime_per_image: float | None = None
    """Seconds per image of the warm model, one image after the other."""
    conditions: dict[str, Plain | dict[str, Plain]]
    """The conditions under which bits repeat: machine, python, device, threads, batch, libraries, `kernels`."""
    details: Mapping[str, Any] | None = None
    """Facts that the model reports about itself."""
    note: str = ""
    """Shown next to the result."""
    identity: Mapping[str, Any]
    """Everything that determines the scores (`harness.results.key.RunIdentity`)."""
    hashes: Hashes
    """sha256 of the run's inputs and outputs."""
    cards: Cards
    """The resolved cards."""
    measured_again: Mapping[str, Any] | UnsetType = UNSET
    """When figures were recomputed, and with which libraries."""

    def __post_init__(self) -> None:
        first = self.first_identity
        card = first.get("card")
        if not isinstance(card, dict) or not isinstance(card.get("higher_is_better"), bool):
            raise ValueError("identity.card.higher_is_better is not true or false")
        if not isinstance(card.get("model", {}), dict) or not isinstance(first.get("code", {}), dict):
            raise ValueError("identity is not a valid identity")
        left_out = self.without_each_reference or {}
        if left_out and not all(isinstance(name, str) for name in left_out.get("references", [None])):
            raise ValueError("without_each_reference.references is not a list of texts")
        if any(isinstance(value, str) for name, values in left_out.items() if name != "references" for value in values):
            raise ValueError("without_each_reference holds text for a number")

    @property
    def first_identity(self) -> Mapping[str, Any]:
        """The identity; of repeated splits, that of the first."""
        first = self.identity.get("first", self.identity)
        return first if isinstance(first, dict) else {}

    @property
    def higher_is_better(self) -> bool:
        """The scores' polarity."""
        return bool(self.first_identity["card"]["higher_is_better"])

    @property
    def test(self) -> Figures | None:
        """The figures of the tested part; None where its labels are withheld."""
        return self.metrics.get(self.split)

    agreement = test

    @property
    def srcc(self) -> float | None:
        """Spearman's rank correlation of the tested part."""
        return self.test.srcc if self.test else None

    @property
    def plcc(self) -> float | None:
        """Pearson's correlation of the tested part."""
        return self.test.plcc if self.test else None

    @property
    def krcc(self) -> float | None:
        """Kendall's tau-b of the tested part."""
        return self.test.krcc if self.test else None

    @property
    def main(self) -> float | None:
        """PLCC + SRCC of the tested part."""
        return self.test.main if self.test else None

    @property
    def ci(self) -> Mapping[str, Interval]:
        """Intervals of the tested part, by figure."""
        return self.test.ci if self.test else {}

    @property
    def command(self) -> str:
        """The command line of the same run, derived from the request."""
        return command_of(self.request)

    @property
    def path(self) -> Path | None:
        """The run's folder, for a record that was read from one or written to one."""
        return self.__dict__.get("path")

    @property
    def scores(self) -> pd.DataFrame:
        """The scores: columns name, score, part. Raises UsageError where the record was not read from a folder."""
        from harness.results.run_scores import ScoreFile

        if self.path is None:
            raise UsageError("this record was not read from a run's folder, where its scores are")
        return ScoreFile(self.path).table()

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return dict(msgspec.to_builtins(self))


class RepeatsRecord(Record, kw_only=True):
    """A protocol's repeated splits: medians and ranges, and every repeat's own figures."""

    repeats: list[RepeatFigures]
    """Figures of each repeat."""
    all_images: Figures | UnsetType | None = UNSET
    """Figures over all images, with intervals, for a model without training, whose scores are the same in every split."""

    @property
    def test_share(self) -> float | None:
        """The number of test references divided by that of training references; for older records, from the protocol's shares."""
        counted = [(r.references, r.training_references) for r in self.repeats]
        known = [tested / trained for tested, trained in counted if tested and trained is not UNSET and trained]
        if known and len(known) == len(counted):
            return sum(known) / len(known)
        protocol = self.cards.dataset.protocols.get(self.protocol)
        return protocol.test / protocol.train if protocol is not None and protocol.test and protocol.train else None

    @property
    def used_references(self) -> int | None:
        """The number of training and test references of the smallest split; None for older records."""
        used = [r.references + r.training_references for r in self.repeats if r.references and r.training_references is not UNSET]
        return int(min(used)) if used and len(used) == len(self.repeats) else None

    @property
    def runs_behind(self) -> set[str]:
        """Keys of the runs that this record combines, and of the first split's own run."""
        return {repeat.run for repeat in self.repeats} | {key_of(self.first_identity)}


def of_document(document: Mapping[str, Any], folder: Path) -> Record:
    """The record from plain values, for the run in `folder`. Raises msgspec.ValidationError for values of a wrong type."""
    kind = RepeatsRecord if document.get("repeats") is not None else Record
    return _at(msgspec.convert(json.loads(json.dumps(document)), kind), folder)


def with_figures(record: Record, computed: Mapping[str, Any]) -> Record:
    """The record with other figures: `metrics`, `without_each_reference`, `controls`, `figures` as plain values."""
    return of_document({**record.to_json(), **computed}, record.path or Path())


def _at(record: Record, folder: Path) -> Record:
    record.__dict__["path"] = folder
    return record


def read_record(folder: Path) -> Record | None:
    """The folder's finished record, or None. Raises UsageError for one that another version wrote or that is damaged."""
    path = folder / "record.json"
    with reading(path):
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
    return _at(parse_record(data, path), folder)


def parse_record(data: bytes, path: Path) -> Record:
    """The record in the bytes of a record.json; `path` is named in errors. Raises UsageError as `read_record` does."""
    try:
        document = strict_json(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a readable record ({error}); move it away, or repeat with --force") from None
    known = document if isinstance(document, dict) else {}
    if (found := known.get("format")) != FORMAT:
        again = known.get("command") if found == 1 else None
        again = shown_command(again) if isinstance(again, str) else ""
        how = f"make it again ({again})" if again else "choose another --runs, or repeat with --force"
        weights = path.parent / "weights.safetensors"
        tested = f", or test its weights: --weights {weights}" if found == 1 and known.get("training") else ""
        text = f"written by another version of the harness (format {found}, this one reads {FORMAT}); {how}{tested}"
        raise UsageError(f"{path}: {text}")
    try:
        record = msgspec.convert(document, RepeatsRecord if document.get("repeats") is not None else Record)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: a damaged record ({_said(error)}); move it away, or repeat with --force") from None
    # These fields become parts of paths.
    named = {"key": key_problem, "model": name_problem, "dataset": name_problem}
    if wrong := [f"{name} {problem(value)}" for name, problem in named.items() if problem(value := getattr(record, name))]:
        raise UsageError(f"{path}: a damaged record ({listed(wrong)}); move it away, or repeat with --force")
    return record


def _said(error: Exception) -> str:
    """`seed: expected a whole number, got text`."""
    text, _, place = str(error).partition(" - at `")
    words = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "object": "a table"}
    words |= {"array": "a list"}
    text = re.sub(r"`([a-z|]+)`", lambda m: " or ".join(words.get(word, word) for word in m[1].split("|")), text)
    where = place.removesuffix("`").removeprefix("$").removeprefix(".").replace("[...]", ".*")
    return f"{where}: {text[:1].lower()}{text[1:]}" if where else text
