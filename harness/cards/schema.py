"""The fields of model and dataset cards, as frozen dataclasses, and the checks of their values."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from harness.cards.challenge import ChallengeCard
from harness.cards.program import CLASS as PROGRAM_CLASS
from harness.cards.program import Program
from harness.cards.suite import SuiteCard
from harness.cards.tables import build_dataclass, unusable
from harness.files.names import name_problem
from harness.runtime.errors import UsageError, listed, near

_CODE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""`package.module:name`"""
LOSSES = ("mse", "l1")
"""The losses that a recipe names by a word."""


@dataclass(frozen=True)
class Weights:
    """One file of weights: its sources, and the hash that identifies it."""

    name: str
    """The part of the model that it fills: vit, resnet50, heads."""
    use: str = "always"
    """`always`, or the word that `--weights` asks for, such as `released`."""
    file: str = ""
    """Its name in the weights folder."""
    tag: str = ""
    """The authors' own name of these weights, such as `vit_base_patch8_224.augreg_in21k_ft_in1k`."""
    sources: tuple[str, ...] = ()
    """Addresses: https://..., hf://owner/repository[@revision]/file, gdrive:ID, wheel:PACKAGE/path, file:///path, or beside:path,
    relative to the card's folder. Tried in the order: this machine, the hub, GitHub, others."""
    sha256: str = ""
    """Empty: recorded on first use, checked afterwards."""
    bytes: int = 0
    """Its size, shown to a user who has to fetch it; 0: unknown."""
    licence: str = ""
    trained_on: tuple[str, ...] = ()
    note: str = ""
    revision: str = ""
    """The hub's revision from which the sha256 was read."""
    aliases: tuple[str, ...] = ()
    """Names under which other programs keep the same weights in torch's cache."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Counts are in steps (one optimizer update) unless said otherwise."""

    epochs: int
    optimizer: Literal["adam", "adamw", "sgd"]
    rate: float
    steps_per_epoch: int = 0
    """0: one pass over the training part."""
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 0.0
    """Largest norm of the gradient; 0: not clipped."""
    schedule: Literal["constant", "cosine", "cosine-restarts"] = "constant"
    """cosine: one descent over all steps; cosine-restarts: torch's CosineAnnealingLR, down and up every 2 x `period` steps."""
    period: int = 0
    minimum_rate: float = 0.0
    warmup: float = 0.0
    """Share of all steps over which the rate rises from 0."""
    loss: str = "mse"
    """mse, l1, or `module:function`: a function of predicted (N,) and target (N,) that returns their mean loss."""
    labels: Literal["minmax"] = "minmax"
    """minmax: higher-is-better labels scaled to 0..1 over the training part."""
    batch_references: int = 4
    batch_distorted: int = 1
    """Distorted images per reference in a batch; they share the reference's crop and flip."""
    crops: int = 1
    """Crops of every image in a batch, each with its own position and flip."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Of products and convolutions in training: tf32 rounds their inputs on GPUs that can, bf16 wherever autocast allows."""
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    flip_probability: float = 0.5
    frozen: tuple[str, ...] = ()
    """Parameter prefixes that are not trained; their modules stay in eval mode."""
    validation_crops: str = "five"
    validate_every: int = 1
    """Epochs between validations; 0: never."""
    selection: Literal["last", "srcc", "main", "srcc-or-plcc"] = "last"
    """Which epoch's weights are tested, chosen by the validation part alone."""
    patience: int = 0
    """Training ends after this many validations without a better epoch (early stopping); 0: never early."""

    @property
    def problems(self) -> list[str]:
        """What is wrong with a recipe whose fields have the right types."""
        found = []
        if self.loss not in LOSSES and not _CODE.fullmatch(self.loss):
            found.append(
                f"loss = {self.loss!r} is not one of {listed(LOSSES)} or 'package.module:function'{near(self.loss, LOSSES)}"
            )
        if self.crops < 1:
            found.append(f"crops = {self.crops} should be at least 1")
        if self.patience and (self.selection == "last" or not self.validate_every):
            found.append("patience needs validations: a selection other than 'last', and validate_every of at least 1")
        return found


