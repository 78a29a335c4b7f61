"""Cards: what a model or a dataset is, read from TOML into frozen dataclasses.

Cards live in the project's `models/` and `datasets/` (inside the wheel: `harness/cards/...`), in folders that
the user names (`--cards DIR`, `$HARNESS_CARDS`) and in folders that installed packages announce (entry point
group `harness.cards`, each naming a module whose folder holds `models/` and `datasets/`). Nothing here imports
torch, pandas or any model's code.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import os
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.challenges import ChallengeCard
from harness.runtime.errors import BadRequest, listed, near


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
    """Addresses, tried in order: https://..., hf://owner/repository/file, or beside:path, relative to the card's folder."""
    sha256: str = ""
    """Empty: recorded on first use, checked afterwards."""
    bytes: int = 0
    """Its size, told to whoever has to fetch it; 0: unknown."""
    licence: str = ""
    trained_on: tuple[str, ...] = ()
    note: str = ""


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
    loss: Literal["mse", "l1"] = "mse"
    labels: Literal["minmax"] = "minmax"
    """minmax: higher-is-better labels scaled to 0..1 over the training part."""
    batch_references: int = 4
    batch_distorted: int = 1
    """Distorted images per reference in a batch; they share the reference's crop and flip."""
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    flip_probability: float = 0.5
    frozen: tuple[str, ...] = ()
    """Parameter prefixes that are not trained; their modules stay in eval mode."""
    validation_crops: str = "five"
    validate_every: int = 1
    """Epochs between validations; 0: never."""
    selection: Literal["last", "srcc", "main", "srcc-or-plcc"] = "last"
    """Which epoch's weights are tested, judged on the validation part alone."""


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
    """`package.module:Class`, imported only when the model is used."""
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
    model: Mapping[str, Any] = field(default_factory=dict)
    protocol: Cropping = field(default_factory=Cropping)
    recipe: Recipe | None = None
    tunable: Mapping[str, Tunable] = field(default_factory=dict)
    """Settings that a search may change, by dotted path: `"recipe.rate" = { low = 1e-4, high = 1e-2, log = true }`."""
    weights: tuple[Weights, ...] = ()
    published: tuple[Published, ...] = ()
    path: str = ""


@dataclass(frozen=True)
class Protocol:
    """Which pairs train, validate and test."""

    split: Literal["full", "hash", "random", "parts"]
    """full: all are tested. hash: references sorted by sha256(salt + id), then cut. random: seeded repeats. parts: the
    table's own part column."""
    description: str = ""
    note: str = ""
    """Shown beside every table of this protocol."""
    parts: tuple[str, ...] = ()
    """Only rows of these parts take part; empty: all rows."""
    salt: str = ""
    train: float = 0.0
    validation: float = 0.0
    test: float = 0.0
    """hash: numbers of references; random: shares of the references."""
    repeats: int = 1
    held_out_kinds: tuple[str, ...] = ()
    """Kinds of distortion that are tested and never trained or validated on."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """split = "parts": which of the table's parts serves as train, validation or test; empty: they are called so."""


@dataclass(frozen=True)
class Download:
    """A file that can be fetched without an account."""

    url: str
    file: str
    sha256: str = ""
    bytes: int = 0


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
    references: int = 0
    pairs: int = 0
    image_size: tuple[int, int] | None = None
    """Height, width where all images share them."""
    licence: str = ""
    paper: str = ""
    home: str = ""
    get: str = ""
    """How a person obtains it, step by step."""
    downloads: tuple[Download, ...] = ()
    folder: str = ""
    """The folder's name below `$HARNESS_DATA` or `data` where it is not the card's: cards over the same files share one."""
    layout: Mapping[str, Any] = field(default_factory=dict)
    """The reader's arguments."""
    note: str = ""
    """Shown beside every table of this dataset."""
    content: Mapping[str, str] = field(default_factory=dict)
    """What a reference shows, by its id, in words shared by all cards (`kodim03`): references of two datasets with one
    word are not independent. The key `*` is the rule for all others, `{}` in it their id; by default `<card>/{}`."""
    related: tuple[str, ...] = ()
    """Other datasets that share labels or pictures with this one, beyond what `content` tells."""
    controls: tuple[str, ...] = ()
    """Control rows computed from the table alone: `cell` (oracle of kind and level), `level`."""
    path: str = ""