@dataclass(frozen=True)
class Published:
    """A figure that another source reported. It is never shown in one column with ours."""

    dataset: str
    source: str
    status: Literal["read", "unverified"]
    protocol: str = ""
    srcc: float | None = None
    plcc: float | None = None
    krcc: float | None = None
    main: float | None = None
    plcc_kind: Literal["raw", "logistic", "polynomial", "unknown"] = "unknown"
    variant: str = ""
    note: str = ""
    """Why it may differ from ours, in addition to the other fields."""
    commit: str = ""
    """The commit of the source's repository that gives the figure, or that computed it."""
    definition: str = ""
    """What exactly was computed there: one name has many definitions."""


@dataclass(frozen=True)
class Cropping:
    """How a model's test crops are taken (`harness.imaging.crops`)."""

    crops: str = "whole"
    crop_size: int = 0
    """0: the model's own size, or the whole image."""
    mirrored: bool = False
    """Whether every crop is also scored flipped left to right, in both images, as one more crop."""


@dataclass(frozen=True)
class Tunable:
    """The values that a search may give to a setting: a range of numbers, or choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    """Sampled uniformly in the logarithm."""
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ModelCard:
    """One model: a metric, or a network with its weights and recipe."""

    name: str
    title: str
    class_: str
    """`package.module:Class`, imported only when the model is used; a card with a `[program]` does not set it."""
    higher_is_better: bool
    description: str = ""
    paper: str = ""
    code: str = ""
    licence: str = ""
    extra_data: bool = False
    """Whether it was trained with other data than the challenge's own (NTIRE's readme asks)."""
    identical: float | None = None
    """The score of two identical images where the formula gives infinity."""
    trained_on: tuple[str, ...] = ()
    trained_split: str = ""
    """sha256 of the split of these datasets that it was trained or fitted on: it has not seen that split's test part."""
    requires: tuple[str, ...] = ()
    """Import names that the class needs in addition to the harness's own dependencies."""
    extra: str = ""
    """The harness's extra that installs them."""
    program: Program | None = None
    """Set where the model is an external program (`harness.models.program`)."""
    model: Mapping[str, Any] = field(default_factory=dict)
    protocol: Cropping = field(default_factory=Cropping)
    recipe: Recipe | None = None
    tunable: Mapping[str, Tunable] = field(default_factory=dict)
    """Settings that a search may change, by dotted path: `"recipe.rate" = { low = 1e-4, high = 1e-2, log = true }`."""
    weights: tuple[Weights, ...] = ()
    published: tuple[Published, ...] = ()
    path: str = ""

    @property
    def problems(self) -> list[str]:
        """What is wrong with a card whose fields have the right types."""
        if not _CODE.fullmatch(self.class_):
            return [f"class = {self.class_!r} should read 'package.module:Class'"]
        found = []
        if self.program is not None:
            others = {"model": self.model, "recipe": self.recipe, "weights": self.weights, "class": self.class_ != PROGRAM_CLASS}
            found = [f"program.{problem}" for problem in self.program.problems]
            found += [f"{key} has no effect on a model that is an external program" for key, value in others.items() if value]
        elif self.class_ == PROGRAM_CLASS:
            found = [f"class = {self.class_!r} needs a table [program]"]
        return found or [f"recipe.{problem}" for problem in (self.recipe.problems if self.recipe is not None else ())]


@dataclass(frozen=True)
class Protocol:
    """Which pairs train, validate and test."""

    split: Literal["full", "hash", "random", "parts"]
    """full: all are tested. hash: references sorted by sha256(salt + id), then divided. random: seeded repeats. parts: the
    table's own part column."""
    description: str = ""
    note: str = ""
    """Shown next to every table of this protocol."""
    parts: tuple[str, ...] = ()
    """Only rows of these parts are used; empty: all rows."""
    salt: str = ""
    train: float = 0.0
    validation: float = 0.0
    test: float = 0.0
    """hash: numbers of references; random: shares of the references."""
    repeats: int = 1
    """random: how many seeded splits; figures are medians over them."""
    held_out_kinds: tuple[str, ...] = ()
    """Kinds of distortion that are tested and never trained or validated on."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """split = "parts": which of the table's parts is train, validation or test; empty: the parts have these names."""