Card = ModelCard | DatasetCard | ChallengeCard
KINDS: dict[str, type[Card]] = {"models": ModelCard, "datasets": DatasetCard, "challenges": ChallengeCard}
FOLDERS = {"models": "models", "datasets": "datasets", "challenges": "datasets"}
"""Where cards of a kind lie."""
C = TypeVar("C", ModelCard, DatasetCard, ChallengeCard)
T = TypeVar("T")


def card_folders(kind: str, extra: Sequence[str | Path] = ()) -> list[Path]:
    """Folders searched for cards of `kind`, the project's own first.

    A user's folder may hold `models/` and `datasets/` or be one flat folder of cards.
    """
    place = FOLDERS[kind]
    shipped = Path(str(resources.files("harness"))) / "cards" / place
    folders = [shipped if shipped.is_dir() else Path(__file__).parent.parent / place]
    for module in _announced(tuple(sys.path)):
        spec = importlib.util.find_spec(module)
        folders += [Path(found) / place for found in (spec.submodule_search_locations or [] if spec else [])]
    named = [*extra, *filter(None, os.environ.get("HARNESS_CARDS", "").split(os.pathsep))]
    for name in named:
        root = Path(name)
        if not root.is_dir():
            raise BadRequest(f"{root}: no such folder of cards (--cards or $HARNESS_CARDS)")
        nested = any((root / other).is_dir() for other in FOLDERS.values())
        folders.append(root / place if nested else root)
    return list(dict.fromkeys(folders))


@functools.cache
def _announced(path: tuple[str, ...]) -> tuple[str, ...]:
    """Modules that installed packages announce; reading all packages' metadata takes a twentieth of a second."""
    return tuple(point.module for point in metadata.entry_points(group="harness.cards"))


def load_cards(kind: str, extra: Sequence[str | Path] = ()) -> dict[str, Card]:
    """All cards of a kind by name. Every problem of every card is in the one error that this raises."""
    cards: dict[str, Card] = {}
    problems: list[str] = []
    for path in _card_files(kind, extra):
        try:
            table = _read_toml(path)
            if _kind_of(table) != kind:
                continue
            card: Card = parse_card(typing.cast(Any, KINDS[kind]), table, str(path))
        except BadRequest as error:
            problems.append(str(error))
            continue
        if card.name in cards:
            problems.append(f"{path}: name = {card.name!r} is already taken by {cards[card.name].path}")
        cards.setdefault(card.name, card)
    if problems:
        raise BadRequest("\n".join(problems))
    return dict(sorted(cards.items()))


def find_model(name: str, extra: Sequence[str | Path] = ()) -> ModelCard:
    """The model card called `name`, the card in the file `name` (ending in .toml), or a library's metric (`pyiqa:gmsd`)."""
    library, colon, metric = name.partition(":")
    if colon and not name.endswith(".toml"):
        # A library's metrics are a card each, made on demand; importing its room here would turn the floors round.
        return typing.cast(ModelCard, resolve("harness.models.adapters:card", name)(library, metric))
    return find_card(ModelCard, "models", name, extra)


def find_dataset(name: str, extra: Sequence[str | Path] = ()) -> DatasetCard:
    """The dataset card called `name`, or the card in the file `name` (ending in .toml)."""
    return find_card(DatasetCard, "datasets", name, extra)


def find_challenge(name: str, extra: Sequence[str | Path] = ()) -> ChallengeCard:
    """The challenge card called `name`, or the card in the file `name` (ending in .toml)."""
    return find_card(ChallengeCard, "challenges", name, extra)


def find_card(card_type: type[C], kind: str, name: str, extra: Sequence[str | Path]) -> C:
    if name.endswith(".toml"):
        return parse_card(card_type, _read_toml(Path(name)), name)
    # One broken card of somebody else's must not stop work with a good one, so only this name's file is read first.
    for path in _card_files(kind, extra):
        if path.stem == name and path.is_file():
            table = _read_toml(path)
            if (_kind_of(table) == "challenges") != (kind == "challenges"):
                continue
            card = parse_card(card_type, table, str(path))
            if card.name == name:
                _refuse_duplicates(kind, name, extra)
                return card
    cards = load_cards(kind, extra)
    if name in cards:
        return typing.cast(C, cards[name])
    searched = ", ".join(str(folder) for folder in card_folders(kind, extra))
    raise BadRequest(f"no {kind[:-1]} called {name!r}{near(name, cards)} (searched {searched}; `harness list {kind}` shows all)")


def _refuse_duplicates(kind: str, name: str, extra: Sequence[str | Path]) -> None:
    twins = [path for path in _card_files(kind, extra) if path.stem == name and _kind_of(_read_toml(path)) == kind]
    if len(twins) > 1:
        raise BadRequest(f"{twins[1]}: name = {name!r} is already taken by {twins[0]}")


def _card_files(kind: str, extra: Sequence[str | Path]) -> Iterator[Path]:
    for folder in card_folders(kind, extra):
        yield from sorted(folder.glob("*.toml"))


def _kind_of(table: Mapping[str, Any]) -> str:
    # A flat folder holds all kinds: a challenge has phases, a dataset says how it is read, a model names its class.
    return "challenges" if "phases" in table else "datasets" if "reader" in table else "models"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadRequest(f"{path}: no such card") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequest(f"{path}: not a readable TOML card: {error}") from None


def parse_card(card_type: type[C], table: Mapping[str, Any], path: str) -> C:
    """A card from its TOML table; raises BadRequest naming every unknown key, wrong type and missing field."""
    problems: list[str] = []
    card = build_dataclass(card_type, {**table}, path, "", problems)
    if not problems and isinstance(card, ModelCard) and card.class_.count(":") != 1:
        problems.append(f"{path}: class = {card.class_!r} should read 'package.module:Class'")
    if not problems and isinstance(card, DatasetCard) and card.default_protocol not in card.protocols:
        known = listed(list(card.protocols))
        problems.append(f"{path}: default_protocol = {card.default_protocol!r} is none of its protocols ({known})")
    if not problems and isinstance(card, ChallengeCard):
        problems += [f"{path}: {problem}" for problem in card.problems]
    if problems:
        raise BadRequest("\n".join(problems))
    return typing.cast(C, dataclasses.replace(card, path=path))


def parse_table(kind: type[T], table: Mapping[str, Any], path: str, prefix: str) -> T:
    """A dataclass from a table of a card, such as a reader's layout; `prefix` is the table's place in the card.

    Raises BadRequest naming every unknown key, wrong type and missing field.
    """
    problems: list[str] = []
    built = build_dataclass(kind, table, path, prefix, problems)
    if problems:
        raise BadRequest("\n".join(problems))
    return typing.cast(T, built)


def _fields(kind: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind)
    return {f.name.rstrip("_"): (f, hints[f.name]) for f in dataclasses.fields(kind) if f.name != "path"}