@dataclass(frozen=True)
class Download:
    """A file that can be fetched without an account."""

    url: str
    """https://..., or hf://datasets/owner/repository/file."""
    file: str
    sha256: str = ""
    md5: str = ""
    """Compared where no sha256 is known."""
    bytes: int = 0
    about: str = ""
    """A note for the user before the download: the approximate size, the owner of the host."""


@dataclass(frozen=True)
class DatasetCard:
    """One dataset: its layout, labels and protocols."""

    name: str
    title: str
    reader: str
    """`module:function` that lists the pairs; a word without a colon names one in `harness.datasets.readers`."""
    higher_is_better: bool
    default_protocol: str
    protocols: Mapping[str, Protocol]
    description: str = ""
    label: str = "MOS"
    label_range: tuple[float, float] | None = None
    raters: int = 0
    """The number of ratings behind each label, where all labels have as many and the table's `std` is of single ratings;
    0: not known, or a column `raters` of the table."""
    deviation: Literal["sample", "population"] = "sample"
    """The divisor of the sum of squares in the table's `std`: the number of ratings less one, or the number of ratings."""
    references: int = 0
    pairs: int = 0
    image_size: tuple[int, int] | None = None
    """Height, width where all images share them."""
    licence: str = ""
    paper: str = ""
    home: str = ""
    get: str = ""
    """How to obtain it, one step a line; `{folder}` stands for the folder of its files."""
    downloads: tuple[Download, ...] = ()
    notice: str = ""
    """The owners' notice, a file relative to the card's folder: shown by `data get` and kept next to the downloaded files."""
    folder: str = ""
    """The folder's name below `$HARNESS_DATA` or `data` where it is not the card's: cards over the same files share one."""
    layout: Mapping[str, Any] = field(default_factory=dict)
    """The reader's arguments."""
    note: str = ""
    """Shown next to every table of this dataset."""
    content: Mapping[str, str] = field(default_factory=dict)
    """A name of each reference's content, by the reference's id, shared by all cards (`kodim03`): references of two datasets with
    the same name are not independent. The key `*` is the rule for all others, `{}` in it their id; by default `<card>/{}`."""
    related: tuple[str, ...] = ()
    """Other datasets that share labels or images with this one, in addition to `content`."""
    controls: tuple[str, ...] = ()
    """Baselines computed from the table alone: `cell` (an oracle: the mean label of kind and level), `level`."""
    path: str = ""

    @property
    def problems(self) -> list[str]:
        """What is wrong with a card whose fields have the right types."""
        if ":" in self.reader and not _CODE.fullmatch(self.reader):
            return [f"reader = {self.reader!r} should read 'package.module:function'"]
        if self.default_protocol not in self.protocols:
            return [f"default_protocol = {self.default_protocol!r} is not one of its protocols ({listed(list(self.protocols))})"]
        return []


Card = ModelCard | DatasetCard | ChallengeCard | SuiteCard
C = TypeVar("C", ModelCard, DatasetCard, ChallengeCard, SuiteCard)
KINDS: dict[str, type[Card]] = {"models": ModelCard, "datasets": DatasetCard, "challenges": ChallengeCard, "suites": SuiteCard}


class InvalidCard(UsageError):
    """A card whose fields have the right types and wrong values; `card` holds it, so that callers can add further problems."""

    def __init__(self, text: str, card: ChallengeCard | SuiteCard) -> None:
        super().__init__(text)
        self.card = card


def parse_card(card_type: type[C], table: Mapping[str, Any], path: str) -> C:
    """A card from its TOML table; raises UsageError naming every unknown key, wrong type and missing field."""
    problems: list[str] = [f"{path}: {problem}" for problem in unusable(table)]
    if problems:
        raise UsageError("\n".join(problems))
    if card_type is ModelCard and "program" in table:
        table = {"class": PROGRAM_CLASS, **table}
    card = build_dataclass(card_type, {**table}, path, "", problems)
    if not problems and (problem := name_problem(card.name)):
        problems.append(f"{path}: name = {card.name!r} {problem}")
    further: list[str] = [f"{path}: {problem}" for problem in ([] if problems else card.problems)]
    if further and isinstance(card, ChallengeCard | SuiteCard):
        raise InvalidCard("\n".join(further), dataclasses.replace(card, path=path))
    if problems or further:
        raise UsageError("\n".join([*problems, *further]))
    return typing.cast(C, dataclasses.replace(card, path=path))