def build_dataclass(kind: type[Any], table: Mapping[str, Any], path: str, prefix: str, problems: list[str]) -> Any:
    known = _fields(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            problems.append(f"{path}: unknown key {prefix + key!r}{near(key, known)}")
            continue
        values[known[key][0].name] = _convert(known[key][1], value, path, prefix + key, problems)
    for key, (f, _) in known.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and key not in table:
            problems.append(f"{path}: missing key {prefix + key!r}")
    return kind(**values) if not problems else None


def _convert(hint: Any, value: Any, path: str, key: str, problems: list[str]) -> Any:
    """`value` as the type that `hint` asks for; a mismatch is appended to `problems`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert(next(a for a in arguments if a is not type(None)), value, path, key, problems)
    if origin is Literal:
        if value not in arguments:
            choices = listed([repr(a) for a in arguments])
            problems.append(f"{path}: {key} = {value!r} is none of {choices}{near(str(value), map(str, arguments))}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        inner = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
        if len(inner) != len(value):
            problems.append(f"{path}: {key} should hold {len(inner)} values, has {len(value)}")
        return tuple(_convert(h, v, path, f"{key}[{i}]", problems) for i, (h, v) in enumerate(zip(inner, value, strict=False)))
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        if arguments[1] is Any:
            return dict(value)
        return {k: _convert(arguments[1], v, path, f"{key}.{k}", problems) for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        nested: list[str] = []
        built = build_dataclass(typing.cast(type, hint), value, path, f"{key}.", nested)
        problems.extend(nested)
        return built
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    problems.append(f"{path}: {key} = {value!r} should be {described(hint)}, is {described(type(value))}")
    return value


def described(hint: Any) -> str:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table", list: "a list"}
    if hint in words:
        return words[hint]
    if typing.get_origin(hint) is tuple:
        return "a list"
    return "a table" if dataclasses.is_dataclass(hint) or typing.get_origin(hint) is not None else str(hint)


def apply_set(card: ModelCard, settings: Mapping[str, Any]) -> ModelCard:
    """The card with `--set` values put in: dotted paths into `model.*`, `recipe.*` and `protocol.*`.

    Text values are read as the type that the card has there. Raises BadRequest naming every bad path or value.
    """
    tables: dict[str, dict[str, Any]] = {"model": dict(card.model), "protocol": dataclasses.asdict(card.protocol)}
    if card.recipe is not None:
        tables["recipe"] = dataclasses.asdict(card.recipe)
    problems: list[str] = []
    for path, value in settings.items():
        head, _, key = path.partition(".")
        table = tables.get(head)
        if head == "recipe" and card.recipe is None:
            problems.append(f"--set {path}: {card.name} has no recipe (it is not trained)")
        elif table is None or not key or key not in table:
            known = [f"{h}.{k}" for h, t in tables.items() for k in t]
            problems.append(f"--set {path}: {card.name} has no such setting{near(path, known)} (it has {listed(known)})")
        else:
            try:
                table[key] = _as_like(value, table[key])
            except ValueError:
                problems.append(f"--set {path}={value}: should be {described(type(table[key]))}, like {table[key]!r}")
    if not problems:
        where = f"{card.path} with --set"
        changes: dict[str, Any] = {
            "model": tables["model"],
            "protocol": build_dataclass(Cropping, tables["protocol"], where, "protocol.", problems),
        }
        if card.recipe is not None:
            changes["recipe"] = build_dataclass(Recipe, tables["recipe"], where, "recipe.", problems)
        if not problems:
            return dataclasses.replace(card, **changes)
    raise BadRequest("\n".join(problems))


def _as_like(value: Any, current: Any) -> Any:
    if not isinstance(value, str) or isinstance(current, str):
        if isinstance(current, str) and not isinstance(value, str | os.PathLike):
            raise ValueError
        return str(value) if isinstance(current, str) else value
    if isinstance(current, bool):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if value.lower() not in words:
            raise ValueError
        return words[value.lower()]
    if isinstance(current, tuple | list):
        items = [item.strip() for item in value.strip("[]").split(",") if item.strip()]
        return type(current)(_as_like(item.strip("\"'"), current[0] if current else "") for item in items)
    if isinstance(current, int):
        return int(value)
    return float(value) if isinstance(current, float) else value


def _module_beside(name: str, card: Path) -> str | None:
    """Import the module that lies beside the card, or in the folder above; returns the name that it is imported under.

    None where Python's own path has it, or nothing lies there. The name tells folders apart: two users' folders may each
    hold a `model.py`.
    """
    if importlib.util.find_spec(name) is not None or not card.name:
        return None
    for folder in (card.parent, card.parent.parent):
        for file in (folder / f"{name}.py", folder / name / "__init__.py"):
            if file.is_file():
                unique = f"{name}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
                if unique not in sys.modules:
                    spec = importlib.util.spec_from_file_location(unique, file)
                    assert spec is not None
                    assert spec.loader is not None
                    module = importlib.util.module_from_spec(spec)
                    sys.modules[unique] = module
                    try:
                        spec.loader.exec_module(module)
                    except BaseException:
                        del sys.modules[unique]
                        raise
                return unique
    return None


def resolve(reference: str, what: str) -> Callable[..., Any]:
    """The object that `package.module:name` names; `what` is the path of the card that names it.

    A module that is not installed is looked for beside the card, and in the folder above. Raises BadRequest naming the card.
    """
    module_name, _, attribute = reference.partition(":")
    try:
        first, dot, rest = module_name.partition(".")
        beside = _module_beside(first, Path(what))
        module = importlib.import_module(beside + dot + rest if beside else module_name)
    except ImportError as error:
        raise BadRequest(f"{what}: cannot import {module_name!r}: {error}") from error
    try:
        return typing.cast(Callable[..., Any], getattr(module, attribute))
    except AttributeError:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise BadRequest(f"{what}: {module_name} has no {attribute!r}{near(attribute, known)}") from None
